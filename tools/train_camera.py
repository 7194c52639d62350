"""Trains a network for noise as files have it: through JPEG, of a camera's sensor, smeared, of colors, resized or
sharpened with the picture. What `mdrn denoise` takes for noise that is not white; an hour on two cores.

python tools/train_camera.py ../shared/data/train run --init mdrn_cli/weights/mdrn-2b-color-15.safetensors
mdrn weights pack run --val ../shared/data/val --set Kodak24 --set CBSD68
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from noisy_crops import LEAST_COMMON, Edit, as_stored, drawn_level, jpeg_round_trip, of_each, smeared
from numpy.typing import NDArray
from PIL import Image
from sensor import Camera
from torch import Tensor

from mdrn_cli.clipping import unclipped
from mdrn_cli.devices import layout
from mdrn_cli.errors import InputError, MdrnError
from mdrn_cli.files import telling_write_errors
from mdrn_cli.image import read_uint8
from mdrn_cli.levels import LOWEST_SIGMA
from mdrn_cli.manifest import CAMERA
from mdrn_cli.model import Network
from mdrn_cli.noise import find_noise
from mdrn_cli.parallel import Group
from mdrn_cli.patches import PatchSampler
from mdrn_cli.photographs import PhotoFolder
from mdrn_cli.pixels import to_unit
from mdrn_cli.restore import NOISELESS
from mdrn_cli.runfolder import alone_in, is_empty
from mdrn_cli.runlog import Progress
from mdrn_cli.runstate import saved_config
from mdrn_cli.steps import DrawNoise
from mdrn_cli.trainconfig import TrainConfig
from mdrn_cli.training import fit_from, initial_model, ready_device, telling_run_errors

SIDE = 208
DRAWN = ((7, (2.0, 45.0)), (3, (0.1, 2.0)))
"""Pairs of each photograph, and the levels of their noise: next to none, too, for some is found there all the same."""
WHITE_SHARE, SENSOR_SHARE = 0.3, 0.4
"""Of the pairs: white noise through JPEG, and noise of a sensor; of the others it is smeared."""
JPEG_SHARE = 0.7
GRAY_SHARE = 0.2
"""Of the pairs: gray photographs, the same in all three channels."""
QUALITIES = (55, 98)
MOVED_STEP, MIDDLE = 0.75, 128
"""How far a pixel was moved beyond an end, on the 0-255 scale, is held in steps about the middle of 8 bits."""
LEVEL_STEPS = 40
"""By which a level, over the least, is held as a logarithm."""
CHANNELS = 10
"""Noisy, clean, moved, and the level."""


class Pair(NamedTuple):
    """A part of a photograph; uint8 (h, w, 3) but for the level.

    Attributes:
        noisy: as a file has it.
        moved: what `unclipped` of clipping.py adds to it.
        clean: without noise, and as it was before JPEG.
        sigma: that is told of its noise.
    """

    noisy: NDArray[np.uint8]
    moved: NDArray[np.uint8]
    clean: NDArray[np.uint8]
    sigma: float


def draw(
    photo: NDArray[np.uint8], levels: tuple[float, float], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A noisy part of a photograph and the same without noise, uint8 (h, w, 3) or gray (h, w, 1), of sides of at most
    SIDE."""
    level = drawn_level(rng, *levels)
    edit = Edit.draw(rng)
    if edit.scale * min(photo.shape[:2]) < 1.02 * SIDE:
        edit = Edit()
    side = min(int(SIDE / edit.scale) + 1, *photo.shape[:2])
    top, left = (int(rng.integers(0, length - side + 1)) for length in photo.shape[:2])
    part = photo[top : top + side, left : left + side].astype(np.float32)
    what, noise = rng.random(), rng.normal(size=part.shape)
    through_jpeg = rng.random() < JPEG_SHARE or what < WHITE_SHARE
    if WHITE_SHARE <= what < WHITE_SHARE + SENSOR_SHARE:
        part, noise = Camera.draw(rng).picture(part, level, rng)
        level = 1.0
    elif what >= WHITE_SHARE:
        common = rng.uniform(LEAST_COMMON, 0.8) if rng.random() < 0.5 else 0.0
        blur = rng.uniform(0.35, 1.4) if rng.random() < 0.65 else rng.uniform(1.4, 3.2)
        noise = smeared(noise, part, common, blur, rng.random() < 0.4, rng)
    quality, subsampling = int(rng.integers(QUALITIES[0], QUALITIES[1] + 1)), int(rng.choice((0, 1, 2)))
    noisy, clean = (edit(as_stored(image)) for image in (part + level * noise, part))
    if rng.random() < GRAY_SHARE:
        noisy, clean = (np.asarray(Image.fromarray(image).convert("L"))[:, :, None] for image in (noisy, clean))
    noisy = jpeg_round_trip(noisy, quality, subsampling) if through_jpeg else noisy
    return noisy[:SIDE, :SIDE], clean[:SIDE, :SIDE]


def pairs_of(file: Path, seed: tuple[int, int]) -> list[Pair]:
    """Pairs of a photograph of which `mdrn denoise` would find that their noise is not white, each color its own."""
    rng = np.random.default_rng(seed)
    photo = read_uint8(file, "color")
    if min(photo.shape[:2]) < SIDE:
        return []
    pairs: list[Pair] = []
    for noisy, clean in (draw(photo, levels, rng) for count, levels in DRAWN for _ in range(count)):
        channels = np.ascontiguousarray(noisy.transpose(2, 0, 1))
        found = find_noise(channels)
        if found.sigma >= NOISELESS and not found.is_white and not found.tone:
            before = to_unit(channels)
            moved = (unclipped(before, found.sigma, is_white=False) - before).transpose(1, 2, 0) * 255
            steps = np.clip(np.rint(moved / MOVED_STEP) + MIDDLE, 0, 255).astype(np.uint8)
            noisy, steps, clean = (np.broadcast_to(image, (*image.shape[:2], 3)) for image in (noisy, steps, clean))
            pairs.append(Pair(noisy, steps, clean, max(found.sigma, LOWEST_SIGMA)))
    return pairs


def held(pairs: Sequence[Pair]) -> PhotoFolder:
    """Pairs as the sampler of patches takes photographs, of CHANNELS."""
    shapes = [pair.noisy.shape[:2] for pair in pairs]
    pixels = np.empty((sum(height * width for height, width in shapes), CHANNELS), np.uint8)
    start = 0
    for pair in pairs:
        place = pixels[start : start + pair.noisy[:, :, 0].size]
        for k, part in enumerate((pair.noisy, pair.clean, pair.moved)):
            place[:, 3 * k : 3 * k + 3] = part.reshape(-1, 3)
        place[:, 9] = round(LEVEL_STEPS * math.log(pair.sigma / LOWEST_SIGMA))
        start += len(place)
    return PhotoFolder(pixels, shapes, [], [])


def step_loss(
    network: Network, patches: Tensor, _draw_noise: DrawNoise, _done: float | Tensor, *, sigma: float
) -> Tensor:
    """Mean square root of how far patches of `held` are from the clean ones, stretched as at a level that is not the
    network's. (The root, that patches which come out badly do not outweigh all others.)"""
    noisy, clean, moved = patches[:, :3], patches[:, 3:6], (patches[:, 6:9] * 255 - MIDDLE) * (MOVED_STEP / 255)
    level = LOWEST_SIGMA * torch.exp(patches[:, 9:, :1, :1] * 255 / LEVEL_STEPS)
    gain = sigma / level
    restored = network(((noisy + moved - 0.5) * gain + 0.5).contiguous(memory_format=layout(patches.device)))[0]
    difference = restored.float() - ((clean - 0.5) * gain + 0.5)
    return difference.square().mean(dim=(1, 2, 3)).add(1e-8).pow(0.25).mean()


def say(progress: Progress) -> None:
    """A line on where the run stands."""
    left = f"{progress.remaining:.0f} s left"
    print(f"{progress.iteration}: loss {progress.loss:.4f}, {progress.rate:.2f} steps a second, {left}", flush=True)


def train(config: TrainConfig, pairs: PhotoFolder, output: Path, resume: bool) -> None:
    """The run, which leaves `last.safetensors` in its folder."""
    device = ready_device(config, Group())
    with telling_run_errors(device):
        start = initial_model(replace(config, init=None) if resume else config)
        sampler = PatchSampler(pairs, config.patch_size, device)
        loss = partial(step_loss, sigma=config.sigma)
        with telling_write_errors(output), alone_in(output):
            fit_from(start, lambda _device: loss, config, sampler, None, output, resume, say)


BEGINNING = {"seconds": 3600.0, "blocks": 2, "sigma": 15.0, "batch_size": 8, "patch_size": 64, "learning_rate": 1e-3}
"""Options of a run that begins, where they are not given."""


def main() -> None:
    """Draw the pairs, the same for the same photographs, and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--init", help="checkpoint to start from: color, of as many blocks; none when resuming")
    parser.add_argument("--seconds", type=float, help="an hour; when resuming, more than before")
    parser.add_argument("--blocks", type=int)
    parser.add_argument("--sigma", type=float, help="level that others are stretched to")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--patch-size", type=int)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--seed", type=int, help="of the pairs drawn")
    parser.add_argument("--resume", action="store_true", help="go on with a run, as it was begun")
    arguments = parser.parse_args()
    if bool(arguments.init) == arguments.resume:
        parser.error("give either --init or --resume")
    if is_empty(arguments.output) == arguments.resume:
        parser.error(f"{arguments.output} {'has no run to resume' if arguments.resume else 'is not empty'}")
    try:
        config = resumed(arguments) if arguments.resume else configured(arguments)
        pairs = of_each(arguments.train, pairs_of, config.seed)
        if not pairs:
            raise InputError(
                f"in {arguments.train} is no photograph of {SIDE}x{SIDE} pixels in which such noise is found"
            )
        train(config, held(pairs), arguments.output, arguments.resume)
    except MdrnError as error:
        parser.error(error.message)


def resumed(arguments: argparse.Namespace) -> TrainConfig:
    """A run that goes on, maybe for longer than it was to.

    Raises:
        MdrnError: it is none of these, or is to be another.
    """
    config = TrainConfig.from_dict(saved_config(arguments.output))
    if config.noise != CAMERA:
        raise MdrnError(f"the run in {arguments.output} is of `mdrn train`")
    if any(getattr(arguments, name) is not None for name in ({*BEGINNING} - {"seconds"}) | {"seed"}):
        raise MdrnError("a run goes on with the options it began with")
    return config.extended(None, arguments.seconds)


def configured(arguments: argparse.Namespace) -> TrainConfig:
    """A run that begins.

    Raises:
        MdrnError: it could not.
    """
    given = {name: getattr(arguments, name) for name in BEGINNING if getattr(arguments, name) is not None}
    options = BEGINNING | given
    config = TrainConfig(
        data=str(arguments.train),
        init=arguments.init,
        color="color",
        time_budget=options.pop("seconds"),
        muon_learning_rate=10 * options["learning_rate"],
        warmup=0.03,
        ema=0.998,
        noise=CAMERA,
        seed=2 if arguments.seed is None else arguments.seed,
        **options,
    ).located()
    initial_model(config)  # tells of a checkpoint that is none, before the pairs are drawn
    return config


if __name__ == "__main__":
    main()
