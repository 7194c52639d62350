"""The level and the kind of an image's noise, estimated from its blocks."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mdrn_cli.blocks import LEAST_AMPLITUDE, Blocks, about_luminance, answer, noise_features, stored_network
from mdrn_cli.clipping import unclipped_level
from mdrn_cli.levelfunction import LevelFunction
from mdrn_cli.monochrome import Tone
from mdrn_cli.pixels import ENOUGH_BLOCKS

AGREEMENT = 0.3
"""Noise is white where the two networks' levels differ by less than this, as natural logarithms; up to twice as much
the larger the share of blocks that clipping has touched."""
LEAST_OF_PART, LEAST_NOT_WHITE, STEADY = 3.0, 4.5, 1.5
"""For believing that only a part of an image has noise: the least level of white noise; that of other noise, which
counts in color images only; and the greatest ratio of such noise's levels from dark to light, where texture varies
more: a wall under a clear sky, stored as JPEG, gives levels from 2 to 13."""
BRIGHTNESSES, LEAST_UNEVEN, UNEVEN = 4, 1.0, 1.25
"""Number of parts, dark to light, whose noise is estimated separately; the level of the whole image from which on it
is; and the ratio of the highest to the lowest of their levels from which on noise counts as uneven."""
LEAST_SURE, MOST_UNEVEN, MOST_MORE = 3.0, 4.0, 1.6
"""Noise that is not white, and harder to tell from texture, counts as uneven only if its level in the whole image is at
least the first; the ratio of the parts' levels at most the second, for beyond it one of them is texture; and the level
by the parts over that of the whole image at most the third, for beyond it some of them are."""
INTENSITIES, LEAST_WHITE = 8, 6
"""Number of parts, dark to light, for estimating the noise level at each intensity; and how many must have white
noise."""
LEAST_SPREAD, MOST_ABOVE = 1.25, 1.8
"""Ratio of the highest to the lowest level from which on noise counts as depending on the intensity; and the level by
these parts over that of all blocks beyond which some parts are texture. All four chosen on validation photographs."""
FEW, LEAST_STEP = 4, 8
"""An image of at most so many intensities, at least so far apart on the 0-255 scale, has no noise."""
MOST_CUT_OFF = 0.05
"""Share of a block's intensities at an end of the scale up to which it counts: among the blocks that must be enough for
levels at each intensity, and in gray for noise that is not white."""
BY_CONTENT = 0.5
"""Share of the blocks that content alone, without noise, may cut off."""
SOME = 64
"""Number of blocks looked at first: they show that most images have more than FEW intensities."""
_NETWORKS = "noise_estimator.npz"


class Noise(NamedTuple):
    """The noise estimated in an image.

    Attributes:
        sigma: its level as `estimate_sigma` gives it.
        is_white: whether it is independent from pixel to pixel.
        tone: the tone that the noise follows: that of a one-tone photograph, or SHARED for noise that all channels have
            in common; None where each channel has its own.
        by_intensity: its level at each intensity, where that clearly depends on it.
    """

    sigma: float
    is_white: bool
    tone: Tone | None = None
    by_intensity: LevelFunction | None = None


def find_in_part(blocks: Blocks) -> tuple[Noise, bool]:
    """The noise of an image from its blocks, and whether only a part of them has it, while the others would hide it.
    A level of white noise is believed sooner than another, as it is the more reliable."""
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
    """Whether the noise level is much the same from dark to light, which that of texture is not."""
    if len(blocks) < BRIGHTNESSES * ENOUGH_BLOCKS:
        return False
    levels = [part.sigma for part in _from_dark_to_light(blocks)]
    return max(levels) <= STEADY * min(levels)


def find_at_each_brightness(blocks: Blocks) -> Noise:
    """The noise of an image from its blocks, where it may depend on the brightness, as that of sensors does. An
    estimate from all blocks together follows the quieter ones; what restores best is the root mean square of the levels
    over the image."""
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
    """White noise with its level at each intensity added; unchanged where that hardly varies, or where much of it may
    be texture. Margins and bars do not count: they have an intensity, but no noise. Nor is it done where too many
    blocks are cut off, as on white paper: there less noise is left the lighter a block is, whatever the level."""
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
    """The noise of BRIGHTNESSES equal parts of the blocks, ordered by mean intensity."""
    return [find_in_blocks(blocks[part]) for part in np.array_split(_dark_to_light(blocks), BRIGHTNESSES)]


def _dark_to_light(blocks: Blocks) -> NDArray[np.intp]:
    """Indices of the blocks in order of mean intensity."""
    return np.argsort(blocks.pixels.mean(axis=(1, 2, 3)), kind="stable")


def _root_mean_square(values: ArrayLike) -> float:
    return math.sqrt(np.mean(np.square(values)))


def find_in_blocks(blocks: Blocks) -> Noise:
    """The noise of an image from its blocks, all taken together."""
    channels = blocks.pixels.shape[1]
    features, log_reference = noise_features(blocks)
    even = log_reference + features[:-3].max() < math.log(2 * LEAST_AMPLITUDE)
    if even or _few_intensities(blocks.pixels):
        return Noise(0.0, is_white=False)
    as_white = log_reference + answer(features, stored_network(_NETWORKS, "white", channels))
    clipped = float(features[-2])
    features, log_reference = camera_features(blocks)
    camera = log_reference + answer(features, stored_network(_NETWORKS, "camera", channels))
    # Where the networks agree, noise is white, and the first one is the more accurate.
    if abs(as_white - camera) < AGREEMENT * (1 + clipped):
        return Noise(unclipped_level(blocks.pixels, math.exp(as_white)), is_white=True)
    return Noise(math.exp(camera), is_white=False)


def camera_features(blocks: Blocks) -> tuple[NDArray[np.float32], float]:
    """`noise_features` relative to luminance, the input of the network for noise as files have it. In gray, blocks
    that are cut off a little count, too: where it is content that cuts blocks off, the others are those with most
    texture. And the share of cut-off blocks counts only above BY_CONTENT, or texture in the light would pass for noise.
    In color neither is done: a network trained so found far too little of noise that channels share."""
    if blocks.pixels.shape[1] > 1:
        return about_luminance(*noise_features(blocks))
    features, log_reference = about_luminance(*noise_features(blocks, MOST_CUT_OFF))
    features[-2] = max(float(features[-2]) - BY_CONTENT, 0) / (1 - BY_CONTENT)
    return features, log_reference


def _few_intensities(blocks: NDArray[np.float32]) -> bool:
    """Whether intensities are few and far apart, as in line art, fax and dithered pictures."""
    if len(_intensities(blocks[:: len(blocks) // SOME + 1])) > FEW:
        return False
    there = _intensities(blocks)
    return 1 < len(there) <= FEW and int(np.diff(there).min()) >= LEAST_STEP


def _intensities(blocks: NDArray[np.float32]) -> NDArray[Any]:
    """The rounded intensities that occur, in rising order."""
    return np.flatnonzero(np.bincount(np.rint(np.clip(blocks, 0, 255)).astype(np.uint8).ravel()))
