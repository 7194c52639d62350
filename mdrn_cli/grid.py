"""Recognizes a picture that has been through JPEG, in whatever format it is now, by the grid of JPEG's blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from mdrn_cli.blocks import energies_of
from mdrn_cli.pixels import LUMA, SIDE, to_unit, within

HIGH = np.add(*np.indices((SIDE, SIDE))).ravel() >= 5
"""Mask of the frequencies that JPEG suppresses most."""
NONE = 0.5
"""Amplitude below which a frequency counts as absent, 0-255 scale; rounding to 8 bits leaves 0.3."""
MOST_PLACES, LEAST_PLACES = 400, 30
"""How many cells of the grid are looked at at most, and how many there must be at least."""
CLEAR = 0.28
"""Value of `grid_excess` above which an image counts as JPEG: most photographs of quality 93 and less exceed it, few of
97 do. Chosen on validation photographs."""


def is_through_jpeg(image: NDArray[Any], seen: NDArray[np.bool_] | None = None) -> bool:
    """Whether an image has been through JPEG and lost much there; False if it was resized or given noise since.

    Args:
        image: (C, H, W), C being 1 or 3: uint8, uint16, or floats with intensities in [0, 1].
        seen: (H, W), the pixels that count; None for all.
    """
    return grid_excess(image, seen) > CLEAR


def grid_excess(image: NDArray[Any], seen: NDArray[np.bool_] | None = None) -> float:
    """How much larger the share of absent high frequencies is on the best of the 64 possible grids of blocks than on
    the next best, relative to what is left to 1: near 0 without a JPEG grid, 0 if the image is too small, 1 at most.

    Args:
        image, seen: as for `is_through_jpeg`.
    """
    side = 2 * SIDE - 1  # holds a block at each of the SIDE x SIDE offsets
    if min(image.shape[1:]) < side:
        return 0.0
    windows = sliding_window_view(image, (side, side), axis=(1, 2))[:, ::SIDE, ::SIDE]  # (C, h, w, side, side)
    places = np.ones(windows.shape[1:3], bool) if seen is None else within(seen, side)[::SIDE, ::SIDE]
    rows, columns = np.nonzero(places)
    if len(rows) < LEAST_PLACES:
        return 0.0
    chosen = np.linspace(0, len(rows) - 1, min(MOST_PLACES, len(rows))).astype(int)
    parts = to_unit(windows[:, rows[chosen], columns[chosen]]) * np.float32(255)
    parts = np.einsum("c,cnij->nij", LUMA, parts) if len(parts) == 3 else parts[0]
    shares = [
        (energies_of(parts[:, None, top : top + SIDE, left : left + SIDE])[..., HIGH] < NONE**2).mean()
        for top in range(SIDE)
        for left in range(SIDE)
    ]
    next_most, most = np.sort(shares)[-2:]
    return float((most - next_most) / (1 - next_most)) if next_most < 1 else 0.0
