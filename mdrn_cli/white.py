"""What is white in a picture: not always the largest value of its data type."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdrn_cli.errors import InputError
from mdrn_cli.picture import Picture

NARROW = 1 << 12
"""Number of intensities of 12-bit cameras, which are often stored unscaled in files of 16 bits."""
WHITE_SIDE = 8
"""Side in pixels of blocks whose means show how bright a picture is, without its noise."""
BEYOND_WHITE, FLOAT_LIMIT = 1.05, 4.0
"""The brightest block mean of a float picture: above the first it goes beyond white, above the second 1 cannot be
white in it."""
BELOW_BLACK = -0.3
"""Block mean below which 0 is hardly black in a float picture: noise of the highest level around black stays above, as
do colors outside a profile's gamut."""


def whitened(picture: Picture, white: float | None) -> Picture:
    """A picture scaled for estimating and removing noise: white at 1, or at the largest integer.

    Args:
        picture: as it was read.
        white: what is white, in the values of the file; None for the largest value of its data type, or 1 in floats,
            with a warning where that seems wrong.

    Raises:
        InputError: integers go beyond white, or floats far beyond 1 or below 0.
    """
    scaled = _told_of_unused_bits(picture) if white is None else picture.whitened(white)
    white_of(scaled)
    return _told_of_other_black(scaled)


def _told_of_unused_bits(picture: Picture) -> Picture:
    if picture.depth == "uint16" and 0 < (top := int(picture.most_seen)) < NARROW:
        return picture.warned(f"intensities reach {top} of 65535 only: if that is white, give --white {top}")
    return picture


def _told_of_other_black(picture: Picture) -> Picture:
    if picture.depth != "float32" or picture.least_seen >= BELOW_BLACK:
        return picture
    least = float(_seen_means(picture).min())
    if least >= BELOW_BLACK:
        return picture
    told = f"floats should be from 0 to 1, and these reach down to {least:.2f}"
    return picture.warned(f"{told}: if they are from -1 to 1, convert them by (x + 1) / 2")


def white_of(picture: Picture) -> float:
    """The intensity that networks are to see as 1: above 1 for a float picture whose seen part, noise apart, goes
    beyond 1.

    Raises:
        InputError: it goes so far that its values must mean something else, or any value is as far below black.
    """
    if picture.depth != "float32":
        return 1.0
    if (least := picture.least_seen) < -FLOAT_LIMIT:  # even a single one would spoil everything around it
        raise InputError(
            f"floats should be from 0 to 1, and these reach down to {least:.4g}",
            "replace values that stand for no data, or hide them by an alpha",
        )
    white = float(_seen_means(picture).max())
    if white > FLOAT_LIMIT:
        raise InputError(f"floats should be from 0 to 1, and these reach {white:.4g}", "give --white VALUE")
    return white if white > BEYOND_WHITE else 1.0


def _seen_means(picture: Picture) -> NDArray[Any]:
    """Means of the blocks that are wholly seen; where there are none, of the seen pixels of the others."""
    if picture.seen is None:
        return _block_means(picture.channels)
    seen = _block_means(picture.seen[None])[0]
    if (seen == 1).any():
        return _block_means(picture.channels)[:, seen == 1]
    if not seen.any():
        return np.zeros((len(picture.channels), 1), np.float32)
    means = _block_means(np.where(picture.seen, picture.channels, np.float32(0)))
    means[:, seen > 0] /= seen[seen > 0]
    return means


def _block_means(planes: NDArray[Any]) -> NDArray[Any]:
    """Means of (C, H, W) over squares of WHITE_SIDE pixels a side; an incomplete last row or column is left out."""
    _, height, width = planes.shape
    rows, columns = min(WHITE_SIDE, height), min(WHITE_SIDE, width)
    whole = planes[:, : height // rows * rows, : width // columns * columns]
    with np.errstate(over="ignore", invalid="ignore"):  # transparent floats may have any value
        means: NDArray[Any] = whole.reshape(len(whole), height // rows, rows, width // columns, columns).mean((2, 4))
    return means
