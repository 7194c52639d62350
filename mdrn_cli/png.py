"""Chunks of PNG files that Pillow and libvips drop: how colors are meant, text under a keyword that comes again."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import IO

Chunk = tuple[bytes, bytes]
"""Type and content."""

_LENGTHS = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"cICP": 4, b"mDCV": 24, b"cLLI": 8}
"""Bytes of what says how colors are meant, beside the ICC profile."""
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
XMP_KEYWORD = b"XML:com.adobe.xmp"
LONGEST_KEYWORD = 79
LARGEST_TEXT = 1 << 26
"""Bytes; Pillow takes no more, of all texts together."""
_KEPT = frozenset((b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"iCCP", b"pHYs", b"eXIf", *_LENGTHS, *_TEXTS))
_MEANINGLESS = frozenset((b"tIME", b"bKGD", b"sBIT", b"hIST", b"sPLT", b"acTL", b"fcTL", b"fdAT", b"iDOT"))
"""What is about the file as it was coded, or a suggestion to viewers."""
_MOST_NAMED = 8
_PIXELS_AT = 33
"""Bytes of the signature and the header, behind which these chunks are to lie."""
_SRGB_CICP = b"\x01\x0d\x00\x01"
"""Primaries of BT.709, the curve of sRGB, RGB, full range."""
_NO_INTENT = b"\x04"
"""Below it are the intents for which colors may be rendered."""
_SRGB_GAMMA, _GAMMA_TOLERANCE = 45_455, 0.05
_SRGB_CHROMATICITIES = (31_270, 32_900, 64_000, 33_000, 30_000, 60_000, 15_000, 6_000)
_CHROMATICITY_TOLERANCE = 1_000
"""These tolerances are libpng's."""


def read_color_chunks(stream: IO[bytes]) -> tuple[Chunk, ...]:
    """What a PNG says of its colors beside the ICC profile: gAMA, cHRM, sRGB, cICP, mDCV and cLLI, each once.

    Those of a wrong length, or behind the palette or the pixels, mean nothing to any reader and are passed over.
    """
    found: dict[bytes, bytes] = {}
    for kind, length in _heads(stream):
        if kind in (b"PLTE", b"IDAT"):
            break
        if length == _LENGTHS.get(kind):
            found.setdefault(kind, stream.read(length))
    return tuple(found.items())


def read_repeated_texts(stream: IO[bytes]) -> tuple[Chunk, ...]:
    """Text chunks of a PNG whose keyword comes again in a later one, in another language maybe: Pillow has the last of
    each alone. Not XMP, of which there may be one."""
    found: list[tuple[bytes, Chunk]] = []
    for kind, length in _heads(stream):
        if kind in _TEXTS and length <= LARGEST_TEXT:
            content = stream.read(length)
            keyword, separator, _ = content.partition(b"\0")
            if separator and 1 <= len(keyword) <= LONGEST_KEYWORD and keyword != XMP_KEYWORD:
                found.append((keyword, (kind, content)))
    last = {keyword: number for number, (keyword, _) in enumerate(found)}
    return tuple(chunk for number, (keyword, chunk) in enumerate(found) if number != last[keyword])


def read_unknown(stream: IO[bytes]) -> tuple[str, ...]:
    """The types of the chunks in a PNG that mean something to some program, maybe, and are not kept: private ones, and
    those of extensions. A few, if there are many."""
    found: dict[str, None] = {}
    for kind, _ in _heads(stream):
        if kind not in _KEPT | _MEANINGLESS and kind.isalpha() and len(found) < _MOST_NAMED:
            found[kind.decode("ascii")] = None
    return tuple(found)


def _heads(stream: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    """Type and length of each chunk of a PNG, at whose content the stream is then."""
    at = 8
    stream.seek(at)
    while len(head := stream.read(8)) == 8:
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        yield kind, length
        if kind == b"IEND":
            break
        at += 8 + length + 4  # its checksum
        stream.seek(at)


def with_chunks(content: bytes, chunks: Iterable[Chunk], rest_at: int = _PIXELS_AT) -> bytes:
    """A PNG with chunks behind its header.

    Args:
        content: the PNG.
        chunks: what to add.
        rest_at: where what is to follow them begins; what lies between it and the header is left out.
    """
    added = (_chunk(*chunk) for chunk in chunks)
    return b"".join((content[:_PIXELS_AT], *added, memoryview(content)[rest_at:]))


def with_chunks_alone(content: bytes, chunks: Iterable[Chunk]) -> bytes:
    """A PNG of pixels alone as libvips writes it, with these chunks instead of the resolution that libvips invents."""
    return with_chunks(content, chunks, content.index(b"IDAT", _PIXELS_AT) - 4)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))


def unlike_srgb(chunks: Iterable[Chunk], has_profile: bool) -> list[str]:
    """The names of the chunks without which colors would be taken for others, by the order of precedence that PNG sets.

    Args:
        chunks: of `read_color_chunks`.
        has_profile: whether there is an ICC profile.
    """
    found = dict(chunks)
    if b"cICP" in found:
        return [] if found[b"cICP"] == _SRGB_CICP else ["cICP"]
    if has_profile or found.get(b"sRGB", _NO_INTENT) < _NO_INTENT:
        return []
    changing = {"gAMA": _is_gamma_unlike(found.get(b"gAMA")), "cHRM": _are_primaries_unlike(found.get(b"cHRM"))}
    return [name for name, unlike in changing.items() if unlike]


def _is_gamma_unlike(data: bytes | None) -> bool:
    return data is not None and abs(int.from_bytes(data, "big") / _SRGB_GAMMA - 1) > _GAMMA_TOLERANCE


def _are_primaries_unlike(data: bytes | None) -> bool:
    if data is None:
        return False
    pairs = zip(struct.unpack(">8I", data), _SRGB_CHROMATICITIES, strict=True)
    return any(abs(value - srgb) > _CHROMATICITY_TOLERANCE for value, srgb in pairs)
