"""Converting intensities between data types and the network's floats; blocks and half-size versions of images."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

BITS = {"uint8": 8, "uint16": 16, "float32": 32}
"""Bits a channel of the data types that pictures come in."""
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Shares of red, green and blue in gray (ITU-R BT.601)."""
SIDE = 8
"""Side in pixels of the blocks in which images are looked at."""
MOST_BLOCKS, ENOUGH_BLOCKS = 6000, 200
_ROWS = 256
"""Rows of a picture that are held as floats at once."""


def to_unit(data: NDArray[Any]) -> NDArray[np.float32]:
    """Values of a data type as float32, integers scaled to [0, 1]."""
    scale = np.iinfo(data.dtype).max if data.dtype.kind == "u" else 1
    return data.astype(np.float32) / np.float32(scale)


def from_unit(values: NDArray[np.float32], depth: str) -> NDArray[Any]:
    """Values in [0, 1] as a data type: integers clipped, scaled and rounded, floats as they are."""
    if depth == "float32":
        return values.astype(np.float32, copy=False)
    top = np.iinfo(depth).max
    rounded: NDArray[Any] = np.rint(np.clip(values, 0, 1) * np.float32(top)).astype(depth)
    return rounded


def by_rows(
    function: Callable[..., NDArray[Any]], *planes: NDArray[Any], result: NDArray[Any] | None = None
) -> NDArray[Any]:
    """Apply a function to planes (..., H, W) a few rows at a time, so that it needs little memory.

    Args:
        function: takes rows of each of the planes, and gives as many rows.
        planes: of one height.
        result: where the rows are put, which may be one of the planes; new memory by default, of (C, H, W) laid out as
            files have it, channels last.
    """
    for top in range(0, planes[0].shape[-2], _ROWS):
        rows = function(*(plane[..., top : top + _ROWS, :] for plane in planes))
        if result is None:
            shape = (planes[0].shape[-2], rows.shape[-1], *rows.shape[:-2])
            result = np.moveaxis(np.empty(shape, rows.dtype), (0, 1), (-2, -1))
        result[..., top : top + _ROWS, :] = rows
    assert result is not None
    return result


def as_depth(values: NDArray[Any], depth: str) -> NDArray[Any]:
    """Planes (..., H, W) as another data type; those that have it already are not touched."""
    if str(values.dtype) == depth:
        return values
    return by_rows(lambda rows: from_unit(to_unit(rows), depth), values)


def blocks_of(image: NDArray[Any], seen: NDArray[np.bool_] | None = None) -> NDArray[Any]:
    """Blocks spread evenly over an image, about MOST_BLOCKS of them where there are so many.

    Args:
        image: (C, H, W), no smaller than a block.
        seen: (H, W), the pixels that count; None for all. Where fewer than ENOUGH_BLOCKS blocks fit among them, all
            pixels count of a rectangle around them in which so many fit, or as many as fit in the image.

    Returns:
        (N, C, SIDE, SIDE).
    """
    windows = sliding_window_view(image, (SIDE, SIDE), axis=(1, 2))  # (C, h, w, SIDE, SIDE)
    places = None if seen is None else within(seen, SIDE)
    count = windows.shape[1] * windows.shape[2] if places is None else int(places.sum())
    if seen is not None and count < ENOUGH_BLOCKS:
        rows, columns = _around(seen)
        return blocks_of(image[:, rows, columns])
    step = max(1, round(math.sqrt(count / MOST_BLOCKS)))
    taken = windows[:, ::step, ::step].transpose(1, 2, 0, 3, 4)
    if places is None:
        return taken.reshape(-1, image.shape[0], SIDE, SIDE)
    met = places[::step, ::step]
    if met.sum() < ENOUGH_BLOCKS:  # the steps miss most places, as with a regular pattern of transparency
        down, across = (index[:: step * step] for index in np.nonzero(places))
        return windows[:, down, across].swapaxes(0, 1)
    blocks: NDArray[Any] = taken[met]
    return blocks


def _around(seen: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Rows and columns of a rectangle around what is seen in which ENOUGH_BLOCKS blocks fit, if the image allows it."""
    slices = [slice(0), slice(0)]
    places = math.ceil(math.sqrt(ENOUGH_BLOCKS))
    for axis in np.argsort(seen.shape):  # the longer one makes up for what the other lacks
        length = seen.shape[axis]
        there = np.flatnonzero(seen.any(axis=1 - axis))
        first, stop = (int(there[0]), int(there[-1]) + 1) if len(there) else (0, length)
        many = max(stop - first, min(SIDE - 1 + places, length))
        first = min(max(first - (many - (stop - first)) // 2, 0), length - many)
        slices[axis] = slice(first, first + many)
        places = math.ceil(ENOUGH_BLOCKS / max(many - SIDE + 1, 1))
    return slices[0], slices[1]


def within(mask: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """Where blocks fit into a mask (H, W): whether all pixels of the block that begins there are set,
    (H - side + 1, W - side + 1), without rows or columns where a side is negative."""
    height, width = (max(length - side + 1, 0) for length in mask.shape)
    across = mask[:, :width].copy()
    for k in range(1, side):
        across &= mask[:, k : k + width]
    places = across[:height].copy()
    for k in range(1, side):
        places &= across[k : k + height]
    return places


def halved(channels: NDArray[Any]) -> NDArray[Any]:
    """Means of 2x2 pixels, the last row or column repeated where their number is odd.

    Args:
        channels: (C, H, W): uint8, uint16 or float32.

    Returns:
        (C, H / 2, W / 2), rounded up: uint16 of integers, else float32.
    """
    kind = channels.dtype.kind
    rows = _pairs(channels, 1, np.uint16 if channels.dtype == np.uint8 else np.uint32 if kind == "u" else np.float32)
    total = _pairs(rows, 2, rows.dtype.type)
    means: NDArray[Any]
    if channels.dtype == np.uint8:
        means = total * np.uint16(64) + total // np.uint16(4)  # 65535 is 64.25 times 4 * 255
    else:
        means = (total // np.uint32(4)).astype(np.uint16) if kind == "u" else total / np.float32(4)
    return means


def halved_mask(seen: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
    """The mask for an image made smaller by `halved`: where all pixels averaged are seen, (H, W) -> (H / 2, W / 2),
    rounded up; None (all) gives None."""
    return None if seen is None else halved(seen[None].astype(np.float32))[0] == 1


def _pairs(image: NDArray[Any], axis: int, dtype: type[np.generic]) -> NDArray[Any]:
    """Sums of pairs along an axis."""
    size = image.shape[axis]
    if size % 2:
        image = np.concatenate([image, np.take(image, [size - 1], axis)], axis)
    even, odd = (tuple(slice(k, None, 2) if a == axis else slice(None) for a in range(3)) for k in (0, 1))
    total: NDArray[Any] = np.add(image[even], image[odd], dtype=dtype)
    return total
