"""Chunks of WebP files that Pillow drops."""

from __future__ import annotations

from typing import IO

_KNOWN = frozenset((b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP", b"EXIF", b"XMP "))
_MOST_NAMED = 8


def read_unknown(stream: IO[bytes]) -> tuple[str, ...]:
    """The types of the chunks in a WebP file that are not of the format, such as content credentials (C2PA). A few, if
    there are many."""
    found: dict[str, None] = {}
    at = 12  # behind RIFF, a length and WEBP
    stream.seek(at)
    while len(head := stream.read(8)) == 8 and len(found) < _MOST_NAMED:
        kind = head[:4]
        if kind not in _KNOWN and kind.isascii() and kind.decode("ascii").isprintable():
            found[kind.decode("ascii").strip()] = None
        length = int.from_bytes(head[4:], "little")
        at += 8 + length + length % 2
        stream.seek(at)
    return tuple(found)
