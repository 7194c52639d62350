"""A picture in memory: its pixels, and what its file carries beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ImageColor

from mdrn_cli.errors import InputError, UsageError
from mdrn_cli.icc import profile_for
from mdrn_cli.metadata import Metadata
from mdrn_cli.pixels import BITS, LUMA, by_rows, from_unit, to_unit

# Functions that turn an image upright, by its EXIF orientation; rows and columns are the last two axes.
_TURNS: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: lambda a: a[..., ::-1],
    3: lambda a: a[..., ::-1, ::-1],
    4: lambda a: a[..., ::-1, :],
    5: lambda a: a.swapaxes(-1, -2),
    6: lambda a: a.swapaxes(-1, -2)[..., ::-1],
    7: lambda a: a.swapaxes(-1, -2)[..., ::-1, ::-1],
    8: lambda a: a.swapaxes(-1, -2)[..., ::-1, :],
}
_SIDEWAYS = 5
"""The first of the orientations for which rows become columns."""


@dataclass(frozen=True)
class Picture:
    """An image file's content.

    Attributes:
        channels: (C, H, W), C being 1 (gray) or 3 (RGB), of the file's own data type, or float32 with intensities in
            [0, 1] (a float file's may go beyond).
        alpha: (H, W) of the file's own data type, or None.
        depth: data type of the file's channels: "uint8", "uint16" or "float32".
        metadata: ICC profile, EXIF (with its orientation, which the pixels do not have applied), XMP and so on.
        warnings: what reading could not keep as it was.
        white: what is white in a file of this depth, in its own values; None where that is the largest of its data
            type, of floats 1.
    """

    channels: NDArray[Any]
    alpha: NDArray[Any] | None = None
    depth: str = "uint8"
    metadata: Metadata = field(default_factory=Metadata)
    warnings: tuple[str, ...] = ()
    white: float | None = None

    @property
    def pixels(self) -> NDArray[np.float32]:
        """The channels as float32, intensities in [0, 1]."""
        return to_unit(self.channels)

    @property
    def seen(self) -> NDArray[np.bool_] | None:
        """Mask (H, W) of the pixels that are not fully transparent, under which colors are whatever a program has left
        there. None where that is all of them."""
        if self.alpha is None or not self.metadata.extra_is_alpha:
            return None
        seen: NDArray[np.bool_] = self.alpha > 0
        return None if seen.all() else seen

    @property
    def is_opaque(self) -> bool:
        """Whether it has an alpha that is fully opaque everywhere."""
        if self.alpha is None or not self.metadata.extra_is_alpha:
            return False
        return bool(self.alpha.min(initial=self._largest) == self._largest)

    @property
    def color(self) -> str:
        """ "gray" or "color"."""
        return "gray" if self.channels.shape[0] == 1 else "color"

    @property
    def mode(self) -> str:
        """Pillow's name of the pixel layout: L, LA, RGB or RGBA."""
        return ("L" if self.color == "gray" else "RGB") + ("A" if self.alpha is not None else "")

    @property
    def bit_depth(self) -> int:
        """Bits a channel: 8, 16 or 32."""
        return BITS[self.depth]

    def to_color(self, color: str) -> Picture:
        """The same picture as "gray" (ITU-R 601 luma) or "color" (three equal channels). An ICC profile for the other
        kind becomes one for this with the same curve of intensities, or is dropped if it has no single curve."""
        if color == self.color:
            return self
        if color == "color":
            channels = np.repeat(self.channels, 3, axis=0)
        else:
            channels = by_rows(lambda rows: np.tensordot(LUMA, to_unit(rows), axes=1)[None], self.channels)
        changed = replace(self, channels=channels)
        if not self.metadata.icc_profile or self.metadata.profile_color == color:
            return changed
        profile = profile_for(self.metadata.icc_profile, color)
        changed = replace(changed, metadata=replace(self.metadata, icc_profile=profile))
        return changed if profile else changed.warned(f"the ICC profile does not fit a {color} image and is dropped")

    @property
    def most_seen(self) -> float:
        """The largest intensity, in the file's own values, where anything can be seen."""
        where = True if self.seen is None else self.seen
        return float(self.channels.max(initial=0, where=where))

    @property
    def least_seen(self) -> float:
        """The smallest intensity where anything can be seen, in the file's own values; 0 if none is below black."""
        where = True if self.seen is None else self.seen
        return float(self.channels.min(initial=0, where=where))

    def may_reach(self, white: float) -> bool:
        """Whether `white`, in the file's own values, may be white in it: integers must be able to hold it, and floats
        above 1, the usual white, must occur for it to be above 1."""
        return white <= self._largest if self.depth != "float32" else white <= 1 or self.most_seen > 1

    def whitened(self, white: float) -> Picture:
        """The same picture, with intensities scaled where anything can be seen, so that `white`, in the file's own
        values, becomes the largest value of its data type, or 1 in floats. Integers are rounded.

        Raises:
            InputError: integers go beyond that, or cannot reach it.
        """
        if self.depth != "float32" and (top := int(self.most_seen)) > white:
            raise InputError(f"intensities reach {top}, beyond a white of {white:g}", "give a larger --white")
        if self.depth != "float32" and white > self._largest:
            raise InputError(
                f"white is {white:g}, and {self.bit_depth} bits hold {self._largest} at most", "give a smaller --white"
            )
        return self._multiplied(self._largest / white)

    def unwhitened(self, white: float) -> Picture:
        """What `whitened` undoes; integers are rounded."""
        return replace(self._multiplied(white / self._largest), white=white)

    def at_full_scale(self) -> Picture:
        """The same picture with nothing but the largest value of its data type, of floats 1, for white: as other data
        types are to have it, and eyes."""
        if self.white is None:
            return self
        return replace(self._multiplied(self._largest / self.white), white=None)

    @property
    def _largest(self) -> int:
        return 1 if self.depth == "float32" else int(np.iinfo(self.depth).max)

    def _multiplied(self, factor: float) -> Picture:
        multiply = np.float32(factor)
        with np.errstate(over="ignore"):  # of floats that nobody sees, which stand for no data
            channels = by_rows(lambda rows: from_unit(to_unit(rows) * multiply, str(rows.dtype)), self.channels)
        if (seen := self.seen) is not None:
            np.copyto(channels, self.channels, where=~seen)
        return replace(self, channels=channels)

    def warned(self, warning: str) -> Picture:
        """The same picture with another warning."""
        return replace(self, warnings=(*self.warnings, warning))

    def upright(self) -> Picture:
        """The picture turned as its EXIF orientation says, for files that will not carry one."""
        turn = _TURNS.get(self.metadata.orientation)
        if turn is None:
            return self
        alpha = None if self.alpha is None else np.ascontiguousarray(turn(self.alpha))
        metadata = self.metadata.sideways if self.is_sideways else self.metadata
        return replace(self, channels=np.ascontiguousarray(turn(self.channels)), alpha=alpha, metadata=metadata)

    @property
    def is_sideways(self) -> bool:
        """Whether `upright` swaps width and height."""
        return self.metadata.orientation in _TURNS and self.metadata.orientation >= _SIDEWAYS

    @property
    def may_be_cut_off(self) -> bool:
        """Whether all intensities are from black to white, so that noise may have been clipped there: always in
        integers, often not in floats."""
        return self.depth != "float32" or bool(self.channels.min() >= 0 and self.channels.max() <= 1)

    def flattened(self, background: str) -> Picture:
        """The picture laid on a background, without alpha; an extra TIFF channel that is no alpha is dropped.

        Args:
            background: "white", "#rrggbb" or another color as CSS names them.

        Raises:
            UsageError: no such color.
        """
        rgb = np.array(parse_color(background), np.float32) / 255
        if self.alpha is None or not self.metadata.extra_is_alpha:
            return replace(self, alpha=None)
        under = rgb if self.color == "color" else rgb @ LUMA
        under = np.reshape(under * np.float32((self.white or self._largest) / self._largest), (-1, 1, 1))

        def lay(rows: NDArray[Any], alpha: NDArray[Any]) -> NDArray[Any]:
            opacity = to_unit(alpha)
            laid = to_unit(rows) * opacity + under * (1 - opacity)
            return from_unit(laid.astype(np.float32, copy=False), self.depth)

        return replace(self, channels=by_rows(lay, self.channels, self.alpha), alpha=None)


def parse_color(name: str) -> tuple[int, int, int]:
    """Red, green and blue in 0-255 of a color as CSS names it.

    Raises:
        UsageError: no such color.
    """
    try:
        return ImageColor.getrgb(name)[:3]
    except ValueError as error:
        raise UsageError(f"no color {name!r}", "such as white, black or '#ffeedd'") from error


def picture_of(
    data: NDArray[Any], has_alpha: bool, metadata: Metadata | None = None, warnings: tuple[str, ...] = ()
) -> Picture:
    """A picture of decoded pixels.

    Args:
        data: uint8, uint16 or float32 (H, W) or (H, W, C).
        has_alpha: whether the last channel is alpha.
        metadata, warnings: see Picture.
    """
    planes = data[:, :, None] if data.ndim == 2 else data
    alpha = planes[:, :, -1].copy() if has_alpha else None
    colors = planes[:, :, : planes.shape[2] - has_alpha]
    return Picture(colors.transpose(2, 0, 1), alpha, str(data.dtype), metadata or Metadata(), warnings)
