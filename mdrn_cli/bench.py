"""Benchmark: a folder of clean images -> rows of PSNR and SSIM, by `PROTOCOL`. Prints nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mdrn_cli.datasets import Dataset, published_psnr
from mdrn_cli.hardware import half_of_memory
from mdrn_cli.image import read_uint8
from mdrn_cli.levels import HMDS_LEVELS
from mdrn_cli.manifest import WHITE
from mdrn_cli.metrics import psnr, ssim, to_uint8
from mdrn_cli.noise import add_noise, estimate_sigma
from mdrn_cli.tilewise import OVERLAP, denoise_pixels
from mdrn_cli.tiling import largest_tile

if TYPE_CHECKING:
    from mdrn_cli.denoisers import Denoiser
    from mdrn_cli.engine import Engine

PROTOCOL = (
    "AWGN from numpy.random.RandomState(0) anew for each image, float32, not clipped; output clipped and rounded "
    "to uint8; PSNR over all pixels and channels; mean over images"
)

PUBLIC_PIXELS = 768 * 512
"""Pixels of the largest images in Set12, BSD68, CBSD68 and Kodak24, which every machine takes whole, so that figures
are the same everywhere. Urban100 has larger ones."""

ChooseTile = Callable[[NDArray[np.float32]], int]
"""Gives the side of the tiles for an image (C, H, W); 0 for the whole image."""

OnImage = Callable[[Path, NDArray[np.uint8]], None]
"""Called with an image's file and its restored version, uint8 (H, W, C)."""


@dataclass(frozen=True)
class ImageRow:
    """One image.

    Attributes:
        file: its path below the folder measured, with slashes; its name where it lies in the cache.
        psnr, ssim: of the result, PSNR in dB; NaN where there is no truth to compare with.
        noisy_psnr: PSNR in dB of the noisy image.
        noise_before, noise_after: estimated noise level, 0-255 scale.
        seconds: time the network took.
        megapixels: size of the image.
    """

    file: str
    psnr: float
    ssim: float
    noisy_psnr: float
    noise_before: float
    noise_after: float
    seconds: float
    megapixels: float


@dataclass(frozen=True)
class Result:
    """A set at one noise level.

    Attributes:
        dataset, color, sigma, model, ensemble: what was measured; the model by its name.
        images: figures of each image, of which means are told.
        published: PSNR in dB by method; none unless the images are those of the public set.
        sha256: of the checkpoint's file; None of another denoiser.
        trained_sigma: noise level that the network was trained at, of another denoiser None.
        device, precision: that the network ran on and in; empty of another denoiser.
        clean: whether noise was added; else the images carry their own, and there is no truth to compare with.
        verified: whether the images are those of the public set, byte for byte; None of a folder.
        reference: the published method that the result is held against, see `reference_of`; None for none.
    """

    dataset: str
    color: str
    sigma: float
    model: str
    ensemble: bool
    images: tuple[ImageRow, ...]
    published: dict[str, float]
    sha256: str | None = None
    trained_sigma: float | None = None
    device: str = ""
    precision: str = ""
    clean: bool = True
    verified: bool | None = None
    reference: str | None = None

    def mean(self, field: str) -> float:
        """Mean of a numeric field of ImageRow over the images that have it, finite; NaN where none does."""
        values = [value for row in self.images if math.isfinite(value := getattr(row, field))]
        return float(np.mean(values)) if values else math.nan

    @property
    def exact(self) -> int:
        """Number of images restored exactly: their PSNR is infinite and left out of means."""
        return sum(math.isinf(row.psnr) for row in self.images)

    @property
    def seconds(self) -> float:
        """Time the network took over the whole set."""
        return sum(row.seconds for row in self.images)

    @property
    def megapixels_per_second(self) -> float:
        """Throughput of the network over the set."""
        return sum(row.megapixels for row in self.images) / self.seconds

    @property
    def gap(self) -> float | None:
        """Mean PSNR in dB minus that published for the reference; None where none is, or all is restored exactly."""
        published, mean = self.published.get(self.reference or ""), self.mean("psnr")
        return None if published is None or not math.isfinite(mean) else mean - published


def tile_by_memory(engine: Engine) -> ChooseTile:
    """Take images whole, as the field does, where they fit into half of this machine's memory, or on CUDA into what is
    free there; else in the largest tiles that fit."""

    def choose(image: NDArray[np.float32]) -> int:
        _, height, width = image.shape
        memory = engine.tile_memory(int(half_of_memory()), 2 * image.nbytes)  # noisy and restored
        memory = max(memory, PUBLIC_PIXELS * engine.bytes_per_pixel)
        whole = height * width * engine.bytes_per_pixel <= memory
        return 0 if whole else largest_tile(memory, engine.bytes_per_pixel, OVERLAP)

    return choose


def check_images(dataset: Dataset) -> None:
    """Read every image once, which takes little time beside measuring, so that a bad one is reported first.

    Raises:
        InputError: an image cannot be read.
    """
    for file in dataset.files:
        read_uint8(file, dataset.color)


def measure(
    dataset: Dataset,
    sigma: float,
    model: str,
    function: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    ensemble: bool = False,
    tile: int | ChooseTile = 0,
    on_image: OnImage | None = None,
) -> Result:
    """Measure one denoiser at one noise level.

    Args:
        dataset: the clean images.
        sigma: noise level, 0-255 scale.
        model: its name, for the result.
        function: an Engine, or any callable on float32 (C, H, W) in [0, 1].
        ensemble: average over eight orientations.
        tile: side of a tile, 0 for whole images; or what chooses it for each image, such as `tile_by_memory`.
        on_image: called after each image.

    Raises:
        InputError: an image cannot be read.
    """
    rows = []
    for file in dataset.files:
        row, restored = measure_image(file, dataset, sigma, function, ensemble, tile)
        rows.append(row)
        if on_image:
            on_image(file, restored)
    published = published_psnr(dataset.name, dataset.color, sigma) if dataset.verified else {}
    about = (dataset.name, dataset.color, sigma, model, ensemble)
    return Result(*about, tuple(rows), published, clean=dataset.clean, verified=dataset.verified)


def measure_network(
    dataset: Dataset,
    sigma: float,
    denoiser: Denoiser,
    ensemble: bool = False,
    tile: int | None = None,
    on_image: OnImage | None = None,
) -> Result:
    """Measure a network at one noise level: `measure`, with what it is, what it ran on, and what it is held against.

    Args:
        dataset, sigma, ensemble, on_image: see `measure`.
        denoiser: the network that serves the level.
        tile: side of a tile, 0 for whole images; None as `tile_by_memory` has it.

    Raises:
        InputError: an image cannot be read.
    """
    engine = denoiser.engine
    tiles = tile_by_memory(engine) if tile is None else tile
    return replace(
        measure(dataset, sigma, denoiser.name, denoiser, ensemble, tiles, on_image),
        sha256=denoiser.sha256,
        trained_sigma=denoiser.trained,
        device=str(engine.device),
        precision=engine.precision,
        reference=reference_of(denoiser, ensemble),
    )


def reference_of(denoiser: Denoiser, ensemble: bool) -> str | None:
    """The paper's name for a network, None where it has none.

    Args:
        denoiser: the network; of HMDS the paper has one for gray at 50 and one for color at 70 (Table 5).
        ensemble: whether the mean over eight orientations is told.
    """
    config, distilled = denoiser.engine.config, denoiser.distilled
    if denoiser.noise != WHITE:
        return None
    if config.blocks == 8:
        if ensemble:
            return "MDRN+"
        teacher, student = HMDS_LEVELS[config.color]
        hmds = f"MDRN + HMDS ({teacher:g})" if denoiser.trained == student else None
        return {None: "MDRN", "hmds": hmds}.get(distilled)
    if config.blocks == 2 and not ensemble:
        return {None: "MDRN (2B)", "hads": "MDRN (2B) + HADS"}.get(distilled)
    return None


def measure_image(
    file: Path,
    dataset: Dataset,
    sigma: float,
    function: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    ensemble: bool,
    tile: int | ChooseTile,
) -> tuple[ImageRow, NDArray[np.uint8]]:
    """One row of `measure`, and the restored image, uint8 (H, W, C)."""
    image = read_uint8(file, dataset.color)
    # An image without truth is its own noisy version.
    noisy = add_noise(image, sigma if dataset.clean else 0.0)
    began = time.perf_counter()
    output = denoise_pixels(noisy, function, tile if isinstance(tile, int) else tile(noisy), ensemble)
    seconds = time.perf_counter() - began
    restored = to_uint8(output)
    row = ImageRow(
        file=dataset.path_of(file).as_posix(),
        psnr=psnr(restored, image) if dataset.clean else math.nan,
        ssim=ssim(restored, image) if dataset.clean else math.nan,
        noisy_psnr=_psnr_unrounded(noisy, image) if dataset.clean else math.nan,
        noise_before=estimate_sigma(noisy),
        noise_after=estimate_sigma(output),
        seconds=seconds,
        megapixels=image.shape[0] * image.shape[1] / 1e6,
    )
    return row, restored


def _psnr_unrounded(noisy: NDArray[np.float32], clean: NDArray[np.uint8]) -> float:
    """PSNR in dB of a noisy image as the network gets it, neither clipped nor rounded."""
    mse = float(np.mean((noisy.transpose(1, 2, 0).astype(np.float64) - clean / 255) ** 2))
    return -10 * math.log10(mse)
