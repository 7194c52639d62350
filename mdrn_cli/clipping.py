"""Undoes the clipping of noise: a file has nothing below black or above white.

Near these ends noise no longer has the mean 0 that a network expects, so results are too dark near white and too light
near black: paper turns gray. So the mean is corrected before the network sees the picture."""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdrn_cli.pixels import within

WINDOW = 11
"""Side in pixels of the square around a pixel in which those at an end are counted."""
SOLID = 5
"""Side in pixels of squares that lie wholly at an end only where there is no noise: margins, bars, blown skies."""
FARTHEST = 3.0
"""Limit for a pixel's distance from an end, in noise levels: farther away it is not noise about that end."""
NEAR = 2.0
"""Distance from an end, in noise levels, within which a pixel may be that end plus noise."""
NOT_TOLD = 0.5
"""Distance from an end, in noise levels, within which a pixel counts as cut off: JPEG moves those that were so far."""
HELD = (0.2, 0.8)
"""Shares of cut-off pixels between which a block gives an estimate of the noise level."""
FEW_TELL, MOST_TELL = 0.5, 0.8
"""Shares of such blocks in the image: up to the first their estimate is not used, from the second on it alone is."""
ALIKE, MOST_LOST = 1.4, 1.7
"""Limits from which on what lies at an end is not noise: of the third over the first quartile of the blocks' levels,
and of their median over the level seen."""


def unclipped(image: NDArray[np.float32], sigma: float | tuple[float, float], is_white: bool) -> NDArray[np.float32]:
    """An image whose noise has the mean 0 at black and white, too.

    As noise is Gaussian, the share of surrounding pixels at an end gives the distance of the true intensity from it;
    with the mean distance of the other pixels that gives how far, on average, the clipped noise went beyond. Where a
    whole square of SOLID pixels is at the end there is no noise, and its pixels are left out.

    Args:
        image: (C, h, w), clipped to [0, 1].
        sigma: noise level, 0-255 scale, or those in black and in white.
        is_white: whether the noise is white: then the pixels at an end are moved beyond it, as a network expects such
            noise. It would leave more of other noise that way, so there all pixels near the end move by the mean.

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
    """The part of a plane (h, w) that the pixels of a mask, some of which are set, can affect."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    top, left = (max(int(held[0]) - WINDOW, 0) for held in (rows, columns))
    return slice(top, int(rows[-1]) + WINDOW + 1), slice(left, int(columns[-1]) + WINDOW + 1)


def _beyond(
    inside: NDArray[np.float32], at_end: NDArray[np.bool_], level: np.float32, is_white: bool
) -> NDArray[np.float32]:
    """How far to move pixels (h, w) outwards, given how far `inside` of an end they are; in units of `inside`."""
    solid, farness = solid_part(at_end), np.minimum(inside, FARTHEST * level)
    counted: NDArray[np.float32] | np.float32 = np.float32(1)
    if solid.any():
        at_end, farness = at_end & ~solid, np.where(solid, np.float32(0), farness)
        counted = np.maximum(_mean(~solid, at_end), np.float32(1e-3))
    share = _mean(at_end, at_end) / counted
    others = np.maximum(1 - share, np.float32(1e-3))
    depth = _mean(farness, at_end) / counted / others  # mean distance of those not at the end
    most = level * np.float32(math.sqrt(2 / math.pi))  # where the true intensity is the end itself
    excess = np.zeros_like(inside)
    shares, beyond, within_end = _parts()
    excess[at_end] = np.minimum(depth * np.interp(share, shares, beyond / within_end), most) * np.minimum(1, 2 * others)
    if is_white:
        return excess
    near = (inside < NEAR * level) & ~solid
    moved: NDArray[Any] = near * _mean(excess) / np.maximum(_mean(near), np.float32(1e-3))
    return moved


def unclipped_level(blocks: NDArray[np.float32], seen: float) -> float:
    """Noise level before clipping, which leaves as little as 0.6 of it in very dark or very light images.

    As noise is Gaussian, it follows from the share of a block's pixels near an end and the distance of the others.

    Args:
        blocks: (N, C, side, side), intensities from 0 to 255.
        seen: the noise level after clipping, 0-255 scale.

    Returns:
        The level on that scale, `seen` itself where few blocks are near an end, or where what lies there is not noise.
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
            limit = (inside[near].max() + inside[~near].min()) / 2  # between the near and the others
            depth = np.where(near, 0, inside - limit).sum(axis=1) / (~near).sum(axis=1)
            shares, _, rest = _parts(1.0)
            levels.append(depth / np.interp(share[held], shares, rest))
    told = np.concatenate([*levels, np.empty(0)])
    trust = min((len(told) / len(planes) - FEW_TELL) / (MOST_TELL - FEW_TELL), 1.0)
    if trust <= 0:
        return seen
    low, level, high = np.quantile(told, (0.25, 0.5, 0.75))
    is_noise = high < ALIKE * low and level < MOST_LOST * seen
    return float(seen * (level / seen) ** trust) if is_noise else seen


@lru_cache
def _parts(farthest: float = 0.0) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """For true intensities from 4 inside an end to `farthest` beyond it: the share of Gaussian noise that is beyond
    the end, and the mean distances from the end of that and of the rest. Distances are in noise levels."""
    distances = np.linspace(-4, farthest, 401)
    shares = np.array([math.erfc(-t / math.sqrt(2)) / 2 for t in distances])
    density = np.exp(-(distances**2) / 2) / math.sqrt(2 * math.pi)
    return shares, distances + density / shares, density / (1 - shares) - distances


def solid_part(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The part of a mask that is covered by squares of SOLID x SOLID pixels lying wholly within it."""
    begun = np.pad(within(mask, SOLID), SOLID - 1)
    covered = ~within(~begun, SOLID)
    return covered if covered.shape == mask.shape else np.zeros_like(mask)  # no square fits in


def _window_sums(counts: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Sums of each WINDOW (11 = 8 + 2 + 1) consecutive rows."""
    size = len(counts) - WINDOW + 1
    two = counts[:-1] + counts[1:]
    four = two[:-2] + two[2:]
    eight = four[:-4] + four[4:]
    sums: NDArray[np.uint8] = eight[:size] + two[8 : 8 + size] + counts[10 : 10 + size]
    return sums


def _mean(plane: NDArray[Any], where: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
    """Means over the window around each pixel of (h, w), mirrored beyond its borders: (h, w), or with a mask (n,), for
    the n pixels where it is set."""
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
