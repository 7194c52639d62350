"""Tells a picture that has been through JPEG, in whatever format it is now, by the grid of the blocks of that."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from mdrn_cli.blocks import SIDE, energies_of
from mdrn_cli.pixels import LUMA, to_unit, within

HIGH = np.add(*np.indices((SIDE, SIDE))).ravel() >= 5
"""Frequencies of which JPEG leaves least."""
NONE = 0.5
"""Amplitude on the 0-255 scale below which a frequency is taken for none; rounding to 8 bits leaves 0.3."""
MOST_PLACES, LEAST_PLACES = 400, 30
"""Of blocks looked at, and that there must be."""
CLEAR = 0.28
"""Excess from which on noise is that of JPEG: of quality 93 and less most photographs have it, of 97 few do. Chosen on
validation photographs."""


def is_through_jpeg(image: NDArray[Any], seen: NDArray[np.bool_] | None = None) -> bool:
    """Whether an image has been through JPEG, and much was lost there: not where it has been resized or noise has been
    added since.

    Args:
        image: (C, H, W), C being 1 or 3: uint8, uint16, or floats with intensities in [0, 1].
        seen: (H, W), the pixels that count; None for all.
    """
    return grid_excess(image, seen) > CLEAR


def grid_excess(image: NDArray[Any], seen: NDArray[np.bool_] | None = None) -> float:
    """By how much more of the high frequencies are none in the blocks of JPEG than in those of any other grid, of what
    there could be; about 0 of an image that has no such blocks, or is too small to tell.

    Args:
        image, seen: as for `is_through_jpeg`.
    """
    side = 2 * SIDE - 1  # a block at any place of the grid, beginning at one in the first
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
