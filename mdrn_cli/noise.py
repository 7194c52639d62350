"""Gaussian noise: drawn as the field's benchmarks do (DESIGN section 3), and estimated."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

NORMAL_MAD = 0.6744898
"""Median absolute value of a standard normal variable."""


def add_noise(clean: NDArray[np.uint8], sigma: float, seed: int = 0) -> NDArray[np.float32]:
    """Noisy version of an image, neither clipped nor rounded.

    Args:
        clean: uint8 (H, W, C).
        sigma: standard deviation on the 0-255 scale.
        seed: of `numpy.random.RandomState`, anew for every image.

    Returns:
        float32 (C, H, W), the clean intensities in [0, 1] plus noise.
    """
    noise = np.random.RandomState(seed).normal(0, sigma / 255, clean.shape)
    noisy = (clean / 255 + noise).astype(np.float32)
    return np.ascontiguousarray(noisy.transpose(2, 0, 1))


def estimate_sigma(image: NDArray[np.float32]) -> float:
    """Noise level of an image by the median absolute diagonal detail of its finest Haar scale (Donoho 1995).

    Args:
        image: (C, H, W), intensities in [0, 1].

    Returns:
        Standard deviation on the 0-255 scale, mean over channels; NaN when a side is below 2 pixels.
    """
    height, width = (size - size % 2 for size in image.shape[1:])
    if not height or not width:
        return math.nan
    even, odd = image[:, :height:2, :width], image[:, 1:height:2, :width]
    diagonal = (even[..., ::2] - even[..., 1::2] - odd[..., ::2] + odd[..., 1::2]) / 2
    levels = np.median(np.abs(diagonal), axis=(1, 2)) / NORMAL_MAD
    return float(levels.mean()) * 255
