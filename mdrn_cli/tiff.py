"""A TIFF's first directory, and what of it is refused by what that says of the pixels."""

from __future__ import annotations

import re
from typing import IO, Any

from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from mdrn_cli.errors import InputError

# Tags.
_SUBFILE_TYPE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, _DESCRIPTION = 254, 256, 257, 258, 259, 262, 270
STRIP_OFFSETS, ORIENTATION, CHANNELS, ROWS_OF_STRIP, STRIP_SIZES, PLANES = 273, 274, 277, 278, 279, 284
RESOLUTION, RESOLUTION_UNIT, PREDICTOR, _COLOR_MAP, _TILE_WIDTH = (282, 283), 296, 317, 320, 322
SUB_DIRECTORIES, EXTRA_SAMPLES, SAMPLE_FORMAT, XMP, ICC = 330, 338, 339, 700, 34675
STRUCTURE = frozenset((*range(254, 267), 273, *range(277, 282), 284, *range(288, 293), 296, 297)).union(
    (317, *range(320, 327), 330, 332, 347), range(336, 342), range(512, 522), range(529, 533)
)
"""Tags that describe the pixels or where they lie, and so cannot be carried over."""
# Values of tags.
UNSPECIFIED, _ASSOCIATED_ALPHA, STRAIGHT_ALPHA = 0, 1, 2
NO_UNIT, INCH, CENTIMETRE = 1, 2, 3
INTEGER, FLOAT = 1, 3
TOGETHER, APART = 1, 2
_UNCOMPRESSED, _JPEG, DEFLATE = 1, 7, 8
HORIZONTAL = 2
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, YCBCR = 0, 1, 2, 3, 6
_DEPTHS = {1, 2, 4, 8, 16, 32}
"""Handled numbers of bits a channel."""
_COLORS = {
    4: "a mask",
    5: "CMYK",
    8: "CIELAB",
    9: "CIELAB",
    10: "CIELAB",
    32803: "the mosaic of a camera's sensor",
    32844: "the logarithm of luminance (LogL)",
    32845: "the logarithm of luminance (LogLuv)",
    34892: "a camera's raw data",
}
"""Photometric interpretations that are not handled, with names for messages."""
_GRAY_AND_RGB = (None, WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, YCBCR)
_SLICES = re.compile(r"ImageJ=.*^images=(\d+)", re.DOTALL | re.MULTILINE)


def tiff_directory(stream: IO[bytes]) -> tuple[Image.Exif, ImageFileDirectory_v2]:
    """The first directory of a TIFF or BigTIFF, with those within it and as it stands.

    Raises:
        InputError: its pixels are of a kind that is not handled, or would not be read as what they are.
        Exception: no TIFF, or a broken one; of many kinds, as Pillow raises them.
    """
    start = stream.read(16)
    directory = Image.Exif()
    directory.endian = "<" if start.startswith(b"II") else ">"
    directory.bigtiff = 43 in start[2:4]
    if directory.bigtiff and directory.endian == ">":  # which Pillow takes for a TIFF of 32 bits
        raise InputError("BigTIFF with the highest byte first is not handled", "save it with the lowest first")
    entries = ImageFileDirectory_v2(start if directory.bigtiff else start[:8])
    first = entries.next
    assert first is not None
    directory.load_from_fp(stream, first)
    stream.seek(first)
    entries.load(stream)
    _refuse_colors(directory)
    _refuse_layout(directory)
    _refuse_slices(directory, stream)
    return directory, entries


def _refuse_colors(directory: Image.Exif) -> None:
    kind = directory.get(PHOTOMETRIC)
    if kind not in _GRAY_AND_RGB:
        told = _COLORS.get(kind, f"photometric interpretation {kind}")
        raise InputError(f"{told} is not handled; gray and RGB are", "convert it to RGB first")
    if kind == YCBCR and directory.get(COMPRESSION) != _JPEG:  # whose pixels are decoded as if they were RGB
        raise InputError("YCbCr is handled with JPEG compression alone", "convert it to RGB first")
    if directory.get(EXTRA_SAMPLES) == _ASSOCIATED_ALPHA:
        raise InputError("the colors are multiplied by alpha, which is not handled", "save it with straight alpha")


def _refuse_layout(directory: Image.Exif) -> None:
    reduced = directory.get(_SUBFILE_TYPE, 0)
    if isinstance(reduced, int) and reduced & 1 and SUB_DIRECTORIES in directory:
        raise InputError("the picture lies behind a small preview, as in a camera's raw file", "develop it first")
    bits = bits_of(directory)
    if other := bits - _DEPTHS:
        raise InputError(f"{min(other)} bits a channel are not handled", "save it with 8 or 16 bits, or floats of 32")
    if directory.get(PHOTOMETRIC) == PALETTE:
        _refuse_palette(directory, bits)
    if directory.get(PLANES) != APART:
        return
    if directory.get(CHANNELS, 1) == 1:  # of which the tag says nothing, and which libvips reads otherwise for it
        if min(bits, default=1) < 8 or _TILE_WIDTH in directory:
            raise InputError("one channel that is told to be apart is not handled in tiles or with less than 8 bits")
        return
    if _TILE_WIDTH in directory:
        raise InputError("tiles of one channel each are not handled", "save it with the channels side by side")
    if directory.get(PHOTOMETRIC) != RGB:  # libvips reads neither gray nor alpha nor YCbCr as they are
        raise InputError("channels apart are handled of RGB alone", "save it with the channels side by side")
    if bits == {16} and FLOAT in _numbers(directory.get(SAMPLE_FORMAT)):  # libvips reads other values
        raise InputError(
            "floats of 16 bits with the channels apart are not handled", "save it with the channels side by side"
        )


def _refuse_palette(directory: Image.Exif, bits: set[int]) -> None:
    """Refuse a palette without a color for every index: the indices would be taken for grays."""
    colors = directory.get(_COLOR_MAP)
    if not isinstance(colors, tuple) or bits != {(len(colors) // 3).bit_length() - 1} or len(colors) % 3:
        raise InputError("the palette is not whole")


def _refuse_slices(directory: Image.Exif, stream: IO[bytes]) -> None:
    """Refuse a stack of ImageJ, which stores further pictures behind the only one that has a directory."""
    description = directory.get(_DESCRIPTION)
    told = _SLICES.match(description) if isinstance(description, str) else None
    if not told or int(told[1]) < 2 or directory.get(COMPRESSION, _UNCOMPRESSED) != _UNCOMPRESSED:
        return
    if int(told[1]) * sum(_numbers(directory.get(STRIP_SIZES))) <= stream.seek(0, 2):  # not a slice saved by others
        raise InputError(f"there are {told[1]} pages; only single images are handled")


def bits_of(directory: Image.Exif) -> set[int]:
    """The numbers of bits a channel; several if channels differ."""
    return set(_numbers(directory.get(BITS, 1)))


def _numbers(value: Any) -> tuple[int, ...]:
    """The integers of a tag's value, which is one number or several."""
    several = value if isinstance(value, tuple) else (value,)
    return tuple(number for number in several if isinstance(number, int))
