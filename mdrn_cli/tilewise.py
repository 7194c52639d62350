"""Runs a network, or any other function, over an image tile by tile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdrn_cli.ensemble import self_ensemble
from mdrn_cli.errors import MdrnError, UsageError
from mdrn_cli.pixels import to_unit
from mdrn_cli.stretch import Function
from mdrn_cli.tiling import GRID, count_tiles, halving, tiled_bands

OVERLAP, LITTLE_OVERLAP, LITTLE_NOISE = 96, 64, 25.0
"""Pixels shared by neighbouring tiles: at any noise level; and the fewer that do up to the level LITTLE_NOISE, 0-255
scale, as networks look less far where there is little noise. Tiled and whole results agree within 1/255
(tests/test_weights.py)."""

Window = Callable[[slice, slice], NDArray[np.float32]]
"""(rows, columns) -> that part of an image, (C, h, w)."""

OnTile = Callable[[int, int], None]
"""Called with (tiles done, tiles in all), first with 0 done."""


def check_tile(tile: int) -> None:
    """Refuse a side of a tile, in pixels, that cannot be used; 0, for the whole image, can.

    Raises:
        UsageError: it is no multiple of 8, or tiles would overlap by more than half.
    """
    if tile and (tile < 2 * OVERLAP or tile % GRID):
        raise UsageError(f"tile must be a multiple of {GRID}, at least {2 * OVERLAP}, or 0, not {tile}")


def overlap_at(sigma: float) -> int:
    """Pixels that neighbouring tiles share for noise of a level, 0-255 scale."""
    return LITTLE_OVERLAP if sigma <= LITTLE_NOISE else OVERLAP


def denoise_pixels(
    noisy: NDArray[np.float32],
    function: Function,
    tile: int = 0,
    ensemble: bool = False,
) -> NDArray[np.float32]:
    """Denoise an array.

    Args:
        noisy: float32 (C, H, W), intensities in [0, 1] plus noise.
        function: an Engine, or any callable on (C, h, w).
        tile: side of a tile, 0 for the whole image at once; halved where the device runs out of memory.
        ensemble: average over eight orientations of each tile.

    Returns:
        float32 (C, H, W), not clipped.

    Raises:
        OutOfMemoryError: the smallest tile is too large for the device.
        MdrnError: the network gave values that are not finite.
    """
    result = np.empty_like(noisy)
    _, height, width = noisy.shape
    bands = denoised_bands(partial(part_of, noisy), height, width, function, tile, OVERLAP, ensemble, lambda *_: None)
    for place, band in bands:
        result[place] = band
    return result


def part_of(channels: NDArray[Any], rows: slice, columns: slice) -> NDArray[np.float32]:
    """A part of (C, H, W) of any data type as floats in [0, 1]."""
    return to_unit(channels[:, rows, columns])


def denoised_bands(
    window: Window,
    height: int,
    width: int,
    function: Function,
    tile: int,
    overlap: int,
    ensemble: bool,
    on_tile: OnTile,
    ahead: int = 0,
) -> Iterator[tuple[tuple[slice, ...], NDArray[np.float32]]]:
    """As `denoise_pixels`, of an image that `window` gives in parts, `ahead` of them prepared while others are being
    denoised; yields what `tiled_bands` does. A `tile` of 0 takes the whole image."""
    function = halving(function, overlap)
    if ensemble:
        function = self_ensemble(function)
    tile = tile or max(2 * overlap, height + -height % GRID, width + -width % GRID)
    total, done = count_tiles(height, width, tile, overlap), 0
    on_tile(0, total)

    def count() -> None:
        nonlocal done
        done += 1
        on_tile(done, total)

    for place, band in tiled_bands(window, height, width, function, tile, overlap, count, ahead):
        if not np.isfinite(band).all():
            raise MdrnError("the network gave values that are not finite")
        yield place, band
