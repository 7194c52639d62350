"""Denoising: image -> tiles -> image, and file -> file."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mdrn_cli.checkpoint import load_checkpoint
from mdrn_cli.engine import Engine
from mdrn_cli.ensemble import self_ensemble
from mdrn_cli.errors import MdrnError, UsageError
from mdrn_cli.image import BIT_DEPTH, check_format, read_picture, write_picture
from mdrn_cli.manifest import Record
from mdrn_cli.tiling import count_tiles, run_tiled
from mdrn_cli.weights import find_weights

DEFAULT_TILE = 512
OVERLAP = 64
"""Pixels shared by neighbouring tiles. Measured in tests/test_tiling.py: enough for tiled and whole results to
agree within 1/255."""

OnTile = Callable[[int, int], None]
"""Called with (tiles done, tiles in all), first with 0 done."""


@dataclass(frozen=True)
class DenoiseOptions:
    """How to denoise.

    Args:
        sigma: noise level of the input, 0-255 scale.
        model: "auto", a family, the name of a checkpoint, or a path to one.
        color: "auto" (as the file), "gray" or "color".
        ensemble: average over eight orientations (MDRN+), eight times the work.
        tile: side of a tile in pixels, a multiple of 8; 0 takes the image whole.
        device, precision: see Engine.
        overwrite: whether an existing output may be replaced.
        manifests: paths or URLs of manifests beyond the project's own.

    Raises:
        UsageError: a value makes no sense.
    """

    sigma: float
    model: str = "auto"
    color: str = "auto"
    ensemble: bool = False
    tile: int = DEFAULT_TILE
    device: str = "auto"
    precision: str = "auto"
    overwrite: bool = False
    manifests: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_sigma(self.sigma)
        if self.color not in ("auto", "gray", "color"):
            raise UsageError(f"color must be auto, gray or color, not {self.color!r}")
        if self.tile and (self.tile < 2 * OVERLAP or self.tile % 8):
            raise UsageError(f"tile must be a multiple of 8, at least {2 * OVERLAP}, or 0, not {self.tile}")


@dataclass(frozen=True)
class DenoiseResult:
    """What was done to a file; the fields of `mdrn denoise --json`."""

    input: Path
    output: Path
    width: int
    height: int
    mode: str
    bit_depth: int
    sigma: float
    model: str
    sha256: str | None
    device: str
    precision: str
    tile: int
    tiles: int
    seconds: float


def check_sigma(sigma: float) -> None:
    """Refuse a noise level that cannot be meant.

    Raises:
        UsageError: not in [1, 100]; a value below 1 gets a hint on the scale.
    """
    if 0 < sigma < 1:
        raise UsageError(f"sigma {sigma:g} is below 1", f"sigma is on the 0-255 scale: did you mean {sigma * 255:.3g}?")
    if not 1 <= sigma <= 100:
        raise UsageError(f"sigma must be from 1 to 100, not {sigma:g}")


def load_engine(
    model: str, color: str, sigma: float, device: str, precision: str, manifests: Sequence[str] = ()
) -> tuple[Engine, Record | None]:
    """The network for a request, ready to run, and its manifest record (None for a path).

    Raises:
        WeightsError: no checkpoint serves the request, or it is corrupt.
        UsageError: the checkpoint asked for is for another color mode or sigma.
        DeviceError: no such device.
    """
    path, record = find_weights(model, color, sigma, manifests)
    checkpoint = load_checkpoint(path)
    if (checkpoint.config.color, checkpoint.sigma) != (color, sigma):
        raise UsageError(
            f"{path} is for {checkpoint.config.color} images at sigma {checkpoint.sigma:g}, not {color} at {sigma:g}"
        )
    return Engine(checkpoint, device, precision), record


def denoise_pixels(
    noisy: NDArray[np.float32],
    function: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    tile: int = DEFAULT_TILE,
    ensemble: bool = False,
    on_tile: OnTile | None = None,
) -> NDArray[np.float32]:
    """Denoise an array.

    Args:
        noisy: float32 (C, H, W), intensities in [0, 1] plus noise.
        function: an Engine, or any callable on (C, h, w).
        tile: side of a tile, 0 for the whole image at once.
        ensemble: average over eight orientations of each tile.
        on_tile: called with (tiles done, tiles in all).

    Returns:
        float32 (C, H, W), not clipped.
    """
    _, height, width = noisy.shape
    if ensemble:
        function = self_ensemble(function)
    if not tile or max(height, width) <= tile:
        _tell(on_tile, 0, 1)
        whole = function(noisy)
        _tell(on_tile, 1, 1)
        return whole
    total, done = count_tiles(height, width, tile, OVERLAP), 0
    _tell(on_tile, 0, total)

    def count() -> None:
        nonlocal done
        done += 1
        _tell(on_tile, done, total)

    return run_tiled(noisy, function, tile, OVERLAP, count)


def _tell(on_tile: OnTile | None, done: int, total: int) -> None:
    if on_tile:
        on_tile(done, total)


def denoise_file(source: Path, target: Path, options: DenoiseOptions, on_tile: OnTile | None = None) -> DenoiseResult:
    """Denoise one image file into another, keeping its alpha and metadata. The target is written whole or
    not at all.

    Args:
        source: the noisy file.
        target: its suffix decides the format.
        options: how.
        on_tile: called with (tiles done, tiles in all).

    Raises:
        InputError: the source cannot be read.
        UsageError: the target exists, has no folder or a format that will not do.
        WeightsError, DeviceError: see `load_engine`.
    """
    began = time.perf_counter()
    if not target.parent.is_dir():
        raise UsageError(f"no folder {target.parent} to write to", "create it first")
    if target.exists() and not options.overwrite:
        raise UsageError(f"{target} exists already", "use --overwrite to replace it")
    picture = read_picture(source)
    check_format(target, picture.alpha is not None)
    if options.color != "auto":
        picture = picture.to_color(options.color)
    engine, record = load_engine(
        options.model, picture.color, options.sigma, options.device, options.precision, options.manifests
    )
    restored = denoise_pixels(picture.pixels, engine, options.tile, options.ensemble, on_tile)
    if not np.isfinite(restored).all():
        raise MdrnError(f"restoring {source} gave values that are not finite", "try --precision float32")
    try:
        write_picture(target, replace(picture, pixels=restored))
    except OSError as error:
        raise MdrnError(f"cannot write {target} ({error.strerror or error})") from error
    _, height, width = restored.shape
    return DenoiseResult(
        input=source,
        output=target,
        width=width,
        height=height,
        mode=picture.mode,
        bit_depth=BIT_DEPTH,
        sigma=options.sigma,
        model=record.name if record else options.model,
        sha256=record.sha256 if record else None,
        device=str(engine.device),
        precision=engine.precision,
        tile=options.tile,
        tiles=count_tiles(height, width, options.tile, OVERLAP) if options.tile else 1,
        seconds=time.perf_counter() - began,
    )
