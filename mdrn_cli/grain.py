"""How much coarse grain an image has: the noise level of the image at half the size, unless that is content."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdrn_cli.blocknoise import find_in_blocks
from mdrn_cli.blocks import OPPONENT, QUIET, Blocks, energies_of, looked_at
from mdrn_cli.monochrome import Tone
from mdrn_cli.pixels import SIDE, halved, halved_mask, to_unit

LEAST_COARSE = 2.0
"""Level below which coarse noise of a color image counts as none: of the halved image, and of each of its two color
differences."""
LEAST_GRAY_COARSE = 3.0
"""The same for gray, where texture may pass for noise."""
SMALLEST_HALVED = 64
"""Shortest side in pixels of a halved image whose noise is looked for."""
STEEPEST = {1: 2.0, 2: 2.2}
"""By the number of planes (1 gray, 2 color differences): the ratio of the amplitude in quiet blocks to that at twice
the size beyond which both are content: for noise smeared by a Gaussian of four pixels it is 1.8 and 1.9 at most."""
COARSE_EXCESS = 2.5
"""How many times the amplitude of the quiet blocks a level may be at most."""


def has_half(image: NDArray[Any]) -> bool:
    """Whether an image (C, H, W) is large enough for coarse grain to be looked for at half its size."""
    return bool(min(image.shape[1:]) >= 2 * SMALLEST_HALVED)


def estimate_coarse_sigma(
    half: NDArray[Any], seen: NDArray[np.bool_] | None = None, tone: Tone | None = None, white: float = 1.0
) -> float:
    """Level of the noise in a halved image, which is coarse grain in the whole one, 0-255 scale; 0 where there is none.

    At this scale texture is as sharp as noise, but seldom colored. So in color, noise is recognized by the color
    differences, and what all channels have in common is not found. In gray or one tone, texture may pass for noise.

    Args:
        half: (C, H, W), as for `estimate_sigma`.
        seen: (H, W), the pixels that count; see `blocks_of`.
        tone: that the noise follows, where an image of three channels is to be taken as gray.
        white: see `estimate_sigma`.
    """
    blocks, planes = _coarse_planes(half, seen, tone, white)
    least = LEAST_GRAY_COARSE
    if planes.shape[1] > 1:
        least = LEAST_COARSE
        if min(find_in_blocks(Blocks.of(planes[:, k : k + 1])).sigma for k in range(2)) < LEAST_COARSE:
            return 0.0
    sigma = min(find_in_blocks(blocks).sigma, COARSE_EXCESS * _quiet(planes))
    return sigma * white if sigma >= least else 0.0


def is_out_of_focus(
    half: NDArray[Any], seen: NDArray[np.bool_] | None = None, tone: Tone | None = None, white: float = 1.0
) -> bool:
    """Whether the amplitude of a halved image, as for `estimate_coarse_sigma`, grows so much from there to a quarter of
    the size that it is content, not noise: a picture out of focus or much enlarged, a relief."""
    if not has_half(half):
        return False
    _, planes = _coarse_planes(half, seen, tone, white)
    _, coarser = _coarse_planes(halved(half), halved_mask(seen), tone, white)
    return _quiet(coarser) > STEEPEST[planes.shape[1]] * _quiet(planes)


def _coarse_planes(
    half: NDArray[Any], seen: NDArray[np.bool_] | None, tone: Tone | None, white: float
) -> tuple[Blocks, NDArray[np.float32]]:
    """Blocks of an image, and the planes of them in which coarse grain is looked for: their pixels (N, 1, SIDE, SIDE)
    in gray or one tone, else the two color differences (N, 2, SIDE, SIDE)."""
    blocks = looked_at(half, seen, tone.intensity if tone else to_unit, white).without_even()
    if blocks.pixels.shape[1] == 1:
        return blocks, blocks.pixels
    return blocks, np.einsum("kc,ncij->nkij", OPPONENT[1:], blocks.pixels) + np.float32(127.5)


def _quiet(planes: NDArray[np.float32]) -> float:
    """Amplitude of all but the lowest frequencies in the quiet blocks, 0-255 scale; the larger one of two planes."""
    energy = energies_of(planes)[:, :, np.add(*np.indices((SIDE, SIDE))).ravel() >= 2].mean(axis=2)
    return math.sqrt(float(np.quantile(energy, QUIET, axis=0).max()))
