"""Pictures as the content of image files: what each format can hold, what a result loses in it."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mdrn_cli.deep import encode_deep_png
from mdrn_cli.errors import UsageError
from mdrn_cli.exif import carried_exif, is_adobe_rgb
from mdrn_cli.formats import FORMATS, HANDLED, not_handled
from mdrn_cli.icc import profile_for
from mdrn_cli.metadata import Metadata, save_arguments
from mdrn_cli.picture import Picture, parse_color
from mdrn_cli.pixels import BITS, as_depth, by_rows
from mdrn_cli.png import unlike_srgb, with_chunks
from mdrn_cli.tiffwriting import encode_tiff

JPEG_QUALITY = 95
_USUAL_PROFILE = 1 << 20
_DEPTHS_OF = {"PNG": ("uint8", "uint16"), "TIFF": ("uint8", "uint16", "float32")}
_NO_ALPHA = ("JPEG", "BMP")
_LONGEST_SIDE = {"JPEG": 65_500, "WEBP": 16_383}
"""Longest side in pixels of the formats whose limit is below that of the others."""
_BEYOND, _NOTED, _FAR_BEYOND = 0.02, 0.001, 0.25
"""How far beyond black or white a float counts as out of range, and the share of such values that gets a warning; and
how far beyond even a single one does, as restoring itself goes nowhere near."""


def format_of(path: Path) -> str:
    """Pillow's name of the format a file name stands for.

    Raises:
        UsageError: the suffix names no handled format.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise UsageError(not_handled(path) or f"cannot tell the format of {path.name!r}", HANDLED)
    return FORMATS[suffix]


@dataclass(frozen=True)
class SaveOptions:
    """How results are written.

    Args:
        quality: of JPEG, 1 to 100; chroma is never subsampled.
        flatten: background to lay transparent pictures on, or None.
        strip_metadata: write pixels alone (and the ICC profile and its like, without which colors change).

    Raises:
        UsageError: a value makes no sense.
    """

    quality: int = JPEG_QUALITY
    flatten: str | None = None
    strip_metadata: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise UsageError(f"quality must be from 1 to 100, not {self.quality}")
        if self.flatten is not None:
            parse_color(self.flatten)

    def ask_nothing_of(self, picture: Picture, kind: str) -> bool:
        """Whether a file of the picture in a format may stay as it is: written anew it would be the same, or, as JPEG,
        worse."""
        alike = replace(
            self,
            quality=self.quality if kind == "JPEG" else JPEG_QUALITY,
            flatten=None if picture.alpha is None else self.flatten,
        )
        return alike == SaveOptions()


def refuse_unwritable(picture: Picture, kind: str, options: SaveOptions) -> None:
    """Refuse, before any work is done for it, a picture that the format cannot hold.

    Raises:
        UsageError: its transparency would be lost, and no background is given; what is no transparency would become
            one; or a side is too long.
    """
    side, longest = max(picture.channels.shape[1:]), _LONGEST_SIDE.get(kind)
    if longest and side > longest:
        raise UsageError(f"{kind} cannot hold a side of {side} pixels, only {longest}", "write PNG or TIFF")
    if picture.alpha is not None and kind != "TIFF" and not picture.metadata.extra_is_alpha:
        raise UsageError(f"{kind} cannot hold a channel that is not said to be transparency", "write TIFF")
    if picture.alpha is not None and kind in _NO_ALPHA and options.flatten is None and not picture.is_opaque:
        raise UsageError(
            f"{kind} cannot hold the transparency of the input", "write PNG, TIFF or WebP, or use --flatten COLOR"
        )


class Layout(NamedTuple):
    """How the pixels of a file are laid out.

    Attributes:
        width, height: in pixels.
        mode: L, LA, RGB or RGBA.
        bit_depth: bits a channel.
    """

    width: int
    height: int
    mode: str
    bit_depth: int


def layout_of(picture: Picture, kind: str, options: SaveOptions) -> Layout:
    """The layout of the file that `encode_picture` makes."""
    _, height, width = picture.channels.shape
    if _is_turned(picture, kind, options) and picture.is_sideways:
        width, height = height, width
    is_bare = kind in _NO_ALPHA or _background(picture, options)
    mode = replace(picture, alpha=None).mode if is_bare else picture.mode
    if kind == "WEBP":  # which has no gray
        mode = mode.replace("L", "RGB")
    return Layout(width, height, mode, BITS[_depth_for(picture.depth, kind)])


def encode_picture(picture: Picture, kind: str, options: SaveOptions | None = None) -> tuple[bytes, tuple[str, ...]]:
    """The content of an image file, with the picture's alpha and metadata and, where the format has it, its depth.

    Args:
        picture: what to write.
        kind: PNG, JPEG, TIFF, WEBP or BMP.
        options: how.

    Returns:
        The content, and warnings of what the format could not hold.

    Raises:
        UsageError: see `refuse_unwritable`.
    """
    options = options or SaveOptions()
    refuse_unwritable(picture, kind, options)
    told: tuple[str, ...] = ()
    if background := _background(picture, options):
        if picture.color == "gray" and len({*parse_color(background)}) > 1:
            told = (f"the picture is gray, and is laid on gray as bright as {background}",)
        picture = picture.flattened(background)
    if kind in _NO_ALPHA:
        picture = replace(picture, alpha=None)  # opaque
    if _is_turned(picture, kind, options):
        picture = picture.upright()
    metadata = picture.metadata.appearance if options.strip_metadata else picture.metadata
    depth = _depth_for(picture.depth, kind)
    if depth != picture.depth:
        told += (f"{picture.bit_depth} bits a channel become {BITS[depth]}",)
        picture = picture.at_full_scale()
        told += _cut_off(picture) if picture.depth == "float32" else ()
    for_gray = kind == "WEBP" and metadata.icc_profile != b"" and metadata.profile_color == "gray"
    if for_gray:  # it holds colors alone, whose profile is another
        metadata = replace(metadata, icc_profile=profile_for(metadata.icc_profile, "color"))
    data = _planes(picture, depth)
    if kind == "TIFF":
        content, lost = encode_tiff(data, metadata)
    elif depth == "uint16":
        content, lost = encode_deep_png(data, metadata)
    else:
        content, lost = _encode_plain(data, metadata, kind, options.quality)
    if kind == "JPEG":
        content += metadata.trailer
    lost += ["ICC profile for gray"] if for_gray and not metadata.icc_profile else []
    lost += [*_lost_trailer(metadata, kind), *_lost_colors(metadata, kind)]
    told += _told_of_colors(picture, metadata, kind)
    dropped = tuple(f"the input's {name} is not kept" for name in metadata.dropped)
    return content, told + tuple(f"{kind} cannot hold the input's {name}" for name in lost) + dropped


def _background(picture: Picture, options: SaveOptions) -> str | None:
    """The color that the picture is to be laid on, or None."""
    return options.flatten if picture.alpha is not None and picture.metadata.extra_is_alpha else None


def _is_turned(picture: Picture, kind: str, options: SaveOptions) -> bool:
    """Whether pixels are turned upright, because the file will carry no orientation."""
    return options.strip_metadata or not carried_exif(picture.metadata.exif, kind)[0]


def _cut_off(picture: Picture) -> tuple[str, ...]:
    """A warning about floats that integers cannot hold, where they are more than restoring itself produces."""
    beyond = by_rows(lambda rows: np.abs(rows - 0.5) > 0.5 + _BEYOND, picture.channels)
    seen = beyond if picture.seen is None else beyond[:, picture.seen]
    share = seen.mean() if seen.size else 0
    if share >= _NOTED:
        return (f"{share:.1%} of the values are beyond black or white and are cut off",)
    if max(picture.most_seen - 1, -picture.least_seen) > _FAR_BEYOND:
        return (f"{seen.sum()} values beyond black or white are cut off",)
    return ()


def _lost_trailer(metadata: Metadata, kind: str) -> list[str]:
    return [f"{len(metadata.trailer)} bytes behind the picture"] if metadata.trailer and kind != "JPEG" else []


def _told_of_colors(picture: Picture, metadata: Metadata, kind: str) -> tuple[str, ...]:
    """Warnings about colors beside the names of what is lost: a profile that some programs refuse, or Adobe RGB that
    only the EXIF told of."""
    if kind == "PNG" and len(metadata.icc_profile) > _USUAL_PROFILE:
        return ("programs that read PNG by Pillow may refuse one with an ICC profile of more than 1 MiB",)
    without = kind == "BMP" or not metadata.exif
    if without and picture.color == "color" and not metadata.icc_profile and is_adobe_rgb(picture.metadata.exif):
        return ("colors will look different: only EXIF, which is dropped, says that they are Adobe RGB",)
    return ()


def _lost_colors(metadata: Metadata, kind: str) -> list[str]:
    if kind == "PNG":
        return []
    changing = unlike_srgb(metadata.color_chunks, bool(metadata.icc_profile) and kind != "BMP")
    return [f"{name}, without which colors change" for name in changing]


def _encode_plain(data: NDArray[np.uint8], metadata: Metadata, kind: str, quality: int) -> tuple[bytes, list[str]]:
    """8 bits a channel, (H, W, C); and the names of what the format cannot hold."""
    arguments, lost = save_arguments(metadata, kind)
    buffer = io.BytesIO()
    Image.fromarray(data.squeeze(2) if data.shape[2] == 1 else data).save(
        buffer, kind, **_format_arguments(kind, quality), **arguments
    )
    if kind == "PNG" and metadata.png_chunks:
        return with_chunks(buffer.getvalue(), metadata.png_chunks), lost
    return buffer.getvalue(), lost


def _depth_for(depth: str, kind: str) -> str:
    """The deepest data type of a format that is not beyond the picture's own."""
    return [held for held in _DEPTHS_OF.get(kind, ("uint8",)) if BITS[held] <= BITS[depth]][-1]


def _planes(picture: Picture, depth: str) -> NDArray[Any]:
    """(H, W, C) of a data type, alpha last; an alpha that has the type already is not touched."""
    data = as_depth(picture.channels, depth).transpose(1, 2, 0)
    if picture.alpha is None:
        return np.ascontiguousarray(data)
    return np.concatenate([data, as_depth(picture.alpha, depth)[:, :, None]], axis=2)


def _format_arguments(kind: str, quality: int) -> dict[str, Any]:
    """What a format needs for the pixels written to be the pixels given, or close to it."""
    if kind == "JPEG":
        return {"quality": quality, "subsampling": "4:4:4"}
    return {"lossless": True, "exact": True} if kind == "WEBP" else {}
