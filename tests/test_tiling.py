"""Tiles cover, blend to one and change nothing that can be seen."""

import threading
from itertools import count, pairwise

import numpy as np
import pytest
from conftest import tiny_checkpoint

from mdrn_cli.engine import Engine
from mdrn_cli.errors import OutOfMemoryError, UsageError
from mdrn_cli.tiling import LARGEST_TILE, count_tiles, halving, largest_tile, plan_axis, run_tiled, tiled_rows


@pytest.mark.parametrize("overlap", [8, 16, 32, 48, 64])
@pytest.mark.parametrize("length", [1, 7, 8, 127, 128, 129, 136, 191, 192, 193, 250, 255, 256, 257, 511, 512, 1000])
def test_spans_cover_and_weights_sum_to_one(length, overlap):
    spans = plan_axis(length, 128, overlap)
    total = np.zeros(length)
    for span in spans:
        assert span.start % 8 == 0
        assert 0 < span.stop - span.start <= 128
        assert len(spans) == 1 or span.stop - span.start > 2 * overlap - 8, "the last may end inside its last 8 pixels"
        assert span.weight.min() >= 0
        total[span.start : span.stop] += span.weight
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert spans[0].start == 0
    assert spans[-1].stop == length
    for left, right in pairwise(spans):
        assert left.stop - right.start >= overlap


def test_tiles_are_no_larger_than_their_number_needs():
    """Two tiles of 128 would cover 136 pixels with 120 shared; shorter ones do the same work with less."""
    assert [(span.start, span.stop) for span in plan_axis(136, 128, 16)] == [(0, 80), (56, 136)]
    sides = {span.stop - span.start for span in plan_axis(6000, 1024, 64)}
    assert len(sides) == 1, "equal tiles need be prepared for once"
    assert count_tiles(6000, 6000, 1024, 64) * max(sides) ** 2 < 1.16 * 6000**2


def test_the_largest_tile_fits_in_memory():
    assert largest_tile(300 * 300 * 1000, 1000, 64) == 296
    assert largest_tile(128 * 128 * 1000, 1000, 64) == 128
    assert largest_tile(1e15, 1000, 64) == LARGEST_TILE
    assert LARGEST_TILE % 8 == 0
    for memory, missing in ((0, "16 MB"), (-5, "16 MB"), (10e6, "6 MB"), (127 * 127 * 1000, "0 MB")):
        with pytest.raises(OutOfMemoryError, match=f"^{missing} too little memory"):
            largest_tile(memory, 1000, 64)


def test_pixels_beside_a_cut_have_no_weight_and_outer_edges_all():
    left, right = plan_axis(200, 128, 32)
    assert left.weight[0] == 1
    assert right.weight[-1] == 1
    assert np.all(left.weight[-8:] == 0)
    assert np.all(right.weight[:8] == 0)
    assert left.stop - right.start >= 32


def test_the_blend_is_linear_over_the_middle_half_of_the_overlap():
    left, right = plan_axis(200, 128, 32)
    assert (left.start, left.stop, right.start, right.stop) == (0, 120, 80, 200)
    centers = np.arange(200) + 0.5
    rise = np.clip((centers - 92) / 16, 0, 1)  # about 100, the middle of what is shared, half of 32 wide
    np.testing.assert_allclose(right.weight, rise[80:], atol=1e-6)
    np.testing.assert_allclose(left.weight, 1 - rise[:120], atol=1e-6)


@pytest.mark.parametrize("broken", [(100, 16), (128, 12), (128, 0), (128, 72), (0, 8)])
def test_a_tile_that_cannot_work_is_refused(broken):
    with pytest.raises(UsageError):
        plan_axis(500, *broken)


def test_identity_comes_back_and_tiles_are_counted(photo):
    image = (photo[:300, :411] / 255).astype(np.float32).transpose(2, 0, 1)
    seen = []

    def identity(tile):
        seen.append(tile.shape)
        return tile

    out = run_tiled(image, identity, 128, 32)
    np.testing.assert_allclose(out, image, atol=1e-6)
    assert len(seen) == count_tiles(300, 411, 128, 32)
    assert max(max(shape[1:]) for shape in seen) <= 128


def test_rows_are_given_once_in_order_and_finished():
    image = np.random.default_rng(0).random((1, 300, 90), np.float32)
    ticks = []
    parts = list(tiled_rows(lambda y, x: image[:, y, x], 300, 90, lambda tile: tile, 128, 32, lambda: ticks.append(1)))
    assert len(parts) > 2
    assert len(ticks) == count_tiles(300, 90, 128, 32)
    assert [top for top, _ in parts] == np.cumsum([0, *(rows.shape[1] for _, rows in parts)])[:-1].tolist()
    np.testing.assert_allclose(np.concatenate([rows for _, rows in parts], axis=1), image, atol=1e-6)


def test_tiles_see_the_same_grid_as_the_whole():
    """An untrained network of the paper's depth: far from edges, tiled and whole results are the same."""
    engine = Engine(tiny_checkpoint(), "cpu", "float32")
    image = np.random.default_rng(0).random((1, 250, 333), np.float32)
    assert np.abs(run_tiled(image, engine, 128, 64) - engine(image)).max() < 1 / 255


@pytest.mark.parametrize("size", [(500, 700), (700, 300)])
def test_a_tile_too_large_for_the_device_is_halved_until_it_fits(size):
    image = np.random.default_rng(0).random((1, *size), np.float32)
    seen = []

    def small_device(tile):
        seen.append(tile.shape[1:])
        if tile.size > 200 * 200:
            raise OutOfMemoryError("full")
        return tile

    np.testing.assert_allclose(halving(small_device, 32)(image), image, atol=1e-5)
    assert seen[0] == size
    assert any(max(shape) > 200 for shape in seen[1:]), "not all at once"
    with pytest.raises(OutOfMemoryError):
        halving(small_device, 104)(image)


def test_the_smallest_tile_is_twice_the_overlap():
    image = np.random.default_rng(0).random((1, 160, 256), np.float32)

    def tiny_device(tile):
        if max(tile.shape[1:]) > 128:
            raise OutOfMemoryError("full")
        return tile

    np.testing.assert_allclose(halving(tiny_device, 64)(image), image, atol=1e-5)


def test_pixels_got_ahead_are_the_same_in_the_same_order():
    image = np.random.default_rng(0).random((1, 300, 400), np.float32)
    threads, calls, together = set(), count(), threading.Barrier(3, timeout=30)

    def window(rows, columns):
        threads.add(threading.current_thread())
        if next(calls) < 3:
            together.wait()
        return image[:, rows, columns]

    parts = list(tiled_rows(window, 300, 400, lambda tile: tile, 128, 32, ahead=3))
    assert threading.current_thread() not in threads
    np.testing.assert_allclose(np.concatenate([rows for _, rows in parts], axis=1), image, atol=1e-6)


def test_what_goes_wrong_as_pixels_are_got_ahead_is_told():
    def window(_rows, _columns):
        raise MemoryError

    with pytest.raises(MemoryError):
        list(tiled_rows(window, 300, 400, lambda tile: tile, 128, 32, ahead=2))
