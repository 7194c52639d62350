"""Geometric self-ensemble (the paper's MDRN+): the mean over the eight flips and rotations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.float32]


def self_ensemble(function: Callable[[Pixels], Pixels]) -> Callable[[Pixels], Pixels]:
    """A callable on (C, H, W) that averages `function` over the orientations of its input, each result
    turned back. `function` keeps the shape of what it is given."""

    def averaged(image: Pixels) -> Pixels:
        total = np.zeros_like(image)
        for transposed in (False, True):
            for vertical in (1, -1):
                for horizontal in (1, -1):
                    turned = image.transpose(0, 2, 1) if transposed else image
                    result = function(turned[:, ::vertical, ::horizontal])
                    result = result[:, ::vertical, ::horizontal]
                    total += result.transpose(0, 2, 1) if transposed else result
        return total * np.float32(1 / 8)

    return averaged
