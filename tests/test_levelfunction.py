"""Noise that is stronger at one intensity than at another: its level at each is found, and is made the same."""

import json

import numpy as np
import pytest
from conftest import rounded, run_mdrn
from PIL import Image

from mdrn_cli.blocknoise import Noise
from mdrn_cli.levelfunction import LevelFunction
from mdrn_cli.levels import HIGHEST_SIGMA
from mdrn_cli.metrics import psnr
from mdrn_cli.noise import find_noise
from mdrn_cli.picture import picture_of
from mdrn_cli.restore import DenoiseOptions, Restorer

ENDS = "in_black", "in_white"
INTENSITIES = np.linspace(0.05, 0.95, 8)


def rising(intensity):
    """From 5 in black to 25 in white."""
    return 5 + 20 * np.asarray(intensity)


def noisy_version(clean, level, seed=0):
    """uint8 (H, W, C) with white noise of a level at each intensity."""
    noise = level(clean / 255) * np.random.default_rng(seed).normal(size=clean.shape)
    return rounded(clean + noise)


def planes(pixels):
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def test_a_smooth_function_goes_through_the_levels_found():
    function = LevelFunction.of(INTENSITIES, rising(INTENSITIES))
    np.testing.assert_allclose(function(INTENSITIES), rising(INTENSITIES), rtol=0.12)
    assert function.ends == (pytest.approx(6, rel=0.15), pytest.approx(24, rel=0.15))
    assert function.spread == pytest.approx(4, rel=0.2)
    assert (function(0.0), function(1.0)) == (function(INTENSITIES[0]), function(INTENSITIES[-1]))


@pytest.mark.parametrize("place", [0, 3, 7])
def test_texture_at_one_intensity_changes_little(place):
    levels = np.full(8, 10.0)
    levels[place] = 60
    function = LevelFunction.of(INTENSITIES, levels)
    assert np.abs(np.log(function(INTENSITIES) / 10)).max() < 0.3


def test_none_is_found_where_there_is_rounding_only():
    assert np.isfinite(LevelFunction.of(INTENSITIES, np.zeros(8)).stabilized_sigma)


@pytest.mark.parametrize("level", [rising, lambda i: rising(1 - np.asarray(i)), lambda i: np.full_like(i, 8.0)])
def test_a_denoiser_sees_noise_of_one_level_and_keeps_the_mean(level):
    function = LevelFunction.of(INTENSITIES, level(INTENSITIES))
    spreads, means = [], []

    def flat(image):
        spreads.append(image.std() * 255)
        return np.full_like(image, image.mean())

    rng = np.random.default_rng(0)
    for intensity in (0.0, 0.15, 0.5, 0.85, 1.0):
        noise = function(intensity) / 255 * rng.normal(size=(1, 200, 200))
        result = function.stabilized(flat)((intensity + noise).astype(np.float32))
        assert result.dtype == np.float32
        means.append(result.mean() - intensity)
    np.testing.assert_allclose(spreads, function.stabilized_sigma, rtol=0.05)
    np.testing.assert_allclose(means, 0, atol=0.3 / 255)


def test_black_and_white_stay_where_they_are():
    function = LevelFunction.of(INTENSITIES, 0.02 * rising(INTENSITIES))
    ends = np.array([[[0, 1]]], np.float32)
    np.testing.assert_allclose(function.stabilized(lambda image: image)(ends), ends, atol=1e-3)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_a_network_gives_that_is_not_finite_is_not_hidden(wrong):
    denoise = LevelFunction.of(INTENSITIES, rising(INTENSITIES)).stabilized(lambda image: image + np.float32(wrong))
    assert not np.isfinite(denoise(np.full((1, 4, 4), 0.5, np.float32))).any()


@pytest.mark.parametrize("color", ["gray", "color"])
def test_it_is_found_in_a_photograph(photo, gray_photo, color):
    clean = (gray_photo if color == "gray" else photo)[:256, :256]
    found = find_noise(planes(noisy_version(clean, rising)), shared=False)
    assert found.is_white
    assert found.by_intensity
    seen = np.quantile(clean / 255, (0.1, 0.9))
    np.testing.assert_allclose(found.by_intensity(seen), rising(seen), rtol=0.2)
    assert found.sigma == pytest.approx(np.sqrt(np.mean(rising(clean / 255) ** 2)), rel=0.12)


def test_it_is_found_where_a_little_is_cut_off_everywhere(photo):
    """Of a colored block one intensity of hundreds is at an end."""
    clean = np.clip((photo[:256, :256].astype(float) - 128) * 1.3 + 128, 0, 255)
    found = find_noise(planes(noisy_version(clean, rising)), shared=False)
    assert found.by_intensity
    np.testing.assert_allclose(found.by_intensity(0.7), rising(0.7), rtol=0.2)


def test_beyond_the_highest_level_it_is_not_made_the_same(photo, monkeypatch):
    strong = LevelFunction.of(np.linspace(0.02, 0.3, 8), np.linspace(30, 140, 8))
    assert strong.stabilized_sigma > HIGHEST_SIGMA
    monkeypatch.setattr("mdrn_cli.restore.find_noise", lambda *_: Noise(91.0, True, None, strong))
    _, facts = Restorer(DenoiseOptions(model="mdrn-2b"))(picture_of(photo[:64, :64], has_alpha=False))
    assert (facts.by_intensity, facts.network.sigma) == (None, 91.0)


@pytest.mark.parametrize("sigma", [4.0, 15.0])
@pytest.mark.parametrize("color", ["gray", "color"])
def test_not_where_it_is_the_same(photo, gray_photo, color, sigma):
    clean = (gray_photo if color == "gray" else photo)[:256, :256]
    assert not find_noise(planes(noisy_version(clean, lambda i: np.full_like(i, sigma))), shared=False).by_intensity


@pytest.mark.parametrize("color", ["gray", "color"])
def test_photographs_are_restored_better_by_it(photo, gray_photo, color):
    clean = (gray_photo if color == "gray" else photo)[:256, :256]
    picture = picture_of(noisy_version(clean, rising), has_alpha=False)

    def gain(sigma):
        restored, facts = Restorer(DenoiseOptions(model="mdrn-2b", sigma=sigma))(picture)
        assert bool(facts.by_intensity) == (sigma is None)
        return psnr(restored.channels.transpose(1, 2, 0), clean)

    assert gain(None) > max(gain(sigma) for sigma in (9.0, 12.0, 15.0)) + 0.3


def test_floats_beyond_white_are_restored_without_it(photo):
    picture = picture_of((noisy_version(photo[:256, :256], rising) / 255).astype(np.float32), has_alpha=False)
    picture.channels[:, 100:140, 100:140] = 1.5
    _, facts = Restorer(DenoiseOptions(model="mdrn-2b"))(picture)
    assert facts.network
    assert facts.by_intensity is None


def test_it_is_told(photo, tmp_path):
    file = tmp_path / "noisy.png"
    Image.fromarray(noisy_version(photo[:256, :256], rising)).save(file)
    arguments = "denoise", str(file), "-o", str(tmp_path / "restored.png"), "--model", "mdrn-2b"
    done = run_mdrn(*arguments, "--json")
    sigma = json.loads(done.stdout.splitlines()[0])["sigma"]
    assert 3 < sigma["in_black"] < sigma["value"] < sigma["in_white"] < 30
    assert 5 < sigma["removed"] < sigma["value"], "which is what it was made"
    estimated = json.loads(run_mdrn("estimate", str(file), "--json").stdout)
    assert [estimated[key] for key in ("sigma", *ENDS)] == [sigma[key] for key in ("value", *ENDS)]
    done = run_mdrn(*arguments, "--overwrite", "--sigma", "12", "--json")
    sigma = json.loads(done.stdout.splitlines()[0])["sigma"]
    assert [sigma[key] for key in ENDS] == [None, None]
