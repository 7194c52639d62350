"""What lies under full transparency has no part in what is made of a picture."""

import json
import warnings

import numpy as np
import pytest
from conftest import rounded
from PIL import Image
from typer.testing import CliRunner

import mdrn_cli
from mdrn_cli.cli import app
from mdrn_cli.encoding import encode_picture
from mdrn_cli.picture import picture_of
from mdrn_cli.pixels import as_depth
from mdrn_cli.restore import NO_NOISE, DenoiseOptions, Restorer
from mdrn_cli.unseen import REACH, with_unseen_filled

SIGMA = 25.0


def test_what_is_seen_is_mirrored_at_its_outline():
    row = np.array([[[0, 0, 3, 4, 5, 0, 0, 0, 0]]], np.uint8)
    seen = np.array([[False] * 2 + [True] * 3 + [False] * 4])
    assert with_unseen_filled(row, seen).tolist() == [[[4, 3, 3, 4, 5, 5, 4, 3, 5]]]
    assert with_unseen_filled(row.swapaxes(1, 2), seen.T)[0, :, 0].tolist() == [4, 3, 3, 4, 5, 5, 4, 3, 5]
    assert row.max() == 5
    assert row[0, 0, 0] == 0


def test_the_nearest_of_a_row_and_a_column_counts_and_corners_are_filled_too():
    seen = np.zeros((6, 6), bool)
    seen[1:3, 1:3] = True
    filled = with_unseen_filled(np.where(seen, np.arange(36).reshape(6, 6), 99)[None], seen)
    assert filled[0].tolist() == [
        [7, 7, 8, 8, 7, 8],
        [7, 7, 8, 8, 7, 8],
        [13, 13, 14, 14, 13, 14],
        [13, 13, 14, 14, 13, 14],
        [7, 7, 8, 8, 7, 8],
        [13, 13, 14, 14, 13, 14],
    ]


@pytest.mark.parametrize("shape", [(2, 500), (500, 2), (500, 300)])
def test_what_is_far_from_anything_seen_is_black(shape):
    rng = np.random.default_rng(0)
    image = rng.random((3, *shape)).astype(np.float32)
    seen = np.zeros(shape, bool)
    seen[: shape[0] // 10 + 1, : shape[1] // 10 + 1] = True
    filled = with_unseen_filled(image, seen)
    rows, columns = (np.flatnonzero(seen.any(axis=axis)).max() + REACH + 1 for axis in (1, 0))
    assert not filled[:, :, columns:].any()
    assert not filled[:, rows + 128 :].any()  # rows are worked on that many at once
    assert np.array_equal(filled[:, seen], image[:, seen])
    assert np.isin(filled[0, :rows, :columns], image[0, seen]).all()


def test_nothing_seen_is_black():
    image = np.random.default_rng(0).random((1, 9, 9)).astype(np.float32)
    assert not with_unseen_filled(image, np.zeros((9, 9), bool)).any()


@pytest.mark.parametrize("shape", ["disc", "strokes"])
@pytest.mark.parametrize("hidden", [-9999.0, 65504.0, 1e10, -3.4e38, 3e38])
def test_values_of_floats_that_stand_for_no_data_do_nothing_under_an_alpha(photo, hidden, shape):
    noisy = (photo[:256, :256, 0] / 255 + np.random.default_rng(0).normal(0, 0.08, (256, 256))).astype(np.float32)
    rows, columns = np.indices((256, 256))
    seen = np.hypot(rows - 60, columns - 60) < 50 if shape == "disc" else (rows + columns) % 60 < 7
    black, hiding = (np.dstack([np.where(seen, noisy, np.float32(value)), seen]) for value in (0, hidden))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = [mdrn_cli.denoise(image.astype(np.float32), model="mdrn-2b") for image in (black, hiding)]
        levels = [mdrn_cli.estimate_sigma(image.astype(np.float32), white=0.9) for image in (black, hiding)]
    assert levels[0] == levels[1] > 10
    assert np.array_equal(results[0][seen], results[1][seen])
    assert (results[1][~seen, 0] == np.float32(hidden)).all()
    told = [encode_picture(picture_of(image.astype(np.float32), True), "PNG")[1] for image in (black, hiding)]
    assert told[0] == told[1]


def test_of_floats_of_which_nothing_is_seen_nothing_is_told():
    image = np.full((64, 64, 2), 1e6, np.float32)
    image[:, :, 1] = 0
    assert mdrn_cli.estimate_sigma(image) == 0


@pytest.mark.parametrize("pattern", ["half", "checkerboard", "lines", "strokes", "small"])
def test_colors_under_transparency_do_not_count_in_the_noise_that_is_found(photo, pattern, tmp_path):
    rows, columns = np.indices((256, 256))
    seen = {
        "half": np.random.default_rng(1).random((256, 256)) < 0.5,
        "checkerboard": (rows + columns) % 2 == 0,
        "lines": (rows % 6 > 0) & (columns % 6 > 0),
        "strokes": (rows + columns) % 240 < 9,
        "small": (np.abs(rows - 128) < 9) & (np.abs(columns - 128) < 9),
    }[pattern]
    clean = photo[:256, :256]
    noisy = np.clip(np.rint(clean + np.random.default_rng(0).normal(0, SIGMA, clean.shape)), 0, 255)
    levels = []
    for hidden in (noisy, np.zeros_like(noisy), np.random.default_rng(2).integers(0, 256, noisy.shape)):
        image = np.dstack([np.where(seen[:, :, None], noisy, hidden), seen * 255]).astype(np.uint8)
        _, facts = Restorer(DenoiseOptions(model="mdrn-2b"))(picture_of(image, has_alpha=True))
        levels += [mdrn_cli.estimate_sigma(image), facts.sigma]
    Image.fromarray(image).save(tmp_path / "a.png")
    printed = CliRunner().invoke(app, ["estimate", str(tmp_path / "a.png"), "--json"]).stdout
    assert json.loads(printed)["sigma"] == round(levels[0], 3)
    assert len(set(levels)) == 1
    # Where every second pixel is hidden, each is filled with one beside it, and noise is found as if smeared.
    assert levels[0] == pytest.approx(SIGMA, rel=0.35 if pattern != "checkerboard" else 0.6)


@pytest.mark.parametrize("sigma", [SIGMA, None])
@pytest.mark.parametrize("under", [0, 255])
def test_a_cut_out_is_restored_up_to_its_edge_and_colors_under_transparency_are_kept(photo, under, sigma):
    clean = photo[:256, :256]
    noisy = rounded(clean + np.random.default_rng(0).normal(0, SIGMA, clean.shape))
    distance = np.hypot(*(axis - 128 for axis in np.indices((256, 256))))
    edge = (distance < 90) & (distance >= 84)
    alpha = np.where(distance < 90, 255, 0).astype(np.uint8)
    cut = np.where(alpha[:, :, None] > 0, noisy, np.uint8(under))
    restorer = Restorer(DenoiseOptions(sigma, model="mdrn-2b"))
    whole, _ = restorer(picture_of(noisy, False))
    restored, _ = restorer(picture_of(np.dstack([cut, alpha]), True))
    errors = [
        np.mean((part.channels.transpose(1, 2, 0)[edge] - clean[edge].astype(float)) ** 2) for part in (whole, restored)
    ]
    assert 10 * np.log10(errors[1] / errors[0]) < 0.8
    assert (restored.channels[:, alpha == 0] == under).all()


def test_colors_under_it_stay_where_gray_is_asked_for_and_noise_removed_at_half_the_size_alone():
    ramp = np.add.outer(np.arange(192), np.zeros(192)).astype(np.uint8)
    pixels = np.stack([ramp, ramp, ramp, np.full_like(ramp, 255)], axis=2)
    pixels[:64, :64] = [10, 200, 30, 0]
    options = DenoiseOptions(color="gray", coarse=(5.0,), model="mdrn-2b")
    restored, facts = Restorer(options)(picture_of(pixels, has_alpha=True))
    assert facts.network is None
    assert facts.coarse_sigmas == (5.0,)
    gray = np.rint(np.dot([0.299, 0.587, 0.114], [10, 200, 30]))
    assert (as_depth(restored.channels, "uint8")[0, :64, :64] == gray).all()


def test_of_a_picture_that_nothing_is_seen_of_no_noise_is_told(photo):
    picture = picture_of(np.dstack([photo[:64, :64], np.zeros((64, 64, 1), np.uint8)]), has_alpha=True)
    restored, facts = Restorer(DenoiseOptions())(picture)
    assert facts.sigma == 0
    assert restored.channels is picture.channels
    assert restored.warnings == (NO_NOISE,)
