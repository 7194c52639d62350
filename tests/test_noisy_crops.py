"""tools/noisy_crops.py: noise as files have it, which the estimator and networks for such noise learn from."""

import numpy as np
import pytest
import skimage.data
from conftest import rounded, tool_module
from PIL import Image

from mdrn_cli.image import read_uint8
from mdrn_cli.noise import estimate_sigma


@pytest.fixture(scope="module")
def tool():
    return tool_module("noisy_crops")


def shape_of(file, _seed):
    return [read_uint8(file, "color").shape]


def test_photographs_that_nothing_can_be_learned_from_are_left_out(tool, photo, tmp_path):
    Image.fromarray(photo[:40, :60]).save(tmp_path / "a.png")
    (tmp_path / "broken.png").write_bytes(b"not an image")
    Image.fromarray(photo[:10, :60]).save(tmp_path / "low.png")
    assert tool.of_each(tmp_path, shape_of, 0) == [(40, 60, 3)]


@pytest.mark.parametrize("channels", [1, 3])
def test_crops_are_edited_noise_and_all(tool, photo, channels):
    photo = photo[:, :, :channels]
    kinds = set()
    for kernel in Image.Resampling.BILINEAR, Image.Resampling.LANCZOS:
        crop = tool.camera_crop(photo, np.random.default_rng(0), 20.0, tool.Edit(2.0, kernel))
        assert crop.noisy.shape == crop.clean.shape == crop.shown.shape
        assert all(side % 2 == 0 for side in crop.noisy.shape[1:])
        kinds.add(crop.kind.shape)
    plain, sharp = (
        tool.camera_crop(photo, np.random.default_rng(0), 20.0, edit)
        for edit in (tool.Edit(), tool.Edit(sharpened=150, radius=1.0))
    )
    assert sharp.level > 1.2 * plain.level
    assert kinds == {plain.kind.shape} == {sharp.kind.shape}


def test_every_edit_is_drawn(tool):
    rng = np.random.default_rng(0)
    drawn = [tool.Edit.draw(rng) for _ in range(200)]
    assert sum(edit == tool.Edit() for edit in drawn) > 100
    assert sum(edit.scale > 1 for edit in drawn) > 10
    assert sum(edit.scale < 1 for edit in drawn) > 10
    assert sum(edit.sharpened > 0 for edit in drawn) > 10
    assert not any(edit.scale != 1 and edit.sharpened for edit in drawn)


def test_contrast_is_raised_until_much_is_cut_off_in_some(tool, photo):
    rng, photo = np.random.default_rng(0), photo[:128, :128]
    raised = [tool.contrasted(photo, rng) for _ in range(100)]
    changed = [one for one in raised if not np.array_equal(one, photo)]
    assert 25 < len(changed) < 55
    dark_to_light = np.argsort(photo.ravel(), kind="stable")
    assert all((np.diff(one.ravel()[dark_to_light].astype(int)) >= 0).all() for one in changed)
    cut_off = [((one == 0) | (one == 255)).mean() for one in changed]
    assert np.quantile(cut_off, 0.5) > 0.02


@pytest.mark.parametrize("along_edges", [False, True])
@pytest.mark.parametrize("smoothed", [0.0, 2.0])
def test_a_camera_leaves_noise_of_the_level_asked_for_in_a_picture_that_is_the_scene(
    tool, photo, along_edges, smoothed
):
    camera = tool.Camera(along_edges, 0.7, (2.0, 1.0, 1.6), 0.1, smoothed)
    scene = photo[:256, :256].astype(np.float32)
    picture, noise = camera.picture(scene, 12.0, np.random.default_rng(0))
    assert picture.shape == noise.shape == scene.shape
    assert np.abs(picture - scene).mean() < 5
    assert noise.std() == pytest.approx(12, rel=0.15)
    beside = np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]
    assert beside > 0.2, "what a pixel lacks comes from its neighbours"


@pytest.mark.parametrize("quality", [None, 90])
@pytest.mark.parametrize("smoothed", [0.0, 2.0])
@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea"])
def test_noise_of_a_camera_is_told(tool, name, smoothed, quality):
    """Of 12, 4 to 15 was told before the estimator had seen a camera's."""
    scene = getattr(skimage.data, name)()[:256, :256].astype(np.float32)
    camera = tool.Camera(True, 0.7, (2.0, 1.0, 1.6), 0.1, smoothed)
    picture, noise = camera.picture(scene, 12.0, np.random.default_rng(0))
    stored = rounded(picture + noise)
    if quality:
        stored = tool.jpeg_round_trip(stored, quality, 2)
    assert 11 < estimate_sigma(stored.transpose(2, 0, 1)) < 22
