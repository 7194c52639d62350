"""What an image file carries beside its pixels, taken from one format and given to another."""

from __future__ import annotations

import codecs
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import IO, Any

from PIL import ExifTags, Image, PngImagePlugin, TiffTags
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from mdrn_cli.exif import (
    EXIF_START,
    IPTC,
    LARGEST_SEGMENT,
    PHOTOSHOP,
    TRANSFER_FUNCTION,
    carried_exif,
    exif_directory,
    exif_of_text,
    exif_written,
    fits_tiff,
    is_readable,
    is_writable,
    lost_thumbnail,
    prefixed,
    tag_values,
)
from mdrn_cli.png import LARGEST_TEXT
from mdrn_cli.tiff import EXTRA_SAMPLES, PHOTOMETRIC, bits_of, tiff_directory

# Tags of a TIFF directory that describe its pixels or where they lie, and so cannot be carried over.
_STRUCTURE = frozenset((*range(254, 267), 273, *range(277, 282), 284, *range(288, 293), 296, 297)).union(
    (317, *range(320, 327), 330, 332, 347), range(336, 342), range(512, 522), range(529, 533)
)
_XMP, _ICC = 700, 34675
_OF_BYTES = (_XMP, _ICC, IPTC, PHOTOSHOP)
_RESOLUTION, _RESOLUTION_UNIT = (282, 283), 296
_NO_UNIT, _INCH, _CENTIMETRE = 1, 2, 3
_LARGEST_RESOLUTION = 1 << 31
_UNSPECIFIED = 0
_LAYERS = 37724
_LEFT_OUT = {_LAYERS: "Photoshop document, with its layers,", 52545: "C2PA"}
"""Of a TIFF, what would still be of the picture as it was."""
_SAME_INTENSITIES = (1, 2, 6)
"""Photometric interpretations whose intensities are not turned round or looked up in a palette."""
_PHOTOSHOP_START = b"Photoshop 3.0\0"
_IPTC_BLOCK = b"8BIM\x04\x04\0\0"
"""How Photoshop's block begins in which IPTC is."""
_PROFILE_START = b"ICC_PROFILE\0"
_SEGMENT_STARTS = {
    "APP0": ((), (b"JFIF\0", b"JFXX\0")),
    "APP1": ((b"http://ns.adobe.com/xmp/extension/\0",), (EXIF_START, b"http://ns.adobe.com/xap/1.0/\0")),
    "APP2": ((), (_PROFILE_START, b"MPF\0")),
    "APP12": ((b"",), ()),
    "APP13": ((_PHOTOSHOP_START,), ()),
    "APP14": ((), (b"Adobe",)),
    "COM": ((b"",), ()),
}
"""How JPEG segments start that are kept as they are, and those that are read otherwise or about the coding alone."""
_ABOUT_CODING = b"Ducky"
"""The quality at which Photoshop has written a JPEG, in APP12."""
_SEGMENT_NAMES = {"APP1": "extended XMP", "APP12": "segment APP12", "APP13": "IPTC"}
"""Of what another format than JPEG loses; comments are told of already."""
_PNG_XMP, _EXIF_TEXT = "XML:com.adobe.xmp", "Raw profile type exif"
_LONGEST_KEY = 79
"""Characters of the key of a text in PNG."""
_ENCODINGS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"} | dict.fromkeys(
    (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE), "utf-16"
)
"""Of XMP that is not in UTF-8, by how it starts; the longer marks first, of which one begins with a shorter."""
_LARGEST_PROFILE = {"PNG": LARGEST_TEXT, "JPEG": 255 * 65_519}
"""Bytes: what is taken from a PNG, and what the segments of a JPEG can hold."""
_HIGHEST_DPI = 65_535
"""The most that JPEG can hold; beyond it is no resolution that a picture has."""


@dataclass(frozen=True)
class Metadata:
    """What a file carries beside its pixels.

    Attributes:
        icc_profile: color profile.
        exif: "Exif\\0\\0" and a TIFF directory, as in JPEG. Orientation is part of it, and not applied to pixels.
        xmp: XML packet.
        dpi: resolution across and down, in pixels an inch; None where there is none or none that can be meant.
        text: keys and values of a PNG's text chunks, those of an iTXt with its language as Pillow has them.
        comment: of a JPEG, the last.
        segments: JPEG segments (type, content) of IPTC, of XMP beyond one segment, of earlier comments and APP12.
        trailer: what lies behind the picture of a JPEG, such as the film of a motion photo.
        color_chunks: PNG chunks (type, content) that say how colors are meant, as `png.read_color_chunks` has them.
        extra_is_alpha: whether the last of 2 or 4 channels is transparency; a TIFF may leave open what it is
            (infrared, say).
        repeated_texts: PNG chunks (type, content) of texts whose key comes again: `png.read_repeated_texts`.
        dropped: names of what is kept in no format.
        left_behind: names of pictures and layers that are kept in no format.
        tiff_resolution: across, down and unit (1 none, 2 an inch, 3 a centimetre) of one that TIFF alone holds.
    """

    icc_profile: bytes = b""
    exif: bytes = b""
    xmp: bytes = b""
    dpi: tuple[float, float] | None = None
    text: tuple[tuple[str, str], ...] = ()
    comment: bytes = b""
    segments: tuple[tuple[str, bytes], ...] = ()
    trailer: bytes = b""
    color_chunks: tuple[tuple[bytes, bytes], ...] = ()
    extra_is_alpha: bool = True
    repeated_texts: tuple[tuple[bytes, bytes], ...] = ()
    dropped: tuple[str, ...] = ()
    left_behind: tuple[str, ...] = ()
    tiff_resolution: tuple[float, float, int] | None = None

    @property
    def profile_color(self) -> str:
        """Of which pictures the ICC profile is: "gray", or "color" (of one that lies in a gray file, too)."""
        return "gray" if self.icc_profile[16:20] == b"GRAY" else "color"

    @property
    def appearance(self) -> Metadata:
        """What says how the channels look, alone."""
        return Metadata(self.icc_profile, color_chunks=self.color_chunks, extra_is_alpha=self.extra_is_alpha)

    @property
    def sideways(self) -> Metadata:
        """The same of a picture turned by a right angle: the resolution across is that down."""
        dpi, alone = self.dpi, self.tiff_resolution
        return replace(self, dpi=dpi and dpi[::-1], tiff_resolution=alone and (alone[1], alone[0], alone[2]))

    @property
    def png_chunks(self) -> tuple[tuple[bytes, bytes], ...]:
        """What a PNG is to have beside what Pillow writes: the color chunks that go with the profile, and texts."""
        colors = tuple(chunk for chunk in self.color_chunks if chunk[0] != b"sRGB" or not self.icc_profile)
        return colors + self.repeated_texts

    @property
    def orientation(self) -> int:
        """How the picture is to be turned for viewing, 1 to 8 as EXIF has it; 1 where nothing says so."""
        value = exif_directory(self.exif).get(ExifTags.Base.Orientation, 1)
        return value if isinstance(value, int) else 1


def read_metadata(file: Image.Image) -> tuple[Metadata, tuple[str, ...]]:
    """Of an image opened with Pillow and loaded, other than TIFF; and warnings of what is damaged and left out."""
    texts = getattr(file, "text", {})  # of a PNG, which is read to its end for them: EXIF may lie there
    info = file.info
    warnings = []
    exif = prefixed(info.get("exif") or exif_of_text(info.get(_EXIF_TEXT)))
    if not is_readable(exif):
        exif = b""
        warnings.append("the EXIF is damaged and left out")
    if _aspect(info) != 1:
        warnings.append("pixels that are not square are not kept as such")
    elsewhere = (_PNG_XMP, _EXIF_TEXT) if exif else (_PNG_XMP,)
    text = [(key, value) for key, value in texts.items() if key not in elsewhere]
    kept = tuple((key, value) for key, value in text if 1 <= len(key) <= _LONGEST_KEY)
    if len(kept) < len(text):
        warnings.append("text under a key that PNG does not allow is left out")
    found = getattr(file, "applist", ())
    if not info.get("icc_profile") and any(content.startswith(_PROFILE_START) for _, content in found):
        warnings.append("the ICC profile is damaged and left out")
    comments, segments, dropped = _segments(found)
    metadata = Metadata(
        icc_profile=info.get("icc_profile") or b"",
        exif=exif,
        xmp=_bytes(info.get("xmp") or info.get(_PNG_XMP) or b""),
        dpi=None if _is_invented(file, exif) else _dpi(info.get("dpi") or (), 2),
        text=kept,
        comment=comments[-1] if comments else b"",
        segments=(*segments, *(("COM", comment) for comment in comments[:-1])),  # written before it by Pillow
        dropped=dropped,
    )
    return metadata, tuple(warnings)


def _segments(found: Iterable[tuple[str, bytes]]) -> tuple[list[bytes], list[tuple[str, bytes]], tuple[str, ...]]:
    """Of a JPEG's segments the comments, others that are kept as they are, and the names of those that are dropped."""
    comments: list[bytes] = []
    kept: list[tuple[str, bytes]] = []
    dropped: dict[str, None] = {}
    for kind, content in found:
        starts, others = _SEGMENT_STARTS.get(kind, ((), ()))
        if kind == "COM":
            comments += [bytes(content)] if content else []
        elif content.startswith(starts) and not content.startswith(_ABOUT_CODING):
            kept.append((kind, bytes(content)))
        elif not content.startswith((*others, _ABOUT_CODING)):
            dropped[f"segment {kind} (C2PA or another JUMBF)" if kind == "APP11" else f"segment {kind}"] = None
    return comments, kept, tuple(dropped)


def _is_invented(file: Image.Image, exif: bytes) -> bool:
    """Whether the resolution is what Pillow says of a JPEG that has EXIF, but no resolution."""
    told = file.info.get("jfif_unit") in (1, 2) or _RESOLUTION[0] in exif_directory(exif)
    return file.format in ("JPEG", "MPO") and file.info.get("dpi") == (72, 72) and not told


def read_tiff_metadata(stream: IO[bytes]) -> tuple[Metadata, int | None]:
    """Of a TIFF file of any kind of pixels, also those that Pillow cannot decode.

    Returns:
        The metadata, and the photometric interpretation: 0 white is zero, 1 black is zero, 2 RGB, 3 a palette, ...

    Raises:
        InputError, or Exception of many kinds: as `tiff_directory` does.
    """
    directory, entries = tiff_directory(stream)
    values = tag_values(directory, _STRUCTURE.union((*_RESOLUTION, *_OF_BYTES, *_LEFT_OUT)))
    if directory.get(PHOTOMETRIC) not in _SAME_INTENSITIES or not bits_of(directory) <= {8, 16}:
        values.pop(TRANSFER_FUNCTION, None)
    values |= {tag: _raw(entries, tag) for tag in (IPTC, PHOTOSHOP) if tag in entries}
    damaged = [tag for tag, value in values.items() if not is_writable(tag, value)]
    for tag in damaged:
        del values[tag]
    resolution, unit = tuple(map(directory.get, _RESOLUTION)), directory.get(_RESOLUTION_UNIT, _INCH)
    dpi = _dpi(resolution, unit)
    metadata = Metadata(
        icc_profile=_raw(entries, _ICC),
        exif=exif_written(values, directory.endian) if values else b"",
        xmp=_raw(entries, _XMP),
        dpi=dpi,
        tiff_resolution=None if dpi else _tiff_resolution(resolution, unit),
        extra_is_alpha=directory.get(EXTRA_SAMPLES) != _UNSPECIFIED,
        dropped=(
            *(name for tag, name in _LEFT_OUT.items() if tag in directory),
            *(f"EXIF tag {tag}" for tag in damaged),
        ),
        left_behind=("a Photoshop document, with its layers",) if _LAYERS in directory else (),
    )
    return metadata, directory.get(PHOTOMETRIC)


def _tiff_resolution(resolution: tuple[Any, ...], unit: Any) -> tuple[float, float, int] | None:
    """As `Metadata` has it; None of what says nothing, 1 of no unit, too."""
    try:
        across, down = map(float, resolution)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    says = unit in (_NO_UNIT, _INCH, _CENTIMETRE) and (across, down, unit) != (1, 1, _NO_UNIT)
    fits = all(0 < value < _LARGEST_RESOLUTION for value in (across, down))
    return (across, down, unit) if says and fits else None


def _raw(entries: ImageFileDirectory_v2, tag: int) -> bytes:
    """The bytes of a tag, of whatever type it is said to be: many programs write IPTC as numbers of 32 bits."""
    if tag not in entries:
        return b""
    entries.tagtype[tag] = TiffTags.BYTE
    return bytes(entries[tag])


def _aspect(info: Mapping[Any, Any]) -> float:
    """Of a pixel, where a JPEG or PNG tells that without a resolution, which Pillow cannot write."""
    across, down = info.get("aspect") or (info.get("jfif_unit") == 0 and info.get("jfif_density")) or (1, 1)
    return across / down if across and down else 1.0


def _dpi(resolution: tuple[Any, ...], unit: Any) -> tuple[float, float] | None:
    try:
        across, down = (float(value) * (2.54 if unit == _CENTIMETRE else 1) for value in resolution)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    fits = all(math.isfinite(value) and 0 < value <= _HIGHEST_DPI for value in (across, down))
    return (across, down) if unit in (_INCH, _CENTIMETRE) and fits else None


def _bytes(value: Any) -> bytes:
    """Of text; none of what is neither that nor bytes."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    return value if isinstance(value, bytes) else b""


def save_arguments(metadata: Metadata, kind: str) -> tuple[dict[str, Any], list[str]]:
    """Keywords for Pillow's `save` that write the metadata, and the names of what the format cannot hold.

    Args:
        metadata: what to write.
        kind: PNG, JPEG, WEBP or BMP (for TIFF see `tiff_tags`).
    """
    keep: dict[str, Any] = {}
    exif, lost = carried_exif(metadata.exif, kind)
    fits = LARGEST_SEGMENT if kind == "JPEG" else 1 << 31
    for name, value, kinds in (
        ("icc_profile", metadata.icc_profile, ("PNG", "JPEG", "WEBP")),
        ("exif", exif, ("PNG", "JPEG", "WEBP")),
        ("xmp", metadata.xmp, ("PNG", "JPEG", "WEBP")),
        ("comment", metadata.comment, ("JPEG",)),
    ):
        most = _LARGEST_PROFILE.get(kind, fits) if name == "icc_profile" else fits
        if value and kind in kinds and len(value) <= most:
            keep[name] = value
        elif value:
            lost.append(name.replace("_", " "))
    if metadata.dpi and kind != "WEBP":
        keep["dpi"] = metadata.dpi
    elif kind == "BMP":
        keep["dpi"] = (0, 0)  # Pillow would tell of one
    elif metadata.dpi and _RESOLUTION[0] not in exif_directory(exif):
        lost.append("resolution")
    if metadata.tiff_resolution:
        across, down, unit = metadata.tiff_resolution
        lost.append("shape of pixels, which are not square," if unit == _NO_UNIT and across != down else "resolution")
    if kind == "PNG":
        keep["pnginfo"] = _png_text(metadata.text, _in_utf8(keep.pop("xmp", b"")))
    elif metadata.text:
        lost.append("text")
    if kind == "JPEG":
        segments = metadata.segments if "APP13" in dict(metadata.segments) else (*metadata.segments, *_iptc(exif))
        keep["extra"] = b"".join(_segment(*segment) for segment in segments)
    else:
        lost += _lost_segments(metadata, "APP1", "APP12", "APP13")
    return keep, lost


def _lost_segments(metadata: Metadata, *kinds: str) -> list[str]:
    there_are = {name for name, _ in metadata.segments}
    return [_SEGMENT_NAMES[kind] for kind in kinds if kind in there_are]


def _iptc(exif: bytes) -> tuple[tuple[str, bytes], ...]:
    """JPEG segments of the IPTC that a TIFF has in its directory, where no program looks for it in a JPEG."""
    directory = exif_directory(exif)
    blocks = _bytes(directory.get(PHOTOSHOP, b""))
    if not blocks and (alone := _bytes(directory.get(IPTC, b""))):
        blocks = _IPTC_BLOCK + len(alone).to_bytes(4, "big") + alone + bytes(len(alone) % 2)
    most = LARGEST_SEGMENT - len(_PHOTOSHOP_START)
    parts = (blocks[start : start + most] for start in range(0, len(blocks), most))
    return tuple(("APP13", _PHOTOSHOP_START + part) for part in parts)


def _segment(name: str, content: bytes) -> bytes:
    marker = 0xFE if name == "COM" else 0xE0 + int(name.removeprefix("APP"))
    return bytes((0xFF, marker)) + (len(content) + 2).to_bytes(2, "big") + content


def _in_utf8(xmp: bytes) -> str:
    """An XMP packet, which may be in UTF-16 or UTF-32, too, as PNG has it."""
    for mark, encoding in _ENCODINGS.items():
        if xmp.startswith(mark):
            return xmp.decode(encoding, "replace")
    return xmp.decode("utf-8", "replace")


def _png_text(text: tuple[tuple[str, str], ...], xmp: str) -> PngImagePlugin.PngInfo:
    chunks = PngImagePlugin.PngInfo()
    for key, value in text:
        chunks.add_text(key, value)
    if xmp:
        chunks.add_itxt(_PNG_XMP, xmp)
    return chunks


def tiff_tags(metadata: Metadata) -> tuple[dict[int, Any], list[str]]:
    """The metadata as tags of a TIFF directory, values that are dictionaries being directories of their own; and the
    names of what TIFF cannot hold."""
    exif = exif_directory(metadata.exif)
    tags = tag_values(exif, _STRUCTURE)
    for tag, value in ((_XMP, metadata.xmp), (_ICC, metadata.icc_profile)):
        if value:
            tags[tag] = value
    blocks = [content.removeprefix(_PHOTOSHOP_START) for name, content in metadata.segments if name == "APP13"]
    if blocks:
        tags[PHOTOSHOP] = b"".join(blocks)  # one that is too long for a segment goes on in the next
    if metadata.dpi:
        tags.update({**dict(zip(_RESOLUTION, metadata.dpi, strict=True)), _RESOLUTION_UNIT: _INCH})
    elif metadata.tiff_resolution:
        tags.update(zip((*_RESOLUTION, _RESOLUTION_UNIT), metadata.tiff_resolution, strict=True))
    kept = {tag: value for tag, value in tags.items() if fits_tiff(tag, value)}
    lost = [f"EXIF tag {tag}" for tag in sorted(tags.keys() - kept.keys())] + lost_thumbnail(exif)
    lost += [name for name, value in (("comment", metadata.comment), ("text", metadata.text)) if value]
    return kept, lost + _lost_segments(metadata, "APP1", "APP12")
