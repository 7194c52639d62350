"""Tells which pictures of benchmark sets are, in part, among photographs for training, as a file hash would not.

python tools/overlaps.py ../shared/data/train ../shared/data/test

Squares of each picture are sought in each photograph by normalised cross-correlation, at a quarter of the size, where
the two need not lie on one grid; as large as in the photograph, and half as large. Prints the photograph most like each
picture that is found, for the eye to judge; exit code 1 if any is.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

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
"""Standard deviation on the 0-255 scale below which a square is like too many others."""
ALIKE = 0.96
"""Correlation from which on two places are told of: grids that lie half a reduced pixel apart leave as much."""


def reduced(path: Path, factor: int) -> NDArray[np.float32]:
    """Luma of a picture, means of `factor` x `factor` pixels: float32 (H, W), 0-255."""
    return np.asarray(Image.fromarray(read_uint8(path, "gray")[:, :, 0]).reduce(factor), np.float32)


def squares(picture: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Nine squares of a picture that are not flat, of mean 0 and norm 1; fewer where they would be the same."""
    rows, columns = ({round(k * (side - SQUARE) / 2) for k in range(3)} for side in picture.shape)
    for row in rows:
        for column in columns:
            square = picture[row : row + SQUARE, column : column + SQUARE]
            if square.std() >= FLAT:
                centred = square - square.mean()
                yield centred / np.linalg.norm(centred)


def correlations(photograph: NDArray[np.float32], sought: Sequence[NDArray[np.float32]]) -> list[float]:
    """Of each square (SQUARE, SQUARE) the largest normalised cross-correlation with any place of a photograph."""
    shape = photograph.shape
    spectrum = np.fft.rfft2(photograph - photograph.mean())
    windows = np.lib.stride_tricks.sliding_window_view(photograph, (SQUARE, SQUARE))
    norms = SQUARE * np.maximum(windows.std(axis=(2, 3)), FLAT / 2)
    height, width = norms.shape
    products = (np.fft.irfft2(spectrum * np.conj(np.fft.rfft2(square, shape)), shape) for square in sought)
    return [float((product[:height, :width] / norms).max()) for product in products]


def overlaps(photographs: Path, tests: Path) -> Iterator[tuple[Path, Path, int, float]]:
    """Each picture of `tests` that is found: its path, that of the photograph which is most alike, the scale, and the
    correlation."""
    reduced_tests = ((path, reduced(path, REDUCED)) for path in find_images(tests))
    sought = [(path, square) for path, test in reduced_tests if min(test.shape) >= SQUARE for square in squares(test)]
    best: dict[Path, tuple[float, Path, int]] = {}
    for photograph in find_images(photographs):
        for scale in SCALES:
            whole = reduced(photograph, REDUCED * scale)
            if min(whole.shape) < SQUARE:
                continue
            found = correlations(whole, [square for _, square in sought])
            for (path, _), correlation in zip(sought, found, strict=True):
                if correlation > best.get(path, (ALIKE,))[0]:
                    best[path] = correlation, photograph, scale
    for path, (correlation, photograph, scale) in best.items():
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
