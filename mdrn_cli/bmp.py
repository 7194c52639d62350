"""What Pillow passes over in a BMP: its color profile, how many bits a pixel of grays has, an alpha within 16 bits."""

from __future__ import annotations

import struct
from typing import IO

from PIL import Image

from mdrn_cli.errors import InputError

_FILE_HEADER, _VERSION_5 = 14, 124
_COLOR_SPACE, _PROFILE = 56, 112
"""Where the header says of which kind the colors are, and where the profile lies and how long it is."""
_EMBEDDED = b"DEBM"
_VERSION_1, _VERSION_3, _ALPHA_MASK, _MASKS = 12, 56, 52, (3).to_bytes(4, "little")
"""Lengths of the oldest header, in which numbers are shorter, and of the first with a mask of alpha, and where that is
if there are masks."""
_BITS_OF_GRAY = {"1": 1, "L": 8}
"""Of pixels as Pillow would decode them, by its name of that."""


def refuse_misread(file: Image.Image, stream: IO[bytes]) -> None:
    """See that a BMP that Pillow has opened is decoded as what it is: of a palette of grays Pillow takes the number of
    colors, two or more, for that of bits, one or eight; an alpha within 16 bits it passes over.

    Raises:
        InputError: it has other bits, or such an alpha.
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
    """The profile that a BMP has within it, of version 5 of its header; empty where there is none or not all of it."""
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
