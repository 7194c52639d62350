"""Training patches: photographs held in memory as uint8, cropped and augmented on the training device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mdrn_cli.errors import InputError, UsageError
from mdrn_cli.image import find_images, read_uint8


@dataclass(frozen=True)
class PhotoFolder:
    """The photographs of a folder tree.

    Attributes:
        photos: uint8 arrays (H, W, C).
        files: the file of each photo.
        unreadable: files that could not be read, with the reason.
    """

    photos: list[NDArray[np.uint8]]
    files: list[Path]
    unreadable: list[tuple[Path, str]]


def read_photographs(folder: Path, color: str, on_file: Callable[[int, int], None] | None = None) -> PhotoFolder:
    """Read every image under `folder`, nested or not, as 8-bit gray or color (ITU-R 601 luma for gray).

    Args:
        folder: searched recursively, in sorted order.
        color: "gray" or "color".
        on_file: called with (files read, files in all).

    Raises:
        InputError: no image in the folder can be read.
    """
    files = find_images(folder)
    photos: list[NDArray[np.uint8]] = []
    read: list[Path] = []
    unreadable: list[tuple[Path, str]] = []
    with ThreadPoolExecutor(8) as pool:
        for done, (file, result) in enumerate(
            zip(files, pool.map(lambda f: _read_or_reason(f, color), files), strict=True), start=1
        ):
            if isinstance(result, str):
                unreadable.append((file, result))
            else:
                photos.append(result)
                read.append(file)
            if on_file:
                on_file(done, len(files))
    if not photos:
        raise InputError(f"no readable image under {folder}", "give a folder that holds photographs")
    return PhotoFolder(photos, read, unreadable)


def _read_or_reason(file: Path, color: str) -> NDArray[np.uint8] | str:
    try:
        return read_uint8(file, color)
    except InputError as error:
        return error.message


class PatchSampler:
    """Draws random patches: every photograph is equally likely, and every position in it. (Were positions of all
    photographs equally likely, the few largest, and smoothest, would fill most batches.)

    All pixels lie in one uint8 tensor on the device, so a batch is a single gather there.

    Args:
        photos: uint8 arrays (H, W, C), all with the same C.
        size: side of a patch in pixels; smaller photographs are left out and counted in `too_small`.
        device: where pixels are kept and patches made.

    Raises:
        UsageError: every photograph is smaller than a patch.
    """

    def __init__(self, photos: Sequence[NDArray[np.uint8]], size: int, device: torch.device) -> None:
        fitting = [photo for photo in photos if min(photo.shape[:2]) >= size]
        if not fitting:
            raise UsageError(f"every photograph is smaller than a patch of {size} pixels", "lower --patch-size")
        self.size, self.device = size, device
        self.too_small = len(photos) - len(fitting)
        shapes = torch.tensor([photo.shape[:2] for photo in fitting])  # (K, 2)
        areas = shapes.prod(dim=1)
        pixels = np.empty((int(areas.sum()), fitting[0].shape[2]), np.uint8)
        ends = areas.cumsum(0)
        for photo, end, area in zip(fitting, ends.tolist(), areas.tolist(), strict=True):
            pixels[end - area : end] = photo.reshape(area, -1)
        self.pixels = torch.from_numpy(pixels).to(device)  # (P, C)
        self.start = (ends - areas).to(device)
        self.shape = shapes.to(device)

    def sample(self, count: int, generator: torch.Generator, part: slice = slice(None)) -> Tensor:
        """Those of `count` random patches that are in `part`, each in one of its 8 orientations: float32
        (N, C, size, size) in [0, 1], channels_last in memory. `generator` lives on the sampler's device; it draws for
        all of them, so that several processes that share a batch draw each its own patches from one stream."""
        device, size = self.device, self.size
        photo = torch.randint(len(self.shape), (count,), generator=generator, device=device)[part]
        fractions = torch.rand((count, 2), generator=generator, device=device, dtype=torch.float64)[part]
        top, left = (fractions * (self.shape[photo] - size + 1)).long().unbind(1)
        width = self.shape[photo, 1]
        corner = self.start[photo] + top * width + left  # (N,)
        flags = torch.randint(2, (3, count, 1, 1), generator=generator, device=device).bool()[:, part]
        rows, cols = self._orientations(flags)
        index = corner.view(-1, 1, 1) + rows * width.view(-1, 1, 1) + cols  # (N, size, size)
        return self.pixels[index].permute(0, 3, 1, 2).float().div_(255)

    def _orientations(self, flags: Tensor) -> tuple[Tensor, Tensor]:
        """Row and column offsets (N, size, size) of patches that flags (3, N, 1, 1) transpose or flip."""
        count = flags.shape[1]
        line = torch.arange(self.size, device=self.device)
        rows = line.view(1, -1, 1).expand(count, -1, self.size)
        cols = line.view(1, 1, -1).expand(count, self.size, -1)
        rows, cols = torch.where(flags[0], cols, rows), torch.where(flags[0], rows, cols)
        last = self.size - 1
        return torch.where(flags[1], last - rows, rows), torch.where(flags[2], last - cols, cols)
