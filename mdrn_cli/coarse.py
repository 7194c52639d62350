"""Noise of coarse grain, which a network for white noise leaves: found and removed in images of half the size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdrn_cli.noise import estimate_coarse_sigma
from mdrn_cli.pixels import from_unit, halved, to_unit, wholly_seen

SCALES = 2
"""Half the size, and a quarter."""
SMALLEST = 64
"""Shortest side in pixels of an image of half the size whose noise is looked for."""
_STRIP = 256
"""Rows of an image of half the size worked on at once."""

Denoise = Callable[[NDArray[Any], float], NDArray[Any]]
"""(channels, level on the 0-255 scale) -> channels of the same data type, denoised."""


def without_coarse_noise(
    channels: NDArray[Any],
    denoise: Denoise,
    own: bool,
    levels: Sequence[float | None] = (None,) * SCALES,
    seen: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[Any], tuple[float, ...]]:
    """Denoise an image once more at half its size and at a quarter, where there is noise; what that changes is put back
    into the image.

    Args:
        channels: (C, H, W), denoised already: uint8, uint16, or floats with intensities in [0, 1].
        denoise: for an image of half the size, which is of uint16 or floats; may give back what it was given.
        own: whether `channels` may be changed.
        levels: of the noise at half the size, at a quarter and so on, 0-255 scale, 0 for none; None: as estimated,
            for which there must be three channels.
        seen: (H, W), the pixels that count in the estimate; None for all.

    Returns:
        The image, `channels` itself where nothing was done, and the level denoised at each size, 0-255 scale, 0 where
        nothing was; fewer levels where the image is too small.
    """
    if not levels or min(channels.shape[1:]) < 2 * SMALLEST:
        return channels, ()
    half = halved(channels)
    level, *deeper = levels
    seen = wholly_seen(seen)
    sigma = estimate_coarse_sigma(half, seen) if level is None else level
    restored = denoise(half, sigma) if sigma else half
    changed = restored is not half
    restored, others = without_coarse_noise(restored, denoise, changed, deeper, seen)
    if restored is not half:
        channels = channels if own else channels.copy()
        _put_back(channels, half, restored)
    return channels, (sigma if changed else 0.0, *others)


def find_coarse_noise(channels: NDArray[Any], seen: NDArray[np.bool_] | None) -> float:
    """Level of the noise at half the size, as `without_coarse_noise` has it; 0 also where the image is too small."""
    if min(channels.shape[1:]) < 2 * SMALLEST:
        return 0.0
    return estimate_coarse_sigma(halved(channels), wholly_seen(seen))


def _put_back(channels: NDArray[Any], before: NDArray[Any], after: NDArray[Any]) -> None:
    """Change an image by what has changed in that of half its size, enlarged linearly."""
    height, width = channels.shape[1:]
    for top in range(0, before.shape[1], _STRIP):
        stop = min(top + _STRIP, before.shape[1])
        near = slice(max(top - 1, 0), stop + 1)
        change = to_unit(after[:, near]) - to_unit(before[:, near])
        pads = (top == 0, stop == before.shape[1])
        larger = _doubled(_doubled(np.pad(change, ((0, 0), pads, (1, 1)), "edge"), 1), 2)
        place = slice(2 * top, min(2 * stop, height))
        changed = to_unit(channels[:, place]) + larger[:, : place.stop - place.start, :width]
        channels[:, place] = from_unit(changed, str(channels.dtype))


def _doubled(change: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Twice as many values along an axis, less the two beyond each end, between which they are interpolated."""
    values = np.moveaxis(change, axis, 0)
    doubled = np.empty((2 * (len(values) - 2), *values.shape[1:]), np.float32)
    doubled[::2] = 0.25 * values[:-2] + 0.75 * values[1:-1]
    doubled[1::2] = 0.75 * values[1:-1] + 0.25 * values[2:]
    return np.moveaxis(doubled, 0, axis)
