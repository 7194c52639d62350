"""How much coarse grain an image has: the level of the noise in one of half the size, and whether that is noise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdrn_cli.blocknoise import find_in_blocks
from mdrn_cli.blocks import OPPONENT, SIDE, Blocks, energies_of, looked_at
from mdrn_cli.monochrome import Tone
from mdrn_cli.pixels import halved, to_unit, wholly_seen

LEAST_COARSE = 2.0
"""Level that both differences of colors must have for noise to be seen in an image of half the size."""
LEAST_GRAY_COARSE = 3.0
"""The least level told of an image of half the size in gray, where texture may pass for noise."""
SMALLEST_HALVED = 64
"""Shortest side in pixels of an image of half the size whose noise is looked for."""
STEEPEST = {1: 2.0, 2: 2.2}
"""Amplitude in the quieter blocks over that in an image twice as large, by the number of planes, beyond which that is
content: of noise smeared by a Gaussian of four pixels it is 1.8 and 1.9 at most."""
QUIET, COARSE_EXCESS = 0.1, 2.5
"""Share of the blocks that are quieter than those by which a bound is set, and times the amplitude there that it is."""


def estimate_coarse_sigma(
    half: NDArray[Any], seen: NDArray[np.bool_] | None = None, tone: Tone | None = None, white: float = 1.0
) -> float:
    """Level of the noise in an image of half the size, that is of coarse grain in the whole one; 0 where there is none.

    So far from the pixel, texture is as sharp as noise, but seldom colored: what is noise is told by the differences of
    colors, and noise that all channels have in common is not found. In gray, or of one tone, texture may pass for it.

    Args:
        half: (C, H, W), as for `estimate_sigma`.
        seen: (H, W), the pixels that count; see `blocks_of`.
        tone: of which the noise is, where an image of three channels is taken as gray.
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
    """Whether what an image of half the size, as for `estimate_coarse_sigma`, holds of coarse structure grows so much
    from there to a quarter that it is content without noise: a picture out of focus, one enlarged much, a relief."""
    if min(half.shape[1:]) < 2 * SMALLEST_HALVED:
        return False
    _, planes = _coarse_planes(half, seen, tone, white)
    _, coarser = _coarse_planes(halved(half), wholly_seen(seen), tone, white)
    return _quiet(coarser) > STEEPEST[planes.shape[1]] * _quiet(planes)


def _coarse_planes(
    half: NDArray[Any], seen: NDArray[np.bool_] | None, tone: Tone | None, white: float
) -> tuple[Blocks, NDArray[np.float32]]:
    """Blocks of an image, and what of their pixels tells of coarse grain: (N, 1, SIDE, SIDE) in gray or of one tone,
    (N, 2, SIDE, SIDE), the differences of colors, else."""
    blocks = looked_at(half, seen, tone.intensity if tone else to_unit, white).without_even()
    if blocks.pixels.shape[1] == 1:
        return blocks, blocks.pixels
    return blocks, np.einsum("kc,ncij->nkij", OPPONENT[1:], blocks.pixels) + np.float32(127.5)


def _quiet(planes: NDArray[np.float32]) -> float:
    """Amplitude of all but the lowest frequencies in the quieter blocks, 0-255 scale."""
    energy = energies_of(planes)[:, :, np.add(*np.indices((SIDE, SIDE))).ravel() >= 2].mean(axis=2)
    return math.sqrt(float(np.quantile(energy, QUIET, axis=0).max()))
