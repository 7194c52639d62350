"""Pictures that have been through JPEG are told by their grid."""

import numpy as np
import pytest
from conftest import rounded
from conftest import through_jpeg as through
from PIL import Image

from mdrn_cli.grid import grid_excess, is_through_jpeg


@pytest.fixture
def clean(resized_photo):
    return resized_photo


def planes(pixels):
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


@pytest.mark.parametrize(("quality", "subsampling"), [(92, 0), (92, 2), (85, 1), (60, 2)])
def test_jpeg_is_told_in_any_kind_of_image(clean, quality, subsampling):
    pixels = planes(through(clean, quality, subsampling))
    gray = planes(through(clean[:, :, 1], quality))
    for image in (pixels, gray, pixels.astype(np.uint16) * 257, pixels.astype(np.float32) / 255):
        assert is_through_jpeg(image)


def test_wherever_the_grid_begins_and_the_picture_ends(clean):
    pixels = planes(through(clean, 80))
    for top in range(8):
        assert is_through_jpeg(pixels[:, top:-3, 8 - top : -1])


def test_other_pictures_have_no_grid(clean):
    rng = np.random.default_rng(0)
    noisy = rounded(through(clean, 80) + rng.normal(0, 2, clean.shape))
    larger = np.asarray(Image.fromarray(through(clean, 80)).resize((400, 400), Image.Resampling.BICUBIC))
    for pixels in (
        clean,
        noisy,
        larger,
        np.zeros_like(clean),
        rng.integers(0, 256, clean.shape, np.uint8),
    ):
        assert grid_excess(planes(pixels)) < 0.1


def test_little_is_lost_by_the_highest_qualities(clean):
    excess = [grid_excess(planes(through(clean, quality))) for quality in (98, 92, 80, 50)]
    assert excess == sorted(excess)
    assert not is_through_jpeg(planes(through(clean, 98)))


def test_what_is_not_seen_does_not_count(clean):
    pixels, seen = (
        planes(np.where(np.arange(256)[:, None, None] < 128, through(clean, 80), clean)),
        np.ones((256, 256), bool),
    )
    seen[128:] = False
    assert grid_excess(pixels, seen) > 0.25
    assert grid_excess(pixels, ~seen) < 0.1
    assert grid_excess(pixels, np.zeros_like(seen)) == 0


def test_too_small_to_tell(clean):
    assert grid_excess(planes(through(clean[:40, :40], 70))) == 0
    assert grid_excess(planes(clean[:1, :5])) == 0
