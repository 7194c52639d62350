"""Where the picture in a JPEG file ends, and what lies behind it: further pictures that it lists, and the rest."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable
from typing import IO, Literal, NamedTuple

from PIL.TiffImagePlugin import ImageFileDirectory_v2

_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""Of a segment. Within coded pixels 0xFF is followed by 0, or by the number of a restart."""
_END, _APP0, _APP2, _APP14, _SCAN = 0xD9, 0xE0, 0xE2, 0xEE, 0xDA
_SEQUENTIAL = (0xC0, 0xC1, 0xC9)
"""Frames whose scans have all of a block's frequencies."""
_FRAMES = (*_SEQUENTIAL, 0xC2, 0xCA)
_YCBCR = b"\x01"
"""The color transform that libjpeg takes for any but none."""
_LIST = b"MPF\0"
_ENTRIES, _ENTRY = 0xB002, 16
"""The tag of the pictures in a list, and the bytes of each of them."""
_KIND, _PREVIEWS = 0xFFFFFF, (0x010001, 0x010002)
_ALONE = (0x01, 0xD8)
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


def behind_picture(stream: IO[bytes], further: int = 0) -> tuple[int, int]:
    """What a JPEG file has behind its picture: a motion photo's film, a second picture. Nothing is decoded.

    Args:
        stream: the file.
        further: where further pictures end that the file lists, and which do not count, in bytes from where its list
            begins; 0 without.

    Returns:
        Where it begins and how many bytes it has; 0 where there are a few only, or nothing but padding (zeros or
        ones), or no end. Of more than `LARGEST_TRAILER` it is not seen whether that is padding.
    """
    stream.seek(0)
    listed = 0
    while (marker := _next_marker(stream)) not in (_END, None):
        if marker not in _ALONE:
            length = int.from_bytes(stream.read(2), "big")
            start = stream.tell()
            if marker == _APP2 and stream.read(len(_LIST)) == _LIST:
                listed = stream.tell()
            stream.seek(start + max(length - 2, 0))
    end = max(stream.tell(), listed + further if listed else 0)
    left = stream.seek(0, os.SEEK_END) - end
    stream.seek(end)
    nothing = not marker or left <= _PADDING or (left <= LARGEST_TRAILER and _is_padding(stream))
    return end, 0 if nothing else left


def put_right(content: bytes) -> bytes:
    """A JPEG without what libjpeg warns of and takes as it is meant: bytes between segments, versions of JFIF, color
    transforms and parameters of a scan that there are not. The pixels are the same."""
    kept, at = [content[:2]], 2
    frame = None
    while found := _MARKER.search(content, at):
        marker, start = content[found.end() - 1], found.end() - 2
        at = found.end()
        if marker not in _ALONE and marker != _END:
            at += int.from_bytes(content[at : at + 2], "big")
        frame = marker if marker in _FRAMES else frame
        kept.append(_segment_put_right(content[start:at], marker, frame))
        if marker == _END:
            return b"".join((*kept, content[at:]))
        if marker == _SCAN:
            start, at = at, (behind.start() if (behind := _MARKER.search(content, at)) else len(content))
            kept.append(content[start:at])
    return b"".join((*kept, content[at:]))


def _segment_put_right(segment: bytes, marker: int, frame: int | None) -> bytes:
    """See `put_right`; `frame` is the marker of the frame that a scan is of."""
    if marker == _APP0 and segment[4:9] == b"JFIF\0":
        return segment[:9] + b"\x01" + segment[10:]
    if marker == _APP14 and segment[4:9] == b"Adobe" and segment[15:16] not in (b"\0", _YCBCR):
        return segment[:15] + _YCBCR + segment[16:]
    if marker == _SCAN and frame in _SEQUENTIAL:
        return segment[:-3] + b"\0\x3f\0"
    return segment


def _next_marker(stream: IO[bytes]) -> int | None:
    """The next marker of a segment, behind which the stream is then; None where there is none."""
    last = b""
    while block := stream.read(_BLOCK):
        block = last + block  # a marker may lie across two blocks
        if found := _MARKER.search(block):
            stream.seek(found.end() - len(block), os.SEEK_CUR)
            return block[found.end() - 1]
        last = block[-1:]
    return None


def _is_padding(stream: IO[bytes]) -> bool:
    return not any(block.strip(b"\0\xff") for block in iter(lambda: stream.read(_BLOCK), b""))
