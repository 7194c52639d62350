"""EXIF, a directory of TIFF: read, written, and cut down to what a format takes."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from PIL import ExifTags, Image, TiffTags
from PIL.TiffImagePlugin import ImageFileDirectory_v2

IPTC, PHOTOSHOP, TRANSFER_FUNCTION = 33723, 34377, 301
"""Tags; the last one holds one or three tables with a value for each intensity."""
_SUBDIRECTORIES = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
LARGEST_SEGMENT = 65_500
"""Bytes that a JPEG segment can hold, without its heading."""
_SRGB = 1
_MOST_LEFT_OUT = 16
"""Most tags that are left out to shorten EXIF; if that is not enough, all of it is left out."""
EXIF_START = b"Exif\0\0"
_UNDEFINED = (
    *(ExifTags.Base.OECF, ExifTags.Base.ComponentsConfiguration, ExifTags.Base.MakerNote, ExifTags.Base.UserComment),
    *(ExifTags.Base.SpatialFrequencyResponse, ExifTags.Base.FileSource, ExifTags.Base.SceneType),
    ExifTags.Base.DeviceSettingDescription,
)
_SIGNED = (ExifTags.Base.ShutterSpeedValue, ExifTags.Base.BrightnessValue, ExifTags.Base.ExposureBiasValue)
_TYPES: dict[tuple[int, int], int] = {(int(tag), TiffTags.BYTE): TiffTags.UNDEFINED for tag in _UNDEFINED} | {
    (int(tag), TiffTags.RATIONAL): TiffTags.SIGNED_RATIONAL for tag in _SIGNED
}
"""(tag, type that Pillow derives from the value, as it does not know the tag) -> the type in EXIF, of the same size."""


def exif_directory(exif: bytes) -> Image.Exif:
    """The directory of EXIF that `is_readable`."""
    directory = Image.Exif()
    directory.load(exif)
    return directory


def is_readable(exif: bytes) -> bool:
    """Whether the directory of EXIF can be read."""
    try:
        dict(exif_directory(exif))  # values are parsed only when asked for
    except Exception:  # of many kinds, as Pillow raises them
        return False
    return True


def is_adobe_rgb(exif: bytes) -> bool:
    """Whether EXIF alone tells that colors are those of Adobe RGB, as cameras do (DCF: option file, "R03")."""
    directory = exif_directory(exif)
    if _within(directory, ExifTags.IFD.Exif).get(ExifTags.Base.ColorSpace) == _SRGB:  # converted since
        return False
    return str(_within(directory, ExifTags.IFD.Interop).get(1, "")).startswith("R03")


def exif_of_text(profile: Any) -> bytes:
    """EXIF as ImageMagick used to write it into PNG: lines of hexadecimal digits behind three of a heading."""
    try:
        return bytes.fromhex("".join(str(profile or "").split("\n")[3:]))
    except ValueError:
        return b""


def prefixed(exif: bytes) -> bytes:
    """EXIF as JPEG has it; WebP and some writers of PNG have it with and without what it starts with there."""
    while exif.startswith(EXIF_START):
        exif = exif.removeprefix(EXIF_START)
    return exif and EXIF_START + exif


def tag_values(directory: Image.Exif, but: frozenset[int]) -> dict[int, Any]:
    """The tags of a directory, but for some, such that Pillow writes them; directories within it as dictionaries."""
    values = {tag: _exact(directory[tag]) for tag in directory if tag not in but}
    for pointer in values.keys() & _SUBDIRECTORIES:
        values[pointer] = _exact(_within(directory, pointer))
        if ExifTags.IFD.Interop in values[pointer]:
            interop = _exact(_within(directory, ExifTags.IFD.Interop))
            # Where it is now is no place in what will be written.
            del values[pointer][ExifTags.IFD.Interop]
            if interop and fits_tiff(ExifTags.IFD.Interop, interop):
                values[pointer][ExifTags.IFD.Interop] = interop
    return values


def _within(directory: Image.Exif, pointer: int) -> dict[int, Any]:
    """A directory that another one points to; empty where it is broken."""
    try:
        return directory.get_ifd(pointer)
    except Exception:  # of many kinds, as Pillow raises them
        return {}


def exif_written(values: dict[int, Any], endian: str | None) -> bytes:
    """EXIF of these values, with the offsets of a plain TIFF."""
    directory = Image.Exif()
    directory.endian = endian
    directory.update(values)
    return EXIF_START + with_own_types(directory.tobytes().removeprefix(EXIF_START))


def with_own_types(content: bytes) -> bytes:
    """A TIFF written by Pillow, with the types of EXIF tags corrected to those of the standard, which readers expect.

    Args:
        content: the file to the end of its directories.
    """
    data = bytearray(content)
    order = "<" if content.startswith(b"II") else ">"
    for entry, tag, _ in _entries(data, order, struct.unpack_from(f"{order}L", data, 4)[0]):
        if tag == ExifTags.IFD.Exif:
            for place, inner, kind in _entries(data, order, struct.unpack_from(f"{order}L", data, entry + 8)[0]):
                struct.pack_into(f"{order}H", data, place + 2, _TYPES.get((inner, kind), kind))
    return bytes(data)


def _entries(data: bytearray, order: str, at: int) -> Iterator[tuple[int, int, int]]:
    """(offset, tag, type) of each entry of a directory."""
    (count,) = struct.unpack_from(f"{order}H", data, at)
    for place in range(at + 2, at + 2 + 12 * count, 12):
        yield (place, *struct.unpack_from(f"{order}HH", data, place))


def _exact(value: Any) -> Any:
    """A tag's value in a form that Pillow writes as the bytes it read: it reads text as Latin-1 but writes ASCII."""
    if isinstance(value, dict):
        return {tag: _exact(inner) for tag, inner in value.items()}
    return value.encode("latin-1", "replace") if isinstance(value, str) and not value.isascii() else value


def carried_exif(exif: bytes, kind: str) -> tuple[bytes, list[str]]:
    """EXIF as a format takes it, and the names of what it cannot hold: BMP nothing, a JPEG no more than a segment."""
    if kind == "BMP":
        return b"", ["exif"] if exif else []
    if kind != "JPEG" or len(exif) <= LARGEST_SEGMENT:
        return exif, []
    try:
        return _shortened(exif, LARGEST_SEGMENT)
    except Exception:  # of many kinds, where a value is none that Pillow can write
        return b"", ["exif"]


def _shortened(exif: bytes, most: int) -> tuple[bytes, list[str]]:
    """EXIF of no more than so many bytes, and the names of what was left out for it: the thumbnail, the blocks that
    Photoshop keeps in the directory of a TIFF, and then what is largest."""
    directory = exif_directory(exif)
    lost = lost_thumbnail(directory)
    values = tag_values(directory, frozenset())
    places = [values, *(values[tag] for tag in _SUBDIRECTORIES if tag in values)]
    sizes = [
        ((tag in (IPTC, PHOTOSHOP), _length(value)), tag, place)
        for place in places
        for tag, value in place.items()
        if tag not in (*_SUBDIRECTORIES, ExifTags.Base.Orientation)
    ]
    for _, tag, place in sorted(sizes, key=lambda entry: entry[0], reverse=True)[:_MOST_LEFT_OUT]:
        if len(short := exif_written(values, directory.endian)) <= most:
            return short, lost
        del place[tag]
        lost.append(f"EXIF tag {tag}")
    short = exif_written(values, directory.endian)
    return (short, lost) if len(short) <= most else (b"", ["exif"])


def lost_thumbnail(directory: Image.Exif) -> list[str]:
    """What is told of the thumbnail of EXIF that is written anew: a name, if there is one."""
    return ["EXIF thumbnail"] if _within(directory, ExifTags.IFD.IFD1) else []


def _length(value: Any) -> int:
    return len(value) if isinstance(value, (bytes, str)) else 8 * len(value) if isinstance(value, tuple) else 8


def fits_tiff(tag: int, value: Any) -> bool:
    """Whether a directory with the value can be written, and read by others: EXIF may have any type anywhere."""
    if tag == ExifTags.Base.Orientation:
        return isinstance(value, int) and 1 <= value <= 8
    if tag == TRANSFER_FUNCTION:
        return isinstance(value, tuple) and len(value) in (1 << 8, 3 << 8, 1 << 16, 3 << 16)
    if tag in (IPTC, PHOTOSHOP):  # Pillow has taken the first number of several for all
        return isinstance(value, bytes)
    return is_writable(tag, value)


def is_writable(tag: int, value: Any) -> bool:
    """Whether Pillow can write a tag with the value."""
    directory = ImageFileDirectory_v2()
    try:
        directory[tag] = value
        directory.tobytes()
    except Exception:  # of many kinds, as Pillow raises them
        return False
    return True
