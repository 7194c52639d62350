"""Trains the network of `mdrn_cli.alike.is_alike` on photographs; 15 minutes on two cores.

python tools/train_alike.py ../shared/data/train ../shared/data/val mdrn_cli/reference/alike.npz
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from noisy_crops import as_stored, camera_crop, drawn_level, jpeg_round_trip, planes, white_crop
from numpy.typing import NDArray
from telling import learned, report
from train_noise_estimator import store

from mdrn_cli.alike import SMALLEST, SURE, alike_features
from mdrn_cli.image import read_uint8

ALIKE_CROPS, CAMERA_CROPS, WHITE_CROPS, CLEAN_CROPS = 3, 2, 1, 1
"""Of each photograph: with noise alike in all channels, with other noise as files have it, with white noise of each
channel's own, and as it is."""
LEAST_LEVEL, LEAST_LEFT = 2.0, 1.5
"""Of noise that is alike, as added, and as JPEG leaves it."""
HIGHEST_LEVEL = 70.0
MOST_COMMON = 0.7
"""Share of noise common to channels beyond which it is neither alike nor each channel's own."""
LARGEST = 512
MUTED_SHARE = 0.25
"""Of the photographs, whose colors are made fainter, some of them nearly to gray."""


def rows(file: Path, seed: tuple[int, int]) -> list[tuple[NDArray[np.float32], float, str]]:
    """Features, 1 of noise that is alike and -1 of all else, and what they are of."""
    rng = np.random.default_rng(seed)
    photo = read_uint8(file, "color")
    found: list[tuple[NDArray[Any], float, str]] = []
    for _ in range(ALIKE_CROPS):
        crop = camera_crop(_muted(photo, rng), rng, drawn_level(rng, LEAST_LEVEL, HIGHEST_LEVEL), common=1.0)
        if crop.level >= LEAST_LEFT:
            found.append((crop.shown, 1.0, "alike"))
    for _ in range(CAMERA_CROPS):
        crop = camera_crop(_muted(photo, rng), rng, drawn_level(rng, 1.0, HIGHEST_LEVEL))
        assert crop.kind is not None
        common, smoothed = crop.kind[2], crop.kind[-1]  # where a camera has smeared colors, it left what is alike
        if common <= MOST_COMMON and not smoothed:
            found.append((crop.shown, -1.0, "as files have it"))
    for _ in range(WHITE_CROPS):
        found.append((white_crop(_muted(photo, rng), rng, drawn_level(rng, 1.0, HIGHEST_LEVEL)).shown, -1.0, "white"))
    for _ in range(CLEAN_CROPS):
        found.append((_clean(photo, rng), -1.0, "none"))
    large = (row for row in found if min(row[0].shape[1:]) >= SMALLEST)
    return [(alike_features(image), target, kind) for image, target, kind in large]


def _muted(photo: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Now and then with fainter colors, or fainter altogether, as in fog."""
    if rng.random() >= MUTED_SHARE:
        return photo
    share = float(rng.uniform(0.03, 0.6))
    gray = photo.mean(axis=2, keepdims=True) if rng.random() < 0.7 else rng.uniform(60, 200, 3)
    return as_stored(gray + share * (photo - gray))


def _clean(photo: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
    top, left = (int(rng.integers(max(side - LARGEST, 0) + 1)) for side in photo.shape[:2])
    part = np.ascontiguousarray(_muted(photo, rng)[top : top + LARGEST, left : left + LARGEST])
    if rng.random() < 0.6:
        part = jpeg_round_trip(part, int(rng.integers(35, 99)), int(rng.choice((0, 1, 2))))
    return planes(part)


def main() -> None:
    """Train, and print what is taken to be alike with validation photographs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("train", "val", "output"):
        parser.add_argument(name, type=Path)
    arguments = parser.parse_args()
    network = learned(arguments.train, rows)
    stored = {f"color_alike_{name}": value.astype(np.float16) for name, value in network.items()}
    store(arguments.output, stored)
    report(arguments.val, rows, network, SURE, "alike")


if __name__ == "__main__":
    main()
