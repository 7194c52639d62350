"""PSNR and SSIM of 8-bit images, as the field's tables have them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5


def to_uint8(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """float (C, H, W), clipped to [0, 1] and rounded -> uint8 (H, W, C)."""
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio in dB over all pixels and channels of two uint8 images of one shape;
    infinite for equal images."""
    _check(a, b)
    mse = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return math.inf if mse == 0 else 10 * math.log10(255**2 / mse)


def ssim(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Structural similarity of two uint8 images (H, W, C): 11x11 Gaussian window of sigma 1.5, only where it
    fits whole, per channel then averaged. NaN when a side is below 11 pixels."""
    _check(a, b)
    if min(a.shape[:2]) < SSIM_WINDOW:
        return math.nan
    return float(np.mean([_ssim_plane(a[..., c].astype(float), b[..., c].astype(float)) for c in range(a.shape[2])]))


def _check(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> None:
    if a.dtype != np.uint8 or b.dtype != np.uint8 or a.shape != b.shape:
        raise ValueError(f"need two uint8 images of one shape, not {a.dtype} {a.shape} and {b.dtype} {b.shape}")


def _ssim_plane(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mx, my = _window_mean(x), _window_mean(y)
    vx = _window_mean(x * x) - mx * mx
    vy = _window_mean(y * y) - my * my
    cov = _window_mean(x * y) - mx * my
    score = ((2 * mx * my + c1) * (2 * cov + c2)) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return float(score.mean())


def _window_mean(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian-weighted mean over each window that fits in (H, W)."""
    taps = np.exp(-((np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2) ** 2) / (2 * SSIM_SIGMA**2))
    taps /= taps.sum()
    height, width = x.shape[0] - SSIM_WINDOW + 1, x.shape[1] - SSIM_WINDOW + 1
    rows: NDArray[np.float64] = sum(tap * x[k : k + height] for k, tap in enumerate(taps))
    out: NDArray[np.float64] = sum(tap * rows[:, k : k + width] for k, tap in enumerate(taps))
    return out
