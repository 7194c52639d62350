"""Trains the networks of `mdrn_cli.drawn.is_drawn` on drawings and photographs; 35 minutes on two cores.

python tools/train_drawn.py ../shared/data/train ../shared/data/val mdrn_cli/reference/drawn.npz
"""

from __future__ import annotations

import argparse
import io
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from graphics import graphic
from noisy_crops import SIDES, Crop, as_stored, camera_crop, drawn_level, framed, white_crop
from numpy.typing import NDArray
from PIL import Image
from telling import learned, report
from train_noise_estimator import store

from mdrn_cli.blocks import looked_at
from mdrn_cli.drawn import SURE, drawn_features
from mdrn_cli.image import read_uint8
from mdrn_cli.noise import SMALLEST

DRAWINGS, NOISY_DRAWINGS, CAMERA_CROPS, WHITE_CROPS, PHOTOGRAPHS = 8, 3, 5, 3, 1
"""For each photograph: drawings without and with white noise; crops of it with noise as files have it, with white
noise, and as it is."""
MONOCHROME_SHARE = 0.15
"""Of the photographs, told by the network for color."""
LARGEST = 640
LEVELS, LEAST_CODED = (1.5, 100.0), 8.0
"""Of noise; and the lowest in drawings that are stored with loss, which may leave nothing of less."""
QUALITIES, QUALITIES_WITH_NOISE = (35, 99), (75, 99)


def rows(file: Path, seed: tuple[int, int], color: str) -> list[tuple[NDArray[np.float32], float, str]]:
    """Features, 1 of drawings without noise and -1 of all else, and what they are of."""
    rng = np.random.default_rng(seed)
    photo = read_uint8(file, color)
    found = [(_drawing(rng, photo.shape[2]), 1.0, "drawings") for _ in range(DRAWINGS)]
    found += [(_noisy_drawing(rng, photo.shape[2]), -1.0, "drawings with noise") for _ in range(NOISY_DRAWINGS)]
    monochrome = color == "color" and rng.random() < MONOCHROME_SHARE
    photo = photo[:, :, 1:2] if monochrome else photo
    for draw in (camera_crop,) * CAMERA_CROPS + (white_crop,) * WHITE_CROPS:
        crop = draw(photo, rng, drawn_level(rng, *LEVELS))
        if (draw is white_crop or _shows_it(crop)) and crop.level >= LEVELS[0]:
            found.append((crop.shown, -1.0, draw.__name__))
    for _ in range(PHOTOGRAPHS):
        top, left = (int(rng.integers(max(side - LARGEST, 0) + 1)) for side in photo.shape[:2])
        found.append(
            (_planes(stored(photo[top : top + LARGEST, left : left + LARGEST], rng, QUALITIES)), -1.0, "photographs")
        )
    return [(drawn_features(looked_at(_colored(image, color))), target, kind) for image, target, kind in found]


def _shows_it(crop: Crop) -> bool:
    """Whether a crop shows the picture it is of: instead it may be an area or a page, of whose noise JPEG may have left
    nothing."""
    return crop.shown.shape == crop.noisy.shape and bool((crop.shown == crop.noisy).mean() > 0.3)


def _drawing(rng: np.random.Generator, channels: int) -> NDArray[Any]:
    drawing = graphic(_shape(rng), channels, rng).astype(np.uint8)
    return _planes(stored(framed(drawing, rng), rng, QUALITIES))


def _noisy_drawing(rng: np.random.Generator, channels: int) -> NDArray[Any]:
    drawing = graphic(_shape(rng), channels, rng)
    coded = rng.random() < 0.6
    level = drawn_level(rng, LEAST_CODED if coded else LEVELS[0], LEVELS[1])
    noisy = as_stored(drawing + rng.normal(0, level, drawing.shape))
    noisy = framed(noisy, rng)
    return _planes(stored(noisy, rng, QUALITIES_WITH_NOISE) if coded else noisy)


def stored(image: NDArray[np.uint8], rng: np.random.Generator, qualities: tuple[int, int]) -> NDArray[np.uint8]:
    """(h, w, C) as it is, or through JPEG or WebP."""
    what, quality = rng.random(), int(rng.integers(*qualities))
    if what < 0.35:
        return image
    color = image.shape[2] == 3
    buffer = io.BytesIO()
    if what < 0.8:
        options = {"subsampling": int(rng.choice((0, 1, 2)))} if color else {}
        Image.fromarray(image.squeeze()).save(buffer, "JPEG", quality=quality, **options)
    else:
        Image.fromarray(image.squeeze()).save(buffer, "WEBP", quality=quality)
    pixels = np.asarray(Image.open(buffer).convert("RGB" if color else "L"))
    return pixels.reshape(image.shape)


def _colored(image: NDArray[Any], color: str) -> NDArray[Any]:
    """(C, h, w), in three channels where the network for color is to tell of it."""
    return np.repeat(image, 3, axis=0) if color == "color" and len(image) == 1 else image


def _planes(image: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(image.transpose(2, 0, 1))


def _shape(rng: np.random.Generator) -> tuple[int, int]:
    height, width = (int(np.clip(rng.choice(SIDES) * rng.uniform(0.7, 1.4), SMALLEST, LARGEST)) for _ in range(2))
    return height, width


def main() -> None:
    """Train for gray and color, and print what is taken to be drawn with validation photographs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("train", "val", "output"):
        parser.add_argument(name, type=Path)
    arguments = parser.parse_args()
    networks: dict[str, NDArray[Any]] = {}
    for color in ("gray", "color"):
        of_color = partial(rows, color=color)
        network = learned(arguments.train, of_color)
        networks |= {f"{color}_drawn_{name}": value.astype(np.float16) for name, value in network.items()}
        print(f"{color}:")
        report(arguments.val, of_color, network, SURE, "drawn")
    store(arguments.output, networks)


if __name__ == "__main__":
    main()
