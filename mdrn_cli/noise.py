"""Gaussian noise: drawn as the field's benchmarks do, and estimated."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdrn_cli.alike import is_alike
from mdrn_cli.blocknoise import Noise, find_at_each_brightness, find_in_part
from mdrn_cli.blocks import Blocks, looked_at
from mdrn_cli.drawn import is_drawn
from mdrn_cli.monochrome import SHARED, Tone, find_tone
from mdrn_cli.pixels import to_unit

SMALLEST = 16
"""Shortest side in pixels of an image whose noise can be estimated."""
SMALLEST_QUARTER = 128
"""Shortest side in pixels of a quarter of an image whose noise is looked at by itself."""
NEXT_TO_NONE = 1.5
"""Level below which the quarters of an image may lower its estimate, but not raise it: quarters of noise-free
photographs give such levels, too."""
STRONGEST = 160.0
"""Level beyond which noise that is not white is a pattern, such as the dots of print; smeared noise of 90 gives 147."""


def add_noise(clean: NDArray[np.uint8], sigma: float) -> NDArray[np.float32]:
    """Noisy version of an image by the protocol (docs/results.md): neither clipped nor rounded, and drawn anew from
    `numpy.random.RandomState(0)` for every image.

    Args:
        clean: uint8 (H, W, C).
        sigma: standard deviation on the 0-255 scale.

    Returns:
        float32 (C, H, W), the clean intensities in [0, 1] plus noise.
    """
    noise = np.random.RandomState(0).normal(0, sigma / 255, clean.shape)
    noisy = (clean / 255 + noise).astype(np.float32)
    return np.ascontiguousarray(noisy.transpose(2, 0, 1))


def estimate_sigma(image: NDArray[Any], seen: NDArray[np.bool_] | None = None, white: float = 1.0) -> float:
    """Noise level of an image: the level which, given to `mdrn denoise`, restores it best. For white noise that is its
    standard deviation, as a root mean square over the image where it depends on the brightness.

    Content fills some frequencies of some blocks, noise all frequencies of all blocks. From the spread of these
    energies over the image (`noise_features`) two small networks estimate the level. They were trained on photographs
    with noise of known levels: one on white noise, the other also on noise as files have it, smeared and through JPEG
    (docs/noise-levels.md has the errors). In a one-tone photograph it is the level along the tone, and where noise is
    alike in all channels that of their mean.

    Args:
        image: (C, H, W), C being 1 or 3: uint8, uint16, or floats with intensities in [0, 1].
        seen: (H, W), the pixels that count; see `blocks_of`.
        white: the intensity that is white in it: 1, but for floats that go beyond (see `white_of`).

    Returns:
        The level on the 0-255 scale, 255 being an intensity of 1; NaN when a side is below 16 pixels.
    """
    return find_noise(image, seen, white=white).sigma


def find_noise(
    image: NDArray[Any], seen: NDArray[np.bool_] | None = None, shared: bool = True, white: float = 1.0
) -> Noise:
    """As `estimate_sigma`, with the kind of the noise. Where `shared` is not set, noise that is alike in all channels
    of a color photograph gets the level at which a network for color restores it best."""
    if min(image.shape[1:]) < SMALLEST:
        return Noise(math.nan, is_white=False)
    if seen is not None and not seen.any():
        return Noise(0.0, is_white=False)
    blocks = looked_at(image, seen, white=white)
    if is_drawn(blocks):
        return Noise(0.0, is_white=False)
    if len(image) == 3 and (tone := find_tone(image, seen)):
        noise = find_noise_of_tone(image, seen, tone, white)
        if tone.explains(noise.sigma):
            return noise
    if shared and len(image) == 3 and is_alike(image, seen, blocks, white):
        return find_noise_of_tone(image, seen, SHARED, white)
    return _find_in_quarters(image, seen, to_unit, white, blocks)


def find_noise_of_tone(image: NDArray[Any], seen: NDArray[np.bool_] | None, tone: Tone, white: float = 1.0) -> Noise:
    """As `find_noise`, of an image whose noise is known to follow this tone, SHARED included."""
    return _find_in_quarters(image, seen, tone.intensity, white)._replace(tone=tone)


def _find_in_quarters(
    image: NDArray[Any],
    seen: NDArray[np.bool_] | None,
    intensities: Callable[[NDArray[Any]], NDArray[np.float32]],
    white: float,
    blocks: Blocks | None = None,
) -> Noise:
    """The noise of an image, checked against its quarters.

    Where it is not white, texture may pass for it. Then the level is the median of those of the image and its quarters,
    for their content differs, their noise does not; below NEXT_TO_NONE it is no more than that of the whole image.

    Args:
        image, seen: as for `estimate_sigma`.
        intensities: turns blocks of the image into floats from 0 to `white`, of one or three channels.
        white: where it is not 1, `by_intensity` is left out.
        blocks: of the whole image, where they have been measured already.
    """
    noise, in_part = find_in_part(blocks or looked_at(image, seen, intensities, white))
    height, width = (length // 2 for length in image.shape[1:])
    if not noise.is_white and min(height, width) >= SMALLEST_QUARTER:
        levels = []
        for place in itertools.product(*((slice(side), slice(side, None)) for side in (height, width))):
            part = None if seen is None else seen[place]
            if part is None or 2 * part.mean() > 1:
                quarter = looked_at(image[(slice(None), *place)], part, intensities, white)
                found, told = find_in_part(quarter) if in_part else (find_at_each_brightness(quarter), False)
                if told == in_part:  # other quarters may lie in the noiseless part
                    levels.append(found.sigma)
        level = float(np.median([noise.sigma, *filter(None, levels)]))
        noise = noise._replace(sigma=min(level, noise.sigma) if level < NEXT_TO_NONE else level)
    if not noise.is_white and noise.sigma > STRONGEST:
        return Noise(0.0, is_white=False)
    return noise if white == 1 else noise._replace(sigma=noise.sigma * white, by_intensity=None)
