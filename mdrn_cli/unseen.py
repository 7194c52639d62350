"""Pixels under full transparency hold whatever a program left there; they are filled before a network sees them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdrn_cli.coarse import SCALES
from mdrn_cli.picture import Picture
from mdrn_cli.pixels import ENOUGH_BLOCKS, SIDE, halved_mask, within

REACH = 64
"""How many pixels beyond what is seen are filled: farther ones do not affect what is seen."""
_ROWS = 128
"""Rows of an image worked on at once."""
_NOWHERE = np.int32(1 << 29)
"""Position that stands for no known pixel: farther than any image reaches."""


def filled(picture: Picture) -> Picture:
    """A picture prepared for estimating and removing noise: see `with_unseen_filled`."""
    if picture.seen is None:
        return picture
    return replace(picture, channels=with_unseen_filled(picture.channels, picture.seen))


def filled_if_needed(picture: Picture) -> Picture:
    """`filled` for a picture whose noise is only estimated: unchanged if at every size enough blocks are wholly seen,
    for then only those count."""
    seen = picture.seen
    for _ in range(1 + SCALES):
        if seen is not None and within(seen, SIDE).sum() < ENOUGH_BLOCKS:
            return filled(picture)
        seen = halved_mask(seen)
    return picture


def with_unseen_filled(channels: NDArray[Any], seen: NDArray[np.bool_]) -> NDArray[Any]:
    """An image in which what is seen is continued beyond its outline by mirroring, noise and all. Beside another color
    a network would see an edge, and blur what is seen into it.

    Args:
        channels: (C, H, W) of any data type.
        seen: (H, W).

    Returns:
        A copy, filled up to REACH pixels away; the rest is 0, as floats there may have any value.
    """
    result = channels.copy(order="K")
    np.copyto(result, result.dtype.type(0), where=~seen)
    height = len(seen)
    for top in range(0, height, _ROWS):
        stop = min(top + _ROWS, height)
        near = slice(max(top - REACH, 0), min(stop + REACH, height))
        there = np.flatnonzero(seen[near].any(axis=0))
        if not len(there) or seen[top:stop].all():
            continue
        columns = slice(max(int(there[0]) - REACH, 0), int(there[-1]) + REACH + 1)
        part, known = _continued(channels[:, near, columns], seen[near, columns])
        if not known.all():
            part, _ = _continued(part, known)  # now also where nothing is seen in the same row or column
        result[:, top:stop, columns] = part[:, top - near.start : stop - near.start]
    return result


def _continued(rows: NDArray[Any], known: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Rows (C, h, w) with unknown pixels mirrored at the nearest known one in their row or column; where the mirror
    image is unknown, too, that nearest one is repeated. And a mask of the pixels known now."""
    height, width = known.shape
    places = np.arange(height, dtype=np.int32)[:, None], np.arange(width, dtype=np.int32)[None]
    nearest = np.full(known.shape, _NOWHERE)
    sources = [np.broadcast_to(place, known.shape) for place in places]
    for axis, place in enumerate(places):
        before = np.maximum.accumulate(np.where(known, place, -_NOWHERE), axis)
        after = np.flip(np.minimum.accumulate(np.flip(np.where(known, place, _NOWHERE), axis), axis), axis)
        for edge, inwards in ((before, 1), (after, -1)):
            distance = np.abs(place - edge)
            last = known.shape[axis] - 1
            mirrored = np.clip(2 * edge - place + inwards, 0, last)
            met = np.take_along_axis(known, mirrored, axis)
            nearer = distance < nearest
            nearest[nearer] = distance[nearer]
            for along, source in enumerate(places):
                taken = np.where(met, mirrored, np.clip(edge, 0, last)) if along == axis else source
                sources[along] = np.where(nearer, taken, sources[along])
    found = ~known & (nearest < _NOWHERE // 2)
    continued = rows.copy(order="K")
    continued[:, found] = rows[:, sources[0][found], sources[1][found]]
    return continued, known | found
