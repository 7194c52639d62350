"""Trains the networks of `mdrn_cli.noise.estimate_sigma` on a folder tree of photographs; minutes on one core.

python tools/train_noise_estimator.py ../shared/data/train ../shared/data/val mdrn_cli/reference/noise_estimator.npz
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import nn

from mdrn_cli.image import find_images, read_uint8
from mdrn_cli.noise import SMALLEST, noise_features

CROPS = 12
"""Of each photograph, half of them with white noise, half with noise as cameras leave it."""
WHITE_CROPS = 12
"""Further ones with white noise, for the network that knows no other."""
GRAPHIC_SHARE = 0.12
"""Of the crops that show no photograph but an even area."""
SIDES = (24, 48, 96, 160, 256, 384, 512)
LEVELS = (0.2, 100.0)
HIDDEN = 64
EPOCHS = 300
BATCH = 256


def samples(
    folder: Path, color: str, draws: Sequence[Callable[..., tuple[NDArray[np.float32], float]]], seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Features of noisy crops of each photograph, one for each of `draws`, what is to be added to their references,
    and whether their noise is white."""
    rng = np.random.default_rng(seed)
    features, targets, white = [], [], []
    for file in find_images(folder):
        photo = read_uint8(file, color)
        for draw in draws:
            noisy, level = draw(photo, float(np.exp(rng.uniform(*np.log(LEVELS)))), rng)
            row, reference = noise_features(noisy)
            features.append(row)
            targets.append(np.log(level) - reference)
            white.append(draw is _noisy_crop)
    return np.array(features), np.array(targets, np.float32), np.array(white)


def _crop(photo: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
    """(h, w, C) on the 0-255 scale."""
    shape = [max(SMALLEST, min(int(rng.choice(SIDES) * rng.uniform(0.7, 1.4)), side)) for side in photo.shape[:2]]
    top, left = (int(rng.integers(0, side - part + 1)) for side, part in zip(photo.shape[:2], shape, strict=True))
    if rng.random() < GRAPHIC_SHARE:
        return _ramp(shape, photo.shape[2], rng)
    return photo[top : top + shape[0], left : left + shape[1]].astype(np.float32)


def _ramp(shape: list[int], channels: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """A flat or evenly rising area, as skies, walls and graphics have it, rounded to 8 bits."""
    height, width = shape
    down, across = np.mgrid[0 : 1 : complex(height), 0 : 1 : complex(width)][:, :, :, None]
    slopes = rng.normal(0, 60, (2, channels)) * (rng.random() < 0.7)
    ramp = rng.uniform(30, 225, channels) + slopes[0] * (down - 0.5) + slopes[1] * (across - 0.5)
    return np.clip(np.rint(ramp), 0, 255).astype(np.float32)


def _planes(image: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.ascontiguousarray(image.transpose(2, 0, 1)) / np.float32(255)


def _noisy_crop(photo: NDArray[np.uint8], level: float, rng: np.random.Generator) -> tuple[NDArray[np.float32], float]:
    """White Gaussian noise, (C, h, w) in [0, 1], half of the crops clipped and rounded to 8 bits; and its level."""
    crop = _crop(photo, rng)
    noisy = crop + rng.normal(0, level, crop.shape).astype(np.float32)
    return _planes(np.clip(np.rint(noisy), 0, 255) if rng.random() < 0.5 else noisy), level


def _camera_crop(photo: NDArray[np.uint8], level: float, rng: np.random.Generator) -> tuple[NDArray[np.float32], float]:
    """Noise as files from cameras have it: smeared over neighbours, common to channels in part, stronger in the
    light, and through JPEG; and its level, the root of the mean square of what it changes."""
    crop = _crop(photo, rng)
    common = rng.uniform(0, 1)
    noise = np.sqrt(common) * rng.normal(size=(*crop.shape[:2], 1)) + np.sqrt(1 - common) * rng.normal(size=crop.shape)
    blur = rng.uniform(0.3, 1.4)
    noise = gaussian_filter(noise, (blur, blur, 0), mode="wrap")
    if rng.random() < 0.5:
        noise *= np.sqrt(crop.mean(axis=2, keepdims=True) + 8)
    noise *= level / noise.std()
    noisy, clean = (np.clip(np.rint(image), 0, 255).astype(np.uint8) for image in (crop + noise, crop))
    if rng.random() < 0.6:
        quality, subsampling = int(rng.integers(50, 99)), int(rng.choice((0, 2)))
        noisy, clean = (_jpeg(image, quality, subsampling) for image in (noisy, clean))
    difference = noisy.astype(np.float32) - clean
    return _planes(noisy.astype(np.float32)), max(float(np.sqrt((difference**2).mean())), LEVELS[0])


def _jpeg(image: NDArray[np.uint8], quality: int, subsampling: int) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    Image.fromarray(image.squeeze()).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return np.asarray(Image.open(buffer)).reshape(image.shape)


def fit(features: NDArray[np.float32], targets: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """The trained network, as `mdrn_cli.noise` reads it."""
    mean, spread = features.mean(axis=0), features.std(axis=0) + 1e-3
    x, y = torch.from_numpy(np.clip((features - mean) / spread, -5, 5)), torch.from_numpy(targets)
    network = nn.Sequential(
        nn.Linear(x.shape[1], HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, 1)
    )
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-2)
    steps = EPOCHS * (len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=steps)
    for _ in range(EPOCHS):
        order = torch.randperm(len(x))
        for k in range(len(x) // BATCH):
            chosen = order[k * BATCH : (k + 1) * BATCH]
            loss = nn.functional.smooth_l1_loss(network(x[chosen])[:, 0], y[chosen], beta=0.03)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    weights = {"mean": mean, "spread": spread}
    for number, layer in enumerate(network[::2], 1):
        weights[f"weight{number}"] = layer.weight.detach().numpy()
        weights[f"bias{number}"] = layer.bias.detach().numpy()
    return weights


def main() -> None:
    """Train for gray and color, and print the errors on validation photographs."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("train", "val", "output"):
        parser.add_argument(name, type=Path)
    arguments = parser.parse_args()
    stored = {}
    for color in ("gray", "color"):
        features, targets, white = samples(arguments.train, color, (_noisy_crop, _camera_crop) * (CROPS // 2), seed=0)
        more, their_targets, _ = samples(arguments.train, color, (_noisy_crop,) * WHITE_CROPS, seed=1)
        white_only = np.concatenate([features[white], more]), np.concatenate([targets[white], their_targets])
        for kind, data in (("white", white_only), ("camera", (features, targets))):
            torch.manual_seed(0)
            weights = fit(*data)
            stored |= {f"{color}_{kind}_{name}": value.astype(np.float32) for name, value in weights.items()}
    np.savez(arguments.output, **stored)
    report(arguments.val)


def report(folder: Path) -> None:
    """Errors of the estimate on noisy crops, by level."""
    from mdrn_cli.noise import estimate_sigma

    for color in ("gray", "color"):
        rng = np.random.default_rng(1)
        errors: dict[tuple[float, str], list[float]] = {}
        for file in find_images(folder):
            photo = read_uint8(file, color)
            for level in (2.0, 5.0, 10.0, 20.0, 50.0, 75.0):
                for draw in (_noisy_crop, _camera_crop):
                    for _ in range(4):
                        noisy, true = draw(photo, level, rng)
                        errors.setdefault((level, draw.__name__), []).append(abs(estimate_sigma(noisy) / true - 1))
        for (level, kind), found in sorted(errors.items()):
            print(f"{color} {level:g} {kind}: median {np.median(found):.1%}, 95 % {np.quantile(found, 0.95):.1%}")


if __name__ == "__main__":
    main()
