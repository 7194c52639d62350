"""Tiles: an image restored piece by piece, so that memory is bounded by the tile and not by the image."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice, pairwise

import numpy as np
from numpy.typing import NDArray

from mdrn_cli.errors import OutOfMemoryError, UsageError

Pixels = NDArray[np.float32]

GRID = 8
"""Tiles start at multiples of this, so the network's strided levels fall on the same pixels as for the whole image."""

LARGEST_TILE = 1024
"""Side in pixels beyond which a CPU gets slower: on 12 megapixels, 1544 took 30 % longer than 1024 and 2048 44 %. glibc
then fetches fresh pages for every feature map (freedmemory.py), and overlaps are a small share of the work anyway."""


@dataclass(frozen=True)
class Span:
    """One tile along one axis.

    Attributes:
        start, stop: pixels given to the network.
        weight: float32 (stop - start,), its share in the result; over all spans of an axis these sum to one.
    """

    start: int
    stop: int
    weight: Pixels


def plan_axis(length: int, tile: int, overlap: int) -> list[Span]:
    """Spans that cover an axis: as few as `tile` allows, and then as short as possible.

    Neighbours share at least `overlap` pixels; the blend runs over the middle half of these, so pixels near
    a cut edge, which lack context, have no weight. Outer edges of the image are not blended.

    Args:
        length: pixels along the axis, at least 1.
        tile: most pixels of a span, a multiple of 8; at least twice the overlap.
        overlap: least pixels shared by neighbours, a multiple of 8 from 8 up.

    Raises:
        UsageError: tile or overlap is not as above.
    """
    if tile % GRID or overlap % GRID or overlap < GRID or tile < 2 * overlap:
        raise UsageError(
            f"a tile of {tile} pixels does not go with an overlap of {overlap}",
            f"take multiples of {GRID}, the tile at least twice the overlap",
        )
    cells, tile_cells, overlap_cells = -(-length // GRID), tile // GRID, overlap // GRID
    if cells <= tile_cells:
        return [Span(0, length, np.ones(length, np.float32))]
    count = -(-(cells - overlap_cells) // (tile_cells - overlap_cells))
    tile_cells = max(-(-(cells + (count - 1) * overlap_cells) // count), 2 * overlap_cells)
    tile = GRID * tile_cells
    starts = [GRID * (k * (cells - tile_cells) // (count - 1)) for k in range(count)]
    bounds = [(start, min(start + tile, length)) for start in starts]
    joints = [(right[0], left[1]) for left, right in pairwise(bounds)]
    spans = []
    for k, (start, stop) in enumerate(bounds):
        weight = np.ones(stop - start, np.float32) if k == 0 else _rise(joints[k - 1], overlap, start, stop)
        if k < count - 1:
            weight -= _rise(joints[k], overlap, start, stop)
        spans.append(Span(start, stop, weight))
    return spans


def _rise(shared: tuple[int, int], overlap: int, start: int, stop: int) -> Pixels:
    """Over the pixels [start, stop): 0 before and 1 after the middle of those shared, linear over half the overlap."""
    ramp = overlap // 2
    first = (sum(shared) - ramp) / 2
    return np.clip((np.arange(start, stop, dtype=np.float32) + 0.5 - first) / ramp, 0, 1)


def largest_tile(memory: float, bytes_per_pixel: int, overlap: int) -> int:
    """Side in pixels of the largest square tile that a network can take.

    Args:
        memory: bytes it may use.
        bytes_per_pixel: what it uses for each pixel of a tile.
        overlap: least pixels shared by neighbours.

    Raises:
        OutOfMemoryError: not even twice the overlap fits.
    """
    side = math.isqrt(max(int(memory), 0) // bytes_per_pixel) // GRID * GRID
    if side < 2 * overlap:
        needed = (2 * overlap) ** 2 * bytes_per_pixel - memory
        raise OutOfMemoryError(
            f"{needed / 1e6:.0f} MB too little memory for the smallest tile", "raise --max-memory, or give a --tile"
        )
    return min(side, LARGEST_TILE)


def count_tiles(height: int, width: int, tile: int, overlap: int) -> int:
    """How many tiles `run_tiled` will make of an image."""
    return len(plan_axis(height, tile, overlap)) * len(plan_axis(width, tile, overlap))


def tiled_rows(
    window: Callable[[slice, slice], Pixels],
    height: int,
    width: int,
    function: Callable[[Pixels], Pixels],
    tile: int,
    overlap: int,
    on_tile: Callable[[], None] | None = None,
    ahead: int = 0,
) -> Iterator[tuple[int, Pixels]]:
    """Apply `function` tile by tile, blend, and give whole rows as they are finished, so that no more than a row of
    tiles need be held as floats.

    Args:
        window: gives the float32 (C, h, w) pixels of a slice of rows and one of columns.
        height, width: of the image.
        function: (C, h, w) -> (C, h, w), called once for each tile, in reading order.
        tile: side of a tile in pixels, a multiple of 8, at least twice the overlap.
        overlap: least pixels shared by neighbours, a multiple of 8.
        on_tile: called after each tile.
        ahead: tiles whose pixels are fetched by threads while `function` works, if that leaves the CPU idle.

    Yields:
        The number of the first row, and float32 (C, rows, W).

    Raises:
        UsageError: tile or overlap is not as above.
    """
    rows, columns = plan_axis(height, tile, overlap), plan_axis(width, tile, overlap)
    nexts = [*(row.start for row in rows[1:]), height]
    unfinished: Pixels | None = None
    places = [(slice(row.start, row.stop), slice(column.start, column.stop)) for row in rows for column in columns]
    pixels = _got_ahead(window, places, ahead) if ahead else (window(*place) for place in places)
    for row, stop in zip(rows, nexts, strict=True):
        band: Pixels | None = None
        for column in columns:
            done = function(next(pixels))
            if band is None:
                band = np.zeros((len(done), row.stop - row.start, width), np.float32)
            _add_weighted(band[:, :, column.start : column.stop], done, row.weight, column.weight)
            if on_tile:
                on_tile()
        assert band is not None
        if unfinished is not None:
            band[:, : unfinished.shape[1]] += unfinished
        yield row.start, band[:, : stop - row.start]
        unfinished = band[:, stop - row.start :]


def tiled_bands(
    window: Callable[[slice, slice], Pixels],
    height: int,
    width: int,
    function: Callable[[Pixels], Pixels],
    tile: int,
    overlap: int,
    on_tile: Callable[[], None] | None = None,
    ahead: int = 0,
) -> Iterator[tuple[tuple[slice, ...], Pixels]]:
    """`tiled_rows`, or the same by columns where these are shorter: two rows (or columns) of tiles are held as floats.

    Yields:
        An index into the image (C, H, W), and float32 pixels for that place.
    """
    how = tile, overlap, on_tile, ahead
    if width <= height:
        for top, rows in tiled_rows(window, height, width, function, *how):
            yield np.s_[:, top : top + rows.shape[1]], rows
        return

    def turned_window(columns: slice, rows: slice) -> Pixels:
        return _turned(window(rows, columns))

    def turned_function(pixels: Pixels) -> Pixels:
        return _turned(function(_turned(pixels)))

    for left, columns in tiled_rows(turned_window, width, height, turned_function, *how):
        yield np.s_[:, :, left : left + columns.shape[1]], _turned(columns)


def _turned(pixels: Pixels) -> Pixels:
    """Rows and columns swapped."""
    return pixels.transpose(0, 2, 1)


def _got_ahead(
    window: Callable[[slice, slice], Pixels], places: Sequence[tuple[slice, slice]], ahead: int
) -> Iterator[Pixels]:
    """What `window` gives for each place, in order; up to `ahead` of them are fetched in advance by threads."""
    left = iter(places)
    with ThreadPoolExecutor(ahead) as pool:
        begun = deque(pool.submit(window, *place) for place in islice(left, ahead))
        while begun:
            done = begun.popleft().result()
            begun.extend(pool.submit(window, *place) for place in islice(left, 1))
            yield done


def _add_weighted(total: Pixels, tile: Pixels, down: Pixels, across: Pixels) -> None:
    """Add a tile to the total, (C, h, w), weighted by row and column; the many weights of 1 are not multiplied."""
    for rows, rows_are_whole in _runs(down):
        for columns, columns_are_whole in _runs(across):
            part = tile[:, rows, columns]
            if not rows_are_whole:
                part = part * down[rows, None]
            if not columns_are_whole:
                part = part * across[columns]
            total[:, rows, columns] += part


def _runs(weight: Pixels) -> Iterator[tuple[slice, bool]]:
    """Slices of an axis, each with whether its weights are all 1; else none of them is."""
    whole = weight == 1
    bounds = [0, *(np.flatnonzero(whole[1:] != whole[:-1]) + 1), len(weight)]
    for start, stop in pairwise(bounds):
        yield slice(start, stop), bool(whole[start])


def run_tiled(image: Pixels, function: Callable[[Pixels], Pixels], tile: int, overlap: int) -> Pixels:
    """`tiled_bands` of an array in memory, put together.

    Args:
        image: float32 (C, H, W).
        function, tile, overlap: see `tiled_rows`.

    Returns:
        float32 (C, H, W).

    Raises:
        UsageError: see `tiled_rows`.
    """
    _, height, width = image.shape
    result = np.empty_like(image)
    for place, band in tiled_bands(lambda y, x: image[:, y, x], height, width, function, tile, overlap):
        result[place] = band
    return result


def halving(function: Callable[[Pixels], Pixels], overlap: int) -> Callable[[Pixels], Pixels]:
    """Make `function` split a tile that is too large for its device's memory into tiles of half the side, and these
    again, down to twice the overlap.

    Raises:
        OutOfMemoryError: the smallest tile is too large.
    """

    def serve(image: Pixels) -> Pixels:
        try:
            return function(image)
        except OutOfMemoryError:
            half = max(image.shape[1:]) // 2 // GRID * GRID
            if half < 2 * overlap:
                raise
        return run_tiled(image, serve, half, overlap)

    return serve
