"""What noise lost when a picture was stored: a file has nothing below black or above white.

There noise has no longer the mean 0 that a network expects, and what it gives is too dark near white and too light
near black: paper turns gray. So the mean is mended before the network sees the picture."""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdrn_cli.pixels import within

WINDOW = 11
"""Side in pixels of the square whose pixels are counted."""
SOLID = 5
"""Side of squares that are all at an end only where there is no noise: margins, bars, blown skies."""
FARTHEST = 3.0
"""Noise levels from an end beyond which a pixel is no noise of that end."""
NEAR = 2.0
"""Noise levels from an end up to which a pixel may show that end with noise."""
NOT_TOLD = 0.5
"""Noise levels from an end up to which a pixel tells no more than that: JPEG moves what was cut off that far."""
HELD = (0.2, 0.8)
"""Shares of a block's pixels that are so near an end, between which they tell the noise level."""
FEW_BLOCKS, MOST_BLOCKS = 0.5, 0.8
"""Shares of such blocks in the image: below the first nothing is told, above the second the others do not count."""
ALIKE, MOST_LOST = 1.4, 1.7
"""From which on what lies at the end is no noise: third quartile of the levels that blocks tell over the first, and
level over what is seen of it."""


def unclipped(image: NDArray[np.float32], sigma: float | tuple[float, float], is_white: bool) -> NDArray[np.float32]:
    """An image whose noise has the mean 0 at black and white, too.

    How many pixels around lie at an end tells how far the true intensity is from it, for noise is Gaussian; that, and
    how far the others are, tells how far the noise of those at the end went beyond. Where all do there is no noise, and
    these pixels do not count.

    Args:
        image: (C, h, w), clipped to [0, 1].
        sigma: noise level, 0-255 scale, or those in black and in white.
        is_white: whether noise is, so that a network expects all of it: then the pixels at the end are moved beyond.
            Of other noise it would leave the more, so all pixels near the end are moved by their mean.

    Returns:
        float32 (C, h, w), not clipped; the image itself where nothing is at an end.
    """
    in_black, in_white = sigma if isinstance(sigma, tuple) else (sigma, sigma)
    result = image
    for end, outwards, sigma_there in ((0, -1, in_black), (1, 1, in_white)):
        level = np.float32(sigma_there / 255)
        for plane, channel in enumerate(image):
            at_end = channel == end
            if at_end.any() and not at_end.all():
                result = image.copy() if result is image else result
                place = _about(at_end)
                inside = np.abs(channel[place] - np.float32(end))
                result[plane][place] += np.float32(outwards) * _beyond(inside, at_end[place], level, is_white)
    return result


def _about(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    """The part of a plane (h, w) that anything held by a mask has to do with."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    top, left = (max(int(held[0]) - WINDOW, 0) for held in (rows, columns))
    return slice(top, int(rows[-1]) + WINDOW + 1), slice(left, int(columns[-1]) + WINDOW + 1)


def _beyond(
    inside: NDArray[np.float32], at_end: NDArray[np.bool_], level: np.float32, is_white: bool
) -> NDArray[np.float32]:
    """How far pixels (h, w) that are `inside` of an end by so much are to be moved beyond it."""
    solid, farness = solid_part(at_end), np.minimum(inside, FARTHEST * level)
    counted: NDArray[np.float32] | np.float32 = np.float32(1)
    if solid.any():
        at_end, farness = at_end & ~solid, np.where(solid, np.float32(0), farness)
        counted = np.maximum(_mean(~solid, at_end), np.float32(1e-3))
    share = _mean(at_end, at_end) / counted
    others = np.maximum(1 - share, np.float32(1e-3))
    depth = _mean(farness, at_end) / counted / others  # of those that are not at the end
    most = level * np.float32(math.sqrt(2 / math.pi))  # where the true intensity is the end itself
    excess = np.zeros_like(inside)
    shares, beyond, within_end = _parts()
    excess[at_end] = np.minimum(depth * np.interp(share, shares, beyond / within_end), most) * np.minimum(1, 2 * others)
    if is_white:
        return excess
    near = (inside < NEAR * level) & ~solid
    moved: NDArray[Any] = near * _mean(excess) / np.maximum(_mean(near), np.float32(1e-3))
    return moved


def whole_level(blocks: NDArray[np.float32], seen: float) -> float:
    """Noise level of an image, of which less is seen where it is so dark or so light that much of its noise is cut off.

    Down to 0.6 of it is seen. All of it is told by how many of a block's pixels are near the end, and how far from it
    the others are, for noise is Gaussian.

    Args:
        blocks: (N, C, side, side), intensities from 0 to 255.
        seen: the noise level that is seen in them, on the 0-255 scale.

    Returns:
        The level on that scale, `seen` itself where few blocks are near an end, or where what lies there is no noise.
    """
    planes = blocks.reshape(len(blocks) * blocks.shape[1], -1)
    levels: list[NDArray[Any]] = []
    for end, inwards in ((0, 1), (255, -1)):
        inside = np.float32(inwards) * (planes - np.float32(end))
        if inside.min() < 0:
            continue  # nothing was cut off
        near = inside <= NOT_TOLD * seen
        share = near.mean(axis=1)
        held = (share > HELD[0]) & (share < HELD[1])
        if held.any():
            inside, near = inside[held], near[held]
            limit = (inside[near].max() + inside[~near].min()) / 2  # the farthest that was rounded to what is near
            depth = np.where(near, 0, inside - limit).sum(axis=1) / (~near).sum(axis=1)
            shares, _, rest = _parts(1.0)
            levels.append(depth / np.interp(share[held], shares, rest))
    told = np.concatenate([*levels, np.empty(0)])
    trust = min((len(told) / len(planes) - FEW_BLOCKS) / (MOST_BLOCKS - FEW_BLOCKS), 1.0)
    if trust <= 0:
        return seen
    low, level, high = np.quantile(told, (0.25, 0.5, 0.75))
    is_noise = high < ALIKE * low and level < MOST_LOST * seen
    return float(seen * (level / seen) ** trust) if is_noise else seen


@lru_cache
def _parts(farthest: float = 0.0) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Shares at an end, and the mean distances from it of Gaussian noise beyond and of the rest: of true intensities
    from 4 within to `farthest` beyond, all in noise levels."""
    distances = np.linspace(-4, farthest, 401)
    shares = np.array([math.erfc(-t / math.sqrt(2)) / 2 for t in distances])
    density = np.exp(-(distances**2) / 2) / math.sqrt(2 * math.pi)
    return shares, distances + density / shares, density / (1 - shares) - distances


def solid_part(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The part of a mask that squares of SOLID pixels a side within it cover."""
    begun = np.pad(within(mask, SOLID), SOLID - 1)
    covered = ~within(~begun, SOLID)
    return covered if covered.shape == mask.shape else np.zeros_like(mask)  # no square fits in


def _window_sums(counts: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Sums of WINDOW (11 = 8 + 2 + 1) rows one after another."""
    size = len(counts) - WINDOW + 1
    two = counts[:-1] + counts[1:]
    four = two[:-2] + two[2:]
    eight = four[:-4] + four[4:]
    sums: NDArray[np.uint8] = eight[:size] + two[8 : 8 + size] + counts[10 : 10 + size]
    return sums


def _mean(plane: NDArray[Any], where: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
    """Means over the window about each pixel of (h, w), which is mirrored beyond its borders; of a mask's pixels alone,
    one after another, where there is one."""
    padded = np.pad(plane, WINDOW // 2, "symmetric")
    if padded.dtype == bool:  # counts of 121 at most, which is exact
        counts = _window_sums(_window_sums(padded.view(np.uint8)).T).T
        means = (counts if where is None else counts[where]).astype(np.float32)
        means /= WINDOW**2
        return means
    sums = np.ascontiguousarray(padded, np.float32)
    for above, row in pairwise(sums):  # faster than cumsum down the columns, and the same
        row += above
    rows = sums[WINDOW - 1 :].copy()
    rows[1:] -= sums[:-WINDOW]
    sums = np.zeros((len(rows), rows.shape[1] + 1), np.float32)
    np.cumsum(rows, axis=1, out=sums[:, 1:])
    if where is None:
        means = sums[:, WINDOW:] - sums[:, :-WINDOW]
    else:
        first = np.flatnonzero(where)
        first += first // where.shape[1] * WINDOW  # as it lies in the sums, whose rows are longer
        flat = sums.ravel()
        means = flat[first + WINDOW] - flat[first]
    means /= WINDOW**2
    return means
