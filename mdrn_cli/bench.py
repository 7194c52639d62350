"""Benchmark: a folder of clean images -> rows of PSNR and SSIM (DESIGN section 3). Prints nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mdrn_cli.datasets import Dataset, published_psnr
from mdrn_cli.denoise import denoise_pixels
from mdrn_cli.image import read_uint8
from mdrn_cli.metrics import psnr, ssim, to_uint8
from mdrn_cli.noise import add_noise

PROTOCOL = (
    "AWGN from numpy.random.RandomState(0) anew for each image, float32, not clipped; output clipped and rounded "
    "to uint8; PSNR over all pixels and channels; mean over images"
)


@dataclass(frozen=True)
class ImageRow:
    """One image: its PSNR in dB and SSIM after, its PSNR before, and the seconds the network took."""

    file: str
    psnr: float
    ssim: float
    noisy_psnr: float
    seconds: float
    megapixels: float


@dataclass(frozen=True)
class Result:
    """A set at one noise level; figures are means over its images, published ones PSNR in dB by method."""

    dataset: str
    color: str
    sigma: float
    model: str
    ensemble: bool
    images: tuple[ImageRow, ...]
    published: dict[str, float]

    def mean(self, field: str) -> float:
        """Mean of a numeric field of ImageRow over the images."""
        return float(np.mean([getattr(row, field) for row in self.images]))

    @property
    def seconds(self) -> float:
        """Time the network took over the whole set."""
        return sum(row.seconds for row in self.images)

    @property
    def megapixels_per_second(self) -> float:
        """Throughput of the network over the set."""
        return sum(row.megapixels for row in self.images) / self.seconds


def measure(
    dataset: Dataset,
    sigma: float,
    model: str,
    function: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    ensemble: bool = False,
    tile: int = 0,
    on_image: Callable[[int, int], None] | None = None,
) -> Result:
    """Measure one denoiser at one noise level.

    Args:
        dataset: the clean images.
        sigma: noise level, 0-255 scale.
        model: its name, for the result.
        function: an Engine, or any callable on float32 (C, H, W) in [0, 1].
        ensemble: average over eight orientations.
        tile: side of a tile, 0 for whole images.
        on_image: called with (images done, images in all).

    Raises:
        InputError: an image cannot be read.
    """
    rows = []
    for row in measure_images(dataset, sigma, function, ensemble, tile):
        rows.append(row)
        if on_image:
            on_image(len(rows), len(dataset.files))
    published = published_psnr(dataset.name, dataset.color, sigma)
    return Result(dataset.name, dataset.color, sigma, model, ensemble, tuple(rows), published)


def measure_images(
    dataset: Dataset,
    sigma: float,
    function: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    ensemble: bool,
    tile: int,
) -> Iterator[ImageRow]:
    """The rows of `measure`, one by one."""
    for file in dataset.files:
        clean = read_uint8(file, dataset.color)
        noisy = add_noise(clean, sigma)
        began = time.perf_counter()
        restored = to_uint8(denoise_pixels(noisy, function, tile, ensemble))
        seconds = time.perf_counter() - began
        megapixels = clean.shape[0] * clean.shape[1] / 1e6
        # The noisy image is not rounded, so its PSNR is taken before rounding too.
        mse = float(np.mean((noisy.transpose(1, 2, 0).astype(np.float64) - clean / 255) ** 2))
        noisy_psnr = -10 * float(np.log10(mse))
        yield ImageRow(file.name, psnr(restored, clean), ssim(restored, clean), noisy_psnr, seconds, megapixels)
