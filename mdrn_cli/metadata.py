"""What an image file carries beside its pixels, taken from one format and given to another."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from PIL import ExifTags, Image, PngImagePlugin

from mdrn_cli.exif import (
    EXIF_START,
    IPTC,
    LARGEST_SEGMENT,
    PHOTOSHOP,
    carried_exif,
    exif_directory,
    exif_of_text,
    is_readable,
    prefixed,
)
from mdrn_cli.png import LARGEST_TEXT, LONGEST_KEYWORD, XMP_KEYWORD
from mdrn_cli.tiff import CENTIMETRE, INCH, NO_UNIT, RESOLUTION, RESOLUTION_UNIT

Resolution: TypeAlias = "tuple[tuple[float, float] | None, tuple[float, float, int] | None]"
"""`Metadata.dpi` and `Metadata.tiff_resolution`, of which one at most is not None."""

PHOTOSHOP_START = b"Photoshop 3.0\0"
_IPTC_BLOCK = b"8BIM\x04\x04\0\0"
"""Start of Photoshop's block that holds IPTC."""
_PROFILE_START = b"ICC_PROFILE\0"
_SEGMENT_STARTS = {
    "APP0": ((), (b"JFIF\0", b"JFXX\0")),
    "APP1": ((b"http://ns.adobe.com/xmp/extension/\0",), (EXIF_START, b"http://ns.adobe.com/xap/1.0/\0")),
    "APP2": ((), (_PROFILE_START, b"MPF\0")),
    "APP12": ((b"",), ()),
    "APP13": ((PHOTOSHOP_START,), ()),
    "APP14": ((), (b"Adobe",)),
    "COM": ((b"",), ()),
}
"""By type of JPEG segment: starts of those that are kept as they are, and of those that are no loss, as they are read
in another way or describe the coding only."""
_ABOUT_CODING = b"Ducky"
"""Start of the APP12 segment with the quality at which Photoshop has written a JPEG."""
_SEGMENT_NAMES = {"APP1": "extended XMP", "APP12": "segment APP12", "APP13": "IPTC"}
"""Names of the segments that formats other than JPEG lose; comments are reported elsewhere."""
_PNG_XMP, _EXIF_TEXT = XMP_KEYWORD.decode(), "Raw profile type exif"
_ENCODINGS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"} | dict.fromkeys(
    (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE), "utf-16"
)
"""Encodings of XMP that is not in UTF-8, by byte order mark; longer marks first, for one begins with a shorter one."""
_LARGEST_PROFILE = {"PNG": LARGEST_TEXT, "JPEG": 255 * 65_519}
"""Most bytes of an ICC profile: what is accepted from a PNG, and what the segments of a JPEG can hold."""
_LARGEST_RESOLUTION = 1 << 31
_JFIF_UNITS = (1, 2)
"""JFIF's units of a resolution: per inch, per centimetre; 0 gives the shape of pixels only."""
_HIGHEST_DPI = 65_535
"""The most that JPEG can hold; no picture really has a higher resolution."""


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
        """The color mode that the ICC profile is for: "gray" or "color", whatever that of the file."""
        return "gray" if self.icc_profile[16:20] == b"GRAY" else "color"

    @property
    def appearance(self) -> Metadata:
        """Only what determines how the channels look."""
        return Metadata(self.icc_profile, color_chunks=self.color_chunks, extra_is_alpha=self.extra_is_alpha)

    @property
    def sideways(self) -> Metadata:
        """The metadata of the picture turned by a right angle: resolutions across and down are swapped."""
        dpi, alone = self.dpi, self.tiff_resolution
        return replace(self, dpi=dpi and dpi[::-1], tiff_resolution=alone and (alone[1], alone[0], alone[2]))

    @property
    def png_chunks(self) -> tuple[tuple[bytes, bytes], ...]:
        """PNG chunks that Pillow does not write: the color chunks (sRGB only without a profile), and repeated texts."""
        colors = tuple(chunk for chunk in self.color_chunks if chunk[0] != b"sRGB" or not self.icc_profile)
        return colors + self.repeated_texts

    @property
    def orientation(self) -> int:
        """How the picture is to be turned for viewing, 1 to 8 as EXIF has it; 1 where nothing says so."""
        value = exif_directory(self.exif).get(ExifTags.Base.Orientation, 1)
        return value if isinstance(value, int) else 1


def read_metadata(file: Image.Image) -> tuple[Metadata, tuple[str, ...]]:
    """The metadata of an image loaded by Pillow, not TIFF; and warnings of what is damaged and left out."""
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
    kept = tuple((key, value) for key, value in text if 1 <= len(key) <= LONGEST_KEYWORD)
    if len(kept) < len(text):
        warnings.append("text under a key that PNG does not allow is left out")
    found = getattr(file, "applist", ())
    profile = info.get("icc_profile") or b""
    # A PNG whose profile cannot be inflated has None, of one that is cut off Pillow has what there is.
    is_cut = file.format == "PNG" and int.from_bytes(profile[:4], "big") > len(profile)
    is_lost = "icc_profile" in info or any(content.startswith(_PROFILE_START) for _, content in found)
    if is_cut or (is_lost and not profile):
        profile = b""
        warnings.append("the ICC profile is damaged and left out")
    comments, segments, dropped = _segments(found)
    dpi, alone = _resolution(file, exif)
    metadata = Metadata(
        icc_profile=profile,
        exif=exif,
        xmp=_bytes(info.get("xmp") or info.get(_PNG_XMP) or b""),
        dpi=dpi,
        text=kept,
        comment=comments[-1] if comments else b"",
        segments=(*segments, *(("COM", comment) for comment in comments[:-1])),  # written before it by Pillow
        dropped=dropped,
        tiff_resolution=alone,
    )
    return metadata, tuple(warnings)


def _segments(found: Iterable[tuple[str, bytes]]) -> tuple[list[bytes], list[tuple[str, bytes]], tuple[str, ...]]:
    """A JPEG's segments sorted: comments, others that are kept as they are, and the names of those dropped."""
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


def _resolution(file: Image.Image, exif: bytes) -> Resolution:
    """The resolution of an image. That of a JPEG is read from EXIF if JFIF has none, not from Pillow, which uses the
    one across for both, and makes one up where there is none. If EXIF has only one of the two, it is for both."""
    if file.format not in ("JPEG", "MPO") or file.info.get("jfif_unit") in _JFIF_UNITS:
        return resolution_of(file.info.get("dpi") or (), INCH)[0], None
    directory = exif_directory(exif)
    told = [directory[tag] for tag in RESOLUTION if tag in directory]
    return resolution_of((*told, *told)[:2], directory.get(RESOLUTION_UNIT, INCH))


def _aspect(info: Mapping[Any, Any]) -> float:
    """The aspect ratio of a pixel, where a JPEG or PNG gives that without a resolution, which Pillow cannot write."""
    across, down = info.get("aspect") or (info.get("jfif_unit") == 0 and info.get("jfif_density")) or (1, 1)
    return across / down if across and down else 1.0


def resolution_of(resolution: tuple[Any, ...], unit: Any) -> Resolution:
    """A resolution across and down (any type) and its unit, as in TIFF, in the forms of `Metadata`: one for any format,
    or one for TIFF only. Neither, if it means nothing: invalid, or 1 without a unit."""
    try:
        across, down = map(float, resolution)
    except (TypeError, ValueError, ZeroDivisionError):
        return None, None
    if unit in (INCH, CENTIMETRE):
        per_inch = 2.54 if unit == CENTIMETRE else 1
        dpi = across * per_inch, down * per_inch
        if all(0 < value <= _HIGHEST_DPI for value in dpi):
            return dpi, None
    says = unit in (NO_UNIT, INCH, CENTIMETRE) and (across, down, unit) != (1, 1, NO_UNIT)
    fits = all(0 < value < _LARGEST_RESOLUTION for value in (across, down))
    return None, (across, down, unit) if says and fits else None


def _bytes(value: Any) -> bytes:
    """Text or bytes as bytes; anything else becomes empty."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    return value if isinstance(value, bytes) else b""


def save_arguments(metadata: Metadata, kind: str) -> tuple[dict[str, Any], list[str]]:
    """Keywords for Pillow's `save` that write the metadata, and the names of what the format cannot hold.

    Args:
        metadata: what to write.
        kind: PNG, JPEG, WEBP or BMP (for TIFF see `tiffwriting`).
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
    elif metadata.dpi and RESOLUTION[0] not in exif_directory(exif):
        lost.append("resolution")
    if metadata.tiff_resolution and RESOLUTION[0] not in exif_directory(exif):
        across, down, unit = metadata.tiff_resolution
        lost.append("shape of pixels, which are not square," if unit == NO_UNIT and across != down else "resolution")
    if kind == "PNG":
        keep["pnginfo"] = _png_text(metadata.text, _in_utf8(keep.pop("xmp", b"")))
    elif metadata.text:
        lost.append("text")
    if kind == "JPEG":
        iptc, held = ((), ()) if "APP13" in dict(metadata.segments) else _iptc(metadata.exif)
        lost = [name for name in lost if name not in held]
        keep["extra"] = b"".join(_segment(*segment) for segment in (*metadata.segments, *iptc))
    else:
        lost += lost_segments(metadata, "APP1", "APP12", "APP13")
    return keep, lost


def lost_segments(metadata: Metadata, *kinds: str) -> list[str]:
    """Names of what the JPEG segments of some kinds hold, of those that there are."""
    there_are = {name for name, _ in metadata.segments}
    return [_SEGMENT_NAMES[kind] for kind in kinds if kind in there_are]


def _iptc(exif: bytes) -> tuple[tuple[tuple[str, bytes], ...], tuple[str, ...]]:
    """JPEG segments of the IPTC that a TIFF has in its directory, where no program looks for it in a JPEG; and what of
    the directory they hold, as `carried_exif` names it."""
    directory = exif_directory(exif)
    blocks, alone = (_bytes(directory.get(tag, b"")) for tag in (PHOTOSHOP, IPTC))
    held = [PHOTOSHOP] if blocks else []
    if alone and _IPTC_BLOCK not in blocks:
        blocks += _IPTC_BLOCK + len(alone).to_bytes(4, "big") + alone + bytes(len(alone) % 2)
        held.append(IPTC)
    most = LARGEST_SEGMENT - len(PHOTOSHOP_START)
    parts = (blocks[start : start + most] for start in range(0, len(blocks), most))
    return tuple(("APP13", PHOTOSHOP_START + part) for part in parts), tuple(f"EXIF tag {tag}" for tag in held)


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
