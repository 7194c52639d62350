"""Noise of coarse grain is found in images of half the size, and removed there."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from conftest import rounded, run_mdrn
from PIL import Image
from scipy.ndimage import gaussian_filter

from mdrn_cli.blocks import looked_at, quiet_amplitude
from mdrn_cli.cli.outcomes import show
from mdrn_cli.coarse import LEAST_COARSER, smeared_levels, without_coarse_noise, without_smeared_noise
from mdrn_cli.errors import UsageError
from mdrn_cli.grain import LEAST_COARSE, LEAST_GRAY_COARSE, estimate_coarse_sigma, is_out_of_focus
from mdrn_cli.metrics import psnr
from mdrn_cli.naming import Job
from mdrn_cli.noise import add_noise, find_noise
from mdrn_cli.outcome import DONE, Outcome
from mdrn_cli.passes import OVERLAPPING
from mdrn_cli.picture import Picture, picture_of
from mdrn_cli.pixels import from_unit, halved, to_unit
from mdrn_cli.restore import DenoiseOptions, Restorer

LIGHT = "mdrn-2b"


def with_grain(clean, blur=2.0, level=10.0, common=False):
    """A photograph (H, W, 3) with noise smeared over neighbours, uint8."""
    shape = (*clean.shape[:2], 1 if common else 3)
    noise = gaussian_filter(np.random.default_rng(0).normal(size=shape), (blur, blur, 0), mode="wrap")
    return rounded(clean + level * noise / noise.std())


def channels_of(pixels):
    return pixels.transpose(2, 0, 1)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("shape", [(3, 6, 8), (3, 7, 5), (1, 1, 9)])
def test_half_the_size_has_means_of_four(dtype, shape):
    image = np.random.default_rng(0).random(shape, np.float32)
    image = from_unit(image, dtype)
    half = halved(image)
    assert half.dtype == ("float32" if dtype == "float32" else "uint16")
    even = np.pad(image, ((0, 0), (0, shape[1] % 2), (0, shape[2] % 2)), "edge").astype(np.float64)
    expected = even.reshape(shape[0], half.shape[1], 2, half.shape[2], 2).mean(axis=(2, 4))
    scale = 257 if dtype == "uint8" else 1
    assert np.abs(half - scale * expected).max() <= (1e-6 if dtype == "float32" else 1)
    assert halved(np.full(shape, 255, np.uint8)).min() == 65535


def test_grain_is_told_from_none(photo):
    clean = photo[:384, :384]
    assert estimate_coarse_sigma(halved(channels_of(clean))) == 0
    found = [estimate_coarse_sigma(halved(channels_of(with_grain(clean, level=level)))) for level in (5, 10, 20)]
    assert 3 < found[0] < found[1] < found[2]


@pytest.mark.parametrize(
    ("name", "level", "expected"), [("astronaut", 4, 7.050), ("coffee", 20, 29.68), ("chelsea", 20, 30.17)]
)
def test_the_level_found_is_what_it_was_when_it_was_measured(name, level, expected):
    """And, where there is much, no more than what the quiet blocks have allows."""
    noisy = with_grain(getattr(skimage.data, name)()[:256, :256], level=level)
    assert estimate_coarse_sigma(halved(channels_of(noisy))) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea", "rocket"])
def test_photographs_as_they_are_have_none(name):
    """Nor do hair, fur and grain of wood pass for it."""
    image = channels_of(getattr(skimage.data, name)())
    assert estimate_coarse_sigma(halved(image)) == 0
    assert without_coarse_noise(image, pytest.fail, False)[0] is image


def band_limited(highest: float, channels: int) -> np.ndarray:
    """Random structure without noise (320, 320, C), of no frequency much above one (cycles a pixel), uint8."""
    random, side = np.random.default_rng(0), 320
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None])
    frequency[0, 0] = 1
    amplitude = frequency**-0.5 * np.exp(-((frequency / highest) ** 2))
    planes = [np.fft.ifft2(np.fft.fft2(random.normal(size=(side, side))) * amplitude).real for _ in range(channels)]
    return np.rint(np.clip(np.stack([128 + 40 * plane / plane.std() for plane in planes], 2), 0, 255)).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_smooth_is_no_grain(channels):
    """A picture out of focus, a heat map, a relief: all of it would be taken away at a quarter of the size."""
    smooth = band_limited(0.05, channels)
    assert is_out_of_focus(halved(channels_of(smooth)))
    _, facts = Restorer(DenoiseOptions(model=LIGHT))(picture_of(smooth, False))
    assert not any(facts.coarse_sigmas)


@pytest.mark.parametrize("blur", [1.2, 2.0, 3.0])
@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea"])
def test_grain_is_not_taken_for_something_smooth(name, blur):
    noisy = with_grain(getattr(skimage.data, name)()[:300, :384], blur)
    gray = with_grain(getattr(skimage.data, name)()[:300, :384].mean(axis=2, keepdims=True), blur, common=True)
    assert not is_out_of_focus(halved(channels_of(noisy)))
    assert not is_out_of_focus(halved(channels_of(gray)))
    assert not is_out_of_focus(halved(channels_of(noisy))[:, :127]), "too small to tell"


@pytest.mark.parametrize("in_color", [False, True])
def test_in_gray_grain_of_which_half_the_size_shows_little_is_found_at_a_quarter(gray_photo, in_color):
    clean = gray_photo[:320, :320].reshape(320, 320, 1).repeat(3 if in_color else 1, 2)
    noisy = with_grain(clean, blur=4.0, level=12, common=True)
    noise = find_noise(channels_of(noisy))
    half, quarter = smeared_levels(channels_of(noisy), None, noise.tone, noise.sigma)
    assert half == 0 < LEAST_COARSER < quarter
    restored, facts = Restorer(DenoiseOptions(model=LIGHT))(picture_of(noisy, False))
    assert facts.coarse_sigmas[1] > 10
    before, after = (psnr(image, clean) for image in (noisy, restored.channels.transpose(1, 2, 0)))
    assert after > before + 1.5
    white = rounded(clean + np.random.default_rng(0).normal(0, 40, (320, 320, 1)))
    assert smeared_levels(channels_of(white), None, noise.tone, 40.0) == ()


@pytest.mark.parametrize("size", [(128, 160), (131, 257)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_what_changes_in_halves_is_put_back(dtype, size, monkeypatch):
    """A step in brightness at half the size is one of the whole: everywhere, at every border of the strips."""
    monkeypatch.setattr("mdrn_cli.coarse._STRIP", 17)
    image = from_unit(np.full((3, *size), 0.5, np.float32), dtype)
    before = image.copy()

    def brighter(half, sigma):
        assert sigma == 9
        return from_unit(
            half / (1 if half.dtype == np.float32 else np.float32(65535)) + np.float32(0.1), str(half.dtype)
        )

    result, levels = without_coarse_noise(image, brighter, False, [9.0])
    assert levels == (9.0,)
    assert np.array_equal(image, before)
    top = 1 if dtype == "float32" else np.iinfo(dtype).max
    assert np.abs(result / top - 0.6).max() <= 1.01 / 255
    own, _ = without_coarse_noise(image, brighter, True, [9.0])
    assert own is image
    assert np.array_equal(own, result)


@pytest.mark.parametrize("strip", [256, 17])
@pytest.mark.parametrize(("dtype", "white"), [("uint8", 1), ("uint16", 1), ("float32", 1), ("float32", 2.5)])
def test_bars_in_black_and_white_stay_as_they_are(dtype, white, strip, monkeypatch):
    """Where a network leaves a little on them, at the borders of the strips, too; it is to change what is beside them,
    up to the pixels next to these."""
    monkeypatch.setattr("mdrn_cli.coarse._STRIP", strip)
    image = from_unit(np.full((3, 160, 160), 0.5, np.float32), dtype)
    top = white if dtype == "float32" else np.iinfo(dtype).max
    image[:, :40], image[:, 120:] = 0, top

    def changing(half, _sigma):
        return from_unit(np.abs(to_unit(half) - np.float32(0.01)), str(half.dtype))

    result, _ = without_coarse_noise(image, changing, False, [9.0], white=white)
    assert np.array_equal(result[:, :39], image[:, :39])
    assert np.array_equal(result[:, 121:], image[:, 121:])
    assert (result[:, 41:119] != image[:, 41:119]).all()


def test_images_too_small_to_tell_are_left(photo):
    image = channels_of(with_grain(photo[:120, :300]))
    assert without_coarse_noise(image, pytest.fail, False) == (image, ())


def test_a_photograph_with_grain_comes_out_better_and_says_so(photo, capsys):
    """With the bundled weights; a level that is given is taken at its word."""
    clean = photo[:256, :256]
    noisy = picture_of(with_grain(clean), False)
    restored, facts = Restorer(DenoiseOptions(model=LIGHT))(noisy)
    assert facts.coarse_sigmas[0] > 4
    given, told = Restorer(DenoiseOptions(find_noise(noisy.channels).sigma, model=LIGHT))(noisy)
    assert told.coarse_sigmas == ()
    job = Job(Path("a.png"), Path("b.png"))
    for done in (facts, told):
        show(Outcome(job, DONE, None, done), as_json=False, alone=True)
    found, alone = capsys.readouterr().err.splitlines()
    assert f"sigma {facts.sigma:.3g} estimated, {facts.coarse_sigmas[0]:.3g} at half the size" in found
    assert f"sigma {told.sigma:.3g} given, " in alone
    assert "the size" not in alone
    finely, coarsely = (psnr(picture.channels.transpose(1, 2, 0), clean) for picture in (given, restored))
    assert coarsely > finely + 1


def test_what_is_transparent_neither_hides_grain_nor_adds_any(photo):
    clean = photo[:320, :320]
    noisy = with_grain(clean)
    alpha = np.zeros((320, 320, 1), np.uint8)
    alpha[:, 60:] = 255
    for under, whole in ((0, noisy), (noisy[:, :60], clean)):
        cut = whole.copy()
        cut[:, :60] = under
        _, facts = Restorer(DenoiseOptions(model=LIGHT))(picture_of(np.concatenate([cut, alpha], axis=2), True))
        _, alone = Restorer(DenoiseOptions(model=LIGHT))(picture_of(np.ascontiguousarray(whole[:, 60:]), False))
        assert facts.coarse_sigmas[0] == pytest.approx(alone.coarse_sigmas[0], rel=0.2)
        assert (facts.coarse_sigmas[0] > 4) == (whole is noisy)


def test_white_noise_is_left_to_the_network_alone(photo):
    noisy = from_unit(add_noise(photo[:256, :256], 15), "uint8").transpose(1, 2, 0)
    _, facts = Restorer(DenoiseOptions(model=LIGHT))(picture_of(noisy, False))
    assert not any(facts.coarse_sigmas)


def test_strength_blends_what_was_done_at_every_size(photo):
    noisy = picture_of(with_grain(photo[:256, :256]), False)
    results = [
        Restorer(DenoiseOptions(strength=s, model=LIGHT))(noisy)[0].channels.astype(float) for s in (0.0, 0.5, 1.0)
    ]
    assert np.array_equal(results[0], noisy.channels)
    assert np.abs(results[1] - (results[0] + results[2]) / 2).max() <= 1


def test_levels_that_are_given_are_taken_at_their_word_in_gray_and_in_one_tone_too(photo):
    """And each network that did something is told of."""
    clean = photo[:256, :256, :1].repeat(3, 2)
    noisy = with_grain(clean, common=True)
    for pixels in (noisy, noisy[:, :, :1]):
        restored, facts = Restorer(DenoiseOptions(coarse=(10.0, 5.0), model="mdrn-2b"))(picture_of(pixels, False))
        assert facts.coarse_sigmas == (10.0, 5.0)
        assert [one.model for one in facts.passes[-2:]] == ["mdrn-2b-gray-10", "mdrn-2b-gray-5"]
        result = restored.channels.transpose(1, 2, 0)
        assert psnr(result, clean[:, :, : result.shape[2]]) > psnr(noisy, clean) + 2


@pytest.mark.parametrize("levels", [(0.0,), (0.0, 0.0), ()])
def test_none_is_sought_where_none_is_wanted(levels, photo):
    _, facts = Restorer(DenoiseOptions(coarse=levels, model=LIGHT))(picture_of(with_grain(photo[:256, :256]), False))
    assert facts.coarse == (None,) * len(levels)


def test_a_level_that_is_given_and_not_served_is_told(photo):
    picture = picture_of(photo[:100, :100], has_alpha=False)
    restored, facts = Restorer(DenoiseOptions(5.0, coarse=(10.0, 0.0), model=LIGHT))(picture)
    assert restored.warnings == ("the picture is too small to remove coarse grain of 10",)
    assert facts.coarse == ()


def test_a_level_above_all_that_are_served_is_told(photo, monkeypatch):
    levels = iter((130.0, 0.0))
    monkeypatch.setattr("mdrn_cli.coarse.estimate_coarse_sigma", lambda *_: next(levels))
    restored, facts = Restorer(DenoiseOptions(model=LIGHT))(picture_of(with_grain(photo[:256, :256]), False))
    assert facts.coarse_sigmas[0] == 100
    assert any("130" in warning and "as of 100" in warning for warning in restored.warnings)


@pytest.mark.parametrize("levels", [(5.0, 5.0, 5.0), (0.5,), (float("nan"),), (101.0,)])
def test_levels_that_make_no_sense_are_a_usage_error(levels):
    with pytest.raises(UsageError):
        DenoiseOptions(coarse=levels, model=LIGHT)


def test_tiles_of_all_passes_are_counted_together(photo):
    """So that what is done never falls back, and ends at what there was to do."""
    told = []
    noisy = picture_of(with_grain(photo[:256, :256]), False)
    _, facts = Restorer(DenoiseOptions(tile=192, model=LIGHT))(noisy, lambda *tiles: told.append(tiles))
    done, totals = zip(*told, strict=True)
    assert len(facts.passes) > 1
    assert list(done) == sorted(done)
    assert told[-1] == (totals[-1],) * 2 == (sum(one.tiles for one in facts.passes),) * 2


def test_no_network_is_named_or_loaded_where_none_is_needed():
    areas = np.array([[90, 20, 60], [10, 200, 120], [70, 60, 230], [200, 190, 20]], np.uint8)
    clean = picture_of(np.tile(areas.repeat(64, 0)[:, None], (1, 256, 1)), False)
    restored, facts = Restorer(DenoiseOptions(device="none", memory=1))(clean)
    assert restored.channels is clean.channels
    assert (facts.network, facts.coarse, facts.passes) == (None, (), ())


def test_memory_that_does_not_allow_the_halves_leaves_their_noise_and_says_so(photo, monkeypatch):
    noisy = picture_of(with_grain(photo[:256, :256]), False)
    whole = noisy.channels.nbytes

    def tile_memory(_engine, limit, pictures):
        return limit - (pictures - OVERLAPPING * whole) * 1e9

    monkeypatch.setattr("mdrn_cli.engine.Engine.tile_memory", tile_memory)
    restored, facts = Restorer(DenoiseOptions(model=LIGHT))(noisy)
    assert facts.network
    assert not any(facts.coarse)
    assert restored.warnings
    assert all("too little memory" in warning for warning in restored.warnings)


def test_the_copy_that_smaller_sizes_make_of_a_picture_counts_in_memory_at_full_size(photo, monkeypatch):
    noisy = picture_of(with_grain(photo[:256, :256]), False)
    counted = []

    def tile_memory(_engine, limit, pictures):
        counted.append(pictures / noisy.channels.nbytes)
        return limit

    monkeypatch.setattr("mdrn_cli.engine.Engine.tile_memory", tile_memory)
    _, facts = Restorer(DenoiseOptions(model=LIGHT))(noisy)
    assert any(facts.coarse)
    assert counted[-1] == OVERLAPPING + 1


@pytest.mark.parametrize(
    ("depth", "room"),
    [*(("uint8", room) for room in (0.3, 0.7, 1.2, 1.5, 1.7)), *itertools.product(("uint16", "float32"), (0.7, 1.5))],
)
def test_memory_that_allows_some_sizes_never_costs_the_picture(photo, monkeypatch, depth, room):
    """Bytes beside the pictures, in pictures: for none of the sizes first, for a quarter of it, for all."""
    noisy = Picture(from_unit(to_unit(channels_of(with_grain(photo[:256, :256]))), depth))
    whole = noisy.channels.nbytes

    def tile_memory(_engine, limit, pictures):
        return limit - max(pictures - (OVERLAPPING + room) * whole, 0) * 1e9

    monkeypatch.setattr("mdrn_cli.engine.Engine.tile_memory", tile_memory)
    restored, facts = Restorer(DenoiseOptions(model=LIGHT))(noisy)
    assert facts.network
    assert any(facts.coarse) or any("too little memory" in warning for warning in restored.warnings)


@pytest.mark.parametrize("blur", [0.8, 1.2, 2.0])
def test_smeared_noise_is_removed_at_smaller_sizes_first(photo, blur):
    """At full size a network would take detail and leave the grain."""
    clean = photo[:256, :256]
    noisy = channels_of(with_grain(clean, blur))
    restored, facts = Restorer(DenoiseOptions(model=LIGHT))(Picture(noisy))
    found = find_noise(noisy).sigma
    assert facts.sigma < 0.6 * found
    assert facts.coarse_sigmas[0] > LEAST_COARSE
    at_full_size, _ = Restorer(DenoiseOptions(model=LIGHT, sigma=found))(Picture(noisy))
    before, after = (psnr(picture.channels.transpose(1, 2, 0), clean) for picture in (at_full_size, restored))
    assert after > before + 0.5


def test_levels_that_are_given_of_smeared_noise_are_removed_before_full_size_too(photo):
    """Else the network at full size, which sees all of it, takes detail first."""
    clean = photo[:256, :256]
    picture = Picture(channels_of(with_grain(clean, 2.0)))
    found, facts = Restorer(DenoiseOptions(model=LIGHT))(picture)
    asked = tuple(round(level) for level in facts.coarse_sigmas)
    given, as_given = Restorer(DenoiseOptions(model=LIGHT, coarse=asked))(picture)
    assert as_given.coarse_sigmas == asked
    assert as_given.sigma == pytest.approx(facts.sigma, abs=1)
    by_itself, by_hand = (psnr(one.channels.transpose(1, 2, 0), clean) for one in (found, given))
    assert by_hand == pytest.approx(by_itself, abs=0.5)


@pytest.mark.parametrize("gray", [False, True])
def test_grain_of_floats_that_go_beyond_white_is_told_as_of_those_within(photo, gray):
    within = channels_of(with_grain(photo[:256, :256], 2.0))[: 1 if gray else 3]
    within = within.astype(np.float32) / 255
    levels = smeared_levels(within)
    assert len(levels) == 2
    assert smeared_levels(within * np.float32(3.5), white=3.5) == pytest.approx(
        [3.5 * each for each in levels], rel=0.01
    )


def test_a_level_given_for_a_size_that_is_too_small_is_told_of_where_noise_is_smeared_too(photo):
    noisy = picture_of(with_grain(photo[:200, :200], 2.0), has_alpha=False)
    restored, facts = Restorer(DenoiseOptions(coarse=(10.0, 5.0), model=LIGHT))(noisy)
    assert facts.coarse_sigmas == (10.0,)
    assert restored.warnings == ("the picture is too small to remove coarse grain of 5",)


@pytest.mark.parametrize("gray", [False, True])
def test_an_estimate_tells_of_grain_that_full_size_hardly_shows(tmp_path, photo, gray):
    noisy = with_grain(photo[:256, :256], 2.0)
    Image.fromarray(noisy[:, :, 1] if gray else noisy).save(tmp_path / "grain.png")
    Image.fromarray(photo[:256, :256]).save(tmp_path / "none.png")
    told, none = (
        json.loads(run_mdrn("estimate", tmp_path / name, "--json").stdout) for name in ("grain.png", "none.png")
    )
    assert told["coarse"][0] > 1.3 * told["sigma"]
    assert none["coarse"] == []
    line = run_mdrn("estimate", tmp_path / "grain.png").stdout
    assert line.split("\t")[1] == f"{told['sigma']:.2f}"
    assert line.split("\t")[2].startswith(f"{told['coarse'][0]:.3g} at half the size")


def in_gray(pixels):
    return pixels.mean(axis=2, keepdims=True).round().astype(np.uint8)


def in_sepia(pixels):
    return np.rint(in_gray(pixels) * np.array([0.95, 0.8, 0.65])).astype(np.uint8)


def in_colors(pixels):
    return pixels


@pytest.mark.parametrize(
    ("tinted", "blur"), [(in_gray, 1.2), (in_gray, 2.0), (in_sepia, 1.2), (in_sepia, 2.0), (in_colors, 1.2)]
)
def test_so_is_that_of_gray_photographs_and_what_all_channels_share(photo, tinted, blur):
    clean = photo[:256, :256]
    noisy = channels_of(tinted(with_grain(clean, blur, common=True)))
    restored, facts = Restorer(DenoiseOptions(model=LIGHT))(Picture(noisy))
    assert max(facts.coarse_sigmas) > LEAST_GRAY_COARSE
    assert all("-gray-" in one.model or "-camera-" in one.model for one in facts.passes)
    found = find_noise(noisy).sigma
    at_full_size, _ = Restorer(DenoiseOptions(model=LIGHT, sigma=max(found, 1.0)))(Picture(noisy))
    before, after = (psnr(one.channels.transpose(1, 2, 0), tinted(clean)) for one in (at_full_size, restored))
    assert after > before + 0.3


@pytest.mark.parametrize("name", ["astronaut", "camera", "chelsea", "coffee", "moon", "rocket"])
def test_gray_photographs_as_they_are_or_with_white_noise_are_not_touched_at_smaller_sizes(name):
    clean = np.atleast_3d(getattr(skimage.data, name)())
    gray = channels_of(in_gray(clean))
    for noisy in (gray, from_unit(add_noise(gray.transpose(1, 2, 0), 10), "uint8")):
        assert without_smeared_noise(noisy, pytest.fail) == (noisy, ())


@pytest.mark.parametrize("blur", [0.0, 0.5])
def test_noise_that_is_hardly_smeared_is_removed_at_full_size(photo, blur):
    noisy = channels_of(with_grain(photo[:256, :256], blur))
    assert Restorer(DenoiseOptions(model=LIGHT))(Picture(noisy))[1].sigma == find_noise(noisy).sigma


@pytest.mark.parametrize("depth", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("seen", [None, 300])
def test_the_smallest_size_is_done_before_the_next(photo, depth, seen):
    """Of any depth, of odd sides, and where only a part is seen."""
    noisy = from_unit(to_unit(channels_of(with_grain(photo, 3.0)[:511, :509])), depth)
    mask = None if seen is None else np.broadcast_to(np.arange(509) < seen, (511, 509))
    before = noisy.copy()
    asked = []

    def darker(image, sigma):
        asked.append((image.shape, sigma))
        return from_unit(to_unit(image) * np.float32(0.95), str(image.dtype))

    changed, levels = without_smeared_noise(noisy, darker, mask)
    assert [shape for shape, _ in asked] == [(3, 128, 128), (3, 256, 255)]
    assert levels == tuple(sigma for _, sigma in reversed(asked))
    assert (noisy == before).all()
    assert (changed.dtype, changed.shape) == (noisy.dtype, noisy.shape)
    assert (changed != noisy).any()


def test_noise_that_is_not_smeared_is_not_touched_at_smaller_sizes(photo):
    for noisy in (channels_of(with_grain(photo[:256, :256], 0.0)), channels_of(photo), channels_of(photo[:100, :100])):
        assert without_smeared_noise(noisy, pytest.fail) == (noisy, ())


def test_the_quiet_amplitude_of_white_noise_is_about_its_level():
    """Of smeared noise it is far less."""
    even = np.full((256, 256, 3), 128.0)
    white, smeared = (quiet_amplitude(looked_at(channels_of(with_grain(even, blur)))) for blur in (0.0, 1.2))
    assert 7 < white < 10
    assert smeared < white / 5
