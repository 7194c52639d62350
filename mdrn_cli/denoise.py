"""Denoising one image: image -> tiles -> image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mdrn_cli.checkpoint import load_checkpoint
from mdrn_cli.engine import Engine
from mdrn_cli.ensemble import self_ensemble
from mdrn_cli.errors import MdrnError, UsageError
from mdrn_cli.image import Picture
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
    manifests: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_sigma(self.sigma)
        if self.color not in ("auto", "gray", "color"):
            raise UsageError(f"color must be auto, gray or color, not {self.color!r}")
        if self.tile and (self.tile < 2 * OVERLAP or self.tile % 8):
            raise UsageError(f"tile must be a multiple of 8, at least {2 * OVERLAP}, or 0, not {self.tile}")


@dataclass(frozen=True)
class Facts:
    """What was done to a picture.

    Attributes:
        width, height: of the picture in pixels.
        mode: Pillow's name of its pixel layout.
        sigma: noise level assumed, 0-255 scale.
        model: name or path of the checkpoint.
        sha256: of its file; None for a path.
        device, precision: what it ran on and in.
        tile, tiles: side of a tile in pixels (0: none), and how many there were.
    """

    width: int
    height: int
    mode: str
    sigma: float
    model: str
    sha256: str | None
    device: str
    precision: str
    tile: int
    tiles: int


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


class Restorer:
    """Restores pictures one after another, keeping the networks it has loaded.

    Args:
        options: how.
    """

    def __init__(self, options: DenoiseOptions) -> None:
        self.options = options
        self._engines: dict[str, tuple[Engine, Record | None]] = {}

    def __call__(self, picture: Picture, on_tile: OnTile | None = None) -> tuple[Picture, Facts]:
        """Restore one picture; the result has the alpha and metadata of the input.

        Raises:
            WeightsError, UsageError, DeviceError: see `load_engine`.
            MdrnError: the network gave values that are not finite.
        """
        options = self.options
        if options.color != "auto":
            picture = picture.to_color(options.color)
        engine, record = self._engine(picture.color)
        pixels = denoise_pixels(picture.pixels, engine, options.tile, options.ensemble, on_tile)
        if not np.isfinite(pixels).all():
            raise MdrnError("the network gave values that are not finite", "try --precision float32")
        _, height, width = pixels.shape
        facts = Facts(
            width=width,
            height=height,
            mode=picture.mode,
            sigma=options.sigma,
            model=record.name if record else options.model,
            sha256=record.sha256 if record else None,
            device=str(engine.device),
            precision=engine.precision,
            tile=options.tile,
            tiles=count_tiles(height, width, options.tile, OVERLAP) if options.tile else 1,
        )
        return replace(picture, pixels=pixels), facts

    def _engine(self, color: str) -> tuple[Engine, Record | None]:
        if color not in self._engines:
            options = self.options
            self._engines[color] = load_engine(
                options.model, color, options.sigma, options.device, options.precision, options.manifests
            )
        return self._engines[color]
