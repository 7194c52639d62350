"""What blocks of an image have of each frequency, and small networks that tell of that what the image is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
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
_ROWS = 64
"""In a product of matrices: so few that one thread does it."""
_MIDDLE = 2
"""The band of middle frequencies."""
_HIGH = slice(2, 5)
"""The bands of the higher frequencies."""
MOST_ROUNDED, LEAST_MORE, MOST_BETWEEN, WHOLLY = 1.0, 3.0, 0.08, 0.7
"""Amplitude of the higher frequencies in a block that has no noise but that of rounding; times this at least those have
that do; the share of blocks that may lie between, below half of that; and the share of it below which noise is in a
part of a block. Chosen on photographs trained on."""
_QUIETER = 0.1
"""Share of the blocks that are no louder than those by which the amplitude of all is told."""
_REFERENCE = Path(__file__).parent / "reference"


@dataclass(frozen=True, eq=False)
class Blocks:
    """Blocks of an image, and what is told of each by itself: once, for all that is then told of some of them.

    Attributes:
        pixels: float32 (N, C, SIDE, SIDE) on the 0-255 scale.
        row, column: (N,), whether one is of one color, which noise does not leave, but margins, bars and whatever is
            drawn have.
        cut_off: float32 (N,), the share of intensities at an end of the scale.
        energy: float32 (N, C, bands), the mean in bands of frequencies; in color of luminance and two differences.
    """

    pixels: NDArray[np.float32]
    row: NDArray[np.bool_]
    column: NDArray[np.bool_]
    cut_off: NDArray[np.float32]
    energy: NDArray[np.float32]

    @classmethod
    def of(cls, pixels: NDArray[np.float32]) -> Blocks:
        """Look at blocks (N, C, SIDE, SIDE) on the 0-255 scale."""
        flat = pixels.reshape(len(pixels), -1)
        cut_off = np.zeros(len(flat), np.float32)
        at_end = np.flatnonzero((flat.min(axis=1) <= 0.5) | (flat.max(axis=1) >= 254.5))  # few are, as a rule
        cut_off[at_end] = ((flat[at_end] <= 0.5) | (flat[at_end] >= 254.5)).mean(axis=1)
        planes = np.einsum("kc,ncij->nkij", OPPONENT, pixels) if pixels.shape[1] == 3 else pixels
        energy = _product(energies_of(planes), _bands())
        return cls(pixels, _even(pixels), _even(pixels.swapaxes(2, 3)), cut_off, energy)

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, chosen: NDArray[Any]) -> Blocks:
        """Some of them, by a mask or by their numbers."""
        known = (self.pixels, self.row, self.column, self.cut_off, self.energy)
        return Blocks(*(each[chosen] for each in known))

    @property
    def even(self) -> NDArray[np.bool_]:
        """(N,), whether a row or column is of one color."""
        return self.row | self.column

    def without_even(self) -> Blocks:
        """Those without a row or column of one color; all where few are left."""
        return self if self._uneven is None else self._uneven

    @cached_property
    def _uneven(self) -> Blocks | None:
        even = self.even
        return None if not even.any() or len(self) - even.sum() < ENOUGH_BLOCKS else self[~even]

    def without_noiseless(self) -> Blocks:
        """Those that noise may be in, where a part of the image, a face made unrecognizable or a bar of a gradient, has
        none but that of rounding, and the others clearly more; all where it is not so. Of photographs without noise
        some are taken for it: what is left of them tells no noise either."""
        return self if self._noisy is None else self._noisy

    @cached_property
    def _noisy(self) -> Blocks | None:
        kept = self.without_even()
        amplitude = np.sqrt(kept.energy[:, :, _HIGH].mean(axis=2).max(axis=1))
        noiseless = amplitude < MOST_ROUNDED
        if not noiseless.any() or len(kept) - noiseless.sum() < ENOUGH_BLOCKS:
            return None
        # Few lie between the quietest noise and none, but where that part ends.
        quiet = float(np.quantile(amplitude[~noiseless], _QUIETER))
        between = np.mean(~noiseless & (amplitude < quiet / 2))
        if quiet < LEAST_MORE * MOST_ROUNDED or between > MOST_BETWEEN:
            return None
        quiet = float(np.quantile(amplitude[amplitude >= WHOLLY * quiet], _QUIETER))  # without those of its edges
        noisy = kept[amplitude >= WHOLLY * quiet]
        return noisy if len(noisy) >= ENOUGH_BLOCKS else None

    @cached_property
    def features(self) -> tuple[NDArray[np.float32], float]:
        """`noise_features`, which several look at."""
        features, reference = _features(self, 0.0)
        features.setflags(write=False)
        return features, reference

    def told_from(self, most_cut_off: float = 0.0) -> tuple[NDArray[np.float32], float]:
        """`energy` of those without a row or column of one color of which no more is cut off either, for there noise is
        less than it was; where few are left, of those as well. And the share of the latter among the former."""
        kept = self.without_even()
        whole = kept.cut_off <= most_cut_off
        few = whole.all() or whole.sum() < ENOUGH_BLOCKS
        return kept.energy if few else kept.energy[whole], 1 - float(whole.mean())


def looked_at(
    image: NDArray[Any],
    seen: NDArray[np.bool_] | None = None,
    intensities: Callable[[NDArray[Any]], NDArray[np.float32]] = to_unit,
    white: float = 1.0,
) -> Blocks:
    """Blocks spread over an image (see `blocks_of`), of which `intensities` makes floats from 0 to `white`."""
    return Blocks.of(intensities(blocks_of(image, SIDE, seen)) * np.float32(255 / white))


def noise_features(blocks: Blocks, most_cut_off: float = 0.0) -> tuple[NDArray[np.float32], float]:
    """What is told from, independent of the level of noise but for the last feature. Blocks of which more than a share
    is cut off do not count.

    Returns:
        float32 (49 C + 3,): logarithms of quantiles, over blocks, of the amplitude in bands of frequencies, less a
        reference; the share of blocks with even lines, and of those cut off among the others; the reference, scaled.
        And the reference itself: a logarithm of a level on the 0-255 scale.
    """
    return _features(blocks, most_cut_off) if most_cut_off else blocks.features


def _features(blocks: Blocks, most_cut_off: float) -> tuple[NDArray[np.float32], float]:
    energy, clipped = blocks.told_from(most_cut_off)
    rising = np.sort(energy.reshape(len(energy), -1).T, axis=1)  # of which quantiles are had sooner
    quantiles = np.quantile(rising, QUANTILES, axis=1).reshape(-1, *energy.shape[1:])
    logs = np.log(quantiles + LEAST_AMPLITUDE**2) / 2  # (quantiles, C, bands)
    reference = float(logs[2, :, 4].min())  # where the highest frequencies are quiet, but not quietest
    spread = (logs - reference).transpose(1, 0, 2).ravel()
    return np.concatenate([spread, [blocks.even.mean(), clipped, reference / 3]]).astype(np.float32), reference


def quiet_amplitude(blocks: Blocks) -> float:
    """Of luminance at middle frequencies in the quieter blocks: of white noise its level, 0-255 scale, and the less of
    other noise the more it is smeared."""
    energy, _ = blocks.told_from()
    return math.sqrt(float(np.quantile(energy[:, 0, _MIDDLE], _QUIETER))) + LEAST_AMPLITUDE


def _even(blocks: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which blocks (N, C, SIDE, SIDE) have a row of one color."""
    even = np.zeros(len(blocks), bool)
    first = (blocks[:, 0, :, 1:] == blocks[:, 0, :, :-1]).all(axis=2).any(axis=1)  # few are, in photographs
    others = blocks[first]
    even[first] = (others[:, :, :, 1:] == others[:, :, :, :-1]).all(axis=(1, 3)).any(axis=1)
    return even


def energies_of(blocks: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, C, SIDE, SIDE) -> the energy of each frequency, (N, C, SIDE * SIDE)."""
    frequencies = _product(blocks.reshape(*blocks.shape[:2], -1), _cosines())
    return np.square(frequencies, out=frequencies)


def _product(rows: NDArray[np.float32], matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """(..., n) times (m, n) -> (..., m), a few rows at a time: by one thread each, so that it is the same to the last
    bit however many there are."""
    flat, matrix = rows.reshape(-1, rows.shape[-1]), np.ascontiguousarray(matrix.T)
    products = np.empty((len(flat), matrix.shape[1]), np.float32)
    for first in range(0, len(flat), _ROWS):
        few = slice(first, first + _ROWS)
        np.matmul(flat[few], matrix, out=products[few])
    return products.reshape(*rows.shape[:-1], -1)


@lru_cache
def _cosines() -> NDArray[np.float32]:
    """The orthonormal discrete cosine transform of SIDE x SIDE points, as a matrix."""
    k = np.arange(SIDE)
    matrix = np.sqrt(2 / SIDE) * np.cos(np.outer(k, 2 * k + 1) * (np.pi / (2 * SIDE)))
    matrix[0] /= np.sqrt(2)
    return np.kron(matrix, matrix).astype(np.float32)


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
            key.removeprefix(prefix): stored[key].astype(np.float32) for key in stored.files if key.startswith(prefix)
        }
