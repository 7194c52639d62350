"""Noise that was clipped at black and white leaves neither paper gray nor shadows light."""

import numpy as np
import pytest
from conftest import rounded
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from mdrn_cli.clipping import unclipped
from mdrn_cli.metrics import psnr
from mdrn_cli.picture import picture_of
from mdrn_cli.restore import DenoiseOptions, Restorer

SIGMA = 25
LIGHT = "mdrn-2b"


def stored(clean, sigma=SIGMA, seed=0):
    """Pixels on the 0-255 scale with white noise, as a file has them."""
    noisy = clean + np.random.default_rng(seed).normal(0, sigma, clean.shape)
    return rounded(noisy)


def planes(pixels):
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)).astype(np.float32) / np.float32(255)


def page():
    paper = Image.new("RGB", (192, 192), "white")
    for top in range(4, 192, 24):
        ImageDraw.Draw(paper).text((5, top), "black on white", fill="black", font_size=20)
    return np.asarray(paper)


@pytest.mark.parametrize("is_white", [True, False])
@pytest.mark.parametrize("intensity", [0, 4, 12, 100, 243, 251, 255])
def test_the_mean_of_noise_is_restored(intensity, is_white):
    image = planes(stored(np.full((96, 128, 1), float(intensity))))
    lost = 255 * abs(image.mean() - intensity / 255)
    assert (lost > 3) == (intensity != 100)
    assert unclipped(image, SIGMA, is_white).mean() * 255 == pytest.approx(intensity, abs=1)


def test_noise_of_either_kind_keeps_its_strength():
    image = planes(stored(np.full((96, 128, 1), 255.0)))
    independent, other = (unclipped(image, SIGMA, is_white).std() * 255 for is_white in (True, False))
    assert independent == pytest.approx(0.9 * SIGMA, rel=0.05)
    assert other == pytest.approx(image.std() * 255, rel=0.1)


def test_what_is_at_no_end_or_all_of_it_is_left(photo):
    middle = planes(photo) * np.float32(0.5) + np.float32(0.25)
    assert unclipped(middle, SIGMA, True) is middle
    black = np.zeros((3, 32, 32), np.float32)
    assert unclipped(black, SIGMA, True) is black
    burnt = middle.copy()
    burnt[:, 40:80, 40:80] = 1
    result = unclipped(burnt, SIGMA, True)
    assert np.array_equal(result[:, 46:74, 46:74], burnt[:, 46:74, 46:74]), "all at the end: no noise was there"
    outside = np.ones(burnt.shape[1:], bool)
    outside[40:80, 40:80] = False
    assert np.array_equal(result[:, outside], burnt[:, outside])


@pytest.mark.parametrize("is_white", [True, False])
def test_margins_and_bars_are_no_noise(is_white):
    """Nor do they count for the picture beside them."""
    inner = stored(np.full((60, 60, 1), 240.0), 20)
    framed = np.pad(inner, ((9, 9), (20, 0), (0, 0)), constant_values=255)
    result, alone = (unclipped(planes(pixels), 20, is_white) for pixels in (framed, inner))
    assert (result[:, :9] == 1).all()
    assert (result[:, :, :20] == 1).all()
    rim = result[:, 9:15, 20:].mean() - planes(framed)[:, 9:15, 20:].mean()
    assert rim == pytest.approx(alone[:, :6].mean() - planes(inner)[:, :6].mean(), abs=0.4 / 255)


@pytest.mark.parametrize("is_white", [True, False])
def test_parts_of_an_image_are_treated_as_in_the_whole(is_white):
    image = planes(stored(page()))
    whole = unclipped(image, 24.7, is_white)
    part = unclipped(np.ascontiguousarray(image[:, 30:150, 50:]), 24.7, is_white)
    np.testing.assert_allclose(part[:, 20:-20, 20:], whole[:, 50:130, 70:], atol=1e-5)
    turned = unclipped(np.ascontiguousarray(1 - image[:, ::-1].transpose(0, 2, 1)), 24.7, is_white)
    np.testing.assert_allclose(1 - turned.transpose(0, 2, 1)[:, ::-1], whole, atol=1e-5)


@pytest.mark.parametrize("depth", ["uint8", "uint16", "float32"])
def test_paper_comes_out_white_and_ink_black(depth):
    """With the bundled weights, whose level is told."""
    clean, noisy = page(), stored(page())
    if depth == "uint16":
        noisy = noisy.astype(np.uint16) * 257
    elif depth == "float32":
        noisy = noisy / np.float32(255)
    restored, _ = Restorer(DenoiseOptions(float(SIGMA), model=LIGHT))(picture_of(noisy, has_alpha=False))
    white = 1 if depth == "float32" else np.iinfo(depth).max
    result = restored.channels.transpose(1, 2, 0) / white * 255
    assert result[clean == 255].mean() > 252
    assert result[clean == 0].mean() < 7, "not the 9.7 of the file"
    eight = np.rint(np.clip(result, 0, 255)).astype(np.uint8)
    assert psnr(eight, clean) > 32


@pytest.mark.parametrize("beyond", [-0.01, 1.01])
def test_floats_that_go_beyond_have_lost_nothing(beyond, monkeypatch):
    mended = []
    monkeypatch.setattr("mdrn_cli.passes.unclipped", lambda image, *_: mended.append(image) or image)
    noisy = planes(stored(page())).transpose(1, 2, 0)
    restore = Restorer(DenoiseOptions(float(SIGMA), model=LIGHT))
    restore(picture_of(noisy, has_alpha=False))
    assert len(mended) == 1
    noisy[5, 5] = beyond
    restore(picture_of(noisy, has_alpha=False))
    assert len(mended) == 1


def test_what_becomes_gray_is_mended_too():
    noisy = stored(page()[:, :, :1]).repeat(3, axis=2)
    restored, _ = Restorer(DenoiseOptions(float(SIGMA), color="gray", model=LIGHT))(picture_of(noisy, has_alpha=False))
    assert restored.channels[:, page()[:, :, 0] == 255].mean() > 252


def test_all_pixels_are_moved_alike_unless_noise_is_found_to_be_white(photo, monkeypatch):
    told = []

    def record(image, sigma, is_white):
        told.append((sigma, is_white))
        return image

    monkeypatch.setattr("mdrn_cli.passes.unclipped", record)
    clean = photo[:256, :256].astype(float)
    smeared = gaussian_filter(np.random.default_rng(0).normal(size=clean.shape), (2.5, 2.5, 0))
    smeared = rounded(clean + 12 * smeared / smeared.std())
    coarse = []
    for pixels in (stored(clean), smeared):
        _, facts = Restorer(DenoiseOptions(model=LIGHT))(picture_of(pixels, has_alpha=False))
        coarse.append(facts.coarse_sigmas)
    assert [is_white for _, is_white in told] == [True, False], "once a picture: at half the size nothing is clipped"
    assert any(coarse[1])
    Restorer(DenoiseOptions(12.0, ensemble=True, model=LIGHT))(picture_of(smeared, has_alpha=False))
    assert len(told) == 3, "once for all eight orientations"
    assert told[-1] == ((12, 12), True)


@pytest.mark.parametrize("tile", [0, 192])
def test_black_stays_black_where_smeared_noise_is_removed_at_half_the_size_first(photo, tile):
    clean = photo[:256, :256].astype(float)
    clean[:, 150:] = 0
    noise = gaussian_filter(np.random.default_rng(0).normal(size=clean.shape), (0.8, 0.8, 0))
    noisy = rounded(clean + 12 * noise / noise.std())
    restored, facts = Restorer(DenoiseOptions(model=LIGHT, tile=tile))(picture_of(noisy, has_alpha=False))
    assert any(facts.coarse_sigmas)
    assert noisy[:, 160:].mean() > 4
    assert restored.channels[:, :, 160:].mean() < 1.5


def test_floats_come_out_as_white_clipped_or_not():
    noisy = (page() + np.random.default_rng(0).normal(0, SIGMA, page().shape)).astype(np.float32) / 255
    at_ends = np.clip(noisy, 0, 1)
    assert (at_ends == 1).any()
    results = [
        Restorer(DenoiseOptions(float(SIGMA), model=LIGHT))(picture_of(image, has_alpha=False))[0].channels
        for image in (noisy, at_ends)
    ]
    paper = page().transpose(2, 0, 1) == 255
    assert results[0][paper].mean() > 0.985
    assert results[1][paper].mean() > 0.985, "not the 0.96 of what was clipped"
