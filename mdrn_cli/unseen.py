"""Colors under full transparency: whatever a program has left there, and nothing that a network should see."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdrn_cli.blocks import SIDE
from mdrn_cli.coarse import SCALES
from mdrn_cli.picture import Picture
from mdrn_cli.pixels import ENOUGH_BLOCKS, wholly_seen, within

REACH = 64
"""Pixels beyond what is seen that are filled: farther away nothing matters to what is seen."""
_ROWS = 128
"""Of an image worked on at once."""
_NOWHERE = np.int32(1 << 29)


def filled(picture: Picture) -> Picture:
    """A picture as its noise is to be looked for and removed: see `with_unseen_filled`."""
    if picture.seen is None:
        return picture
    return replace(picture, channels=with_unseen_filled(picture.channels, picture.seen))


def filled_if_needed(picture: Picture) -> Picture:
    """The same where noise is only to be looked for, at each size: not where blocks enough are wholly seen, which is
    where no others count."""
    seen = picture.seen
    for _ in range(1 + SCALES):
        if seen is not None and within(seen, SIDE).sum() < ENOUGH_BLOCKS:
            return filled(picture)
        seen = wholly_seen(seen)
    return picture


def with_unseen_filled(channels: NDArray[Any], seen: NDArray[np.bool_]) -> NDArray[Any]:
    """An image in which what is seen goes on beyond its outline, mirrored there, noise and all: of another color beside
    it a network makes an edge, and blurs what is seen into that.

    Args:
        channels: (C, H, W) of any data type.
        seen: (H, W).

    Returns:
        A copy, filled as far as REACH; the rest is 0, for what is there may be of any size in floats.
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
            part, _ = _continued(part, known)  # what has nothing seen in its row or column is beside what is filled now
        result[:, top:stop, columns] = part[:, top - near.start : stop - near.start]
    return result


def _continued(rows: NDArray[Any], known: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Rows (C, h, w) whose pixels that are not known are as far inwards of the nearest known one in their row or column
    as they lie outwards of it, or that one itself where what is there is not known; and which are known now."""
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
