"""`--sigma x1.3`: levels that are found, taken for so many times what they are."""

import json

import numpy as np
import pytest
from conftest import rounded, run_mdrn
from PIL import Image
from scipy.ndimage import gaussian_filter

import mdrn_cli
from mdrn_cli.errors import UsageError
from mdrn_cli.levels import parse_sigma
from mdrn_cli.picture import picture_of
from mdrn_cli.restore import DenoiseOptions, Restorer

LIGHT = "mdrn-2b"


def with_noise(photo, blur=0.0, level=12.0):
    clean = photo[:256, :256]
    noise = np.random.default_rng(0).normal(size=clean.shape)
    noise = gaussian_filter(noise, (blur, blur, 0)) if blur else noise
    return rounded(clean + level * noise / noise.std())


def rough(picture):
    return np.abs(np.diff(picture.channels.astype(float), axis=2)).mean()


@pytest.mark.parametrize("blur", [0.0, 0.6, 2.0])
def test_more_or_less_is_removed_as_that_which_is_found(photo, blur):
    """White noise, noise for which there are two networks, and coarse grain."""
    noisy = picture_of(with_noise(photo, blur), has_alpha=False)
    done = {factor: Restorer(DenoiseOptions(model=LIGHT, factor=factor))(noisy) for factor in (0.6, 1.0, 1.5)}
    assert rough(done[1.5][0]) < rough(done[1.0][0]) < rough(done[0.6][0]) < rough(noisy)
    _, plain = done[1.0]
    _, more = done[1.5]
    assert more.factor == 1.5
    if blur < 2:
        assert more.sigma == plain.sigma, "what is found stays what it is"
        assert more.network.sigma == pytest.approx(1.5 * plain.network.sigma)
        assert bool(more.network.beside) == bool(plain.network.beside) == (blur > 0)
    else:
        assert more.coarse_sigmas[-1] == pytest.approx(1.5 * plain.coarse_sigmas[-1])


@pytest.mark.parametrize(("level", "factor"), [(20, 0.3), (40, 0.5)])
def test_white_noise_that_is_left_on_purpose_is_no_grain(photo, level, factor):
    noisy = picture_of(with_noise(photo, level=level), has_alpha=False)
    _, facts = Restorer(DenoiseOptions(model=LIGHT, factor=factor))(noisy)
    assert not any(facts.coarse_sigmas)
    assert facts.network


def test_levels_of_grain_that_are_given_are_not_multiplied(photo):
    noisy = picture_of(with_noise(photo, 2.0), has_alpha=False)
    for options in ({"coarse": (8.0, 9.0)}, {"coarse": (8.0,)}):
        _, facts = Restorer(DenoiseOptions(model=LIGHT, factor=1.5, **options))(noisy)
        assert facts.coarse_sigmas == options["coarse"]
        assert facts.network.sigma == pytest.approx(1.5 * facts.sigma), "of what is found at full size"


def test_no_more_is_removed_than_networks_can(photo):
    restored, facts = Restorer(DenoiseOptions(model=LIGHT, factor=9))(picture_of(with_noise(photo), has_alpha=False))
    assert facts.network.sigma == 100
    assert any("removed as of 100" in warning for warning in restored.warnings)
    restored, facts = Restorer(DenoiseOptions(model=LIGHT, factor=9))(picture_of(with_noise(photo, 2), has_alpha=False))
    assert 100 in facts.coarse_sigmas
    assert any("at a smaller size was removed as of 100" in warning for warning in restored.warnings)


def test_a_level_at_each_intensity_is_kept_to(photo):
    """What is removed is so many times the level after the transform, in which noise is as it was found."""
    clean = photo[:256, :256].astype(float)
    level = 4 + 20 * clean / 255
    noisy = rounded(clean + level * np.random.default_rng(0).normal(size=clean.shape))
    (_, plain), (_, more) = (
        Restorer(DenoiseOptions(model=LIGHT, factor=factor))(picture_of(noisy, has_alpha=False)) for factor in (1, 1.4)
    )
    assert more.by_intensity == plain.by_intensity
    assert more.by_intensity is not None
    assert more.network.sigma == pytest.approx(1.4 * plain.network.sigma)


def test_what_is_told(tmp_path, photo):
    """By the command, and the same from Python."""
    noisy = with_noise(photo)[:128, :128]
    Image.fromarray(noisy).save(tmp_path / "a.png")
    to = ("-o", tmp_path / "b.png", "--model", LIGHT, "--overwrite")
    told = run_mdrn("denoise", tmp_path / "a.png", *to, "--sigma", "x1.5")
    assert "estimated, removed as " in told.stderr
    line, _ = run_mdrn("denoise", tmp_path / "a.png", *to, "--sigma", "x1.5", "--json").stdout.splitlines()
    sigma = json.loads(line)["sigma"]
    assert sigma["factor"] == 1.5
    assert sigma["removed"] == pytest.approx(1.5 * sigma["value"], abs=0.01)
    assert np.array_equal(mdrn_cli.denoise(noisy, "x1.5", LIGHT), np.asarray(Image.open(tmp_path / "b.png")))


@pytest.mark.parametrize(
    ("text", "meant"), [("auto", (None, 1.0)), ("12.5", (12.5, 1.0)), ("x1.3", (None, 1.3)), ("x.5", (None, 0.5))]
)
def test_levels_as_they_may_be_written(text, meant):
    assert parse_sigma(text) == meant


@pytest.mark.parametrize("text", ["", "x", "much", "1.3x", "x1,3", "xx2"])
def test_others_are_a_usage_error(text):
    with pytest.raises(UsageError, match=r"^--sigma .* is neither auto, a number"):
        parse_sigma(text)
    with pytest.raises(UsageError, match=r"^sigma .* is neither auto, a number"):
        mdrn_cli.denoise(np.zeros((32, 32), np.uint8), text)


@pytest.mark.parametrize(
    "options", [{"factor": 0.0}, {"factor": 11}, {"factor": float("nan")}, {"sigma": 5, "factor": 2}]
)
def test_factors_that_make_no_sense_are_a_usage_error(options):
    with pytest.raises(UsageError, match=r"factor|multiplied"):
        DenoiseOptions(**options)
