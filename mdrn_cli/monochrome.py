"""Photographs of one tone kept as RGB: black and white, sepia. Their noise is the same in all channels, which no
network for color has seen; it is one for gray that restores them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdrn_cli.pixels import blocks_of, to_unit
from mdrn_cli.stretch import Function

SIDE = 8
"""Of the blocks looked at, in pixels."""
LARGEST_REST = 6.0
CLEARLY = 3.0
"""How many times the rest beside the tone its noise must be; noise of its own in each channel leaves more."""
SLOWLY = 2.0
"""Times that what whole blocks have of the rest counts: faint colors do, while JPEG and scanners leave other traces."""


@dataclass(frozen=True)
class Tone:
    """How the channels of a picture follow one intensity.

    Attributes:
        slopes: (3,) float32, the change of each channel with the intensity, of root mean square 1.
        weights: (3,) float32, what the intensity takes of each channel.
        offset: added to it.
        rest: how far the channels are from it, a root mean square on the 0-255 scale.
    """

    slopes: NDArray[np.float32]
    weights: NDArray[np.float32]
    offset: float
    rest: float

    def explains(self, sigma: float) -> bool:
        """Whether noise of a level, 0-255 scale, is that of the tone and not of the channels."""
        return sigma >= CLEARLY * self.rest

    def intensity(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """(..., 3, H, W) of any data type -> float32 (..., 1, H, W) in [0, 1]."""
        if self.rest == 0:
            return to_unit(image[..., :1, :, :])
        channels = np.moveaxis(to_unit(image), -3, 0)
        tones: NDArray[np.float32] = np.tensordot(self.weights, channels, axes=1) + np.float32(self.offset)
        return tones[..., None, :, :]

    def changed(self, image: NDArray[np.float32], intensity: NDArray[np.float32]) -> NDArray[np.float32]:
        """The image (3, H, W) with another intensity (1, H, W), and the tone and the rest it had."""
        return image + self.slopes[:, None, None] * (intensity - self.intensity(image))


SHARED = Tone(np.ones(3, np.float32), np.full(3, 1 / 3, np.float32), 0.0, math.inf)
"""Of noise that is alike in all channels of a photograph of any colors (alike.py): their mean."""


def find_tone(image: NDArray[Any], seen: NDArray[np.bool_] | None = None) -> Tone | None:
    """The tone of a picture, or None where it has several: the line on which its colors lie.

    Args:
        image: (3, H, W): uint8, uint16, or floats with intensities in [0, 1].
        seen: (H, W), the pixels that count; see `blocks_of`.
    """
    if min(image.shape[1:]) < SIDE:
        return None
    blocks = to_unit(blocks_of(image, SIDE, seen)).astype(np.float64)
    colors = blocks.transpose(1, 0, 2, 3).reshape(3, -1)
    if (colors == colors[0]).all():
        return Tone(np.ones(3, np.float32), np.array([1, 0, 0], np.float32), 0.0, 0.0)
    if not np.isfinite(colors).all():
        return None
    mean = colors.mean(axis=1)
    axis = np.linalg.eigh(np.cov(colors))[1][:, 2]  # of the largest variance
    across = np.eye(3) - np.outer(axis, axis)
    fast, slow = (across @ np.cov(values, bias=True) for values in (colors, blocks.mean(axis=(2, 3)).T))
    rest = 255 * math.sqrt(max(np.trace(fast), SLOWLY**2 * np.trace(slow), 0.0) / 3)
    if not rest <= LARGEST_REST:
        return None
    slopes = axis * math.copysign(math.sqrt(3), axis.sum())
    offset = float(mean.mean() - slopes @ mean / 3)
    return Tone(slopes.astype(np.float32), (slopes / 3).astype(np.float32), offset, max(rest, 1e-9))


def toned(function: Function, tone: Tone | None) -> Function:
    """A denoiser of gray images, (1, H, W), made one of color images of a tone; as it is where there is none."""
    if tone is None:
        return function
    return lambda image: tone.changed(image, function(tone.intensity(image)))
