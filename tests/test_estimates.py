"""The noise level of pictures that are more than a photograph with white noise: with margins, drawn, edited."""

import numpy as np
import pytest
import skimage.data
from conftest import rounded, through_jpeg
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from mdrn_cli import estimate_sigma
from mdrn_cli.picture import picture_of
from mdrn_cli.restore import NO_NOISE, NOISELESS, DenoiseOptions, Restorer

SIGMA = 20


@pytest.fixture(scope="module")
def noisy(photo):
    clean = photo[:256, :256]
    return rounded(clean + np.random.default_rng(0).normal(0, SIGMA, clean.shape))


def page(size=(256, 256), paper="white", ink="black"):
    image = Image.new("RGB", size, paper)
    for top in range(4, size[1], 22):
        ImageDraw.Draw(image).text((6, top), "Text that nobody took a photograph of", fill=ink, font_size=15)
    return np.asarray(image)


@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("color", [(128, 128, 128), (16, 16, 16), (245, 245, 240), (30, 60, 200), (0, 0, 0)])
@pytest.mark.parametrize("pads", [((36, 36), (36, 36)), ((0, 40), (0, 0)), ((72, 72), (0, 0)), ((8, 8), (8, 8))])
def test_margins_and_bars_hide_no_noise(noisy, color, pads, gray):
    picture = np.stack([np.pad(noisy[:, :, k], pads, constant_values=color[k]) for k in range(3)], axis=2)
    if gray:
        picture = picture[:, :, 1]
    assert estimate_sigma(picture) == pytest.approx(SIGMA, rel=0.12)


@pytest.mark.parametrize("kept", [np.asarray, through_jpeg], ids=["8 bits", "JPEG"])
@pytest.mark.parametrize("sigma", [25, 50])
@pytest.mark.parametrize("brightness", [0.1, 0.05])
def test_noise_that_the_dark_cuts_off_counts(photo, brightness, sigma, kept):
    dark = photo[:256, :256] * brightness
    noise = np.random.default_rng(0).normal(0, sigma, dark.shape)
    night, snow = rounded(dark + noise), rounded(255 - dark + noise)
    assert (night == 0).mean() > 0.2
    assert night.std() < 0.8 * sigma
    for picture in (night, snow, night[:, :, 1]):
        assert estimate_sigma(kept(picture)) == pytest.approx(sigma, rel=0.08)


def without_noise_in_a_part(noisy, clean, how):
    """A picture with a face made unrecognizable, or a bar of a gradient, which have no noise."""
    edited, part = noisy.copy(), (slice(70, 180), slice(60, 190))
    if how == "blurred":
        edited[part] = rounded(gaussian_filter(clean.astype(float), (8, 8, 0))[part])
    else:
        edited[part] = rounded((40 + 0.3 * np.add(*np.indices(noisy.shape[:2])))[part][:, :, None] * [0.6, 0.8, 1])
    return edited


@pytest.mark.parametrize("kept", [np.asarray, through_jpeg], ids=["8 bits", "JPEG"])
@pytest.mark.parametrize("how", ["blurred", "gradient"])
def test_a_part_without_noise_hides_no_noise_in_the_others(photo, noisy, how, kept):
    """Of these 0.6 to 4 were told; levels told of JPEG are above what it left of the noise."""
    edited = without_noise_in_a_part(noisy, photo[:256, :256], how)
    told = estimate_sigma(kept(noisy))
    assert estimate_sigma(kept(edited)) == pytest.approx(told, rel=0.2)
    gray = edited.mean(axis=2).round().astype(np.uint8)
    assert estimate_sigma(gray) == pytest.approx(estimate_sigma(noisy.mean(axis=2).round().astype(np.uint8)), rel=0.2)


@pytest.mark.parametrize("name", ["chelsea", "rocket", "astronaut"])
def test_so_with_noise_that_all_channels_share(name):
    """Taken for such as each has of its own it was told twice of what it is."""
    clean = getattr(skimage.data, name)()[:256, :256]
    noisy = rounded(clean + np.random.default_rng(0).normal(0, 15, (256, 256, 1)))
    edited = noisy.copy()
    edited[:50] = rounded((40 + 0.3 * np.add(*np.indices((50, 256))))[:, :, None] * [0.6, 0.8, 1])
    assert estimate_sigma(edited) == pytest.approx(estimate_sigma(noisy), rel=0.15)


def test_quarters_without_any_do_not_outvote_those_with_noise():
    clean = skimage.data.coffee()[:400, :600]
    noisy = rounded(clean + np.random.default_rng(0).normal(0, 14, clean.shape))
    noisy[:240] = rounded((40 + 0.2 * np.add(*np.indices((240, 600))))[:, :, None] * [0.6, 0.8, 1])
    assert estimate_sigma(through_jpeg(noisy, 90)) > 10


@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea", "rocket"])
@pytest.mark.parametrize("how", ["blurred", "gradient"])
def test_a_part_without_noise_makes_no_noise_of_texture_in_the_others(name, how):
    clean = getattr(skimage.data, name)()[:256, :256]
    for picture in (clean, through_jpeg(clean), clean[:, :, 1:2].repeat(3, 2)):
        told = estimate_sigma(picture)
        assert estimate_sigma(without_noise_in_a_part(picture, clean, how)) < max(1.2 * told, 1.0)


@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize(("black", "white"), [(5, 25), (25, 5), (3, 9)])
def test_noise_that_depends_on_the_light_counts_where_there_is_most_of_it(photo, black, white, gray):
    clean = photo[:256, :256]
    level = black + (white - black) / 255 * clean
    noise = level * np.random.default_rng(0).normal(size=clean.shape)
    picture = rounded(clean + noise)
    estimated = estimate_sigma(picture[:, :, 1] if gray else picture)
    assert estimated == pytest.approx(np.sqrt(np.mean(level**2)), rel=0.12)


@pytest.mark.parametrize("quality", [80, 95])
def test_so_does_that_of_a_jpeg(quality):
    """The level that restores best is above what JPEG left of the noise, which was told 12 % and more too low."""
    clean = skimage.data.coffee()[:256, :256]
    level = 5 + 15 / 255 * clean
    noisy = rounded(clean + level * np.random.default_rng(0).normal(size=clean.shape))
    assert 1 < estimate_sigma(through_jpeg(noisy, quality, 2)) / np.sqrt(np.mean(level**2)) < 1.3


def test_quarters_of_a_jpeg_outvote_what_its_texture_tells(photo):
    """The one has no noise; what JPEG left of the other's, 8, 11 restores best."""
    assert estimate_sigma(through_jpeg(photo[:256, :256], 90, 2)) < 1.8
    clean = skimage.data.chelsea()[:256, 128:384]
    noise = gaussian_filter(np.random.default_rng(0).normal(size=clean.shape), (0.6, 0.6, 0))
    assert 5.5 < estimate_sigma(through_jpeg(rounded(clean + 8 * noise / noise.std()), 80, 2)) < 11


def test_colors_under_transparency_do_not_count_in_quarters(photo):
    noisy = through_jpeg(photo[:256, :256], 80, 2)
    hidden = np.random.default_rng(0).integers(0, 256, (256, 512, 3), dtype=np.uint8)
    seen = np.zeros((256, 768, 1), np.uint8)
    seen[:, 512:] = 255
    layered = np.concatenate([np.concatenate([hidden, noisy], axis=1), seen], axis=2)
    assert estimate_sigma(layered) == pytest.approx(estimate_sigma(noisy), rel=0.3)


def test_texture_at_one_brightness_is_no_noise_that_depends_on_the_light(photo):
    clean = photo[:256, :256].astype(float)
    clean[:, 128:] = 60 + np.random.default_rng(1).normal(0, 30, (64, 32, 1)).repeat(4, 0).repeat(4, 1)
    for sigma in (3, 10):
        picture = rounded(clean + np.random.default_rng(0).normal(0, sigma, clean.shape))
        assert estimate_sigma(picture) == pytest.approx(sigma, rel=0.1)


@pytest.mark.parametrize(("name", "pivot", "factor"), [("gravel", 255, 2.0), ("gravel", 128, 2.0), ("page", 128, 2.0)])
def test_texture_that_contrast_cuts_off_is_no_noise(name, pivot, factor):
    """Without noise the share of blocks that are cut off was taken for noise: of these 24, 8.1 and 5 were told."""
    photograph = getattr(skimage.data, name)()[:, :384].astype(float)
    cut_off = rounded((photograph - pivot) * factor + pivot)
    assert ((cut_off == 0) | (cut_off == 255)).mean() > 0.05
    assert estimate_sigma(cut_off) < 3


@pytest.mark.parametrize("sigma", [0, 10, 25])
def test_print_that_covers_a_page_is_no_noise_that_was_cut_off(sigma):
    image = Image.new("L", (512, 512), "white")
    letters = np.random.default_rng(1).choice([*"abcdefghijklmnopqrstuvwxyz  "], (31, 90))
    for row, line in enumerate(letters):
        ImageDraw.Draw(image).text((4, 4 + 16 * row), "".join(line), fill="black", font_size=14)
    print_ = rounded(np.asarray(image) + np.random.default_rng(0).normal(0, sigma, (512, 512)))
    assert estimate_sigma(print_) < max(1.25 * sigma, NOISELESS)


def test_a_page_that_is_drawn_is_kept_bit_for_bit():
    for drawn in (page(), page(paper=(250, 248, 240)), page(paper="black", ink="white")):
        assert estimate_sigma(drawn) < NOISELESS
        picture = picture_of(drawn, has_alpha=False)
        restored, _ = Restorer(DenoiseOptions())(picture)
        assert restored.channels is picture.channels
        assert restored.warnings == (NO_NOISE,)


def test_few_intensities_hold_no_noise(photo):
    gray = Image.fromarray(photo[:256, :256]).convert("L")
    fax = np.asarray(gray.convert("1").convert("L"))
    checker = (90 + 60 * (np.indices((128, 128)).sum(axis=0) % 2)).astype(np.uint8)
    for picture in (fax, fax[:, :, None].repeat(3, 2), checker):
        assert estimate_sigma(picture) == 0


@pytest.mark.parametrize("bits", [4, 5])
def test_noise_in_few_bits_is_found(noisy, bits):
    step = 256 >> bits
    assert estimate_sigma(noisy // step * step) == pytest.approx(SIGMA, rel=0.15)


@pytest.mark.parametrize("kernel", [Image.Resampling.BICUBIC, Image.Resampling.LANCZOS])
def test_noise_that_was_enlarged_is_not_taken_for_twice_what_it_is(noisy, kernel):
    """The best level for it is 1.4 times its own; it was told as three times."""
    enlarged = np.asarray(Image.fromarray(noisy).resize((512, 512), kernel))
    assert 0.8 * SIGMA < estimate_sigma(enlarged) < 2 * SIGMA


def test_noise_of_colors_alone_is_found(photo):
    noise = np.random.default_rng(0).normal(0, SIGMA, (256, 256, 3))
    noise -= noise.mean(axis=2, keepdims=True)
    assert 0.5 * SIGMA < estimate_sigma(rounded(photo[:256, :256] + noise)) < 1.2 * SIGMA


@pytest.mark.parametrize("sigma", [10, 25])
def test_noise_on_white_paper_is_told(sigma):
    clipped = rounded(page() + np.random.default_rng(0).normal(0, sigma, (256, 256, 3)))
    assert estimate_sigma(clipped) == pytest.approx(sigma, rel=0.12)


def test_transparent_lines_that_a_grid_would_fall_in_with_hide_no_noise(photo):
    clean = photo[:500, :500].astype(float)
    alpha = np.zeros((500, 500, 1))
    alpha[(np.arange(500) - 1) % 10 < 8] = 255
    noisy = clean + np.random.default_rng(0).normal(0, SIGMA, clean.shape)
    told = estimate_sigma(rounded(np.concatenate([noisy, alpha], axis=2)))
    assert told == pytest.approx(SIGMA, rel=0.15)


@pytest.mark.parametrize("gray", [True, False])
def test_floats_that_go_beyond_white_are_told_as_those_within(noisy, gray):
    """Beyond it no two intensities were told apart, and a photograph passed for something drawn."""
    within = noisy.astype(np.float32) / 255
    within = within[:, :, 1] if gray else within
    for gain in (1.5, 3.5):
        assert estimate_sigma(within * np.float32(gain)) == pytest.approx(gain * SIGMA, rel=0.1)
