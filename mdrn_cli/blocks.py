"""Energies of frequencies in small blocks of an image, and the small networks that classify images by them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdrn_cli.pixels import ENOUGH_BLOCKS, SIDE, blocks_of, to_unit

LEAST_AMPLITUDE = 0.05
"""Added to amplitudes, 0-255 scale, to keep logarithms finite: JPEG leaves many frequencies 0; rounding adds 0.3."""
QUANTILES = (0.01, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75)
# Luminance and two color differences, in which photographs have little content; orthonormal, which keeps noise levels.
OPPONENT = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]], np.float32)
OPPONENT /= np.linalg.norm(OPPONENT, axis=1, keepdims=True)
_ROWS = 64
"""Rows multiplied by a matrix at once: so few that BLAS uses a single thread."""
_MIDDLE = 2
"""Index of the band of middle frequencies (see `_bands`)."""
_HIGH = slice(2, 5)
"""Indices of the bands of the higher frequencies."""
MOST_ROUNDED, LEAST_MORE, MOST_BETWEEN, WHOLLY = 1.0, 3.0, 0.08, 0.7
"""For splitting noiseless blocks from noisy ones by the amplitude of their higher frequencies, 0-255 scale: the
amplitude below which a block is noiseless but for rounding; how many times that the quiet noisy blocks (see QUIET)
must have; the greatest share of blocks that may lie between noiseless and half of the quiet ones; and the share of the
quiet ones' amplitude below which only part of a block is noisy. Chosen on training photographs."""
QUIET = 0.1
"""Quantile over blocks that stands for the amplitude of the quiet ones."""
_REFERENCE = Path(__file__).parent / "reference"


@dataclass(frozen=True, eq=False)
class Blocks:
    """Blocks of an image, and what is measured in each: once, as various subsets of them are looked at afterwards.

    Attributes:
        pixels: float32 (N, C, SIDE, SIDE) on the 0-255 scale.
        row, column: (N,), whether any row, or column, is of a single color: so in margins, bars and drawings, but not
            where there is noise.
        cut_off: float32 (N,), the share of intensities at either end of the scale.
        energy: float32 (N, C, bands), mean energy in each band of frequencies; in color, of luminance and two color
            differences.
    """

    pixels: NDArray[np.float32]
    row: NDArray[np.bool_]
    column: NDArray[np.bool_]
    cut_off: NDArray[np.float32]
    energy: NDArray[np.float32]

    @classmethod
    def of(cls, pixels: NDArray[np.float32]) -> Blocks:
        """Measure blocks (N, C, SIDE, SIDE) on the 0-255 scale."""
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
        """Some of the blocks, chosen by a mask or by indices."""
        known = (self.pixels, self.row, self.column, self.cut_off, self.energy)
        return Blocks(*(each[chosen] for each in known))

    @property
    def even(self) -> NDArray[np.bool_]:
        """(N,), whether any row or column is of a single color."""
        return self.row | self.column

    def without_even(self) -> Blocks:
        """The blocks without a row or column of a single color; all blocks where fewer than ENOUGH_BLOCKS are left."""
        return self if self._uneven is None else self._uneven

    @cached_property
    def _uneven(self) -> Blocks | None:
        even = self.even
        return None if not even.any() or len(self) - even.sum() < ENOUGH_BLOCKS else self[~even]

    def without_noiseless(self) -> Blocks:
        """The noisy blocks, where a part of the image (a pixelated face, a bar with a gradient) has only rounding noise
        and the rest clearly more; all blocks elsewhere. Some noise-free photographs are split so by mistake, which does
        no harm: no noise is found in the blocks that are left either."""
        return self if self._noisy is None else self._noisy

    @cached_property
    def _noisy(self) -> Blocks | None:
        kept = self.without_even()
        amplitude = np.sqrt(kept.energy[:, :, _HIGH].mean(axis=2).max(axis=1))
        noiseless = amplitude < MOST_ROUNDED
        if not noiseless.any() or len(kept) - noiseless.sum() < ENOUGH_BLOCKS:
            return None
        # Hardly any block lies between noiseless and noisy, except along the outline of the noiseless part.
        quiet = float(np.quantile(amplitude[~noiseless], QUIET))
        between = np.mean(~noiseless & (amplitude < quiet / 2))
        if quiet < LEAST_MORE * MOST_ROUNDED or between > MOST_BETWEEN:
            return None
        quiet = float(np.quantile(amplitude[amplitude >= WHOLLY * quiet], QUIET))  # without those on the outline
        noisy = kept[amplitude >= WHOLLY * quiet]
        return noisy if len(noisy) >= ENOUGH_BLOCKS else None

    @cached_property
    def features(self) -> tuple[NDArray[np.float32], float]:
        """`noise_features` with no cut-off blocks, kept because several networks use them."""
        features, reference = _features(self, 0.0)
        features.setflags(write=False)
        return features, reference

    def told_from(self, most_cut_off: float = 0.0) -> tuple[NDArray[np.float32], float]:
        """`energy` of the blocks without a row or column of a single color, leaving out those of which more than
        `most_cut_off` is cut off, which lessens noise, unless few would be left. And the share of such cut-off blocks
        among those without single-color lines."""
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
    """Blocks spread over an image (see `blocks_of`), which `intensities` turns into floats from 0 to `white`."""
    return Blocks.of(intensities(blocks_of(image, seen)) * np.float32(255 / white))


def noise_features(blocks: Blocks, most_cut_off: float = 0.0) -> tuple[NDArray[np.float32], float]:
    """The networks' input; all features but the last are independent of the noise level. Blocks of which more than
    `most_cut_off` is cut off do not count where enough others are left.

    Returns:
        float32 (49 C + 3,): log quantiles, over blocks, of the amplitude in each band of frequencies, minus a
        reference; the share of blocks with a row or column of a single color, and among the others that of cut-off
        ones; the reference / 3. And the reference itself, the natural logarithm of a level on the 0-255 scale.
    """
    return _features(blocks, most_cut_off) if most_cut_off else blocks.features


def _features(blocks: Blocks, most_cut_off: float) -> tuple[NDArray[np.float32], float]:
    energy, clipped = blocks.told_from(most_cut_off)
    rising = np.sort(energy.reshape(len(energy), -1).T, axis=1)  # quantiles of sorted values are faster
    quantiles = np.quantile(rising, QUANTILES, axis=1).reshape(-1, *energy.shape[1:])
    logs = np.log(quantiles + LEAST_AMPLITUDE**2) / 2  # (quantiles, C, bands)
    reference = float(logs[2, :, 4].min())  # the highest frequencies in quiet, but not the quietest blocks
    spread = (logs - reference).transpose(1, 0, 2).ravel()
    return np.concatenate([spread, [blocks.even.mean(), clipped, reference / 3]]).astype(np.float32), reference


def quiet_amplitude(blocks: Blocks) -> float:
    """Amplitude of luminance at middle frequencies in the quieter blocks, 0-255 scale: for white noise its level, for
    smeared noise less, the more it is smeared."""
    energy, _ = blocks.told_from()
    return math.sqrt(float(np.quantile(energy[:, 0, _MIDDLE], QUIET))) + LEAST_AMPLITUDE


def _even(blocks: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which blocks (N, C, SIDE, SIDE) have a row of a single color."""
    even = np.zeros(len(blocks), bool)
    first = (blocks[:, 0, :, 1:] == blocks[:, 0, :, :-1]).all(axis=2).any(axis=1)  # the first channel rules out most
    others = blocks[first]
    even[first] = (others[:, :, :, 1:] == others[:, :, :, :-1]).all(axis=(1, 3)).any(axis=1)
    return even


def energies_of(blocks: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, C, SIDE, SIDE) -> the energy of each frequency, (N, C, SIDE * SIDE)."""
    frequencies = _product(blocks.reshape(*blocks.shape[:2], -1), _cosines())
    return np.square(frequencies, out=frequencies)


def _product(rows: NDArray[np.float32], matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """(..., n) times (m, n) -> (..., m), so few rows at a time that BLAS uses one thread, and the result is the same to
    the last bit however many threads there are."""
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
    """Weights (bands, SIDE * SIDE) that average energy over seven bands: five of rising frequency, then frequencies
    that are high down and low across, and the reverse."""
    down, across = np.indices((SIDE, SIDE))
    total = down + across
    masks = [(total >= low) & (total <= high) for low, high in ((2, 4), (5, 6), (7, 8), (9, 10), (11, 14))]
    masks += [(down >= 5) & (across <= 1), (across >= 5) & (down <= 1)]
    return np.stack([mask.ravel() / mask.sum() for mask in masks]).astype(np.float32)


def about_luminance(features: NDArray[np.float32], reference: float) -> tuple[NDArray[np.float32], float]:
    """`noise_features` relative to another reference, luminance over all frequencies: JPEG may leave nothing to refer
    to in the color differences."""
    shift = float(features[:-3].reshape(-1, len(QUANTILES), len(_bands()))[0, 2, :5].mean())
    reference += shift
    return np.concatenate([features[:-3] - shift, features[-3:-1], [reference / 3]]).astype(np.float32), reference


def answer(features: NDArray[np.float32], network: dict[str, NDArray[np.float32]]) -> float:
    """The output of a network of two hidden layers for these features."""
    x = np.clip((features - network["mean"]) / network["spread"], -5, 5)
    for layer in ("1", "2"):
        x = network["weight" + layer] @ x + network["bias" + layer]
        x = x / (1 + np.exp(-np.maximum(x, -80)))  # SiLU
    return float((network["weight3"] @ x + network["bias3"])[0])


@lru_cache
def stored_network(file: str, name: str, channels: int) -> dict[str, NDArray[np.float32]]:
    """Weights of one of the networks stored in a file of the package, for images of one or three channels."""
    prefix = f"{'gray' if channels == 1 else 'color'}_{name}_"
    with np.load(_REFERENCE / file, allow_pickle=False) as stored:
        return {
            key.removeprefix(prefix): stored[key].astype(np.float32) for key in stored.files if key.startswith(prefix)
        }
