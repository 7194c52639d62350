"""Chunks of WebP files that Pillow drops."""

from __future__ import annotations

from typing import IO

_KNOWN = frozenset((b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP", b"EXIF", b"XMP "))
_MOST_NAMED = 8


def read_unknown(stream: IO[bytes]) -> tuple[str, ...]:
    """The types of the chunks in a WebP file that are not of the format, such as content credentials (C2PA). A few, if
    there are many."""
    found: dict[str, None] = {}
    stream.seek(4)
    end = 8 + int.from_bytes(stream.read(4), "little")
    at = 12  # behind RIFF, that length and WEBP
    stream.seek(at)
    while at < end and len(head := stream.read(8)) == 8 and len(found) < _MOST_NAMED:
        kind = head[:4]
        if not (kind.isascii() and kind.decode("ascii").isprintable()):  # no chunk begins so
            break
        if kind not in _KNOWN:
            found[kind.decode("ascii").strip()] = None
        length = int.from_bytes(head[4:], "little")
        at += 8 + length + length % 2
        stream.seek(at)
    return tuple(found)
