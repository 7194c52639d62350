"""PSNR and SSIM of 8-bit images, as the field's tables have them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
_TAPS = np.exp(-((np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2) ** 2) / (2 * SSIM_SIGMA**2))
_TAPS /= _TAPS.sum()
_LEAST_TAP = float(_TAPS.min() ** 2)
"""Weight of a pixel in a corner of the window."""


def to_uint8(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """float (C, H, W), clipped to [0, 1] and rounded -> uint8 (H, W, C)."""
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8], where: NDArray[np.bool_] | None = None) -> float:
    """Peak signal-to-noise ratio in dB over all pixels and channels of two uint8 images (H, W, C) of one shape, or over
    the pixels of a mask (H, W); infinite for equal images, and where there are no such pixels."""
    _check(a, b)
    squares = (a.astype(np.float64) - b.astype(np.float64)) ** 2
    if where is not None:
        squares = squares[where]
    mse = float(np.mean(squares)) if squares.size else 0.0
    return math.inf if mse == 0 else 10 * math.log10(255**2 / mse)


def ssim(a: NDArray[np.uint8], b: NDArray[np.uint8], where: NDArray[np.bool_] | None = None) -> float:
    """Structural similarity of two uint8 images (H, W, C): 11x11 Gaussian window of sigma 1.5, only where it
    fits whole, into a mask (H, W), too, where one is given; per channel then averaged. NaN where it fits nowhere, as
    when a side is below 11 pixels."""
    _check(a, b)
    if min(a.shape[:2]) < SSIM_WINDOW:
        return math.nan
    whole = None if where is None else _window_mean(where.astype(float)) > 1 - _LEAST_TAP / 2
    if whole is not None and not whole.any():
        return math.nan
    planes = [_ssim_plane(a[..., c].astype(float), b[..., c].astype(float)) for c in range(a.shape[2])]
    return float(np.mean([plane.mean() if whole is None else plane[whole].mean() for plane in planes]))


def _check(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> None:
    if a.dtype != np.uint8 or b.dtype != np.uint8 or a.shape != b.shape:
        raise ValueError(f"need two uint8 images of one shape, not {a.dtype} {a.shape} and {b.dtype} {b.shape}")


def _ssim_plane(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mx, my = _window_mean(x), _window_mean(y)
    vx = _window_mean(x * x) - mx * mx
    vy = _window_mean(y * y) - my * my
    cov = _window_mean(x * y) - mx * my
    score: NDArray[np.float64] = ((2 * mx * my + c1) * (2 * cov + c2)) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return score


def _window_mean(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian-weighted mean over each window that fits in (H, W)."""
    height, width = x.shape[0] - SSIM_WINDOW + 1, x.shape[1] - SSIM_WINDOW + 1
    rows: NDArray[np.float64] = sum(tap * x[k : k + height] for k, tap in enumerate(_TAPS))
    out: NDArray[np.float64] = sum(tap * rows[:, k : k + width] for k, tap in enumerate(_TAPS))
    return out
