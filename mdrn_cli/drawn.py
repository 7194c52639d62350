"""Tells noise-free drawings (text, tables, plots, patterns, screens) from photographs."""

from __future__ import annotations

from functools import reduce

import numpy as np
from numpy.typing import NDArray

from mdrn_cli.blocks import LEAST_AMPLITUDE, Blocks, answer, noise_features, stored_network
from mdrn_cli.pixels import SIDE

NETWORKS = "drawn.npz"
"""Trained by tools/train_drawn.py to answer 1 for drawings, -1 for what is not drawn or has noise."""
SURE = 0.5
"""Answer above which an image counts as drawn, and any noise is left: the lesser fault, except in photographs."""
_RANGES, _SHARES = (0, 2, 6), (0.02, 0.1, 0.3, 0.5, 0.8)
"""Of the ranges of intensity in quarters of blocks: limits, 0-255 scale, up to which shares of them are counted; and
the quantiles of them that are taken."""


def is_drawn(blocks: Blocks) -> bool:
    """Whether an image is drawn and has no noise, as told from blocks spread over it."""
    network = stored_network(NETWORKS, "drawn", blocks.pixels.shape[1])
    return answer(drawn_features(blocks), network) > SURE


def drawn_features(blocks: Blocks) -> NDArray[np.float32]:
    """The input of the network of `is_drawn`: `noise_features`, and how often lines, pixels, blocks and intensities
    repeat, as they do in all drawings but not where there is noise.

    Returns:
        float32 (49 C + 25,).
    """
    row, column, pixels = blocks.row, blocks.column, blocks.pixels
    flat = (pixels == pixels[:, :, :1, :1]).all(axis=(1, 2, 3))
    kept = blocks.without_even().pixels
    even = [np.mean(row & column), np.mean(row ^ column), np.mean(flat), len(kept) / len(blocks)]
    return np.array(
        [*noise_features(blocks)[0], *even, *_repeated(kept), *_intensities(kept), *_steps(kept)], np.float32
    )


def _repeated(blocks: NDArray[np.float32]) -> list[float]:
    """The share of blocks that repeat others, and of pixels that equal the next in their row, and in their column."""
    whole = np.rint(np.clip(blocks, 0, 255)).astype(np.uint8).reshape(len(blocks), -1)
    different = len(np.unique(whole.view(f"V{whole.shape[1]}")))
    row = (blocks[:, :, :, 1:] == blocks[:, :, :, :-1]).all(axis=1).mean()
    column = (blocks[:, :, 1:] == blocks[:, :, :-1]).all(axis=1).mean()
    return [1 - different / len(blocks), float(row), float(column)]


def _intensities(blocks: NDArray[np.float32]) -> list[float]:
    """Of the rounded intensities: the share of the most frequent one, of those up to 3 from it, and of the two most
    frequent sixteenths of the scale; and their entropy in nats / 5."""
    counts = np.bincount(np.rint(np.clip(blocks.mean(axis=1), 0, 255)).astype(np.uint8).ravel(), minlength=256)
    shares = counts / counts.sum()
    most, there = int(shares.argmax()), shares[shares > 0]
    sixteenths = np.sort(shares.reshape(16, 16).sum(axis=1))
    near = shares[max(most - 3, 0) : most + 4].sum()
    return [shares[most], near, sixteenths[-2:].sum(), float(-(there * np.log(there)).sum()) / 5]


def _steps(blocks: NDArray[np.float32]) -> list[float]:
    """How far from Gaussian the first and second differences between neighbouring pixels are, and how large the ranges
    of intensity within quarters of blocks are."""
    luminance = blocks.mean(axis=1)
    steps, bends = (np.abs(np.diff(luminance, n=n, axis=2)) for n in (1, 2))
    tails = [*_typical(steps, 0.5, 0.25), *_typical(bends, 0.5)]
    ranges = (_of_quarters(np.maximum, blocks) - _of_quarters(np.minimum, blocks)).max(axis=1)
    return [*tails, *(float((ranges <= most).mean()) for most in _RANGES), *np.quantile(np.log(ranges + 0.5), _SHARES)]


def _of_quarters(extreme: np.ufunc, blocks: NDArray[np.float32]) -> NDArray[np.float32]:
    """The largest or smallest intensity (np.maximum, np.minimum) of each channel in each quarter, (N, C, 2, 2)."""
    half = SIDE // 2
    rows = reduce(extreme, [blocks[..., k::half] for k in range(half)])
    quarters: NDArray[np.float32] = reduce(extreme, [rows[:, :, k::half] for k in range(half)])
    return quarters


def _typical(differences: NDArray[np.float32], *shares: float) -> list[float]:
    """Logarithms of quantiles / mean."""
    rising, mean = np.sort(differences, axis=None), differences.mean() + LEAST_AMPLITUDE
    # One at a time, for numpy gives several in float64.
    return [float(np.log((np.quantile(rising, share) + LEAST_AMPLITUDE) / mean)) for share in shares]
