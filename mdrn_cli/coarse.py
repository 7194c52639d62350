"""Noise of coarse grain, which a network for white noise leaves: found and removed in images of half the size.

Where noise is smeared this comes before full size, the smallest size first: at full size a network would need a level
that removes detail, too, and what it left would no longer look like noise. Elsewhere it comes after full size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdrn_cli.blocks import looked_at, quiet_amplitude
from mdrn_cli.clipping import solid_part
from mdrn_cli.grain import estimate_coarse_sigma, has_half, is_out_of_focus
from mdrn_cli.monochrome import Tone
from mdrn_cli.pixels import from_unit, halved, halved_mask, to_unit

SCALES = 2
"""Half the size, and a quarter."""
SMEARED = 1.5
"""Noise counts as smeared where its level at half the size is at least so many times the amplitude of middle
frequencies at full size; chosen on validation photographs."""
SMEARED_GRAY = 0.5
"""In gray or one tone also at least so many times the level estimated at full size: halving leaves white noise half its
level, also where JPEG has removed its middle frequencies; chosen on the same."""
LEAST_COARSER = 6.0
"""In gray or one tone: the level at a quarter of the size from which on noise counts as smeared although none is found
at half the size; noise-free photographs (148) had 4.5 at most."""
_STRIP = 256
"""Rows of a halved image worked on at once."""

Denoise = Callable[[NDArray[Any], float], NDArray[Any]]
"""(channels, level on the 0-255 scale) -> channels of the same data type, denoised."""


def without_coarse_noise(
    channels: NDArray[Any],
    denoise: Denoise,
    own: bool,
    levels: Sequence[float | None] = (None,) * SCALES,
    seen: NDArray[np.bool_] | None = None,
    white: float = 1.0,
) -> tuple[NDArray[Any], tuple[float, ...]]:
    """Denoise an image at half its size, and then at a quarter, where there is noise; what that changes is enlarged and
    added to the image.

    Args:
        channels: (C, H, W), denoised already: uint8, uint16, or floats with intensities in [0, 1].
        denoise: for smaller images, which are of uint16 or floats; returns its very argument where it does nothing.
        own: whether `channels` may be changed in place.
        levels: of the noise at half the size, at a quarter and so on, 0-255 scale, 0 for none; None to estimate one,
            which takes three channels.
        seen: (H, W), the pixels that count in the estimate; None for all.
        white: see `estimate_sigma`.

    Returns:
        The image (`channels` itself where nothing was done), and the level removed at each size, 0-255 scale, 0 where
        nothing was; fewer levels than asked for where the image is too small.
    """
    if not levels or not has_half(channels):
        return channels, ()
    half = halved(channels)
    level, *deeper = levels
    seen = halved_mask(seen)
    if level is None and is_out_of_focus(half, seen, None, white):
        return channels, (0.0,) * len(levels)
    sigma = estimate_coarse_sigma(half, seen, None, white) if level is None else level
    restored = denoise(half, sigma) if sigma else half
    changed = restored is not half
    restored, others = without_coarse_noise(restored, denoise, changed, deeper, seen, white)
    return _changed(channels, half, restored, own, white), (sigma if changed else 0.0, *others)


def without_smeared_noise(
    channels: NDArray[Any],
    denoise: Denoise,
    seen: NDArray[np.bool_] | None = None,
    tone: Tone | None = None,
    told: float = 0.0,
    levels: Sequence[float | None] = (None,) * SCALES,
    white: float = 1.0,
) -> tuple[NDArray[Any], tuple[float, ...]]:
    """Where the noise of an image that is not denoised yet is smeared, denoise it at a quarter of its size and then at
    half; what that changes is enlarged and added to a copy of the image.

    Args:
        channels: (C, H, W): uint8, uint16, or floats with intensities in [0, 1].
        denoise, seen: as for `without_coarse_noise`.
        tone: see `estimate_coarse_sigma`.
        told: noise level of the image by `estimate_sigma`, 0-255 scale.
        levels: as for `without_coarse_noise`, for any number of channels.
        white: see `estimate_sigma`.

    Returns:
        As `without_coarse_noise`; no levels where the noise is not smeared.
    """
    if not levels or not has_half(channels):
        return channels, ()
    half, half_seen = halved(channels), halved_mask(seen)
    level, *deeper = levels
    sigma = _smeared_level(channels, half, seen, tone, told, white)
    if not sigma and not (deeper and _is_coarser(half, half_seen, tone, white)):
        return channels, ()
    if level is not None:
        return _smallest_first(channels, denoise, levels, white)
    restored, others = without_smeared_noise(half, denoise, half_seen, tone, levels=deeper, white=white)
    if restored is not half:
        sigma = estimate_coarse_sigma(restored, half_seen, tone, white)
    finer = denoise(restored, sigma) if sigma else restored
    return _changed(channels, half, finer, False, white), (sigma if finer is not restored else 0.0, *others)


def smeared_levels(
    channels: NDArray[Any],
    seen: NDArray[np.bool_] | None = None,
    tone: Tone | None = None,
    told: float = 0.0,
    white: float = 1.0,
    sizes: int = SCALES,
) -> tuple[float, ...]:
    """Noise levels of an image at half its size, at a quarter and so on, where its noise is smeared. All are those
    before anything is removed: removing noise at one size leaves less at the next.

    Args:
        channels, seen, tone, told, white: as for `without_smeared_noise`.
        sizes: how many smaller sizes to look at.

    Returns:
        Levels on the 0-255 scale, 0 where there is no noise at a size; no levels where the noise is not smeared.
    """
    if not sizes or not has_half(channels):
        return ()
    half, seen_of_half = halved(channels), halved_mask(seen)
    sigma = _smeared_level(channels, half, seen, tone, told, white)
    if not sigma and not (sizes > 1 and _is_coarser(half, seen_of_half, tone, white)):
        return ()
    return (sigma, *smeared_levels(half, seen_of_half, tone, white=white, sizes=sizes - 1))


def _smeared_level(
    channels: NDArray[Any],
    half: NDArray[Any],
    seen: NDArray[np.bool_] | None,
    tone: Tone | None,
    told: float,
    white: float,
) -> float:
    """Noise level of an image at half its size, 0 where its noise is not smeared."""
    sigma = estimate_coarse_sigma(half, halved_mask(seen), tone, white)
    if not sigma or ((tone or len(channels) == 1) and sigma < SMEARED_GRAY * told):
        return 0.0
    blocks = looked_at(channels, seen, tone.intensity if tone else to_unit, white)
    is_smeared = sigma >= SMEARED * white * quiet_amplitude(blocks)
    return sigma if is_smeared and not is_out_of_focus(half, halved_mask(seen), tone, white) else 0.0


def _is_coarser(half: NDArray[Any], seen: NDArray[np.bool_] | None, tone: Tone | None, white: float) -> bool:
    """Whether noise of one channel or tone is so coarse that it is found at half the size of the halved image, though
    hardly in that image itself."""
    if not (tone or len(half) == 1) or not has_half(half):
        return False
    level = _smeared_level(half, halved(half), seen, tone, 0.0, white)
    return level >= LEAST_COARSER * white and not is_out_of_focus(half, seen, tone, white)


def _smallest_first(
    channels: NDArray[Any], denoise: Denoise, levels: Sequence[float | None], white: float
) -> tuple[NDArray[Any], tuple[float, ...]]:
    """`without_smeared_noise` for levels that are given: the smallest size is denoised first."""
    if not levels or not has_half(channels):
        return channels, ()
    half, level = halved(channels), levels[0] or 0.0
    restored, others = _smallest_first(half, denoise, levels[1:], white)
    finer = denoise(restored, level) if level else restored
    return _changed(channels, half, finer, False, white), (level if finer is not restored else 0.0, *others)


def _changed(
    channels: NDArray[Any], half: NDArray[Any], restored: NDArray[Any], own: bool, white: float
) -> NDArray[Any]:
    """An image after its half-size version was restored: itself where `restored` is `half`, else changed, in place if
    it is the caller's `own`, or as a copy."""
    if restored is half:
        return channels
    channels = channels if own else channels.copy()
    _put_back(channels, half, restored, white)
    return channels


def _put_back(channels: NDArray[Any], before: NDArray[Any], after: NDArray[Any], white: float) -> None:
    """Add to an image, in place, what changed in its half-size version, enlarged linearly."""
    height, width = channels.shape[1:]
    kept = _solid(before, white)
    for top in range(0, before.shape[1], _STRIP):
        stop = min(top + _STRIP, before.shape[1])
        near = slice(max(top - 1, 0), stop + 1)
        change = to_unit(after[:, near]) - to_unit(before[:, near])
        change[kept[:, near]] = 0
        pads = (top == 0, stop == before.shape[1])
        larger = _doubled(_doubled(np.pad(change, ((0, 0), pads, (1, 1)), "edge"), 1), 2)
        place = slice(2 * top, min(2 * stop, height))
        changed = to_unit(channels[:, place]) + larger[:, : place.stop - place.start, :width]
        channels[:, place] = from_unit(changed, str(channels.dtype))


def _solid(image: NDArray[Any], white: float) -> NDArray[np.bool_]:
    """Where an image (C, h, w) is solidly black or white, as margins, bars and blown skies are, and is not changed."""
    most = white if image.dtype.kind == "f" else np.iinfo(image.dtype).max
    return np.stack([solid_part(plane == 0) | solid_part(plane == most) for plane in image])


def _doubled(change: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Linear interpolation to twice as many values along an axis, whose first and last value are padding that the
    result leaves out: n -> 2 (n - 2)."""
    values = np.moveaxis(change, axis, 0)
    doubled = np.empty((2 * (len(values) - 2), *values.shape[1:]), np.float32)
    doubled[::2] = 0.25 * values[:-2] + 0.75 * values[1:-1]
    doubled[1::2] = 0.75 * values[1:-1] + 0.25 * values[2:]
    return np.moveaxis(doubled, 0, axis)
