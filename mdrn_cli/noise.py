"""Gaussian noise: drawn as the field's benchmarks do (DESIGN section 3), and estimated."""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

# Chosen on validation photographs, sigma 5 to 75.
PATCH = 5
MOST_PATCHES = 20_000
BLOCK = 12
QUANTILE = 0.05
QUANTILE_OF_NOISE = 0.8229
"""Root of that quantile of block energy in an image of unit normal noise, by simulation."""


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
    """Noise level of an image, from what its content explains least.

    Args:
        image: (C, H, W), intensities in [0, 1].

    Returns:
        Standard deviation on the 0-255 scale; NaN when a side is below 3 pixels.
    """
    channels, height, width = image.shape
    if min(height, width) < 3:
        return math.nan
    if channels > 1 and (height - PATCH) * (width - PATCH) > 4 * channels * PATCH**2:
        return _sigma_of_patches(image) * 255
    return _sigma_of_blocks(image) * 255


def _sigma_of_patches(image: NDArray[np.float32]) -> float:
    """Chen, Zhu and Heng (ICCV 2015): in the covariance of small patches across channels, content fills some
    directions and noise all, evenly; the largest eigenvalues are dropped until the rest are even."""
    windows = sliding_window_view(image, (PATCH, PATCH), axis=(1, 2))  # (C, h, w, PATCH, PATCH)
    step = max(1, math.isqrt(windows.shape[1] * windows.shape[2] // MOST_PATCHES))
    taken = windows[:, ::step, ::step].transpose(1, 2, 0, 3, 4).reshape(-1, image.shape[0] * PATCH**2)
    values = np.maximum(np.linalg.eigvalsh(np.cov(taken.T.astype(np.float64)))[::-1], 0)
    for k in range(len(values)):
        mean = values[k:].mean()
        if np.median(values[k:]) >= mean:
            return math.sqrt(mean)
    return math.sqrt(values[-1])


def _sigma_of_blocks(image: NDArray[np.float32]) -> float:
    """The detail that a double second difference leaves (Immerkaer 1996), where there is least of it: a low
    quantile over blocks, set right by what that quantile is for noise alone."""
    detail = _second_difference(_second_difference(image, 1), 2) / 6
    height, width = (size // BLOCK * BLOCK for size in detail.shape[1:])
    if not height or not width:
        return math.sqrt(float((detail**2).mean()))
    blocks = detail[:, :height, :width].reshape(len(image), height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    energy = (blocks**2).mean(axis=(2, 4)).reshape(len(image), -1)
    return float(np.sqrt(np.quantile(energy, QUANTILE, axis=1)).mean()) / QUANTILE_OF_NOISE


def _second_difference(image: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    return np.diff(image, n=2, axis=axis)
