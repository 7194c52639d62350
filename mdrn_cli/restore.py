"""Restoring one picture: its noise is estimated, and networks remove it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mdrn_cli.alike import is_alike
from mdrn_cli.blocknoise import Noise
from mdrn_cli.coarse import SCALES
from mdrn_cli.denoisers import Denoisers
from mdrn_cli.errors import UsageError
from mdrn_cli.grid import is_through_jpeg
from mdrn_cli.hardware import check_precision, memory_to_use
from mdrn_cli.levelfunction import LevelFunction
from mdrn_cli.levels import HIGHEST_SIGMA, check_factor, check_sigma, check_white
from mdrn_cli.manifest import CAMERA, RESERVED, WHITE
from mdrn_cli.monochrome import SHARED, Tone, find_tone
from mdrn_cli.noise import find_noise, find_noise_of_tone
from mdrn_cli.passes import AtSmallerSizes, Pass, Passes
from mdrn_cli.picture import Picture
from mdrn_cli.pixels import as_depth, by_rows, from_unit, to_unit
from mdrn_cli.tilewise import OnTile, check_tile
from mdrn_cli.unseen import filled
from mdrn_cli.white import white_of, whitened

NOISELESS = 0.7
"""Estimated noise level below which a picture is left alone, as denoising would do more harm (docs/noise-levels.md)."""

LEAST_CAMERA = 3.0
"""Estimated level from which on noise that is not white gets the networks for such noise, also without traces of JPEG.
Below, it may be fine texture, of which they would remove more than networks for white noise do; what JPEG leaves of
texture is no such risk. Chosen on validation photographs."""

NO_NOISE = "no noise was found; the picture is left as it is"
CONVERTED = "no noise was found; only the color mode is changed"
TOO_SMALL = "the picture is too small to estimate its noise, so none is removed; give the level by --sigma"


@dataclass(frozen=True)
class DenoiseOptions:
    """How to denoise.

    Args:
        sigma: noise level of the input, 0-255 scale; None estimates that of each picture.
        model: "auto", a family, the name of a checkpoint, or a path to one or to a run folder.
        color: "auto" (as the file), "gray" or "color".
        ensemble: average over eight orientations (MDRN+), eight times the work.
        strength: 1 gives the denoised picture, 0 the input, between them a blend.
        tile: largest side of a tile in pixels, a multiple of 8; 0 takes the image whole; None chooses by memory.
        memory: bytes that the process may use, for choosing the tile.
        device, precision: see Engine.
        manifests: paths or URLs of manifests beyond the project's own.
        coarse: noise levels at half the size and at a quarter, 0-255 scale, 0 for none; None estimates them where sigma
            is estimated, too (in gray only if noise is smeared). They are removed before full size where noise is
            smeared and sigma is estimated, else after.
        white: what is white, in the values of the file, such as 4095 where 12 of 16 bits are used; None for the largest
            value of its data type, or 1 in floats.
        factor: levels that are estimated, at any size, are multiplied by it.

    Raises:
        UsageError: a value makes no sense.
    """

    sigma: float | None = None
    model: str = "auto"
    _: KW_ONLY
    color: str = "auto"
    ensemble: bool = False
    strength: float = 1.0
    tile: int | None = None
    memory: int = field(default_factory=memory_to_use)
    device: str = "auto"
    precision: str = "auto"
    manifests: tuple[str, ...] = ()
    coarse: tuple[float, ...] | None = None
    white: float | None = None
    factor: float = 1.0

    def __post_init__(self) -> None:
        if self.sigma is not None:
            check_sigma(self.sigma)
        for level in filter(None, self.coarse or ()):
            check_sigma(level, name="coarse sigma")
        if self.coarse and len(self.coarse) > SCALES:
            raise UsageError(f"coarse noise has {SCALES} levels at most: at half the size, and at a quarter")
        check_factor(self.factor)
        if self.factor != 1 and self.sigma is not None:
            raise UsageError("a level that is given is not multiplied", "give the level you want")
        check_precision(self.precision)
        if self.white is not None:
            check_white(self.white)
        if not 0 <= self.strength <= 1:
            raise UsageError(f"strength must be from 0 to 1, not {self.strength:g}")
        if self.color not in ("auto", "gray", "color"):
            raise UsageError(f"color must be auto, gray or color, not {self.color!r}")
        if self.tile is not None:
            check_tile(self.tile)


@dataclass(frozen=True)
class Facts:
    """What was done to a picture.

    Attributes:
        width, height: in pixels; these and the next two are of the file where one was written, else of the picture.
        mode: Pillow's name of its pixel layout.
        bit_depth: bits a channel.
        sigma: noise level assumed at full size, 0-255 scale; where smaller sizes were denoised first, of what they
            left; NaN if the picture is too small for an estimate.
        sigma_source: "option" or "estimate".
        network: what was done at full size; None where no noise was found.
        coarse: what was done at half the size and at a quarter, each None where that was nothing; fewer, or none,
            where noise was not looked for.
        by_intensity: the level at each intensity, where it depends on that and was removed accordingly.
        factor: what the estimated level was multiplied by.
    """

    width: int
    height: int
    mode: str
    bit_depth: int
    sigma: float
    sigma_source: str
    network: Pass | None
    coarse: tuple[Pass | None, ...]
    by_intensity: LevelFunction | None = None
    factor: float = 1.0

    @property
    def coarse_sigmas(self) -> tuple[float, ...]:
        """Noise level removed at each smaller size, 0 where none was."""
        return tuple(done.sigma if done else 0.0 for done in self.coarse)

    @property
    def passes(self) -> tuple[Pass, ...]:
        """All passes of networks, full size first."""
        return tuple(done for done in (self.network, *self.coarse) if done)


class _Passed(NamedTuple):
    """What networks made of a picture.

    Attributes:
        channels: the same object as the picture's where they did nothing.
        sigma: noise level at full size that was given or found; of one found, HIGHEST_SIGMA is removed at most.
        network: what was done at full size.
        small: what was done at smaller sizes, and warnings on what was not.
        by_intensity: the level at each intensity, where it was removed accordingly.
    """

    channels: NDArray[Any]
    sigma: float
    network: Pass | None
    small: AtSmallerSizes
    by_intensity: LevelFunction | None


class Restorer:
    """Restores pictures one after another, keeping the networks it has loaded.

    Args:
        options: how to denoise.
        denoisers: the networks, of the options' model, device, precision and manifests; by default loaded anew.

    Raises:
        UsageError, WeightsError: see `Denoisers`.
    """

    def __init__(self, options: DenoiseOptions, denoisers: Denoisers | None = None) -> None:
        self.options = options
        self._denoisers = denoisers or Denoisers(options.model, options.device, options.precision, options.manifests)

    @property
    def loading(self) -> float:
        """Seconds spent on loading networks so far."""
        return self._denoisers.seconds

    def __call__(self, picture: Picture, on_tile: OnTile | None = None) -> tuple[Picture, Facts]:
        """Restore one picture. The result has the alpha and metadata of the input, and its colors under full
        transparency. Where no noise is found, or the picture is too small for an estimate, it has the input's channels
        unchanged and the warning NO_NOISE, CONVERTED or TOO_SMALL.

        Raises:
            InputError: its intensities go beyond the white asked for, or far beyond 1.
            WeightsError, UsageError, DeviceError: see `Denoisers`.
            MdrnError: the network gave values that are not finite.
        """
        scaled = whitened(picture, self.options.white)
        restored, facts = self._restored(scaled, on_tile)
        if self.options.white is None:
            return restored, facts
        if restored.channels is scaled.channels:
            return replace(restored, channels=picture.channels, white=self.options.white), facts
        return restored.unwhitened(self.options.white), facts

    def _restored(self, picture: Picture, on_tile: OnTile | None) -> tuple[Picture, Facts]:
        options, read = self.options, picture.channels
        # A gray picture is restored as gray and converted afterwards: no network for color has seen equal channels.
        late = options.color == "color" and picture.color == "gray" and not self._named
        if options.color != "auto" and not late:
            picture = picture.to_color(options.color)
        whole = picture
        picture = filled(picture)
        channels, sigma, network, small, by_intensity = self._passed(picture, on_tile)
        estimated = options.sigma is None
        if estimated and network and options.factor * sigma > HIGHEST_SIGMA:
            picture = picture.warned(f"noise of {sigma:.3g} was found, and removed as of {HIGHEST_SIGMA}")
        for warning in small.left:
            picture = picture.warned(warning)
        if channels is picture.channels:
            picture = replace(picture, channels=whole.channels)
            converted = late or whole.channels is not read
            restored = picture if small.left else picture.warned(_why_left(sigma, converted))
        else:
            restored = replace(picture, channels=self._blended(picture.channels, channels))
            if picture.seen is not None:
                np.copyto(
                    restored.channels, as_depth(whole.channels, str(restored.channels.dtype)), where=~picture.seen
                )
        if late:
            restored = restored.to_color(options.color)
        _, height, width = restored.channels.shape
        facts = Facts(
            width=width,
            height=height,
            mode=restored.mode,
            bit_depth=restored.bit_depth,
            sigma=sigma,
            sigma_source="estimate" if estimated else "option",
            network=network,
            coarse=small.passes,
            by_intensity=by_intensity,
            factor=options.factor,
        )
        return restored, facts

    def _passed(self, picture: Picture, on_tile: OnTile | None) -> _Passed:
        """Run the networks: at smaller sizes and then full size where noise is smeared, elsewhere in reverse order."""
        options = self.options
        white = white_of(picture)
        found = None
        small = AtSmallerSizes(picture.channels, (), ())
        if options.sigma is None:
            found = find_noise(picture.channels, picture.seen, not self._color_asked(), white)
        told = options.sigma if found is None else found.sigma
        assert told is not None
        if math.isnan(told):
            return _Passed(picture.channels, told, None, small, None)
        tone = self._tone(picture, found, white)
        sizes = options.tile, options.memory
        run = Passes(self._denoisers, picture, tone, white, found, *sizes, options.ensemble, on_tile, options.factor)
        sought = options.coarse is None or any(options.coarse)
        if found and sought and may_be_smeared(picture, found, tone):
            small = run.without_smeared_noise(picture.channels, options.coarse or (None,) * SCALES)
            if small.channels is not picture.channels:
                found = _find_noise_left(small.channels, picture.seen, tone, white)
                told = found.sigma
        channels, network, by_intensity = small.channels, None, None
        if found is None or found.sigma >= NOISELESS:
            sigma = told if found is None else min(options.factor * told, HIGHEST_SIGMA)
            beside = 0 if channels is picture.channels else channels.nbytes
            by_intensity = found.by_intensity if found and white == 1 else None
            if by_intensity and options.factor * max(told, by_intensity.stabilized_sigma) > HIGHEST_SIGMA:
                by_intensity = None
            kind = self._kind(picture, found, tone)
            channels, network = run(channels, picture.depth, sigma, beside, kind, by_intensity)
        if not any(small.passes):
            later = run.without_coarse_noise(channels, self._coarse_levels(picture, found, tone))
            channels = later.channels
            small = later if any(later.passes) or later.left else later._replace(left=small.left)
        return _Passed(channels, told, network, small, by_intensity)

    @property
    def _named(self) -> bool:
        """Whether a single network is asked for, by name or path."""
        return self.options.model not in RESERVED

    def _color_asked(self) -> bool:
        """Whether no network for gray may restore a color picture, as that for color, or a single one, is asked for."""
        return self.options.color == "color" or self._named

    def _tone(self, picture: Picture, found: Noise | None, white: float) -> Tone | None:
        """The tone along which a network for gray restores a color picture best: that of a one-tone photograph, SHARED
        for noise alike in all channels, or None. If noise was estimated, it is the tone found then, and no other is
        looked for: JPEG smooths color noise, so any photograph of few colors would seem to be of one tone."""
        if self._color_asked() or picture.color == "gray":
            return None
        if found:
            return found.tone
        tone, sigma = find_tone(picture.channels, picture.seen), self.options.sigma
        if tone and sigma is not None and tone.explains(sigma):
            return tone
        return SHARED if is_alike(picture.channels, picture.seen, white=white) else None

    def _kind(self, picture: Picture, found: Noise | None, tone: Tone | None) -> str:
        """WHITE or CAMERA, the kind of noise whose networks are used; a given level is taken as of white noise."""
        if found is None or found.is_white or not self._denoisers.are_for(CAMERA, "gray" if tone else picture.color):
            return WHITE
        strong = found.sigma >= LEAST_CAMERA
        return CAMERA if strong or is_through_jpeg(picture.channels, picture.seen) else WHITE

    def _coarse_levels(self, picture: Picture, found: Noise | None, tone: Tone | None) -> Sequence[float | None]:
        """Levels at smaller sizes for `without_coarse_noise` of coarse.py: those given, else None (to be estimated) in
        color pictures for which any noise was estimated, as it is for all photographs; else none."""
        if self.options.coarse is not None:
            return self.options.coarse
        sought = found is not None and found.sigma > 0 and picture.color == "color" and not tone
        if found and found.is_white and self.options.factor < 1:  # noise left on purpose would pass for grain
            return ()
        return (None,) * SCALES if sought else ()

    def _blended(self, noisy: NDArray[Any], restored: NDArray[Any]) -> NDArray[Any]:
        """`restored`, blended with `noisy` in place if strength is below 1."""
        strength = np.float32(self.options.strength)
        if strength == 1:
            return restored

        def blend(noisy: NDArray[Any], restored: NDArray[Any]) -> NDArray[Any]:
            before = to_unit(noisy)
            return from_unit(before + strength * (to_unit(restored) - before), str(restored.dtype))

        return by_rows(blend, noisy, restored, result=restored)


def may_be_smeared(picture: Picture, noise: Noise, tone: Tone | None) -> bool:
    """Whether the noise found in a picture may be smeared, and have to be removed at smaller sizes first. In gray or
    one tone any noise may: the estimate for smeared noise may be near 0 there, or be that it is white."""
    if tone or picture.color == "gray":
        return noise.sigma > 0
    return not noise.is_white and noise.sigma >= NOISELESS


def _why_left(sigma: float, converted: bool) -> str:
    """The warning for a picture that is left as it is, or only `converted` to another color mode."""
    if math.isnan(sigma):
        return TOO_SMALL
    return CONVERTED if converted else NO_NOISE


def _find_noise_left(channels: NDArray[Any], seen: NDArray[np.bool_] | None, tone: Tone | None, white: float) -> Noise:
    """The noise that is left after smaller sizes, in the same tone, if any, so that the same kind of network fits."""
    if tone:
        return find_noise_of_tone(channels, seen, tone, white)
    return find_noise(channels, seen, shared=False, white=white)
