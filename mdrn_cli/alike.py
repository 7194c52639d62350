"""Tells noise that is alike in all channels of a color photograph, as grain added to it is and what cameras leave that
remove the noise of colors: no network for color has seen it, and one for gray removes it from what channels share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdrn_cli.blocks import Blocks, about_luminance, answer, looked_at, noise_features, stored_network
from mdrn_cli.pixels import halved, wholly_seen

NETWORK = "alike.npz"
"""Trained by tools/train_alike.py to say 1 of noise that is alike in all channels, -1 of other noise and of none."""
SURE = 0.5
"""Answer from which on it is taken to be alike: a network for color does less harm to it than one for gray to other
noise."""
SMALLEST = 32
"""Shortest side in pixels of an image of which it is told, at half its size too."""


def is_alike(
    image: NDArray[Any], seen: NDArray[np.bool_] | None = None, blocks: Blocks | None = None, white: float = 1.0
) -> bool:
    """Whether an image has noise that is alike in its channels.

    Args:
        image: (3, H, W): uint8, uint16, or floats with intensities in [0, 1].
        seen: (H, W), the pixels that count; see `blocks_of`.
        blocks: of the image, where they have been looked at.
        white: see `estimate_sigma`.
    """
    if min(image.shape[1:]) < SMALLEST:
        return False
    return answer(alike_features(image, seen, blocks, white), stored_network(NETWORK, "alike", 3)) > SURE


def alike_features(
    image: NDArray[Any], seen: NDArray[np.bool_] | None = None, blocks: Blocks | None = None, white: float = 1.0
) -> NDArray[np.float32]:
    """What `is_alike` is told from: `noise_features` of the image and at half its size, where JPEG leaves more of the
    noise of colors; both about luminance, and of what may have noise. float32 (300,)."""
    blocks = blocks or looked_at(image, seen, white=white)
    sizes = (blocks, looked_at(halved(image), wholly_seen(seen), white=white))
    return np.concatenate([about_luminance(*noise_features(size.without_noiseless()))[0] for size in sizes])
