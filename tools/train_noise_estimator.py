"""Trains the network of `mdrn_cli.noise.estimate_sigma` on a folder tree of photographs; minutes on one core.

python tools/train_noise_estimator.py ../shared/data/train ../shared/data/val mdrn_cli/reference/noise_estimator.npz
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mdrn_cli.image import find_images, read_uint8
from mdrn_cli.noise import SMALLEST, noise_features

CROPS = 12
"""Of each photograph."""
SIDES = (24, 48, 96, 160, 256, 384, 512)
LEVELS = (0.5, 100.0)
HIDDEN = 48
EPOCHS = 200
BATCH = 256


def samples(folder: Path, color: str, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32], list[float]]:
    """Features of noisy crops, what is to be added to their references, and their levels."""
    rng = np.random.default_rng(seed)
    features, targets, levels = [], [], []
    for file in find_images(folder):
        photo = read_uint8(file, color)
        for _ in range(CROPS):
            level = float(np.exp(rng.uniform(*np.log(LEVELS))))
            row, reference = noise_features(_noisy_crop(photo, level, rng))
            features.append(row)
            targets.append(np.log(level) - reference)
            levels.append(level)
    return np.array(features), np.array(targets, np.float32), levels


def _noisy_crop(photo: NDArray[np.uint8], level: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """(C, h, w) in [0, 1]; half of the crops clipped and rounded to 8 bits, as files are."""
    shape = [max(SMALLEST, min(int(rng.choice(SIDES) * rng.uniform(0.7, 1.4)), side)) for side in photo.shape[:2]]
    top, left = (int(rng.integers(0, side - part + 1)) for side, part in zip(photo.shape[:2], shape, strict=True))
    crop = photo[top : top + shape[0], left : left + shape[1]].astype(np.float32)
    noisy = crop + rng.normal(0, level, crop.shape).astype(np.float32)
    if rng.random() < 0.5:
        noisy = np.clip(np.rint(noisy), 0, 255)
    return np.ascontiguousarray(noisy.transpose(2, 0, 1)) / np.float32(255)


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
        torch.manual_seed(0)
        weights = fit(*samples(arguments.train, color, seed=0)[:2])
        stored |= {f"{color}_{name}": value.astype(np.float32) for name, value in weights.items()}
    np.savez(arguments.output, **stored)
    report(arguments.val)


def report(folder: Path) -> None:
    """Errors of the estimate on noisy crops, by level."""
    from mdrn_cli.noise import estimate_sigma

    for color in ("gray", "color"):
        rng = np.random.default_rng(1)
        errors: dict[float, list[float]] = {level: [] for level in (2.0, 5.0, 10.0, 20.0, 50.0, 75.0)}
        for file in find_images(folder):
            photo = read_uint8(file, color)
            for level, found in errors.items():
                found += [abs(estimate_sigma(_noisy_crop(photo, level, rng)) / level - 1) for _ in range(4)]
        for level, found in errors.items():
            print(f"{color} {level:g}: median {np.median(found):.1%}, 95th percentile {np.quantile(found, 0.95):.1%}")


if __name__ == "__main__":
    main()
