"""Additive white Gaussian noise as the field's benchmarks draw it (DESIGN section 3)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


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
