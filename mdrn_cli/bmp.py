"""What Pillow ignores or misreads in a BMP: its color profile, the bits of gray palettes, alpha within 16 bits."""

from __future__ import annotations

import struct
from typing import IO

from PIL import Image

from mdrn_cli.errors import InputError

_FILE_HEADER, _VERSION_5 = 14, 124
_COLOR_SPACE, _PROFILE = 56, 112
"""Offsets in the header: of the kind of color space, and of the profile's position and length."""
_EMBEDDED = b"DEBM"
_VERSION_1, _VERSION_3, _ALPHA_MASK, _MASKS = 12, 56, 52, (3).to_bytes(4, "little")
"""Lengths of the oldest header, whose numbers are shorter, and of the first one with an alpha mask; the offset of that;
and the compression field of files that have masks."""
_BITS_OF_GRAY = {"1": 1, "L": 8}
"""Bits a pixel that Pillow would decode, by its name for the raw mode."""


def refuse_misread(file: Image.Image, stream: IO[bytes]) -> None:
    """Refuse a BMP that Pillow would misread: in a gray palette it derives the bits a pixel (1 or 8) from the number of
    colors, and it ignores alpha within 16 bits.

    Raises:
        InputError: a gray palette has other bits a pixel, or there is such an alpha.
    """
    at = stream.tell()
    stream.seek(_FILE_HEADER)
    header = stream.read(_VERSION_3)
    stream.seek(at)
    version = int.from_bytes(header[:4], "little")
    where = 10 if version == _VERSION_1 else 14
    bits = int.from_bytes(header[where : where + 2], "little")
    for decoder, _, _, arguments in getattr(file, "tile", ()):
        if decoder == "raw" and _BITS_OF_GRAY.get(arguments[0], bits) != bits:
            raise InputError(f"a palette of grays with {bits} bits a pixel is not handled", "save it as PNG")
    masks = version >= _VERSION_3 and header[16:20] == _MASKS
    if bits == 16 and masks and header[_ALPHA_MASK:_VERSION_3] != bytes(4):
        raise InputError("16 bits a pixel with alpha among them are not handled", "save it as PNG")


def read_profile(stream: IO[bytes]) -> bytes:
    """The color profile embedded in a BMP (version 5 of the header); empty if there is none or it is cut short."""
    stream.seek(_FILE_HEADER)
    header = stream.read(_VERSION_5)
    if len(header) < _VERSION_5 or header[_COLOR_SPACE : _COLOR_SPACE + 4] != _EMBEDDED:
        return b""
    (version,) = struct.unpack_from("<I", header)
    start, length = struct.unpack_from("<II", header, _PROFILE)
    if version < _VERSION_5:
        return b""
    stream.seek(_FILE_HEADER + start)
    profile = stream.read(length)
    return profile if len(profile) == length else b""
