"""Where the picture in a JPEG file ends, and what lies behind it: further pictures that it lists, and the rest."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable
from typing import IO, Literal, NamedTuple

from PIL.TiffImagePlugin import ImageFileDirectory_v2

_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""The marker of a segment. Within coded pixels 0xFF is followed by 0 or by a restart marker instead."""
_END, _APP0, _APP2, _APP14, _SCAN = 0xD9, 0xE0, 0xE2, 0xEE, 0xDA
_SEQUENTIAL = (0xC0, 0xC1, 0xC9)
"""Markers of frames whose scans hold all frequencies of a block."""
_FRAMES = (*_SEQUENTIAL, 0xC2, 0xCA)
_NO_TRANSFORM, _YCBCR = b"\0", b"\x01"
"""Color transforms: none, and the one that libjpeg assumes for unknown values."""
_ALL_FREQUENCIES = b"\0\x3f\0"
"""End of the segment of a scan with all frequencies."""
_SHORTEST = 16
"""Bytes of the segments of JFIF and Adobe that libjpeg reads."""
_MOST_SEGMENTS = 100_000
_RESTARTS = re.compile(rb"\xff\xdd\0\x04(?!\0\0)")
_BEGIN = 0xD8
_START = bytes((0xFF, _BEGIN))
_LIST = b"MPF\0"
_ENTRIES, _ENTRY = 0xB002, 16
"""The tag of the pictures in a list, and the bytes of each of them."""
_KIND, _PREVIEWS = 0xFFFFFF, (0x010001, 0x010002)
_ALONE = (0x01, _BEGIN)
"""Markers without a length."""
_BLOCK = 1 << 12
_PADDING = 16
"""Bytes behind the end that mean nothing."""
LARGEST_TRAILER = 1 << 28
"""Bytes behind a picture that are kept, and so held in memory: films of motion photos have some millions."""


class Listed(NamedTuple):
    """A picture in a JPEG file's list: its bytes, where it begins, from where the list does (0 of the first), and
    whether it is the first one, smaller."""

    size: int
    start: int
    is_preview: bool


class Behind(NamedTuple):
    """What a JPEG file has behind its picture.

    Attributes:
        further: pictures that it lists, of which each is there.
        between: how many bytes lie between it and these.
        start, size: where the rest begins, such as a motion photo's film, and how many bytes it has.
    """

    further: tuple[Listed, ...]
    between: int
    start: int
    size: int


def listed_pictures(segments: Iterable[tuple[str, bytes]]) -> list[Listed]:
    """The pictures in a JPEG file that lists them (CIPA DC-007): previews, what another lens saw, or how bright
    highlights are to be.

    Args:
        segments: as Pillow has them in `applist`.

    Returns:
        All of them; none where nothing is listed.
    """
    content = next((data for name, data in segments if name == "APP2" and data.startswith(_LIST)), _LIST)
    stream = io.BytesIO(content.removeprefix(_LIST))
    try:
        directory = ImageFileDirectory_v2(stream.read(8))
        stream.seek(directory.next or 0)
        directory.load(stream)
        entries = bytes(directory[_ENTRIES])
    except Exception:  # of many kinds, as Pillow raises them of a list that is damaged
        return []
    order: Literal["big", "little"] = "big" if stream.getvalue().startswith(b"MM") else "little"
    whole = len(entries) // _ENTRY * _ENTRY
    numbers = [int.from_bytes(entries[at : at + 4], order) for at in range(0, whole, 4)]
    parts = zip(numbers[::4], numbers[1::4], numbers[2::4], strict=True)
    return [Listed(size, start, attribute & _KIND in _PREVIEWS) for attribute, size, start in parts]


def behind_picture(stream: IO[bytes], listed: Iterable[Listed] = ()) -> Behind:
    """What a JPEG file has behind its picture. Nothing is decoded.

    Args:
        stream: the file.
        listed: the pictures that the file lists. Programs that change a file may leave a list that is not true any
            more; one that is not where the list says does not count, nor do bytes behind its end.

    Returns:
        The rest has 0 bytes where there are a few only, or nothing but padding (zeros or ones), or no end. Of more than
        `LARGEST_TRAILER` it is not seen whether that is padding.
    """
    whole = stream.seek(0, os.SEEK_END)
    end, list_at = _end_of_picture(stream, 0, whole)
    if end is None:
        return Behind((), 0, whole, 0)
    further, between, endless = [], 0, False
    for one in sorted(listed, key=lambda one: one.start) if list_at else ():
        start, told_end = list_at + one.start, list_at + one.start + one.size
        stream.seek(start)
        if start < end or stream.read(len(_START)) != _START or (endless and told_end > whole):
            continue
        found, _ = _end_of_picture(stream, start, min(told_end, whole))
        if found is None and told_end > whole:  # nor has one an end that begins later
            endless = True
            continue
        between += _meaningful(stream, end, start)
        further.append(one)
        end = found or told_end
    return Behind(tuple(further), between, end, _meaningful(stream, end, whole))


def _end_of_picture(stream: IO[bytes], start: int, limit: int) -> tuple[int | None, int]:
    """Where a picture ends that begins at a place in a stream, at its marker or where another begins; None where that
    is not before a limit. And where its list of pictures begins, 0 without."""
    list_at = 0
    stream.seek(start + len(_START))
    while marker := _next_marker(stream, limit):
        if marker in (_END, _BEGIN):
            return stream.tell() - (len(_START) if marker == _BEGIN else 0), list_at
        if marker not in _ALONE:
            length = int.from_bytes(stream.read(2), "big")
            segment = stream.tell()
            if marker == _APP2 and stream.read(len(_LIST)) == _LIST:
                list_at = stream.tell()
            stream.seek(segment + max(length - 2, 0))
    return None, list_at


def _meaningful(stream: IO[bytes], start: int, end: int) -> int:
    """How many bytes a part of a file has; 0 of a few, or of padding."""
    stream.seek(start)
    size = end - start
    return 0 if size <= _PADDING or (size <= LARGEST_TRAILER and _is_padding(stream, size)) else size


def put_right(content: bytes) -> bytes:
    """A JPEG without what libjpeg warns of and takes as it is meant: bytes between segments, versions of JFIF, color
    transforms and parameters of a scan that there are not. The pixels are the same. Of one with more segments than any
    picture has, the content as it is."""
    kept, at = bytearray(content[:2]), 2
    frame = None
    for _ in range(_MOST_SEGMENTS):
        found = _MARKER.search(content, at)
        if not found:
            break
        marker, start = content[found.end() - 1], found.end() - 2
        at = found.end()
        if marker not in _ALONE and marker != _END:
            at += int.from_bytes(content[at : at + 2], "big")
        frame = marker if marker in _FRAMES else frame
        kept += _segment_put_right(content[start:at], marker, frame)
        if marker == _END:
            break
        if marker == _SCAN:
            start, at = at, (behind.start() if (behind := _MARKER.search(content, at)) else len(content))
            kept += memoryview(content)[start:at]
    else:
        return content
    kept += memoryview(content)[at:]
    return bytes(kept)


def _segment_put_right(segment: bytes, marker: int, frame: int | None) -> bytes:
    """See `put_right`; `frame` is the marker of the frame that a scan is of. What is too short is left."""
    if marker == _APP0 and segment[4:9] == b"JFIF\0" and len(segment) >= _SHORTEST:
        return segment[:9] + b"\x01" + segment[10:]
    if marker == _APP14 and segment[4:9] == b"Adobe" and len(segment) >= _SHORTEST:
        return segment[:15] + (_NO_TRANSFORM if segment[15:16] == _NO_TRANSFORM else _YCBCR) + segment[16:]
    if marker == _SCAN and frame in _SEQUENTIAL and len(segment) > len(_ALL_FREQUENCIES) + 4:
        return segment[: -len(_ALL_FREQUENCIES)] + _ALL_FREQUENCIES
    return segment


def has_restarts(content: bytes) -> bool:
    """Whether a JPEG has points at which decoders go on behind what is damaged."""
    return _RESTARTS.search(content) is not None


def _next_marker(stream: IO[bytes], limit: int) -> int | None:
    """The next marker of a segment that ends before a limit, behind which the stream is then; None where there is
    none."""
    last = b""
    while stream.tell() < limit and (block := stream.read(_BLOCK)):
        block = last + block  # a marker may lie across two blocks
        if found := _MARKER.search(block):
            stream.seek(found.end() - len(block), os.SEEK_CUR)
            return block[found.end() - 1] if stream.tell() <= limit else None
        last = block[-1:]
    return None


def _is_padding(stream: IO[bytes], size: int) -> bool:
    """Whether the next bytes are zeros or ones."""
    while size > 0:
        block = stream.read(min(size, _BLOCK))
        if block.strip(b"\0\xff"):
            return False
        size -= _BLOCK
    return True
