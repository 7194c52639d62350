"""The passes of networks over a picture, at full size and at smaller ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mdrn_cli.blocknoise import Noise
from mdrn_cli.clipping import unclipped
from mdrn_cli.coarse import Denoise, without_coarse_noise, without_smeared_noise
from mdrn_cli.denoisers import Denoisers, labelled, mean_of
from mdrn_cli.errors import OutOfMemoryError
from mdrn_cli.freedmemory import release_freed_memory
from mdrn_cli.hardware import cores
from mdrn_cli.levelfunction import LevelFunction
from mdrn_cli.levels import HIGHEST_SIGMA
from mdrn_cli.manifest import WHITE
from mdrn_cli.monochrome import Tone, toned
from mdrn_cli.picture import Picture
from mdrn_cli.pixels import from_unit
from mdrn_cli.stretch import Function
from mdrn_cli.tilewise import OnTile, Window, denoised_bands, overlap_at, part_of
from mdrn_cli.tiling import count_tiles, largest_tile

if TYPE_CHECKING:
    from mdrn_cli.engine import Engine

ALONE, OVERLAPPING = 3, 5
"""Pictures in memory at once: alone, one as read, the same restored, and its file; where files overlap, also the next
one being read and the previous one being written."""

LARGE_PICTURE = 2**26
"""Bytes of a picture from which on the memory of its last tile is handed back before it is written; fetching these
pages again takes little time beside that of its tiles."""

MOST_AHEAD = 8
"""Most tiles prepared on the CPU, one thread each, while a GPU denoises others: undoing clipping takes a core ten times
as long as the network takes a GPU. For a network on the CPU one thread prepares tiles fast enough."""


class Beside(NamedTuple):
    """The network for white noise whose result was averaged with that of another.

    Attributes:
        model: name or path of the checkpoint.
        sha256: of its file.
        trained_sigma: noise level it was trained at.
    """

    model: str
    sha256: str
    trained_sigma: float


@dataclass(frozen=True)
class Pass:
    """What a network did to a picture, or to a smaller one made of it.

    Attributes:
        sigma: noise level removed, 0-255 scale; that after stabilization where it depended on the intensity.
        model: name or path of the checkpoint.
        sha256: of its file.
        trained_sigma: noise level it was trained at.
        device, precision: what it ran on and in.
        tile, overlap, tiles: side of a tile in pixels (0: none), what neighbours share, and how many there were.
        beside: the second network, or None where there was one.
    """

    sigma: float
    model: str
    sha256: str
    trained_sigma: float
    device: str
    precision: str
    tile: int
    overlap: int
    tiles: int
    beside: Beside | None = None

    @property
    def label(self) -> str:
        """The names of the networks, with a note where they serve another level than that they were trained at."""
        used = [(self.model, self.trained_sigma)]
        used += [(self.beside.model, self.beside.trained_sigma)] if self.beside else []
        return " and ".join(labelled(model, trained, self.sigma) for model, trained in used)


def has_room(picture: Picture, memory: int) -> bool:
    """Whether memory, in bytes that the process may use, allows other pictures to be read and written while one is
    restored. If so the tile is chosen as if they were, so that it is the same for a picture alone."""
    return (OVERLAPPING + _filled(picture)) * picture.channels.nbytes <= memory / 2


def _filled(picture: Picture) -> int:
    """Number of copies (0 or 1) of a picture that are made because part of it is transparent."""
    return int(picture.seen is not None)


class AtSmallerSizes(NamedTuple):
    """What was done to a picture at smaller sizes.

    Attributes:
        channels: the picture at full size, with the changes.
        passes: at half the size and at a quarter, None where nothing was done; fewer where the picture is too small or
            its noise is not smeared that far.
        left: warnings on what could not be done.
    """

    channels: NDArray[Any]
    passes: tuple[Pass | None, ...]
    left: tuple[str, ...]


class Passes:
    """The passes over one picture, at full size and at smaller ones.

    Args:
        denoisers: the networks.
        picture: as read; it stays in memory meanwhile.
        tone: along which a network for gray restores the picture; None for a network of its color mode.
        white: intensity that the networks are to see as 1.
        noise: that was found in the picture; None where its level is given, and taken for that of white noise.
        tile: side of a tile in pixels; 0 takes the image whole; None chooses by memory.
        memory: bytes that the process may use, for choosing the tile.
        ensemble: average over eight orientations.
        on_tile: called with the numbers of tiles of all passes together.
        factor: levels that were found are multiplied by it.
    """

    def __init__(
        self,
        denoisers: Denoisers,
        picture: Picture,
        tone: Tone | None,
        white: float,
        noise: Noise | None,
        tile: int | None,
        memory: int,
        ensemble: bool,
        on_tile: OnTile | None,
        factor: float = 1.0,
    ) -> None:
        self.denoisers, self.picture, self.tone, self.white = denoisers, picture, tone, white
        self.noise, self.factor = noise, factor
        self.tile, self.memory, self.ensemble, self.on_tile = tile, memory, ensemble, on_tile
        self.tiles = 0

    def __call__(
        self,
        noisy: NDArray[Any],
        depth: str,
        sigma: float,
        beside: int = 0,
        kind: str = WHITE,
        by_intensity: LevelFunction | None = None,
    ) -> tuple[NDArray[Any], Pass]:
        """Run one pass: the restored channels, (C, H, W) of type `depth`, and what was done. No more than a row or
        column of tiles is held as floats.

        Args:
            noisy: of any data type.
            depth: data type of the result.
            sigma: noise level to remove, 0-255 scale; not used with `by_intensity`.
            beside: bytes in memory beside the pictures.
            kind: of noise, WHITE or CAMERA. Where it is not white, the results of a network trained on it and of one
                for white noise are averaged, which is better than either (docs/experiments.md).
            by_intensity: the level at each intensity, where it depends on that; only where `white` is 1.

        Raises:
            OutOfMemoryError: memory does not allow the smallest tile, before anything is done.
            WeightsError, UsageError, DeviceError: see `Denoisers`.
            MdrnError: the network gave values that are not finite.
        """
        color, kinds = "gray" if self.tone else self.picture.color, (kind,) if kind == WHITE else (kind, WHITE)
        there = min(self.noise.sigma, HIGHEST_SIGMA) if self.noise else sigma
        ends = by_intensity.ends if by_intensity else (there, there)
        sigma = self.factor * by_intensity.stabilized_sigma if by_intensity else sigma
        denoiser, *others = found = [self.denoisers.find(color, sigma / self.white, one) for one in kinds]
        overlap = overlap_at(sigma / self.white)
        tile = self._tile(denoiser.engine, overlap, beside)
        # Laid out as files have it, channels last, so that nothing need be moved for writing.
        result = np.empty((*noisy.shape[1:], len(noisy)), depth).transpose(2, 0, 1)
        mean = by_intensity.stabilized(mean_of(found)) if by_intensity else mean_of(found)
        denoise = toned(with_white(mean, self.white), self.tone)
        _, height, width = noisy.shape
        window = self._window(noisy, ends)
        before, total = self.tiles, count_tiles(height, width, tile, overlap) if tile else 1
        self.tiles += total

        def on_tile(done: int, _total: int) -> None:
            if self.on_tile:
                self.on_tile(before + done, self.tiles)

        ahead = 1 if str(denoiser.engine.device).startswith("cpu") else min(cores(), MOST_AHEAD)
        how = tile, overlap, self.ensemble, on_tile, ahead
        for place, band in denoised_bands(window, height, width, denoise, *how):
            result[place] = from_unit(band, depth)
        if result.nbytes >= LARGE_PICTURE:
            release_freed_memory()
        engine = denoiser.engine
        about = denoiser.name, denoiser.sha256, denoiser.trained, str(engine.device), engine.precision
        second = next((Beside(other.name, other.sha256, other.trained) for other in others), None)
        return result, Pass(sigma, *about, tile, overlap, total, second)

    def _window(self, noisy: NDArray[Any], ends: tuple[float, float]) -> Window:
        """A function that gives parts of channels as floats. At full size their noise, of levels `ends` in black and
        white, has its mean moved back to 0 (clipping.py); at smaller sizes hardly anything is clipped. Where smaller
        sizes were denoised first, what was clipped is read from the picture before that."""
        picture = self.picture.channels
        if noisy.shape != picture.shape or not self.picture.may_be_cut_off:
            return partial(part_of, noisy)
        if noisy is picture:
            is_white = self.noise is None or self.noise.is_white
            return lambda rows, columns: unclipped(part_of(picture, rows, columns), ends, is_white)
        assert self.noise
        first = self.noise.sigma

        def moved(rows: slice, columns: slice) -> NDArray[np.float32]:
            before = part_of(picture, rows, columns)
            return part_of(noisy, rows, columns) + (unclipped(before, first, is_white=False) - before)

        return moved

    def _tile(self, engine: Engine, overlap: int, beside: int) -> int:
        """Side of the tile asked for, or of the largest that memory allows beside the pictures and `beside` bytes."""
        if self.tile is not None:
            return self.tile
        pictures = _filled(self.picture) + (OVERLAPPING if has_room(self.picture, self.memory) else ALONE)
        memory = engine.tile_memory(self.memory, pictures * self.picture.channels.nbytes + beside)
        try:
            return largest_tile(memory, engine.bytes_per_pixel, overlap)
        except OutOfMemoryError as error:
            if engine.device.type != "cuda":
                raise
            raise OutOfMemoryError(error.message, "free memory of the GPU, or use --device cpu") from error

    def without_smeared_noise(self, channels: NDArray[Any], levels: Sequence[float | None]) -> AtSmallerSizes:
        """See `without_smeared_noise` of coarse.py. The copy that it makes of the picture is counted in memory from the
        beginning, for it is still there in the pass at full size."""
        assert self.noise
        about = self.picture.seen, self.tone, self.noise.sigma, levels, self.white
        done = self._at_smaller_sizes(
            lambda denoise: without_smeared_noise(channels, denoise, *about), levels, channels.nbytes
        )
        return _told_of_small(done, levels) if done.passes else done

    def without_coarse_noise(self, channels: NDArray[Any], levels: Sequence[float | None]) -> AtSmallerSizes:
        """See `without_coarse_noise` of coarse.py; channels are changed in place unless they are the picture's own."""
        about = channels is not self.picture.channels, levels, self.picture.seen, self.white
        done = self._at_smaller_sizes(lambda denoise: without_coarse_noise(channels, denoise, *about), levels)
        return _told_of_small(done, levels)

    def _at_smaller_sizes(
        self,
        remove: Callable[[Denoise], tuple[NDArray[Any], tuple[float, ...]]],
        levels: Sequence[float | None],
        beside: int = 0,
    ) -> AtSmallerSizes:
        """Run `remove` with a function that denoises one smaller image, and record its passes and warnings.

        Args:
            remove: the function of coarse.py; returns channels and the level removed at each size.
            levels: where all are given, they are not multiplied by the factor.
            beside: bytes in memory beside the pictures.
        """
        done: list[tuple[int, Pass]] = []
        left: list[str] = []
        given = bool(levels) and None not in levels

        def denoise(smaller: NDArray[Any], sigma: float) -> NDArray[Any]:
            nonlocal beside
            beside += 2 * smaller.nbytes  # this one, and the same restored
            sigma = sigma if given else self.factor * sigma
            served = min(sigma, HIGHEST_SIGMA)
            try:
                restored, how = self(smaller, str(smaller.dtype), served, beside)
            except OutOfMemoryError as error:
                left.append(f"noise of {sigma:.3g} at a smaller size was not removed: {error.message}; {error.hint}")
                return smaller
            if sigma > served:
                left.append(f"noise of {sigma:.3g} at a smaller size was removed as of {served}")
            done.append((smaller.size, how))
            return restored

        channels, found = remove(denoise)
        if channels.nbytes >= LARGE_PICTURE:
            release_freed_memory()
        largest_first = iter(sorted(done, key=itemgetter(0), reverse=True))
        return AtSmallerSizes(
            channels, tuple(next(largest_first)[1] if sigma else None for sigma in found), tuple(left)
        )


def _told_of_small(done: AtSmallerSizes, levels: Sequence[float | None]) -> AtSmallerSizes:
    """Add a warning for each level that was given for a size at which the picture is too small."""
    small = tuple(
        f"the picture is too small to remove coarse grain of {level:.3g}"
        for level in filter(None, levels[len(done.passes) :])
    )
    return done._replace(left=done.left + small)


def with_white(function: Function, white: float) -> Function:
    """Make a denoiser for intensities up to 1 one for intensities up to `white`."""
    if white == 1:
        return function
    scale = np.float32(white)
    return lambda image: function(image / scale) * scale
