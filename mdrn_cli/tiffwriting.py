"""TIFF files written: the strips laid out here, the directory by Pillow."""

from __future__ import annotations

import io
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from mdrn_cli.errors import MdrnError
from mdrn_cli.exif import PHOTOSHOP, exif_directory, fits_tiff, lost_thumbnail, tag_values, with_own_types
from mdrn_cli.metadata import PHOTOSHOP_START, Metadata, lost_segments
from mdrn_cli.tiff import (
    BITS,
    BLACK_IS_ZERO,
    CHANNELS,
    COMPRESSION,
    DEFLATE,
    EXTRA_SAMPLES,
    FLOAT,
    HEIGHT,
    HORIZONTAL,
    ICC,
    INCH,
    INTEGER,
    PHOTOMETRIC,
    PLANES,
    PREDICTOR,
    RESOLUTION,
    RESOLUTION_UNIT,
    RGB,
    ROWS_OF_STRIP,
    SAMPLE_FORMAT,
    STRAIGHT_ALPHA,
    STRIP_OFFSETS,
    STRIP_SIZES,
    STRUCTURE,
    TOGETHER,
    UNSPECIFIED,
    WIDTH,
    XMP,
)

_STRIP = 1 << 20
"""Bytes of pixels in a strip, about."""
_LARGEST = (1 << 32) - (1 << 20)


def encode_tiff(data: NDArray[Any], metadata: Metadata) -> tuple[bytes, list[str]]:
    """A TIFF compressed without loss, its EXIF and GPS directories written as TIFF has them; and the names of what it
    cannot hold.

    libvips, OpenCV and tifffile write no EXIF directory, Pillow no RGB beyond 8 bits; so the strips are laid out
    here and Pillow writes the directory.

    Args:
        data: uint8, uint16 or float32 (H, W, C), C being 1 to 4; the last of 2 or 4 is alpha.
        metadata: what else it is to carry.

    Raises:
        MdrnError: it would not fit the 4 GiB of a TIFF.
    """
    height, width, channels = data.shape
    rows = max(1, _STRIP // (width * channels * data.itemsize))
    strips = [_compress(data[top : top + rows]) for top in range(0, height, rows)]
    sizes = [len(strip) for strip in strips]
    if sum(sizes) > _LARGEST:
        raise MdrnError("the result does not fit the 4 GiB of a TIFF")
    directory = ImageFileDirectory_v2(ifh=b"II\x2a\x00\x08\x00\x00\x00")
    tags, lost = _tags(metadata)
    for tag, value in tags.items():
        directory[tag] = value
    for tag, value in _structure(data, rows, sizes).items():
        directory[tag] = value
    if channels in (2, 4):
        directory[EXTRA_SAMPLES] = STRAIGHT_ALPHA if metadata.extra_is_alpha else UNSPECIFIED
    head = io.BytesIO()
    directory.save(head)  # moves the strips' offsets past itself
    return b"".join((with_own_types(head.getvalue()), *strips)), lost


def _structure(data: NDArray[Any], rows: int, sizes: list[int]) -> dict[int, Any]:
    """The tags that give the place and the layout of the pixels."""
    height, width, channels = data.shape
    offsets = tuple(int(offset) for offset in np.cumsum([0, *sizes[:-1]]))
    real = data.dtype.kind == "f"
    tags: dict[int, Any] = {
        WIDTH: width,
        HEIGHT: height,
        BITS: (data.itemsize * 8,) * channels,
        COMPRESSION: DEFLATE,
        PHOTOMETRIC: BLACK_IS_ZERO if channels < 3 else RGB,
        STRIP_OFFSETS: offsets,
        CHANNELS: channels,
        ROWS_OF_STRIP: rows,
        STRIP_SIZES: tuple(sizes),
        PLANES: TOGETHER,
        SAMPLE_FORMAT: (FLOAT if real else INTEGER,) * channels,
    }
    if not real:
        tags[PREDICTOR] = HORIZONTAL
    return tags


def _compress(rows: NDArray[Any]) -> bytes:
    """Rows deflated; of integers, the differences of neighbours, which deflate better."""
    little = rows.astype(rows.dtype.newbyteorder("<"), copy=False)
    if rows.dtype.kind != "f":
        little = little.copy()
        little[:, 1:] -= rows[:, :-1]
    return zlib.compress(little.tobytes(), 6)


def _tags(metadata: Metadata) -> tuple[dict[int, Any], list[str]]:
    """The metadata as tags of a TIFF directory, values that are dictionaries being directories of their own; and the
    names of what TIFF cannot hold."""
    exif = exif_directory(metadata.exif)
    tags = tag_values(exif, STRUCTURE)
    for tag, value in ((XMP, metadata.xmp), (ICC, metadata.icc_profile)):
        if value:
            tags[tag] = value
    blocks = [content.removeprefix(PHOTOSHOP_START) for name, content in metadata.segments if name == "APP13"]
    if blocks:
        tags[PHOTOSHOP] = b"".join(blocks)  # one that is too long for a segment goes on in the next
    if metadata.dpi:
        tags.update({**dict(zip(RESOLUTION, metadata.dpi, strict=True)), RESOLUTION_UNIT: INCH})
    elif metadata.tiff_resolution:
        tags.update(zip((*RESOLUTION, RESOLUTION_UNIT), metadata.tiff_resolution, strict=True))
    kept = {tag: value for tag, value in tags.items() if fits_tiff(tag, value)}
    lost = [f"EXIF tag {tag}" for tag in sorted(tags.keys() - kept.keys())] + lost_thumbnail(exif)
    lost += [name for name, value in (("comment", metadata.comment), ("text", metadata.text)) if value]
    return kept, lost + lost_segments(metadata, "APP1", "APP12")
