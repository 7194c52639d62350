"""Intensities as data types hold them, and as the network takes them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

BITS = {"uint8": 8, "uint16": 16, "float32": 32}
"""Bits a channel of the data types that pictures come in."""


def to_unit(data: NDArray[Any]) -> NDArray[np.float32]:
    """Values of a data type as float32, integers scaled to [0, 1]."""
    scale = np.iinfo(data.dtype).max if data.dtype.kind == "u" else 1
    return data.astype(np.float32) / np.float32(scale)


def from_unit(values: NDArray[np.float32], depth: str) -> NDArray[Any]:
    """Values in [0, 1] as a data type: integers clipped, scaled and rounded, floats as they are."""
    if depth == "float32":
        return values.astype(np.float32, copy=False)
    top = np.iinfo(depth).max
    rounded: NDArray[Any] = np.rint(np.clip(values, 0, 1) * np.float32(top)).astype(depth)
    return rounded
