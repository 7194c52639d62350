"""What other denoisers cost: networks of the same task written plainly, untrained, and classical methods where their
packages are installed. For timing only."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.float32]
SIGMA = 25.0
"""Noise level told to those that want one, 0-255 scale."""


def peers(device: str = "cpu") -> dict[str, Callable[[], Callable[[Pixels], Pixels]]]:
    """Name -> what makes a callable on color (3, H, W) float32 arrays, for each peer that can run here; networks run on
    the torch device."""
    found: dict[str, Callable[[], Callable[[Pixels], Pixels]]] = {
        "DnCNN": partial(_dncnn, device),
        "FFDNet": partial(_ffdnet, device),
    }
    if find_spec("skimage"):
        found["NLM (scikit-image)"] = _nlm
    if find_spec("skimage") and find_spec("pywt"):
        found["wavelet (scikit-image)"] = _wavelet
    if find_spec("bm3d"):
        found["BM3D (bm3d)"] = _bm3d
    return found


def _dncnn(device: str) -> Callable[[Pixels], Pixels]:
    """CDnCNN-B: 20 layers of 64 features at full size (Zhang et al., 2017)."""
    from torch import nn

    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(inplace=True)]
    for _ in range(18):
        layers += [nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(inplace=True)]
    network = nn.Sequential(*layers, nn.Conv2d(64, 3, 3, padding=1))
    return partial(run_plainly, network.to(device), device=device)


def _ffdnet(device: str) -> Callable[[Pixels], Pixels]:
    """FFDNet for color: 12 layers of 96 features at half size, with a map of the noise level (Zhang et al., 2018)."""
    from torch import nn

    layers: list[nn.Module] = [nn.PixelUnshuffle(2), nn.Conv2d(12, 96, 3, padding=1), nn.ReLU(inplace=True)]
    for _ in range(10):
        layers += [nn.Conv2d(96, 96, 3, padding=1), nn.ReLU(inplace=True)]
    network = nn.Sequential(*layers, nn.Conv2d(96, 12, 3, padding=1), nn.PixelShuffle(2))
    return partial(run_plainly, network.to(device), device=device)


def run_plainly(network: Callable[..., Any], image: Pixels, device: str = "cpu") -> Pixels:
    """A network that is on a torch device, as it is written, in float32 (on CUDA, too), on an image (C, H, W)."""
    import torch

    from mdrn_cli.devices import exact_convolutions

    with torch.inference_mode(), exact_convolutions(torch.device(device)):
        done: Pixels = network(torch.from_numpy(image)[None].to(device))[0].cpu().numpy()
        return done


def _nlm() -> Callable[[Pixels], Pixels]:
    from skimage.restoration import denoise_nl_means

    return lambda image: denoise_nl_means(
        image, patch_size=5, patch_distance=6, h=0.8 * SIGMA / 255, sigma=SIGMA / 255, fast_mode=True, channel_axis=0
    )


def _wavelet() -> Callable[[Pixels], Pixels]:
    from skimage.restoration import denoise_wavelet

    return lambda image: denoise_wavelet(image, sigma=SIGMA / 255, channel_axis=0, convert2ycbcr=False)


def _bm3d() -> Callable[[Pixels], Pixels]:
    from bm3d import bm3d_rgb

    return lambda image: bm3d_rgb(image.transpose(1, 2, 0), SIGMA / 255).transpose(2, 0, 1)
