"""Photographs of one tone kept as RGB are restored as gray ones are."""

import io

import numpy as np
import pytest
from conftest import rounded
from PIL import Image

from mdrn_cli.blocknoise import Noise
from mdrn_cli.errors import InputError
from mdrn_cli.image import read_picture
from mdrn_cli.metrics import psnr
from mdrn_cli.monochrome import Tone, find_tone
from mdrn_cli.noise import estimate_sigma
from mdrn_cli.picture import Picture, picture_of
from mdrn_cli.restore import DenoiseOptions, Restorer

SIGMA = 15


def black_and_white(gray):
    return rounded(np.repeat(gray, 3, axis=2))


def sepia(gray):
    return rounded(gray * [1.07, 0.95, 0.75] + [8, 4, 0])


def plain(pixels: np.ndarray) -> Picture:
    return picture_of(pixels, has_alpha=False)


def as_jpeg(pixels: np.ndarray) -> Picture:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=92)
    return read_picture(file.getvalue())


@pytest.fixture(scope="module")
def clean(gray_photo):
    return gray_photo[100:292, 100:292].astype(float)


@pytest.fixture(scope="module")
def noisy(clean):
    return clean + np.random.default_rng(0).normal(0, SIGMA, clean.shape)


@pytest.fixture(scope="module")
def restorer():
    return Restorer(DenoiseOptions())


def quality(picture, pixels):
    return psnr(picture.channels.transpose(1, 2, 0), pixels)


def test_black_and_white_in_rgb_comes_out_as_the_gray_file_does(noisy, restorer):
    gray, gray_facts = restorer(plain(rounded(noisy)))
    color, facts = restorer(plain(black_and_white(noisy)))
    assert facts.sigma == gray_facts.sigma == pytest.approx(SIGMA, rel=0.1)
    assert facts.network.model == gray_facts.network.model
    assert facts.mode == "RGB"
    assert np.abs(color.channels.astype(int) - gray.channels).max() <= 1


@pytest.mark.parametrize("stored", [plain, as_jpeg])
@pytest.mark.parametrize("toning", [black_and_white, sepia])
def test_noise_of_a_toned_photograph_is_found_and_removed(clean, noisy, restorer, toning, stored):
    restored, facts = restorer(stored(toning(noisy)))
    assert facts.sigma == pytest.approx(SIGMA, rel=0.15)
    assert quality(restored, toning(clean)) > psnr(toning(noisy), toning(clean)) + 6


def test_a_given_level_needs_no_estimate_and_deep_files_keep_their_depth(clean, noisy):
    deep = np.clip(np.repeat(noisy, 3, axis=2) * 257, 0, 65535).astype(np.uint16)
    restored, facts = Restorer(DenoiseOptions(sigma=SIGMA))(plain(deep))
    assert (restored.depth, facts.mode, facts.network.model) == ("uint16", "RGB", "mdrn-gray-15")
    assert psnr(rounded(restored.channels.transpose(1, 2, 0) / 257), black_and_white(clean)) > 30


def test_a_network_for_color_is_used_where_it_is_asked_for(noisy):
    picture = plain(black_and_white(noisy))
    for options in (
        DenoiseOptions(sigma=SIGMA, color="color", model="mdrn-2b"),
        DenoiseOptions(sigma=SIGMA, model="mdrn-2b-color-15"),
    ):
        assert Restorer(options)(picture)[1].network.model == "mdrn-2b-color-15"


def test_noise_of_its_own_in_each_channel_is_for_the_color_network(clean, photo, restorer):
    rng = np.random.default_rng(0)
    for pixels in (np.repeat(clean, 3, axis=2), photo[100:292, 100:292].astype(float)):
        for sigma in (3, SIGMA):
            shown = rounded(pixels + rng.normal(0, sigma, pixels.shape))
            assert "color" in restorer(plain(shown))[1].network.model


def test_a_tone_takes_and_gives_intensities(noisy):
    image = sepia(noisy).transpose(2, 0, 1)
    tone = find_tone(image)
    intensity = tone.intensity(image)
    unit = image.astype(np.float32) / 255
    np.testing.assert_allclose(tone.changed(unit, intensity), unit, atol=1e-6)
    np.testing.assert_allclose(tone.intensity(tone.changed(unit, intensity * 0.5)), intensity * 0.5, atol=1e-5)
    assert intensity.mean() == pytest.approx(unit.mean(), abs=1e-3)
    assert np.mean(tone.slopes**2) == pytest.approx(1, rel=1e-5)


def test_photographs_of_several_colors_and_what_is_too_small_have_no_tone(photo):
    assert find_tone(photo.transpose(2, 0, 1)) is None
    assert find_tone(np.zeros((3, 7, 100), np.uint8)) is None
    assert find_tone(np.full((3, 64, 64), np.nan, np.float32)) is None
    assert find_tone(np.zeros((3, 8, 8), np.uint8)).rest == 0
    assert np.isfinite(estimate_sigma(np.full((3, 64, 64), 7, np.uint8)))


def test_floats_on_another_scale_are_refused_and_noise_beyond_all_is_told(noisy, restorer):
    with pytest.raises(InputError, match="floats should be from 0 to 1, and these reach"):
        restorer(plain(10 * noisy.astype(np.float32)))
    hidden = np.concatenate([noisy / 255, np.ones_like(noisy)], axis=2).astype(np.float32)
    hidden[:64, :, 0], hidden[:64, :, 1] = 100, 0
    assert np.isfinite(restorer(picture_of(hidden, has_alpha=True))[0].channels).all()
    with pytest.raises(InputError, match="floats should be from 0 to 1"):
        Restorer(DenoiseOptions(25.0))(plain(10 * noisy.astype(np.float32)))
    coarse = np.random.default_rng(0).normal(128, 200, (64, 64, 1)) / 255
    restored, facts = restorer(plain(coarse.astype(np.float32)))
    assert facts.sigma > 100
    assert any("removed as of 100" in warning for warning in restored.warnings)


def test_the_tone_is_that_which_the_noise_was_found_to_be_of(monkeypatch):
    """JPEG smooths the noise of colors: what is left of few colors would pass for one tone with all the noise found."""
    rng = np.random.default_rng(0)
    image = np.clip(rng.normal(120, 15, (64, 64, 3)), 0, 255).astype(np.uint8)
    picture = picture_of(image, has_alpha=False)
    tone = Tone(np.ones(3, np.float32), np.full(3, 1 / 3, np.float32), 0.0, 5.0)
    monkeypatch.setattr("mdrn_cli.restore.find_tone", lambda *_: tone)
    for found in (None, tone):
        monkeypatch.setattr(
            "mdrn_cli.restore.find_noise", lambda *_, found=found: Noise(24.0, is_white=True, tone=found)
        )
        restored = Restorer(DenoiseOptions(model="mdrn-2b"))(picture)[1]
        assert restored.network is not None
        assert ("gray" in restored.network.model) == (found is not None)
    assert "gray" in Restorer(DenoiseOptions(24, model="mdrn-2b"))(picture)[1].network.model, "by the level told"
