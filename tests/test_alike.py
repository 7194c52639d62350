"""Noise that is alike in all channels of a color photograph is known, and a network for gray removes it."""

import numpy as np
import pytest
from conftest import tool_module
from PIL import Image
from test_coarse import channels_of, with_grain

from mdrn_cli.alike import SMALLEST, alike_features, is_alike
from mdrn_cli.metrics import psnr
from mdrn_cli.monochrome import SHARED
from mdrn_cli.noise import find_noise
from mdrn_cli.picture import picture_of
from mdrn_cli.pixels import from_unit, to_unit
from mdrn_cli.restore import DenoiseOptions, Restorer

LIGHT = "mdrn-2b"


@pytest.fixture(scope="module")
def clean(photo):
    return photo[:256, 100:356]


@pytest.fixture(scope="module")
def noisy(clean):
    return with_grain(clean, blur=0, level=15, common=True)


def quality(picture, clean):
    return psnr(picture.channels.transpose(1, 2, 0), clean)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_its_level_is_that_of_what_channels_share(noisy, dtype):
    found = find_noise(from_unit(to_unit(channels_of(noisy)), dtype))
    assert found.tone is SHARED
    assert found.is_white
    assert found.sigma == pytest.approx(15, rel=0.05)


def test_a_network_for_gray_restores_it_better_than_any_for_color(clean, noisy):
    restored, facts = Restorer(DenoiseOptions(model=LIGHT))(picture_of(noisy, False))
    assert "gray-15" in facts.network.model
    levels = [15, 20, 25, 30]
    others = [Restorer(DenoiseOptions(level, color="color", model=LIGHT))(picture_of(noisy, False)) for level in levels]
    assert all(told.network.model.startswith(("mdrn-2b-color", "mdrn-2b-hads-color")) for _, told in others)
    assert quality(restored, clean) > max(quality(picture, clean) for picture, _ in others) + 0.2


def test_a_level_that_is_given_is_of_it(noisy):
    facts = Restorer(DenoiseOptions(15, model=LIGHT))(picture_of(noisy, False))[1]
    assert "gray-15" in facts.network.model


def test_for_a_network_that_is_asked_for_the_level_is_that_which_it_removes_best(clean, noisy):
    restored, facts = Restorer(DenoiseOptions(color="color", model=LIGHT))(picture_of(noisy, False))
    assert "color" in facts.network.model
    assert facts.sigma > 18
    assert quality(restored, clean) > psnr(noisy, clean) + 5


@pytest.mark.parametrize("colors", [0.1, 0.3])
def test_colors_may_be_faint_and_few(clean, colors):
    """Which passes neither for one tone nor for a photograph with noise of its own in each channel."""
    gray = clean.mean(axis=2, keepdims=True)
    faint = gray + colors * (clean - gray)
    faint[100:118, 100:118] = [230, 25, 25]
    assert find_noise(channels_of(with_grain(faint, blur=0, level=15, common=True))).sigma == pytest.approx(15, rel=0.1)


@pytest.mark.parametrize("level", [5, 15, 40])
def test_other_noise_is_not_taken_for_it(clean, level):
    assert not is_alike(channels_of(clean))
    for blur in (0, 0.8, 2):
        assert not is_alike(channels_of(with_grain(clean, blur, level)))


def test_what_is_hidden_does_not_count(clean, noisy):
    half = noisy.copy()
    half[:, 128:] = with_grain(clean, 0, 15)[:, 128:]
    seen = np.zeros(half.shape[:2], bool)
    seen[:, :128] = True
    assert is_alike(channels_of(half), seen)
    assert not is_alike(channels_of(half), ~seen)


def test_of_what_is_too_small_it_is_not_told(noisy):
    assert not is_alike(channels_of(noisy[: SMALLEST - 1, :100]))
    assert np.isfinite(alike_features(channels_of(noisy[:SMALLEST, :SMALLEST]))).all()


def test_it_is_learned_from_crops_of_every_kind(tmp_path, photo):
    tool = tool_module("train_alike")
    Image.fromarray(photo[:160, :160]).save(tmp_path / "photo.png")
    rows = [row for seed in range(4) for row in tool.rows(tmp_path / "photo.png", (0, seed))]
    assert {kind: target for _, target, kind in rows} == {
        "alike": 1.0,
        "as files have it": -1.0,
        "white": -1.0,
        "none": -1.0,
    }
    assert all(features.shape == (300,) and np.isfinite(features).all() for features, _, _ in rows)
