"""Denoising one image: image -> tiles -> image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mdrn_cli.coarse import without_coarse_noise
from mdrn_cli.denoisers import Denoisers
from mdrn_cli.ensemble import self_ensemble
from mdrn_cli.errors import InputError, MdrnError, UsageError
from mdrn_cli.freedmemory import release_freed_memory
from mdrn_cli.levels import HIGHEST_SIGMA, LOWEST_SIGMA, check_sigma
from mdrn_cli.manifest import FAMILIES
from mdrn_cli.monochrome import Tone, find_tone, toned
from mdrn_cli.noise import estimate_sigma
from mdrn_cli.picture import Picture
from mdrn_cli.pixels import from_unit, to_unit
from mdrn_cli.stretch import Function
from mdrn_cli.tiling import GRID, count_tiles, halving, largest_tile, tiled_rows

if TYPE_CHECKING:
    from mdrn_cli.engine import Engine

DEFAULT_MEMORY = 2 * 2**30
OVERLAP = 64
"""Pixels shared by neighbouring tiles. Measured in tests/test_tiling.py: enough for tiled and whole results to
agree within 1/255."""

PICTURES = 3
"""Pictures in memory at once: one as read, the same restored, and another being read or written."""

LARGE_PICTURE = 2**26
"""Bytes from which on a picture being written should not have the features of the last tile beside it;
fetching these pages again is nothing beside the time its tiles take."""

BLENDED_ROWS = 256
"""Rows of a picture blended at once, as floats."""

FLOAT_LIMIT = 4.0
"""Intensity that floats stay below, noise and all, if white is 1 in them."""
NOISELESS = 0.5
"""Estimated noise level below which a picture is left alone: half a step of 8 bits."""

NO_NOISE = "no noise was found; the picture is left as it is"

OnTile = Callable[[int, int], None]
"""Called with (tiles done, tiles in all), first with 0 done."""


@dataclass(frozen=True)
class DenoiseOptions:
    """How to denoise.

    Args:
        sigma: noise level of the input, 0-255 scale; None estimates that of each picture.
        model: "auto", a family, the name of a checkpoint, or a path to one.
        color: "auto" (as the file), "gray" or "color".
        ensemble: average over eight orientations (MDRN+), eight times the work.
        strength: 1 gives the denoised picture, 0 the input, between them a blend.
        tile: largest side of a tile in pixels, a multiple of 8; 0 takes the image whole; None chooses by memory.
        memory: bytes that the process may use, for choosing the tile.
        device, precision: see Engine.
        manifests: paths or URLs of manifests beyond the project's own.

    Raises:
        UsageError: a value makes no sense.
    """

    sigma: float | None = None
    model: str = "auto"
    color: str = "auto"
    ensemble: bool = False
    strength: float = 1.0
    tile: int | None = None
    memory: int = DEFAULT_MEMORY
    device: str = "auto"
    precision: str = "auto"
    manifests: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.sigma is not None:
            check_sigma(self.sigma)
        if not 0 <= self.strength <= 1:
            raise UsageError(f"strength must be from 0 to 1, not {self.strength:g}")
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
        bit_depth: bits a channel of the file.
        sigma: noise level assumed, 0-255 scale.
        sigma_source: "option" or "estimate".
        coarse_sigmas: levels found in what was denoised, halved and quartered (0: none), where they were looked for.
        model: name or path of the checkpoint.
        sha256: of its file; None for a path.
        trained_sigma: noise level it was trained at.
        device, precision: what it ran on and in.
        tile, tiles: side of a tile in pixels (0: none), and how many there were.
    """

    width: int
    height: int
    mode: str
    bit_depth: int
    sigma: float
    sigma_source: str
    coarse_sigmas: tuple[float, ...]
    model: str
    sha256: str | None
    trained_sigma: float
    device: str
    precision: str
    tile: int
    tiles: int


def denoise_pixels(
    noisy: NDArray[np.float32],
    function: Function,
    tile: int = 0,
    ensemble: bool = False,
    on_tile: OnTile | None = None,
) -> NDArray[np.float32]:
    """Denoise an array.

    Args:
        noisy: float32 (C, H, W), intensities in [0, 1] plus noise.
        function: an Engine, or any callable on (C, h, w).
        tile: side of a tile, 0 for the whole image at once; halved where the device runs out of memory.
        ensemble: average over eight orientations of each tile.
        on_tile: called with (tiles done, tiles in all).

    Returns:
        float32 (C, H, W), not clipped.

    Raises:
        OutOfMemoryError: the smallest tile is too large for the device.
    """
    result = np.empty_like(noisy)
    for top, rows in _denoised_rows(noisy, function, tile, ensemble, on_tile):
        result[:, top : top + rows.shape[1]] = rows
    return result


def _denoised_rows(
    channels: NDArray[Any],
    function: Function,
    tile: int,
    ensemble: bool,
    on_tile: OnTile | None,
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """`denoise_pixels` of channels of any data type, rows given as they are finished."""
    _, height, width = channels.shape
    function = halving(function, OVERLAP)
    if ensemble:
        function = self_ensemble(function)
    whole = max(2 * OVERLAP, height + -height % GRID, width + -width % GRID)
    total, done = count_tiles(height, width, tile or whole, OVERLAP), 0
    _tell(on_tile, 0, total)

    def count() -> None:
        nonlocal done
        done += 1
        _tell(on_tile, done, total)

    def window(rows: slice, columns: slice) -> NDArray[np.float32]:
        return to_unit(channels[:, rows, columns])

    yield from tiled_rows(window, height, width, function, tile or whole, OVERLAP, count)


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
        self._denoisers = Denoisers(options.model, options.device, options.precision, options.manifests)

    @property
    def loading(self) -> float:
        """Seconds spent on loading networks so far."""
        return self._denoisers.seconds

    def __call__(self, picture: Picture, on_tile: OnTile | None = None) -> tuple[Picture, Facts]:
        """Restore one picture; the result has the alpha and metadata of the input. Where no noise is found it has the
        very channels of the input, and the warning NO_NOISE.

        Raises:
            InputError: its noise level cannot be estimated.
            WeightsError, UsageError, DeviceError: see `Denoisers`.
            MdrnError: the network gave values that are not finite.
        """
        options = self.options
        if options.color != "auto":
            picture = picture.to_color(options.color)
        estimated = _estimate(picture) if options.sigma is None else None
        sigma = options.sigma if estimated is None else min(max(estimated, LOWEST_SIGMA), HIGHEST_SIGMA)
        assert sigma is not None
        if estimated is not None and estimated > HIGHEST_SIGMA:
            picture = picture.warned(f"noise of {estimated:.3g} was found, and is restored as of {HIGHEST_SIGMA}")
        tone = self._tone(picture, sigma)
        denoiser = self._denoisers.find("gray" if tone else picture.color, sigma)
        tile = self._tile(picture, denoiser.engine, PICTURES)
        channels, coarse = picture.channels, tuple[float, ...]()
        if estimated is None or estimated >= NOISELESS:
            channels = self._restored(channels, picture.depth, toned(denoiser, tone), tile, on_tile)
        if estimated is not None and picture.color == "color" and not tone:
            channels, coarse = self._without_coarse_noise(picture, channels, on_tile)
        if channels is picture.channels:
            restored = picture.warned(NO_NOISE)
        else:
            restored = replace(picture, channels=self._blended(picture.channels, channels))
        _, height, width = picture.channels.shape
        facts = Facts(
            width=width,
            height=height,
            mode=picture.mode,
            bit_depth=picture.bit_depth,
            sigma=sigma if estimated is None else estimated,
            sigma_source="option" if estimated is None else "estimate",
            coarse_sigmas=coarse,
            model=denoiser.name,
            sha256=denoiser.sha256,
            trained_sigma=denoiser.trained,
            device=str(denoiser.engine.device),
            precision=denoiser.engine.precision,
            tile=tile,
            tiles=count_tiles(height, width, tile, OVERLAP) if tile else 1,
        )
        return restored, facts

    def _tone(self, picture: Picture, sigma: float) -> Tone | None:
        """The tone of a photograph that a network for gray restores best, unless another is asked for."""
        asked = self.options.color == "color" or self.options.model not in ("auto", *FAMILIES)
        if asked or picture.color == "gray":
            return None
        tone = find_tone(picture.channels)
        return tone if tone and tone.explains(sigma) else None

    def _tile(self, picture: Picture, engine: Engine, pictures: int) -> int:
        """The tile asked for, or the largest that memory allows beside so many such pictures."""
        if self.options.tile is not None:
            return self.options.tile
        memory = engine.tile_memory(self.options.memory, pictures * picture.channels.nbytes)
        return largest_tile(memory, engine.bytes_per_pixel, OVERLAP)

    def _restored(
        self, noisy: NDArray[Any], depth: str, denoiser: Function, tile: int, on_tile: OnTile | None
    ) -> NDArray[Any]:
        """Channels restored, (C, H, W) of a data type; only a row of tiles is held as floats."""
        # Laid out as files have it, channels last, so that nothing need be moved for writing.
        result = np.empty((*noisy.shape[1:], len(noisy)), depth).transpose(2, 0, 1)
        for top, rows in _denoised_rows(noisy, denoiser, tile, self.options.ensemble, on_tile):
            if not np.isfinite(rows).all():
                raise MdrnError("the network gave values that are not finite", "try --precision float32")
            result[:, top : top + rows.shape[1]] = from_unit(rows, depth)
        if result.nbytes >= LARGE_PICTURE:
            release_freed_memory()
        return result

    def _without_coarse_noise(
        self, picture: Picture, channels: NDArray[Any], on_tile: OnTile | None
    ) -> tuple[NDArray[Any], tuple[float, ...]]:
        """See `without_coarse_noise`, of channels that may be the picture's own."""

        def denoise(half: NDArray[Any], sigma: float) -> NDArray[Any]:
            denoiser = self._denoisers.find("color", min(max(sigma, LOWEST_SIGMA), HIGHEST_SIGMA))
            tile = self._tile(picture, denoiser.engine, PICTURES + 1)  # these halves are as large as one
            return self._restored(half, str(half.dtype), denoiser, tile, on_tile)

        return without_coarse_noise(channels, denoise, channels is not picture.channels)

    def _blended(self, noisy: NDArray[Any], restored: NDArray[Any]) -> NDArray[Any]:
        """`restored`, changed into a blend of the two where not all of it is asked for."""
        strength = np.float32(self.options.strength)
        if strength != 1:
            for top in range(0, noisy.shape[1], BLENDED_ROWS):
                place = slice(top, top + BLENDED_ROWS)
                before = to_unit(noisy[:, place])
                blend = before + strength * (to_unit(restored[:, place]) - before)
                restored[:, place] = from_unit(blend, str(restored.dtype))
        return restored


def _estimate(picture: Picture) -> float:
    sigma = estimate_sigma(picture.channels)
    if math.isnan(sigma):
        raise InputError("the image is too small for its noise to be estimated", "give --sigma")
    largest = float(picture.channels.max())
    if picture.depth == "float32" and sigma > HIGHEST_SIGMA and largest > FLOAT_LIMIT:
        raise InputError(f"floats should be from 0 to 1, and these reach {largest:.4g}", "scale them, or give --sigma")
    return sigma
