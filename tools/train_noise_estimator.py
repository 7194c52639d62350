"""Trains the networks of `mdrn_cli.noise.estimate_sigma` on a folder tree of photographs; an hour on two cores.

python tools/train_noise_estimator.py ../shared/data/train ../shared/data/val mdrn_cli/reference/noise_estimator.npz
"""

from __future__ import annotations

import argparse
import io
import math
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
import torch
from noisy_crops import Crop, camera_crop, contrasted, of_each, white_crop
from numpy.typing import NDArray
from torch import nn

from mdrn_cli.blocknoise import camera_features
from mdrn_cli.blocks import answer, looked_at, noise_features
from mdrn_cli.denoisers import Denoisers
from mdrn_cli.files import write_atomically
from mdrn_cli.formats import find_images
from mdrn_cli.image import read_uint8
from mdrn_cli.levels import HIGHEST_SIGMA, LOWEST_SIGMA
from mdrn_cli.metrics import psnr, to_uint8
from mdrn_cli.noise import estimate_sigma

PACKAGED = Path(__file__).parents[1] / "mdrn_cli" / "reference" / "noise_estimator.npz"
"""Which `estimate_sigma` reads, and so `report`."""
LABELLED_CROPS = 5
"""Of each photograph, with noise as files have it, denoised to find the level that restores them best."""
CAMERA_CROPS, WHITE_CROPS, WHITE_ALONE = 28, 12, 24
"""Of each photograph, to learn to estimate from: with noise as files have it and with white noise, for the network that
learns from both, and for the one that learns from white noise alone."""
LABEL_SIDE = 96
"""Of the part that is denoised to find the best level."""
STEPS = np.log([0.5, 0.7, 1.0, 1.4, 2.0, 2.8])
"""Levels tried, beside the root of the mean square of what noise changes."""
SHARP = 8.0
LEAST_WEIGHT = 0.05
HIDDEN = 64
LABEL_HIDDEN, LABEL_EPOCHS = 32, 60
BATCH = 256
EXCESS = 2.0
"""What saying too much of noise in files weighs, beside too little: to take texture for noise is the worse fault."""
CAMERA_HIDDEN, CAMERA_EPOCHS = 96, 140
AVERAGED = 5
"""Networks whose mean is kept: one alone is far off now and then."""

NETWORKS = ("gray_white", "gray_camera", "color_white", "color_camera")

Network = dict[str, NDArray[np.float32]]


def _labels(file: Path, seed: tuple[int, int], color: str) -> list[tuple[NDArray[np.float32], float, float]]:
    """Kind of noise, logarithm of the best level over what the noise changes, and what an error costs."""
    rng = np.random.default_rng(seed)
    photo = read_uint8(file, color)
    crops = (camera_crop(photo, rng) for _ in range(LABELLED_CROPS))
    return [(crop.kind, *best_ratio(crop)) for crop in crops if crop.kind is not None and crop.level >= LOWEST_SIGMA]


def _rows(
    file: Path, seed: tuple[int, int], color: str, ratios: Network, kind: str
) -> list[tuple[NDArray[np.float32], float]]:
    """Features of noisy crops, white noise alone or of all kinds, and what is to be added to their references."""
    rng = np.random.default_rng(seed)
    photo = read_uint8(file, color)
    draws, features_of = (camera_crop,) * CAMERA_CROPS + (white_crop,) * WHITE_CROPS, camera_features
    if kind == "white":
        draws, features_of = (white_crop,) * WHITE_ALONE, noise_features
    rows = []
    for draw in draws:
        crop = draw(contrasted(photo, rng), rng)
        features, reference = features_of(looked_at(crop.shown))
        rows.append((features, math.log(best_level(crop, ratios)) - reference))
    return rows


def best_level(crop: Crop, ratios: Network) -> float:
    """The level to be answered with."""
    if crop.kind is None or crop.level < LOWEST_SIGMA:
        return crop.level
    return crop.level * math.exp(answer(crop.kind, ratios))


def best_ratio(crop: Crop) -> tuple[float, float]:
    """Logarithm of the level that `mdrn denoise` is to be given for the highest PSNR, over what the noise changes; and
    how sharply PSNR falls beside it, 1 being about that of white noise. An even area comes out best however strongly
    it is denoised; so it is the photograph that is denoised, whatever is shown."""
    noisy, clean = (image[:, :LABEL_SIDE, :LABEL_SIDE] for image in (crop.noisy, crop.clean))
    true = to_uint8(clean)
    color = "gray" if len(noisy) == 1 else "color"
    levels = np.clip(crop.level * np.exp(STEPS), LOWEST_SIGMA, HIGHEST_SIGMA)
    restored = (_denoisers().find(color, float(level))(noisy) for level in levels)
    quality = np.array([min(psnr(to_uint8(image), true), 60) for image in restored])
    best = min(max(int(quality.argmax()), 1), len(levels) - 2)
    near = slice(best - 1, best + 2)
    bend, slope, _ = np.polyfit(STEPS[near], quality[near], 2)
    top = float(np.clip(-slope / (2 * bend), STEPS[0], STEPS[-1])) if bend < -0.1 else float(STEPS[quality.argmax()])
    return top, float(np.clip(-bend / SHARP, LEAST_WEIGHT, 1))


@lru_cache
def _denoisers() -> Denoisers:
    return Denoisers("mdrn-2b")  # the best level is about the same, and found four times as fast


def fit(
    features: NDArray[np.float32],
    targets: NDArray[np.float32],
    weights: NDArray[np.float32] | None = None,
    epochs: int = 100,
    hidden: int = HIDDEN,
    excess: float = 1.0,
    seed: int = 0,
) -> Network:
    """A network trained to tell targets from features, as `mdrn_cli.blocks` reads it; what it says in excess of a
    target weighs `excess` times what it lacks."""
    torch.manual_seed(seed)
    mean, spread = features.mean(axis=0), features.std(axis=0) + 1e-3
    x, y = torch.from_numpy(np.clip((features - mean) / spread, -5, 5)), torch.from_numpy(targets)
    w = torch.ones_like(y) if weights is None else torch.from_numpy(weights)
    layers = [nn.Linear(x.shape[1], hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, 1)]
    network = nn.Sequential(layers[0], nn.SiLU(), layers[1], nn.SiLU(), layers[2])
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-2)
    steps = epochs * (len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=steps)
    for _ in range(epochs):
        order = torch.randperm(len(x))
        for k in range(len(x) // BATCH):
            chosen = order[k * BATCH : (k + 1) * BATCH]
            answers = network(x[chosen])[:, 0]
            losses = nn.functional.smooth_l1_loss(answers, y[chosen], beta=0.03, reduction="none")
            losses = losses * torch.where(answers > y[chosen], excess, 1.0) * w[chosen]
            optimizer.zero_grad()
            losses.mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    stored = {"mean": mean, "spread": spread}
    for number, layer in enumerate(layers, 1):
        stored[f"weight{number}"] = layer.weight.detach().numpy()
        stored[f"bias{number}"] = layer.bias.detach().numpy()
    return stored


def mean_of(networks: list[Network]) -> Network:
    """One network that says the mean of what several of one standardization say."""
    second = scipy.linalg.block_diag(*(network["weight2"] for network in networks))
    stacked = {name: np.concatenate([network[name] for network in networks]) for name in ("weight1", "bias1", "bias2")}
    last = {
        "weight3": np.concatenate([network["weight3"] for network in networks], axis=1) / len(networks),
        "bias3": np.mean([network["bias3"] for network in networks], axis=0),
    }
    return {"mean": networks[0]["mean"], "spread": networks[0]["spread"], "weight2": second} | stacked | last


def columns(rows: list[Any]) -> tuple[NDArray[Any], ...]:
    """Rows turned to arrays of float32, or of bool."""
    arrays = (np.array(column) for column in zip(*rows, strict=True))
    return tuple(array if array.dtype == bool else array.astype(np.float32) for array in arrays)


def main() -> None:
    """Train for gray and color, and print the errors on validation photographs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("train", "val", "output"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=NETWORKS, help="the others stay as they are")
    arguments = parser.parse_args()
    if arguments.output.resolve() != PACKAGED:
        parser.error(f"write to {PACKAGED}, of which errors are printed")
    stored: dict[str, NDArray[Any]] = {}
    if arguments.only != NETWORKS:
        with np.load(arguments.output, allow_pickle=False) as before:
            stored |= before
    ratios: dict[str, Network] = {}
    for color in ("gray", "color"):
        wanted = [name.removeprefix(f"{color}_") for name in arguments.only if name.startswith(color)]
        if not wanted:
            continue
        features, targets, weights = columns(of_each(arguments.train, partial(_labels, color=color), 0))
        ratios[color] = fit(features, targets, weights, epochs=LABEL_EPOCHS, hidden=LABEL_HIDDEN)
        for kind in wanted:
            rows = of_each(arguments.train, partial(_rows, color=color, ratios=ratios[color], kind=kind), 1)
            network = learned(kind, *columns(rows))
            stored |= {f"{color}_{kind}_{name}": value.astype(np.float16) for name, value in network.items()}
    store(arguments.output, stored)
    report(arguments.val, ratios)


def store(output: Path, networks: dict[str, NDArray[Any]]) -> None:
    """Replace a file of networks, by names of their arrays, in one step."""
    data = io.BytesIO()
    np.savez_compressed(data, allow_pickle=False, **networks)
    write_atomically(output, data.getvalue())


def learned(kind: str, features: NDArray[np.float32], targets: NDArray[np.float32]) -> Network:
    """The network for white noise, or for all kinds that files have."""
    how = partial(fit, features, targets)
    if kind == "camera":
        how = partial(how, epochs=CAMERA_EPOCHS, hidden=CAMERA_HIDDEN, excess=EXCESS)
    return mean_of([how(seed=seed) for seed in range(AVERAGED)])


def report(folder: Path, ratios: dict[str, Network]) -> None:
    """Errors of the estimate on noisy crops, by level; of noise that is not white, against the level that is best."""
    for color in ratios:
        rng = np.random.default_rng(1)
        errors: dict[tuple[float, str], list[float]] = {}
        for file in find_images(folder):
            photo = read_uint8(file, color)
            for level in (2.0, 5.0, 10.0, 20.0, 50.0, 75.0):
                for draw in (white_crop, camera_crop):
                    for _ in range(4):
                        crop = draw(photo, rng, level)
                        error = abs(estimate_sigma(crop.shown) / best_level(crop, ratios[color]) - 1)
                        errors.setdefault((level, draw.__name__), []).append(error)
        for (level, kind), found in sorted(errors.items()):
            print(f"{color} {level:g} {kind}: median {np.median(found):.1%}, 95 % {np.quantile(found, 0.95):.1%}")


if __name__ == "__main__":
    main()
