"""Photographs of one tone (black and white, sepia) stored as RGB. Their noise is the same in all channels, which no
network for color has seen; a network for gray restores them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdrn_cli.pixels import SIDE, blocks_of, to_unit
from mdrn_cli.stretch import Function

LARGEST_REST = 6.0
"""Distance of the colors from the tone (see `Tone.rest`) beyond which an image has several."""
CLEARLY = 3.0
"""How many times `Tone.rest` noise of the tone must be at least: noise of each channel's own leaves more rest."""
SLOWLY = 2.0
"""Weight of the block means' part of the rest: faint colors show in these, the traces of JPEG and scanners hardly."""


@dataclass(frozen=True)
class Tone:
    """How the channels of a picture follow one intensity.

    Attributes:
        slopes: (3,) float32, how much each channel changes with the intensity; their root mean square is 1.
        weights: (3,) float32, the weight of each channel in the intensity.
        offset: added to the weighted sum of the channels.
        rest: root mean square distance of the channels from the tone, 0-255 scale; 0 where all are equal.
    """

    slopes: NDArray[np.float32]
    weights: NDArray[np.float32]
    offset: float
    rest: float

    def explains(self, sigma: float) -> bool:
        """Whether noise of a level, 0-255 scale, is along the tone, and not each channel's own."""
        return sigma >= CLEARLY * self.rest

    def intensity(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """(..., 3, H, W) of any data type -> float32 (..., 1, H, W) in [0, 1]."""
        if self.rest == 0:
            return to_unit(image[..., :1, :, :])
        channels = np.moveaxis(to_unit(image), -3, 0)
        tones: NDArray[np.float32] = np.tensordot(self.weights, channels, axes=1) + np.float32(self.offset)
        return tones[..., None, :, :]

    def changed(self, image: NDArray[np.float32], intensity: NDArray[np.float32]) -> NDArray[np.float32]:
        """The image (3, H, W) given another intensity (1, H, W); what sets it apart from the tone is kept."""
        return image + self.slopes[:, None, None] * (intensity - self.intensity(image))


SHARED = Tone(np.ones(3, np.float32), np.full(3, 1 / 3, np.float32), 0.0, math.inf)
"""For noise that is alike in all channels of a photograph of any colors (alike.py): the intensity is their mean."""


def find_tone(image: NDArray[Any], seen: NDArray[np.bool_] | None = None) -> Tone | None:
    """The tone of a picture, that is the line on which its colors lie, or None where they lie on none.

    Args:
        image: (3, H, W): uint8, uint16, or floats with intensities in [0, 1].
        seen: (H, W), the pixels that count; see `blocks_of`.
    """
    if min(image.shape[1:]) < SIDE:
        return None
    blocks = to_unit(blocks_of(image, seen)).astype(np.float64)
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
    """A denoiser of color images (3, H, W) of a tone, made from one of gray images (1, H, W); itself without a tone."""
    if tone is None:
        return function
    return lambda image: tone.changed(image, function(tone.intensity(image)))
