"""Training patches: cropped from photographs held as uint8, augmented on the training device."""

from __future__ import annotations

import torch
from torch import Tensor

from mdrn_cli.errors import UsageError
from mdrn_cli.photographs import PhotoFolder


class PatchSampler:
    """Draws random patches: every photograph is equally likely, and every position in it. (Were positions of all
    photographs equally likely, the few largest, and smoothest, would fill most batches.)

    All pixels lie in one uint8 tensor, so a batch is a single gather there.

    Args:
        photos: the photographs; not copied on a CPU.
        size: side of a patch in pixels; smaller photographs are left out and counted in `too_small`.
        device: where patches are made.
        resident: keep the pixels on the device; else they stay where they are, and patches are moved.

    Attributes:
        drawn_on: where the random numbers for the device come from: itself, but for MPS the CPU.

    Raises:
        UsageError: every photograph is smaller than a patch.
    """

    def __init__(self, photos: PhotoFolder, size: int, device: torch.device, resident: bool = True) -> None:
        shapes = torch.tensor(photos.shapes)  # (K, 2)
        areas = shapes.prod(dim=1)
        fitting = shapes.amin(dim=1) >= size
        if not fitting.any():
            raise UsageError(f"every photograph is smaller than a patch of {size} pixels", "lower --patch-size")
        self.size, self.device = size, device
        # MPS has no float64, which positions in large photographs need.
        self.drawn_on = torch.device("cpu") if device.type == "mps" else device
        self.too_small = int((~fitting).sum())
        pixels = torch.from_numpy(photos.pixels)  # (P, C)
        self.pixels = pixels.to(device) if resident else pixels
        self.start = (areas.cumsum(0) - areas)[fitting].to(self.drawn_on)
        self.shape = shapes[fitting].to(self.drawn_on)

    def sample(self, count: int, generator: torch.Generator, part: slice = slice(None)) -> Tensor:
        """Those of `count` random patches that are in `part`, each in one of its 8 orientations: float32
        (N, C, size, size) in [0, 1], channels_last in memory. `generator` lives on `drawn_on`; it draws for all of
        them, so that several processes that share a batch draw each its own patches from one stream."""
        device, size = self.drawn_on, self.size
        photo = torch.randint(len(self.shape), (count,), generator=generator, device=device)[part]
        fractions = torch.rand((count, 2), generator=generator, device=device, dtype=torch.float64)[part]
        top, left = (fractions * (self.shape[photo] - size + 1)).long().unbind(1)
        width = self.shape[photo, 1]
        corner = self.start[photo] + top * width + left  # (N,)
        flags = torch.randint(2, (3, count, 1, 1), generator=generator, device=device).bool()[:, part]
        rows, cols = self._orientations(flags)
        index = corner.view(-1, 1, 1) + rows * width.view(-1, 1, 1) + cols  # (N, size, size)
        patches = self.pixels[index.to(self.pixels.device)].to(self.device)
        return patches.permute(0, 3, 1, 2).float().div_(255)

    def _orientations(self, flags: Tensor) -> tuple[Tensor, Tensor]:
        """Row and column offsets (N, size, size) of patches that flags (3, N, 1, 1) transpose or flip."""
        count = flags.shape[1]
        line = torch.arange(self.size, device=self.drawn_on)
        rows = line.view(1, -1, 1).expand(count, -1, self.size)
        cols = line.view(1, 1, -1).expand(count, self.size, -1)
        rows, cols = torch.where(flags[0], cols, rows), torch.where(flags[0], rows, cols)
        last = self.size - 1
        return torch.where(flags[1], last - rows, rows), torch.where(flags[2], last - cols, cols)
