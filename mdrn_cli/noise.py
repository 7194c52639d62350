"""Gaussian noise: drawn as the field's benchmarks do, and estimated."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mdrn_cli.alike import is_alike
from mdrn_cli.blocks import (
    LEAST_AMPLITUDE,
    OPPONENT,
    SIDE,
    Blocks,
    about_luminance,
    answer,
    energies_of,
    looked_at,
    noise_features,
    stored_network,
)
from mdrn_cli.clipping import whole_level
from mdrn_cli.drawn import is_drawn
from mdrn_cli.levelfunction import LevelFunction
from mdrn_cli.monochrome import SHARED, Tone, find_tone
from mdrn_cli.pixels import ENOUGH_BLOCKS, halved, to_unit, wholly_seen

SMALLEST = 16
"""Shortest side in pixels of an image whose noise can be estimated."""
SMALLEST_QUARTER = 128
"""Shortest side in pixels of a quarter of an image whose noise is looked at by itself."""
NEXT_TO_NONE = 1.5
"""Level below which quarters make nothing more of what is told of an image: of photographs without noise some is."""
AGREEMENT = 0.3
"""Between the two networks, in natural logarithms of the level; up to twice that where clipping left less of noise."""
LEAST_COARSE = 2.0
"""Level that both differences of colors must have for noise to be seen in an image of half the size."""
LEAST_GRAY_COARSE = 3.0
"""The least level told of an image of half the size in gray, where texture may pass for noise."""
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
SMALLEST_HALVED = 64
"""Shortest side in pixels of an image of half the size whose noise is looked for."""
STEEPEST = {1: 2.0, 2: 2.2}
"""Amplitude in the quieter blocks over that in an image twice as large, by the number of planes, beyond which that is
content: of noise smeared by a Gaussian of four pixels it is 1.8 and 1.9 at most."""
STRONGEST = 160.0
"""Level beyond which what is not white is a pattern, such as the dots of print; of smeared noise of 90 it is 147."""
QUIET, COARSE_EXCESS = 0.1, 2.5
"""Share of the blocks that are quieter than those by which a bound is set, and times the amplitude there that it is."""
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
    """Noise level of an image: that of white Gaussian noise which, told to `mdrn denoise`, restores it best. Of white
    noise that is the standard deviation, over the whole image where it depends on the brightness.

    Content fills some frequencies of some blocks, noise all frequencies of all blocks. How the energy of a block's
    frequencies is spread over the image (`noise_features`) tells the level to two small networks that have seen
    photographs with noise of known levels: one white noise, the other also noise as files have it, smeared and through
    JPEG (docs/noise-levels.md has the errors). In a photograph of one tone it is that of the tone, and where noise is
    alike in all channels that of their mean.

    Args:
        image: (C, H, W), C being 1 or 3: uint8, uint16, or floats with intensities in [0, 1].
        seen: (H, W), the pixels that count; see `blocks_of`.
        white: intensity of what is white in it: of floats that go beyond 1, see `white_of`.

    Returns:
        The level on the 0-255 scale, 255 being an intensity of 1; NaN when a side is below 16 pixels.
    """
    return find_noise(image, seen, white=white).sigma


def find_noise(
    image: NDArray[Any], seen: NDArray[np.bool_] | None = None, shared: bool = True, white: float = 1.0
) -> Noise:
    """`estimate_sigma`, and of what kind the noise is. Where `shared` is not set, noise that is alike in all channels
    of a color photograph is told as a network for color restores it best."""
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
    """`find_noise` of a photograph of one tone, or of what all channels share, which is known to be one."""
    return _find_in_quarters(image, seen, tone.intensity, white)._replace(tone=tone)


def _find_in_quarters(
    image: NDArray[Any],
    seen: NDArray[np.bool_] | None,
    intensities: Callable[[NDArray[Any]], NDArray[np.float32]],
    white: float,
    blocks: Blocks | None = None,
) -> Noise:
    """The noise of an image, (C, H, W) of any data type, blocks of which `intensities` makes floats from 0 to `white`;
    those of the whole may have been looked at. Where it is not white, and texture may pass for it, the median of what
    is told of the image and of its quarters: what is in them differs, noise does not. Where that is next to none it is
    no more than is told of the whole. Where white is not 1, no level at each intensity is told."""
    noise, in_part = _find_in_part(blocks or looked_at(image, seen, intensities, white))
    height, width = (length // 2 for length in image.shape[1:])
    if not noise.is_white and min(height, width) >= SMALLEST_QUARTER:
        levels = []
        for place in itertools.product(*((slice(side), slice(side, None)) for side in (height, width))):
            part = None if seen is None else seen[place]
            if part is None or 2 * part.mean() > 1:
                quarter = looked_at(image[(slice(None), *place)], part, intensities, white)
                found, told = _find_in_part(quarter) if in_part else (_find_at_each_brightness(quarter), False)
                if told == in_part:  # others may have no noise at all
                    levels.append(found.sigma)
        level = float(np.median([noise.sigma, *filter(None, levels)]))
        noise = noise._replace(sigma=min(level, noise.sigma) if level < NEXT_TO_NONE else level)
    if not noise.is_white and noise.sigma > STRONGEST:
        return Noise(0.0, is_white=False)
    return noise if white == 1 else noise._replace(sigma=noise.sigma * white, by_intensity=None)


def estimate_coarse_sigma(
    half: NDArray[Any], seen: NDArray[np.bool_] | None = None, tone: Tone | None = None, white: float = 1.0
) -> float:
    """Level of the noise in an image of half the size, that is of coarse grain in the whole one; 0 where there is none.

    So far from the pixel, texture is as sharp as noise, but seldom colored: what is noise is told by the differences of
    colors, and noise that all channels have in common is not found. In gray, or of one tone, texture may pass for it.

    Args:
        half: (C, H, W), as for `estimate_sigma`.
        seen: (H, W), the pixels that count; see `blocks_of`.
        tone: of which the noise is, where an image of three channels is taken as gray.
        white: see `estimate_sigma`.
    """
    blocks, planes = _coarse_planes(half, seen, tone, white)
    least = LEAST_GRAY_COARSE
    if planes.shape[1] > 1:
        least = LEAST_COARSE
        if min(_find(Blocks.of(planes[:, k : k + 1])).sigma for k in range(2)) < LEAST_COARSE:
            return 0.0
    sigma = min(_find(blocks).sigma, COARSE_EXCESS * _quiet(planes))
    return sigma * white if sigma >= least else 0.0


def is_out_of_focus(
    half: NDArray[Any], seen: NDArray[np.bool_] | None = None, tone: Tone | None = None, white: float = 1.0
) -> bool:
    """Whether what an image of half the size, as for `estimate_coarse_sigma`, holds of coarse structure grows so much
    from there to a quarter that it is content without noise: a picture out of focus, one enlarged much, a relief."""
    if min(half.shape[1:]) < 2 * SMALLEST_HALVED:
        return False
    _, planes = _coarse_planes(half, seen, tone, white)
    _, coarser = _coarse_planes(halved(half), wholly_seen(seen), tone, white)
    return _quiet(coarser) > STEEPEST[planes.shape[1]] * _quiet(planes)


def _coarse_planes(
    half: NDArray[Any], seen: NDArray[np.bool_] | None, tone: Tone | None, white: float
) -> tuple[Blocks, NDArray[np.float32]]:
    """Blocks of an image, and what of their pixels tells of coarse grain: (N, 1, SIDE, SIDE) in gray or of one tone,
    (N, 2, SIDE, SIDE), the differences of colors, else."""
    blocks = looked_at(half, seen, tone.intensity if tone else to_unit, white).without_even()
    if blocks.pixels.shape[1] == 1:
        return blocks, blocks.pixels
    return blocks, np.einsum("kc,ncij->nkij", OPPONENT[1:], blocks.pixels) + np.float32(127.5)


def _quiet(planes: NDArray[np.float32]) -> float:
    """Amplitude of all but the lowest frequencies in the quieter blocks, 0-255 scale."""
    energy = energies_of(planes)[:, :, np.add(*np.indices((SIDE, SIDE))).ravel() >= 2].mean(axis=2)
    return math.sqrt(float(np.quantile(energy, QUIET, axis=0).max()))


def _find_in_part(blocks: Blocks) -> tuple[Noise, bool]:
    """The noise of an image from its blocks, and whether it is in a part of them alone, where the others would tell
    that there is none. That which is white is known more closely."""
    noise = _find_at_each_brightness(blocks)
    noisy = blocks.without_noiseless()
    if noisy is blocks:
        return noise, False
    found = _find_at_each_brightness(noisy)
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


def _find_at_each_brightness(blocks: Blocks) -> Noise:
    """The noise of an image from its blocks, where it may be stronger at one brightness than at another, as that of
    sensors is. Over all blocks the quieter ones tell the level; what restores best is the root mean square over the
    image."""
    noise = _find(blocks)
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
    found = [_find(part) for part in parts]
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
    return [_find(blocks[part]) for part in np.array_split(_dark_to_light(blocks), BRIGHTNESSES)]


def _dark_to_light(blocks: Blocks) -> NDArray[np.intp]:
    """The order of blocks by their mean intensity."""
    return np.argsort(blocks.pixels.mean(axis=(1, 2, 3)), kind="stable")


def _root_mean_square(values: ArrayLike) -> float:
    return math.sqrt(np.mean(np.square(values)))


def _find(blocks: Blocks) -> Noise:
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
