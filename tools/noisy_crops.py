"""Noisy parts of photographs to learn from: with white noise, and with noise as files have it."""

from __future__ import annotations

import io
import itertools
import math
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from scipy.ndimage import gaussian_filter
from sensor import Camera

from mdrn_cli.errors import InputError
from mdrn_cli.formats import find_images
from mdrn_cli.hardware import cores
from mdrn_cli.image import read_size
from mdrn_cli.noise import SMALLEST

RAMP_SHARE, PAGE_SHARE = 0.1, 0.08
"""Of the crops that show no photograph but an even area, or one with text and lines."""
FRAME_SHARE = 0.12
"""Of the crops that are shown with a margin or a bar without noise."""
SIDES = (24, 48, 96, 160, 256, 384, 512)
LEVELS = (0.2, 100.0)
WHITE_JPEG_SHARE = 0.35
"""Of the crops with noise as files have it."""
SENSOR_SHARE = 0.4
"""Of the crops in color with noise as files have it: as a camera makes a picture of what its sensor gives."""
RESIZED_SHARE, SHARPENED_SHARE = 0.2, 0.15
"""Of the crops with noise as files have it."""
SCALES = (0.4, 3.0)
KERNELS = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)
CONTRAST_SHARE, CONTRASTS = 0.4, (1.05, 2.5)
"""Of the photographs whose contrast is raised before noise is added, so that it has no part in their being cut off."""
LEAST_COMMON = -0.4
"""Share of noise common to channels; below 0 the less of that is left: cameras remove noise of luminance first."""


@dataclass(frozen=True)
class Crop:
    """A noisy part of a photograph; pixels are float32 (C, h, w) in [0, 1].

    Attributes:
        shown: what is estimated from: the part or, with the same noise, an even area.
        noisy, clean: the part.
        kind: of the noise, float32 (18,); None for white noise.
        level: of white noise, its standard deviation; of other noise, the root of the mean square of what it changes.
    """

    shown: NDArray[np.float32]
    noisy: NDArray[np.float32]
    clean: NDArray[np.float32]
    kind: NDArray[np.float32] | None
    level: float


Draw = Callable[[NDArray[np.uint8], np.random.Generator], Crop]


def of_each(folder: Path, work: Callable[[Path, tuple[int, int]], list[Any]], seed: int) -> list[Any]:
    """What `work` gives for every photograph and a seed of its own, one after another; those that cannot be read, or
    are too small to tell noise in, are left out."""
    files = find_images(folder)
    with ProcessPoolExecutor(cores(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        found = pool.map(partial(_worked, work), files, ((seed, k) for k in range(len(files))))
        return list(itertools.chain.from_iterable(found))


def _worked(work: Callable[[Path, tuple[int, int]], list[Any]], file: Path, seed: tuple[int, int]) -> list[Any]:
    try:
        return work(file, seed) if min(read_size(file)) >= SMALLEST else []
    except InputError as error:
        print(f"skipped {file}: {error.message}", file=sys.stderr)
        return []


def _crop(
    photo: NDArray[np.uint8], rng: np.random.Generator, scale: float = 1.0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(h, w, C) on the 0-255 scale: a part of the photograph, to be scaled, and what is shown, mostly that."""
    sides = (rng.choice(SIDES) * rng.uniform(0.7, 1.4) / scale for _ in range(2))
    shape = [max(SMALLEST, min(int(part), side)) for part, side in zip(sides, photo.shape[:2], strict=True)]
    top, left = (int(rng.integers(0, side - part + 1)) for side, part in zip(photo.shape[:2], shape, strict=True))
    part = photo[top : top + shape[0], left : left + shape[1]].astype(np.float32)
    what = rng.random()
    if what < RAMP_SHARE:
        return part, _ramp(shape, photo.shape[2], rng)
    return part, _page(shape, photo.shape[2], rng) if what < RAMP_SHARE + PAGE_SHARE else part


def contrasted(photo: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A photograph, often with the contrast raised about any intensity, so that the light, the dark or both are cut
    off."""
    if rng.random() >= CONTRAST_SHARE:
        return photo
    factor, pivot = np.exp(rng.uniform(*np.log(CONTRASTS))), rng.uniform(0, 255)
    raised: NDArray[np.uint8] = as_stored((np.arange(256) - pivot) * factor + pivot)[photo]
    return raised


def _ramp(shape: list[int], channels: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """A flat or evenly rising area, as skies, walls and graphics have it, rounded to 8 bits."""
    height, width = shape
    down, across = np.mgrid[0 : 1 : complex(height), 0 : 1 : complex(width)][:, :, :, None]
    slopes = rng.normal(0, 60, (2, channels)) * (rng.random() < 0.7)
    ramp = rng.uniform(30, 225, channels) + slopes[0] * (down - 0.5) + slopes[1] * (across - 0.5)
    rounded: NDArray[np.float32] = np.clip(np.rint(ramp), 0, 255).astype(np.float32)
    return rounded


def _page(shape: list[int], channels: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Text and lines on paper, mostly black on white."""
    light = 255 if rng.random() < 0.6 else int(rng.integers(150, 256))
    paper, ink = (light, int(rng.integers(0, 90) * (rng.random() < 0.5)))[:: 1 if rng.random() < 0.8 else -1]
    height, width = shape
    page = Image.new("L", (width, height), paper)
    draw = ImageDraw.Draw(page)
    size, top = float(rng.uniform(7, 28)), float(rng.uniform(0, 20))
    while top < height:
        words = ("".join(chr(c) for c in rng.integers(97, 123, rng.integers(1, 9))) for _ in range(1 + width // 30))
        draw.text((rng.uniform(-9, 9), top), " ".join(words), fill=ink, font_size=size)
        top += size * rng.uniform(1.1, 3)
    for _ in range(rng.integers(0, 6)):
        ends = [int(rng.integers(0, side)) for side in (width, height) * 2]
        draw.line(ends, fill=ink, width=int(rng.integers(1, 5)))
    color = rng.uniform(0.85, 1, channels) if rng.random() < 0.3 else np.ones(channels)
    tinted: NDArray[np.float32] = np.rint(np.asarray(page, np.float32)[:, :, None] * color.astype(np.float32))
    return tinted


def framed(image: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """(h, w, C), now and then with a margin all around or a bar at one side, as pages, stills of video and captions
    have them."""
    if rng.random() >= FRAME_SHARE:
        return image
    height, width, channels = image.shape
    color = rng.integers(0, 256, channels) if rng.random() < 0.3 else np.full(channels, rng.integers(0, 256))
    framed = image.copy()
    if rng.random() < 0.5:
        down, across = (int(side * rng.uniform(0, 0.3)) for side in (height, width))
        framed[:down], framed[height - down :], framed[:, :across], framed[:, width - across :] = (color,) * 4
        return framed
    turns, share = int(rng.integers(4)), rng.uniform(0, 0.6)
    turned = np.rot90(framed, turns)
    turned[: int(len(turned) * share)] = color
    return framed


def planes(image: NDArray[Any]) -> NDArray[np.float32]:
    """(h, w, C) on the 0-255 scale -> float32 (C, h, w) in [0, 1]."""
    return np.ascontiguousarray(image.transpose(2, 0, 1), np.float32) / np.float32(255)


def drawn_level(rng: np.random.Generator, least: float = LEVELS[0], most: float = LEVELS[1]) -> float:
    """A noise level, all ratios being alike."""
    return float(np.exp(rng.uniform(np.log(least), np.log(most))))


def white_crop(photo: NDArray[np.uint8], rng: np.random.Generator, level: float | None = None) -> Crop:
    """White Gaussian noise, half of the crops clipped and rounded to 8 bits."""
    level = level or drawn_level(rng)
    _, shown = _crop(photo, rng)
    noisy = shown + rng.normal(0, level, shown.shape).astype(np.float32)
    noisy = np.clip(np.rint(noisy), 0, 255) if rng.random() < 0.5 else noisy
    return Crop(planes(framed(noisy, rng)), planes(noisy), planes(shown), None, level)


@dataclass(frozen=True)
class Edit:
    """What a picture went through, noise and all, before it was stored.

    Attributes:
        scale: what its sides are multiplied with.
        kernel: by which it is resized.
        sharpened, radius: percent and pixels of an unsharp mask.
    """

    scale: float = 1.0
    kernel: Image.Resampling = Image.Resampling.BICUBIC
    sharpened: int = 0
    radius: float = 0.0

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Edit:
        """One of the edits, mostly none."""
        what = rng.random()
        if what < RESIZED_SHARE:
            return cls(scale=float(np.exp(rng.uniform(*np.log(SCALES)))), kernel=KERNELS[rng.integers(3)])
        if what < RESIZED_SHARE + SHARPENED_SHARE:
            return cls(sharpened=int(rng.integers(30, 200)), radius=float(rng.uniform(0.4, 2.5)))
        return cls()

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Edit (h, w, C)."""
        edited = Image.fromarray(image.squeeze())
        if self.scale != 1:
            width, height = (max(SMALLEST, round(side * self.scale)) for side in edited.size)
            edited = edited.resize((width, height), self.kernel)
        if self.sharpened:
            edited = edited.filter(ImageFilter.UnsharpMask(self.radius, self.sharpened, 0))
        pixels = np.asarray(edited)
        return pixels.reshape(*pixels.shape[:2], image.shape[2])

    def features(self) -> tuple[float, ...]:
        """For `Crop.kind`, (5,)."""
        smooth, steep = (float(self.kernel == kernel) for kernel in (KERNELS[0], KERNELS[2]))
        return math.log(self.scale), smooth, steep, self.sharpened / 100, self.radius


def camera_crop(
    photo: NDArray[np.uint8],
    rng: np.random.Generator,
    level: float | None = None,
    edit: Edit | None = None,
    common: float | None = None,
) -> Crop:
    """Noise as files have it: white and then through JPEG, or smeared over neighbours, common to channels in part or
    left in their differences, stronger in the light, or that of a camera's sensor, and through JPEG or not; as it is,
    or resized or sharpened with the picture. Where the common share is given, it is not white, though hardly smeared at
    times."""
    level = level or drawn_level(rng)
    edit = edit or Edit.draw(rng)
    part, shown = _crop(photo, rng, edit.scale)
    camera = Camera.draw(rng) if len(part[0, 0]) == 3 and common is None and rng.random() < SENSOR_SHARE else None
    noise: NDArray[Any] = rng.normal(size=part.shape)
    through_jpeg, white = rng.random() < 0.6, rng.random() < WHITE_JPEG_SHARE and common is None and camera is None
    drawn, blur, in_light = rng.uniform(LEAST_COMMON, 1), rng.uniform(0.3, 1.4), rng.random() < 0.5
    common = drawn if common is None else common
    if white:
        through_jpeg, common, blur, in_light = through_jpeg or edit == Edit(), 0.0, 0.0, False
    elif camera:
        common, blur, in_light = 0.0, 0.0, True
        picture, noise = camera.picture(part, level, rng)
        part, shown = picture, picture if shown is part else shown
        level = max(float(noise.std()), LEVELS[0])
        noise /= level
    else:
        noise = smeared(noise, part, common, blur, in_light, rng)
    quality, subsampling = int(rng.integers(50, 99)), int(rng.choice((0, 1, 2)))

    def stored(image: NDArray[Any]) -> NDArray[np.uint8]:
        pixels = edit(as_stored(image))
        return jpeg_round_trip(pixels, quality, subsampling) if through_jpeg else pixels

    noisy, clean = (planes(stored(image)) for image in (part + level * noise, part))
    seen = noisy if shown is part else planes(stored(shown + level * noise))
    seen = planes(framed(np.rint(seen.transpose(1, 2, 0) * 255), rng))
    change = max(float(np.sqrt(((noisy - clean) ** 2).mean())) * 255, LEVELS[0])
    jpeg = (quality / 100, subsampling == 1, subsampling == 2) if through_jpeg else (1.1, 0, 0)
    taken = camera.features() if camera else (0.0,) * 5
    known = (math.log(level), math.log(change), common, blur, in_light, *jpeg, *edit.features(), *taken)
    kind = np.array(known, np.float32)
    return Crop(seen, noisy, clean, kind, change)


def smeared(
    noise: NDArray[Any], part: NDArray[np.float32], common: float, blur: float, in_light: bool, rng: np.random.Generator
) -> NDArray[Any]:
    """White noise, (h, w, C), made common to the channels in a share, or less so below 0, smeared by a Gaussian of so
    many pixels, and stronger in the light of a part of a photograph; of root mean square 1."""
    shared = max(common, 0.0)
    noise = np.sqrt(shared) * rng.normal(size=(*part.shape[:2], 1)) + np.sqrt(1 - shared) * noise
    if common < 0 and part.shape[2] == 3:
        noise -= common / LEAST_COMMON * noise.mean(axis=2, keepdims=True)
    noise = gaussian_filter(noise, (blur, blur, 0), mode="wrap")
    noise *= np.sqrt(part.mean(axis=2, keepdims=True) + 8) if in_light else 1
    normal: NDArray[Any] = noise / noise.std()
    return normal


def as_stored(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Rounded and clipped to 8 bits."""
    stored: NDArray[np.uint8] = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    return stored


def jpeg_round_trip(image: NDArray[np.uint8], quality: int, subsampling: int) -> NDArray[np.uint8]:
    """An image (H, W, C) stored as JPEG and read again; quality and subsampling as Pillow numbers them."""
    buffer = io.BytesIO()
    Image.fromarray(image.squeeze()).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return np.asarray(Image.open(buffer)).reshape(image.shape)
