"""The color profile of a BMP, which Pillow passes over."""

from __future__ import annotations

import struct
from typing import IO

_FILE_HEADER, _VERSION_5 = 14, 124
_COLOR_SPACE, _PROFILE = 56, 112
"""Where the header says of which kind the colors are, and where the profile lies and how long it is."""
_EMBEDDED = b"DEBM"


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
