"""What is told of noise from blocks of an image: its level, and of what kind it is."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mdrn_cli.blocks import LEAST_AMPLITUDE, Blocks, about_luminance, answer, noise_features, stored_network
from mdrn_cli.clipping import whole_level
from mdrn_cli.levelfunction import LevelFunction
from mdrn_cli.monochrome import Tone
from mdrn_cli.pixels import ENOUGH_BLOCKS

AGREEMENT = 0.3
"""Between the two networks, in natural logarithms of the level; up to twice that where clipping left less of noise."""
LEAST_OF_PART, LEAST_NOT_WHITE, STEADY = 3.0, 4.5, 1.5
"""Level from which on noise is taken to be in a part of an image alone, and in color what is not white; that is to be
alike from dark to light but for this ratio: under a clear sky a wall that has been through JPEG is told 2 to 13."""
BRIGHTNESSES, LEAST_UNEVEN, UNEVEN = 4, 1.0, 1.25
"""Parts of an image, dark to light, in which noise is looked at by itself; the level from which on it is; and the
highest of theirs over the lowest from which on it is taken to be uneven."""
LEAST_SURE, MOST_UNEVEN, MOST_MORE = 3.0, 4.0, 1.6
"""Of noise that is not white, of which texture is told less well: the same level; the ratio beyond which one of them is
taken for texture; and the level by the parts, over that by the whole, beyond which some are."""
INTENSITIES, LEAST_WHITE = 8, 6
"""Parts of an image, dark to light, by which the level of noise at each intensity is told; and how many must show white
noise."""
LEAST_SPREAD, MOST_ABOVE = 1.25, 1.8
"""The highest level over the lowest from which on noise is taken to depend on the intensity; and the level by these
parts, over that by all blocks, beyond which some are taken to be texture. All four chosen on validation photographs."""
FEW, LEAST_STEP = 4, 8
"""Intensities, and steps between them on the 0-255 scale, of an image that has too few for noise to be among them."""
MOST_CUT_OFF = 0.05
"""Share of a block's intensities at an end of the scale up to which it counts where no more is told than the level of
white noise at each intensity, or of noise that is not white."""
BY_CONTENT = 0.5
"""Share of the blocks that may well be cut off where there is no noise."""
SOME = 64
"""Blocks that show of most images that it has more."""
_NETWORKS = "noise_estimator.npz"


class Noise(NamedTuple):
    """What is told of the noise of an image.

    Attributes:
        sigma: its level as `estimate_sigma` tells it.
        is_white: whether it is independent from pixel to pixel.
        tone: of which it is: that of a photograph of one tone, or what all channels share; None where each has its own.
        by_intensity: its level at each intensity, where that clearly depends on it.
    """

    sigma: float
    is_white: bool
    tone: Tone | None = None
    by_intensity: LevelFunction | None = None


def find_in_part(blocks: Blocks) -> tuple[Noise, bool]:
    """The noise of an image from its blocks, and whether it is in a part of them alone, where the others would tell
    that there is none. That which is white is known more closely."""
    noise = find_at_each_brightness(blocks)
    noisy = blocks.without_noiseless()
    if noisy is blocks:
        return noise, False
    found = find_at_each_brightness(noisy)
    better = found.sigma > noise.sigma or (found.is_white and not noise.is_white)
    if found.is_white:
        in_part = better and found.sigma >= LEAST_OF_PART
    else:
        in_part = better and found.sigma >= LEAST_NOT_WHITE and blocks.pixels.shape[1] > 1 and _is_steady(noisy)
    return (found if in_part else noise), in_part


def _is_steady(blocks: Blocks) -> bool:
    """Whether the noise of an image is much the same from dark to light, as that of texture is not."""
    if len(blocks) < BRIGHTNESSES * ENOUGH_BLOCKS:
        return False
    levels = [part.sigma for part in _from_dark_to_light(blocks)]
    return max(levels) <= STEADY * min(levels)


def find_at_each_brightness(blocks: Blocks) -> Noise:
    """The noise of an image from its blocks, where it may be stronger at one brightness than at another, as that of
    sensors is. Over all blocks the quieter ones tell the level; what restores best is the root mean square over the
    image."""
    noise = find_in_blocks(blocks)
    if noise.sigma < LEAST_UNEVEN or len(blocks) < BRIGHTNESSES * ENOUGH_BLOCKS:
        return noise
    parts = _from_dark_to_light(blocks)
    levels = [part.sigma for part in parts]
    level = max(noise.sigma, _root_mean_square(levels))
    spread = max(levels) / max(min(levels), LEAST_AMPLITUDE)
    all_white = all(part.is_white for part in parts)
    texture = noise.is_white or noise.sigma < LEAST_SURE or spread > MOST_UNEVEN or level > MOST_MORE * noise.sigma
    if spread >= UNEVEN and (all_white or not texture):
        noise = Noise(level, all_white)
    return _at_each_intensity(blocks, noise) if noise.is_white else noise


def _at_each_intensity(blocks: Blocks, noise: Noise) -> Noise:
    """White noise of blocks with its level at each intensity; as it was told where that hardly depends on it, or where
    much of what is told of it is texture. Margins and bars do not count: they have an intensity, but no noise. Where
    most noise is cut off, as on white paper, the less of it a block has the lighter it is, whatever the level."""
    blocks = blocks.without_even()
    if (blocks.cut_off <= MOST_CUT_OFF).sum() < INTENSITIES * ENOUGH_BLOCKS:
        return noise
    parts = [blocks[part] for part in np.array_split(_dark_to_light(blocks), INTENSITIES)]
    found = [find_in_blocks(part) for part in parts]
    levels = [part.sigma for part in found]
    if sum(part.is_white for part in found) < LEAST_WHITE or _root_mean_square(levels) > MOST_ABOVE * noise.sigma:
        return noise
    intensities = np.array([part.pixels.mean() / 255 for part in parts], np.float64)
    function = LevelFunction.of(intensities, levels)
    if function.spread < LEAST_SPREAD:
        return noise
    return noise._replace(sigma=_root_mean_square(function(intensities)), by_intensity=function)


def _from_dark_to_light(blocks: Blocks) -> list[Noise]:
    """The noise of parts of an image."""
    return [find_in_blocks(blocks[part]) for part in np.array_split(_dark_to_light(blocks), BRIGHTNESSES)]


def _dark_to_light(blocks: Blocks) -> NDArray[np.intp]:
    """The order of blocks by their mean intensity."""
    return np.argsort(blocks.pixels.mean(axis=(1, 2, 3)), kind="stable")


def _root_mean_square(values: ArrayLike) -> float:
    return math.sqrt(np.mean(np.square(values)))


def find_in_blocks(blocks: Blocks) -> Noise:
    """The noise of an image from its blocks."""
    channels = blocks.pixels.shape[1]
    features, log_reference = noise_features(blocks)
    even = log_reference + features[:-3].max() < math.log(2 * LEAST_AMPLITUDE)
    if even or _few_intensities(blocks.pixels):
        return Noise(0.0, is_white=False)
    as_white = log_reference + answer(features, stored_network(_NETWORKS, "white", channels))
    clipped = float(features[-2])
    features, log_reference = camera_features(blocks)
    camera = log_reference + answer(features, stored_network(_NETWORKS, "camera", channels))
    # Where they agree, noise is white, which the first knows more closely.
    if abs(as_white - camera) < AGREEMENT * (1 + clipped):
        return Noise(whole_level(blocks.pixels, math.exp(as_white)), is_white=True)
    return Noise(math.exp(camera), is_white=False)


def camera_features(blocks: Blocks) -> tuple[NDArray[np.float32], float]:
    """`noise_features` as the network for noise as files have it sees them: about luminance. In gray blocks count, too,
    of which a little is cut off: where content alone does that, those left are the ones with most texture. What share
    is cut off tells no more than the others do while it is small, but texture in the light would pass for noise by it.
    The network for color has not learned it so: trained alike, it told noise that channels share far too low."""
    if blocks.pixels.shape[1] > 1:
        return about_luminance(*noise_features(blocks))
    features, log_reference = about_luminance(*noise_features(blocks, MOST_CUT_OFF))
    features[-2] = max(float(features[-2]) - BY_CONTENT, 0) / (1 - BY_CONTENT)
    return features, log_reference


def _few_intensities(blocks: NDArray[np.float32]) -> bool:
    """Whether intensities are as far from each other as in line art, fax and dithered pictures."""
    if len(_intensities(blocks[:: len(blocks) // SOME + 1])) > FEW:
        return False
    there = _intensities(blocks)
    return 1 < len(there) <= FEW and int(np.diff(there).min()) >= LEAST_STEP


def _intensities(blocks: NDArray[np.float32]) -> NDArray[Any]:
    """Whole intensities that there are, in rising order."""
    return np.flatnonzero(np.bincount(np.rint(np.clip(blocks, 0, 255)).astype(np.uint8).ravel()))
