"""Validation during training: PSNR of the averaged weights on a few photographs."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mdrn_cli.devices import layout
from mdrn_cli.metrics import psnr, to_uint8
from mdrn_cli.noise import add_noise

VALIDATION_CROP = 256


class Validator:
    """PSNR over center crops of a few photographs, with the same noise each time.

    Args:
        photos: uint8 (H, W, C), taken one at a time; cropped to at most 256x256.
        sigma: noise level, 0-255 scale.

    Attributes:
        digest: SHA-256 of the crops, hexadecimal: figures of others are not to be compared.
    """

    def __init__(self, photos: Iterable[NDArray[np.uint8]], sigma: float) -> None:
        self.clean = [_center_crop(photo, VALIDATION_CROP) for photo in photos]
        self.noisy = [add_noise(photo, sigma) for photo in self.clean]
        digest = hashlib.sha256()
        for photo in self.clean:
            digest.update(f"{photo.shape}".encode() + photo.tobytes())
        self.digest = digest.hexdigest()

    def __call__(
        self, model: nn.Module, device: torch.device, dtype: torch.dtype
    ) -> tuple[float, list[NDArray[np.uint8]]]:
        """Mean PSNR in dB, NaN where the network gives values that are not finite, and the first photo as (noisy,
        restored, clean) uint8 pictures."""
        restored = []
        with torch.inference_mode():
            for noisy in self.noisy:
                batch = torch.from_numpy(noisy)[None].to(device, memory_format=layout(device))
                with autocast(device, dtype):
                    restored.append(model(batch)[0].float().cpu().numpy())
        finite = all(np.isfinite(image).all() for image in restored)
        pictures = [to_uint8(np.nan_to_num(image)) for image in restored]
        mean = float(np.mean([psnr(a, b) for a, b in zip(pictures, self.clean, strict=True)])) if finite else math.nan
        return mean, [to_uint8(self.noisy[0]), pictures[0], self.clean[0]]


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Mixed precision in `dtype` with float32 weights; plain float32 when that is `dtype`, on any device."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


def _center_crop(photo: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    top, left = max(photo.shape[0] - size, 0) // 2, max(photo.shape[1] - size, 0) // 2
    return photo[top : top + size, left : left + size].copy()
