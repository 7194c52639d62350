"""Tells which pictures of benchmark sets are, in part, among photographs for training, as a file hash would not.

python tools/overlaps.py ../shared/data/train ../shared/data/test

Squares of each picture are sought in each photograph by normalised cross-correlation, at a quarter of the size, where
the two need not lie on one grid; as large as in the photograph, and half as large. Prints what is found, for the eye to
judge; exit code 1 if anything is.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import combinations, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mdrn_cli.formats import find_images
from mdrn_cli.image import read_uint8

REDUCED = 4
SCALES = (1, 2)
"""How much larger than in the test picture things may be in a photograph."""
SQUARE = 24
"""Side of what is sought, in reduced pixels."""
FLAT = 4.0
"""Slope, in values a reduced pixel, that a square has in every direction; a single edge, as a horizon, is like too many
others."""
ALIKE = 0.97
"""Correlation from which on two places are told of: grids that lie half a reduced pixel apart leave as much."""


def reduced(path: Path, factor: int) -> NDArray[np.float32]:
    """Luma of a picture, means of `factor` x `factor` pixels: float32 (H, W), 0-255."""
    return np.asarray(Image.fromarray(read_uint8(path, "gray")[:, :, 0]).reduce(factor), np.float32)


class Square(NamedTuple):
    """A part of a test picture: its place there, and its values, of mean 0 and norm 1."""

    picture: Path
    row: int
    column: int
    values: NDArray[np.float32]


def squares(path: Path) -> Iterator[Square]:
    """Up to 25 squares of a picture, but those that are too plain."""
    picture = reduced(path, REDUCED)
    if min(picture.shape) < SQUARE:
        return
    rows, columns = (sorted({round(k * (side - SQUARE) / 4) for k in range(5)}) for side in picture.shape)
    for row, column in product(rows, columns):
        square = picture[row : row + SQUARE, column : column + SQUARE]
        slopes = np.stack([slope.ravel() for slope in np.gradient(square)])
        if np.linalg.eigvalsh(slopes @ slopes.T)[0] >= FLAT**2 * square.size:
            centred = square - square.mean()
            yield Square(path, row, column, centred / np.linalg.norm(centred))


def _means(values: NDArray[Any]) -> NDArray[np.float64]:
    """Of every square of a plane."""
    sums = np.pad(values, ((1, 0), (1, 0))).cumsum(0, np.float64).cumsum(1)
    rows = sums[SQUARE:] - sums[:-SQUARE]
    means: NDArray[np.float64] = (rows[:, SQUARE:] - rows[:, :-SQUARE]) / SQUARE**2
    return means


def found_in(photograph: NDArray[np.float32], sought: Sequence[Square]) -> dict[Path, float]:
    """The pictures two of whose squares are alike to places that lie to one another as the squares do, and how much the
    less alike of the two is."""
    shape = photograph.shape
    spectrum = np.fft.rfft2(photograph - photograph.mean())
    means, squares = (_means(values) for values in (photograph, np.square(photograph, dtype=np.float64)))
    norms = SQUARE * np.sqrt(np.maximum(squares - means**2, FLAT**2))
    height, width = norms.shape
    alike: dict[Path, list[tuple[float, int, int]]] = {}
    for square in sought:
        sums = np.fft.irfft2(spectrum * np.conj(np.fft.rfft2(square.values, shape)), shape)
        correlations = sums[:height, :width] / norms
        row, column = divmod(int(correlations.argmax()), width)
        if (most := float(correlations[row, column])) > ALIKE:
            alike.setdefault(square.picture, []).append((most, row - square.row, column - square.column))
    found: dict[Path, float] = {}
    for picture, places in alike.items():
        for (a, *there), (b, *here) in combinations(places, 2):
            if np.abs(np.subtract(there, here)).max() <= 1:
                found[picture] = max(found.get(picture, 0.0), min(a, b))
    return found


def overlaps(photographs: Path, tests: Path) -> Iterator[tuple[Path, Path, int, float]]:
    """Each picture of `tests` that is found: its path, that of a photograph that it is in, the scale, and the
    correlation."""
    sought = [square for path in find_images(tests) for square in squares(path)]
    for photograph in find_images(photographs):
        for scale in SCALES:
            whole = reduced(photograph, REDUCED * scale)
            if min(whole.shape) >= SQUARE:
                for path, correlation in found_in(whole, sought).items():
                    yield path, photograph, scale, correlation


def main() -> int:
    """Tell of what is found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("tests", type=Path)
    options = parser.parse_args()
    found = False
    for path, photograph, scale, correlation in overlaps(options.photographs, options.tests):
        found = True
        print(f"{path} is in {photograph}, {scale} times as large there: correlation {correlation:.3f}", flush=True)
    return int(found)


if __name__ == "__main__":
    sys.exit(main())
