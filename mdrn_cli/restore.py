"""Denoising one image: image -> tiles -> image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mdrn_cli.coarse import SCALES, without_coarse_noise
from mdrn_cli.denoisers import Denoisers
from mdrn_cli.ensemble import self_ensemble
from mdrn_cli.errors import InputError, MdrnError, OutOfMemoryError, UsageError
from mdrn_cli.freedmemory import release_freed_memory
from mdrn_cli.hardware import check_precision
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

WHITE_SIDE = 8
"""Of blocks whose mean tells how bright a picture is, noise apart, in pixels."""
BEYOND_WHITE, FLOAT_LIMIT = 1.05, 4.0
"""Intensity of such blocks from which on floats go beyond white, and that they stay below if white is 1 in them."""
NOISELESS = 0.5
"""Estimated noise level below which a picture is left alone: half a step of 8 bits."""

NO_NOISE = "no noise was found; the picture is left as it is"
CONVERTED = "no noise was found; only the color mode is another"

OnTile = Callable[[int, int], None]
"""Called with (tiles done, tiles in all), first with 0 done."""


@dataclass(frozen=True)
class DenoiseOptions:
    """How to denoise.

    Args:
        sigma: noise level of the input, 0-255 scale; None estimates that of each picture.
        coarse: noise levels of what has been denoised, at half the size and at a quarter, 0-255 scale, 0 for none;
            None estimates them, too, where sigma is estimated (color only).
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
    coarse: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.sigma is not None:
            check_sigma(self.sigma)
        for level in filter(None, self.coarse or ()):
            check_sigma(level)
        if self.coarse and len(self.coarse) > SCALES:
            raise UsageError(f"coarse noise has {SCALES} levels at most: at half the size, and at a quarter")
        check_precision(self.precision)
        if not 0 <= self.strength <= 1:
            raise UsageError(f"strength must be from 0 to 1, not {self.strength:g}")
        if self.color not in ("auto", "gray", "color"):
            raise UsageError(f"color must be auto, gray or color, not {self.color!r}")
        if self.tile and (self.tile < 2 * OVERLAP or self.tile % 8):
            raise UsageError(f"tile must be a multiple of 8, at least {2 * OVERLAP}, or 0, not {self.tile}")


@dataclass(frozen=True)
class Pass:
    """What a network did to a picture, or to a smaller one made of it.

    Attributes:
        sigma: noise level removed, 0-255 scale.
        model: name or path of the checkpoint.
        sha256: of its file; None for a path.
        trained_sigma: noise level it was trained at.
        device, precision: what it ran on and in.
        tile, tiles: side of a tile in pixels (0: none), and how many there were.
    """

    sigma: float
    model: str
    sha256: str | None
    trained_sigma: float
    device: str
    precision: str
    tile: int
    tiles: int


@dataclass(frozen=True)
class Facts:
    """What was done to a picture.

    Attributes:
        width, height: of the picture in pixels.
        mode: Pillow's name of its pixel layout.
        bit_depth: bits a channel of the file.
        sigma: noise level assumed, 0-255 scale.
        sigma_source: "option" or "estimate".
        network: what was done at full size; None where no noise was found.
        coarse: what was done at half the size and at a quarter, each None where that was nothing; fewer, or none,
            where noise was not looked for.
    """

    width: int
    height: int
    mode: str
    bit_depth: int
    sigma: float
    sigma_source: str
    network: Pass | None
    coarse: tuple[Pass | None, ...]

    @property
    def coarse_sigmas(self) -> tuple[float, ...]:
        """Noise level removed at each smaller size, 0 where none was."""
        return tuple(done.sigma if done else 0.0 for done in self.coarse)

    @property
    def passes(self) -> tuple[Pass, ...]:
        """All that networks did."""
        return tuple(done for done in (self.network, *self.coarse) if done)


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

    Raises:
        UsageError, WeightsError: see `Denoisers`.
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
            InputError: its noise level cannot be estimated, or its intensities go far beyond 1.
            WeightsError, UsageError, DeviceError: see `Denoisers`.
            MdrnError: the network gave values that are not finite.
        """
        options, read = self.options, picture.channels
        if options.color != "auto":
            picture = picture.to_color(options.color)
        white = _white(picture)
        estimated = _estimate(picture) if options.sigma is None else None
        sigma = options.sigma if estimated is None else min(max(estimated, LOWEST_SIGMA), HIGHEST_SIGMA)
        assert sigma is not None
        if estimated is not None and estimated > HIGHEST_SIGMA:
            picture = picture.warned(f"noise of {estimated:.3g} was found, and is restored as of {HIGHEST_SIGMA}")
        run = _Passes(options, self._denoisers, picture, self._tone(picture, sigma), white, on_tile)
        channels = picture.channels
        if estimated is None or estimated >= NOISELESS:
            channels = run(channels, picture.depth, sigma)
        network = run.last
        channels, coarse, left = run.without_coarse_noise(channels)
        for warning in left:
            picture = picture.warned(warning)
        if channels is picture.channels:
            restored = picture if left else picture.warned(NO_NOISE if channels is read else CONVERTED)
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
            network=network,
            coarse=coarse,
        )
        return restored, facts

    def _tone(self, picture: Picture, sigma: float) -> Tone | None:
        """The tone of a photograph that a network for gray restores best, unless another is asked for."""
        asked = self.options.color == "color" or self.options.model not in ("auto", *FAMILIES)
        if asked or picture.color == "gray":
            return None
        tone = find_tone(picture.channels)
        return tone if tone and tone.explains(sigma) else None

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


class _Passes:
    """The passes of networks over one picture, at full size and at smaller ones.

    Args:
        options: how.
        denoisers: the networks.
        picture: in memory meanwhile.
        tone: of a picture that a network for gray restores.
        white: intensity that the networks are to see as 1.
        on_tile: told of the tiles of all passes together.

    Attributes:
        last: what the last pass did, None before the first.
    """

    def __init__(
        self,
        options: DenoiseOptions,
        denoisers: Denoisers,
        picture: Picture,
        tone: Tone | None,
        white: float,
        on_tile: OnTile | None,
    ) -> None:
        self.options, self.denoisers, self.picture = options, denoisers, picture
        self.tone, self.white, self.on_tile = tone, white, on_tile
        self.tiles = 0
        self.last: Pass | None = None

    def __call__(self, noisy: NDArray[Any], depth: str, sigma: float, beside: int = 0) -> NDArray[Any]:
        """Channels restored, (C, H, W) of a data type; only a row of tiles is held as floats.

        Args:
            noisy: of any data type.
            depth: data type of the result.
            sigma: noise level, 0-255 scale.
            beside: bytes in memory beside the pictures.

        Raises:
            OutOfMemoryError: memory does not allow the smallest tile, before anything is done.
            Others: see `Restorer`.
        """
        denoiser = self.denoisers.find("gray" if self.tone else self.picture.color, sigma / self.white)
        tile = self._tile(denoiser.engine, beside)
        # Laid out as files have it, channels last, so that nothing need be moved for writing.
        result = np.empty((*noisy.shape[1:], len(noisy)), depth).transpose(2, 0, 1)
        function = toned(whitened(denoiser, self.white), self.tone)
        _, height, width = noisy.shape
        before, total = self.tiles, count_tiles(height, width, tile, OVERLAP) if tile else 1
        self.tiles += total

        def on_tile(done: int, _total: int) -> None:
            _tell(self.on_tile, before + done, self.tiles)

        for top, rows in _denoised_rows(noisy, function, tile, self.options.ensemble, on_tile):
            if not np.isfinite(rows).all():
                raise MdrnError("the network gave values that are not finite", "try --precision float32")
            result[:, top : top + rows.shape[1]] = from_unit(rows, depth)
        if result.nbytes >= LARGE_PICTURE:
            release_freed_memory()
        engine = denoiser.engine
        about = denoiser.name, denoiser.sha256, denoiser.trained, str(engine.device), engine.precision
        self.last = Pass(sigma, *about, tile, total)
        return result

    def _tile(self, engine: Engine, beside: int) -> int:
        """The tile asked for, or the largest that memory allows beside pictures and other bytes."""
        if self.options.tile is not None:
            return self.options.tile
        memory = engine.tile_memory(self.options.memory, PICTURES * self.picture.channels.nbytes + beside)
        return largest_tile(memory, engine.bytes_per_pixel, OVERLAP)

    def without_coarse_noise(
        self, channels: NDArray[Any]
    ) -> tuple[NDArray[Any], tuple[Pass | None, ...], tuple[str, ...]]:
        """See `without_coarse_noise`, of channels that may be the picture's own; what was done at each size, and what
        could not be."""
        levels: tuple[float | None, ...] | None = self.options.coarse
        if levels is None:
            sought = self.options.sigma is None and self.picture.color == "color" and not self.tone
            levels = (None,) * SCALES if sought else ()
        done: list[Pass | None] = []
        left: list[str] = []
        beside = 0

        def denoise(half: NDArray[Any], sigma: float) -> NDArray[Any]:
            nonlocal beside
            beside += 2 * half.nbytes  # this one, and the same restored
            served = min(max(sigma, LOWEST_SIGMA), HIGHEST_SIGMA)
            try:
                restored = self(half, str(half.dtype), served, beside)
            except OutOfMemoryError as error:
                left.append(f"noise of {sigma:.3g} in the picture made smaller is left: {error.message}; {error.hint}")
                return half
            done.append(self.last)
            return restored

        channels, found = without_coarse_noise(channels, denoise, channels is not self.picture.channels, levels)
        return channels, tuple(done.pop(0) if sigma else None for sigma in found), tuple(left)


def whitened(function: Function, white: float) -> Function:
    """A denoiser for intensities up to 1, for those up to `white`."""
    if white == 1:
        return function
    scale = np.float32(white)
    return lambda image: function(image / scale) * scale


def _white(picture: Picture) -> float:
    """The intensity that networks are to see as 1: more than that in a float picture that goes beyond, noise apart.

    Raises:
        InputError: it goes so far that its values must mean something else.
    """
    if picture.depth != "float32":
        return 1.0
    _, height, width = picture.channels.shape
    rows, columns = min(WHITE_SIDE, height), min(WHITE_SIDE, width)
    whole = picture.channels[:, : height // rows * rows, : width // columns * columns]
    means = whole.reshape(len(whole), height // rows, rows, width // columns, columns).mean(axis=(2, 4))
    white = float(means.max())
    if white > FLOAT_LIMIT:
        raise InputError(f"floats should be from 0 to 1, and these reach {white:.4g}", "scale them")
    return white if white > BEYOND_WHITE else 1.0


def _estimate(picture: Picture) -> float:
    sigma = estimate_sigma(picture.channels)
    if math.isnan(sigma):
        raise InputError("the image is too small for its noise to be estimated", "give --sigma")
    return sigma
