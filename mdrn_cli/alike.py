"""Recognizes noise that is alike in all channels of a color photograph: added grain, or what is left by cameras that
remove color noise. No network for color has seen such noise; one for gray removes it from the mean of the channels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdrn_cli.blocks import Blocks, about_luminance, answer, looked_at, noise_features, stored_network
from mdrn_cli.pixels import halved, halved_mask

NETWORK = "alike.npz"
"""Trained by tools/train_alike.py to answer 1 for noise that is alike in all channels, -1 for other noise or none."""
SURE = 0.5
"""Answer above which noise counts as alike. Not 0, as a mistake is worse this way: a network for gray does more harm to
other noise than one for color to noise that is alike."""
SMALLEST = 32
"""Shortest side in pixels of an image that is judged: its half-size version is looked at, too."""


def is_alike(
    image: NDArray[Any], seen: NDArray[np.bool_] | None = None, blocks: Blocks | None = None, white: float = 1.0
) -> bool:
    """Whether an image has noise that is alike in its channels.

    Args:
        image: (3, H, W): uint8, uint16, or floats with intensities in [0, 1].
        seen: (H, W), the pixels that count; see `blocks_of`.
        blocks: of the image, where they have been measured already.
        white: see `estimate_sigma`.
    """
    if min(image.shape[1:]) < SMALLEST:
        return False
    return answer(alike_features(image, seen, blocks, white), stored_network(NETWORK, "alike", 3)) > SURE


def alike_features(
    image: NDArray[Any], seen: NDArray[np.bool_] | None = None, blocks: Blocks | None = None, white: float = 1.0
) -> NDArray[np.float32]:
    """The input of the network of `is_alike`, float32 (300,): `noise_features` of the image and of its half-size
    version, in which JPEG leaves more color noise; relative to luminance, and without noiseless parts."""
    blocks = blocks or looked_at(image, seen, white=white)
    sizes = (blocks, looked_at(halved(image), halved_mask(seen), white=white))
    return np.concatenate([about_luminance(*noise_features(size.without_noiseless()))[0] for size in sizes])
