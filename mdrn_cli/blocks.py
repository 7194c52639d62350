"""What blocks of an image have of each frequency, and small networks that tell of that what the image is."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdrn_cli.pixels import ENOUGH_BLOCKS, blocks_of, to_unit

SIDE = 8
"""Of the blocks whose frequencies are looked at, in pixels."""
LEAST_AMPLITUDE = 0.05
"""Told from none, on the 0-255 scale: JPEG leaves nothing of many frequencies; 8 bits have rounding noise of 0.3."""
QUANTILES = (0.01, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75)
# Luminance and two differences of colors, of which photographs have least; orthonormal, so noise stays what it was.
OPPONENT = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]], np.float32)
OPPONENT /= np.linalg.norm(OPPONENT, axis=1, keepdims=True)
_REFERENCE = Path(__file__).parent / "reference"


def looked_at(
    image: NDArray[Any],
    seen: NDArray[np.bool_] | None = None,
    intensities: Callable[[NDArray[Any]], NDArray[np.float32]] = to_unit,
) -> NDArray[np.float32]:
    """Blocks spread over an image (see `blocks_of`), of which `intensities` makes floats: (N, C, SIDE, SIDE) on the
    0-255 scale."""
    return intensities(blocks_of(image, SIDE, seen)) * np.float32(255)


def noise_features(blocks: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """What is told from, independent of the level of noise but for the last feature.

    Args:
        blocks: (N, C, SIDE, SIDE) on the 0-255 scale.

    Returns:
        float32 (49 C + 3,): logarithms of quantiles, over blocks, of the amplitude in bands of frequencies, less a
        reference; the share of blocks with even lines, and of clipped ones among the others; the reference, scaled. And
        the reference itself: a logarithm of a level on the 0-255 scale.
    """
    blocks, even_share = without_even(blocks)
    whole = ((blocks > 0.5) & (blocks < 254.5)).all(axis=(1, 2, 3))
    if whole.sum() >= ENOUGH_BLOCKS:  # in clipped blocks noise is less than it was
        blocks = blocks[whole]
    if blocks.shape[1] == 3:
        blocks = np.einsum("kc,ncij->nkij", OPPONENT, blocks)
    energy = energies_of(blocks) @ _bands().T  # (n, C, bands)
    logs = np.log(np.quantile(energy, QUANTILES, axis=0) + LEAST_AMPLITUDE**2) / 2  # (quantiles, C, bands)
    reference = float(logs[2, :, 4].min())  # where the highest frequencies are quiet, but not quietest
    spread = (logs - reference).transpose(1, 0, 2).ravel()
    return np.concatenate([spread, [even_share, 1 - whole.mean(), reference / 3]]).astype(np.float32), reference


def without_even(blocks: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """Blocks (N, C, SIDE, SIDE) without a row or column of one color, which noise does not leave, but margins, bars and
    whatever is drawn have; all where few are left. And the share of those with one."""
    even = np.logical_or(*even_lines(blocks))
    return blocks if len(blocks) - even.sum() < ENOUGH_BLOCKS else blocks[~even], float(even.mean())


def even_lines(blocks: NDArray[np.float32]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which blocks (N, C, SIDE, SIDE) have a row, and which a column of one color."""
    row = (blocks[:, :, :, 1:] == blocks[:, :, :, :-1]).all(axis=(1, 3)).any(axis=1)
    column = (blocks[:, :, 1:] == blocks[:, :, :-1]).all(axis=(1, 2)).any(axis=1)
    return row, column


def energies_of(blocks: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, C, SIDE, SIDE) -> the energy of each frequency, (N, C, SIDE * SIDE)."""
    transform = _cosines()
    frequencies: NDArray[Any] = transform @ blocks @ transform.T
    energies: NDArray[np.float32] = np.square(frequencies.reshape(*blocks.shape[:2], -1))
    return energies


@lru_cache
def _cosines() -> NDArray[np.float32]:
    """The orthonormal discrete cosine transform of SIDE points, as a matrix."""
    k = np.arange(SIDE)
    matrix = np.sqrt(2 / SIDE) * np.cos(np.outer(k, 2 * k + 1) * (np.pi / (2 * SIDE)))
    matrix[0] /= np.sqrt(2)
    return np.asarray(matrix, np.float32)


@lru_cache
def _bands() -> NDArray[np.float32]:
    """Weights (bands, SIDE * SIDE) that average energy over frequencies, low to high, then steep across and down."""
    down, across = np.indices((SIDE, SIDE))
    total = down + across
    masks = [(total >= low) & (total <= high) for low, high in ((2, 4), (5, 6), (7, 8), (9, 10), (11, 14))]
    masks += [(down >= 5) & (across <= 1), (across >= 5) & (down <= 1)]
    return np.stack([mask.ravel() / mask.sum() for mask in masks]).astype(np.float32)


def about_luminance(features: NDArray[np.float32], reference: float) -> tuple[NDArray[np.float32], float]:
    """`noise_features` with another reference, of luminance over all frequencies: in a JPEG's colors there may be
    nothing left to refer to."""
    shift = float(features[:-3].reshape(-1, len(QUANTILES), len(_bands()))[0, 2, :5].mean())
    reference += shift
    return np.concatenate([features[:-3] - shift, features[-3:-1], [reference / 3]]).astype(np.float32), reference


def answer(features: NDArray[np.float32], network: dict[str, NDArray[np.float32]]) -> float:
    """What a network, one of two hidden layers, says to features."""
    x = np.clip((features - network["mean"]) / network["spread"], -5, 5)
    for layer in ("1", "2"):
        x = network["weight" + layer] @ x + network["bias" + layer]
        x = x / (1 + np.exp(-np.maximum(x, -80)))  # SiLU
    return float((network["weight3"] @ x + network["bias3"])[0])


@lru_cache
def stored_network(file: str, name: str, channels: int) -> dict[str, NDArray[np.float32]]:
    """Weights of one of the networks of a file of the package, for images of one or three channels."""
    prefix = f"{'gray' if channels == 1 else 'color'}_{name}_"
    with np.load(_REFERENCE / file, allow_pickle=False) as stored:
        return {
            name.removeprefix(prefix): stored[name].astype(np.float32)
            for name in stored.files
            if name.startswith(prefix)
        }
