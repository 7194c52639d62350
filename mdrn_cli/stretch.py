"""A network used at a noise level that it was not trained at."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PIVOT = 0.5
"""Intensity that stretching leaves unchanged; in the middle, so that as few as possible leave [0, 1]."""

LOW = 15.0
"""Networks trained at levels up to this take expanded detail for noise, and so may be expanded less."""
MOST_EXPANSION, MOST_EXPANSION_LOW = 1 / 0.7, 1 / 0.95
# Limits of expansion above LOW and up to it, chosen on validation photographs: up to LOW, leaving a share of the noise
# is better than expanding further, by up to 3 dB; above, that share would be too much noise (docs/noise.md).

Function = Callable[["NDArray[np.float32]"], "NDArray[np.float32]"]


def stretched(function: Function, trained: float, sigma: float, wholly: bool = False) -> Function:
    """A denoiser trained at one noise level, for another: intensities are stretched about a pivot until their noise
    is what it knows, denoised, and stretched back. Where that would expand them too far, they are expanded less and
    the result is blended with the input.

    Args:
        function: on float32 (C, H, W) in [0, 1].
        trained: noise level it was trained at.
        sigma: noise level it is to serve, on the same scale.
        wholly: expand as far as it takes, for a network that was trained on pictures stretched so.

    Returns:
        A callable on the same arrays; `function` itself when the two are equal.
    """
    if trained == sigma:
        return function
    import numpy as np

    most = MOST_EXPANSION_LOW if trained <= LOW else MOST_EXPANSION
    served = sigma if wholly else max(sigma, trained / most)
    factor = np.float32(trained / served)
    offset = np.float32(PIVOT) * (1 - factor)
    share = np.float32(sigma / served)

    def serve(noisy: NDArray[np.float32]) -> NDArray[np.float32]:
        denoised = (function(noisy * factor + offset) - offset) / factor
        return denoised if share == 1 else noisy + share * (denoised - noisy)

    return serve


def stretch_loss(trained: float, sigma: float) -> float:
    """About how many dB a network loses to one trained at `sigma`: little where intensities are compressed, much
    where they are expanded or the result is blended (measured on validation photographs, docs/noise.md)."""
    octaves = math.log2(sigma / trained)
    return 0.12 * octaves if octaves >= 0 else 1.9 * octaves**2
