"""Pixels that Pillow cannot hold: more than 8 bits a channel in PNG, and TIFF of every depth."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from mdrn_cli.errors import InputError
from mdrn_cli.metadata import Metadata, tiff_tags

MOST_PIXELS = 178_956_970
"""Beyond this Pillow, too, takes a file for a decompression bomb."""
_HANDLED = ("b-w", "srgb", "rgb16", "grey16", "rgb", "multiband", "scrgb")
_STRIP = 1 << 20
"""Bytes of pixels in a strip of a TIFF, about."""
_DEFLATE, _HORIZONTAL, _UNASSOCIATED_ALPHA = 8, 2, 2
_LARGEST_TIFF = (1 << 32) - (1 << 20)


def read_deep(source: Path | bytes, name: str) -> tuple[NDArray[Any], bool, int]:
    """Decode a PNG or TIFF with libvips.

    Args:
        source: the file, or its content.
        name: what messages call it.

    Returns:
        uint8, uint16 or float32 (H, W, C), C being 1 to 4; whether the last channel is alpha; and the bits a
        channel had in the file.

    Raises:
        InputError: damaged, of several pages, or of a kind that is not handled.
    """
    import pyvips

    try:
        image = _open(pyvips, source)
        fields = set(image.get_fields())
        pages = image.get("n-pages") if "n-pages" in fields else 1
        if pages > 1:
            raise InputError(f"{name} has {pages} pages; only single images are handled")
        _refuse_unhandled(image, name)
        pixels = image.numpy()
    except pyvips.Error as error:
        reason = (error.detail or error.message).strip().splitlines()
        raise InputError(f"{name} is damaged or cannot be read ({reason[0] if reason else 'unknown reason'})") from None
    bits = image.get("bits-per-sample") if "bits-per-sample" in fields else pixels.dtype.itemsize * 8
    return (pixels[:, :, None] if pixels.ndim == 2 else pixels), image.hasalpha(), bits


def _open(pyvips: Any, source: Path | bytes) -> Any:
    if isinstance(source, bytes):
        return pyvips.Image.new_from_buffer(source, "", access="sequential", fail_on="error")
    return pyvips.Image.new_from_file(str(source), access="sequential", fail_on="error")


def _refuse_unhandled(image: Any, name: str) -> None:
    if image.width * image.height > MOST_PIXELS:
        raise InputError(f"{name} is too large: {image.width}x{image.height}, more than {MOST_PIXELS} pixels")
    depth = {"uchar": "uint8", "ushort": "uint16", "float": "float32"}.get(image.format)
    colors = image.bands - image.hasalpha()
    if image.interpretation not in _HANDLED or colors not in (1, 3):
        raise InputError(
            f"{name} is {image.interpretation} with {image.bands} channels; gray and RGB are handled",
            "convert it to RGB first",
        )
    if depth is None:
        raise InputError(f"{name} has pixels of type {image.format}; 8 and 16 bits and 32-bit float are handled")


def encode_deep_png(data: NDArray[Any], metadata: Metadata) -> bytes:
    """A PNG of 16 bits a channel.

    Args:
        data: uint16 (H, W, C), C being 1 to 4; the last of 2 or 4 is alpha.
        metadata: what else it is to carry.
    """
    import pyvips

    gray = data.shape[2] < 3
    image = pyvips.Image.new_from_array(data, interpretation="grey16" if gray else "rgb16").copy()
    for field, value in (
        ("icc-profile-data", metadata.icc_profile),
        ("exif-data", metadata.exif),
        ("xmp-data", metadata.xmp),
    ):
        if value:
            image.set_type(pyvips.GValue.blob_type, field, value)
    for k, (key, text) in enumerate(metadata.text):
        image.set_type(pyvips.GValue.gstr_type, f"png-comment-{k}-{key}", text)
    if metadata.dpi:
        image = image.copy(xres=metadata.dpi[0] / 25.4, yres=metadata.dpi[1] / 25.4)
    content: bytes = image.pngsave_buffer(bitdepth=16)
    return content


def encode_tiff(data: NDArray[Any], metadata: Metadata) -> bytes:
    """A TIFF compressed without loss, its EXIF and GPS directories written as TIFF has them.

    libvips, OpenCV and tifffile write no EXIF directory, Pillow no RGB beyond 8 bits; so the strips are laid out
    here and Pillow writes the directory.

    Args:
        data: uint8, uint16 or float32 (H, W, C), C being 1 to 4; the last of 2 or 4 is alpha.
        metadata: what else it is to carry.

    Raises:
        InputError: it would not fit the 4 GiB of a TIFF.
    """
    height, width, channels = data.shape
    rows = max(1, _STRIP // (width * channels * data.itemsize))
    strips = [_compress(data[top : top + rows]) for top in range(0, height, rows)]
    sizes = [len(strip) for strip in strips]
    if sum(sizes) > _LARGEST_TIFF:
        raise InputError("the result does not fit the 4 GiB of a TIFF")
    directory = ImageFileDirectory_v2(ifh=b"II\x2a\x00\x08\x00\x00\x00")
    for tag, value in tiff_tags(metadata).items():
        directory[tag] = value
    for tag, value in _structure(data, rows, sizes).items():
        directory[tag] = value
    content = io.BytesIO()
    directory.save(content)  # moves the strips' offsets past itself
    content.writelines(strips)
    return content.getvalue()


def _structure(data: NDArray[Any], rows: int, sizes: list[int]) -> dict[int, Any]:
    """The tags that say where the pixels are and what they look like."""
    height, width, channels = data.shape
    offsets = tuple(int(offset) for offset in np.cumsum([0, *sizes[:-1]]))
    real = data.dtype.kind == "f"
    tags: dict[int, Any] = {
        256: width,
        257: height,
        258: (data.itemsize * 8,) * channels,
        259: _DEFLATE,
        262: 1 if channels < 3 else 2,  # black is zero, or RGB
        273: offsets,
        277: channels,
        278: rows,
        279: tuple(sizes),
        284: 1,  # channels side by side
        339: (3 if real else 1,) * channels,
    }
    if not real:
        tags[317] = _HORIZONTAL
    if channels in (2, 4):
        tags[338] = _UNASSOCIATED_ALPHA
    return tags


def _compress(rows: NDArray[Any]) -> bytes:
    """Rows deflated; of integers, the differences of neighbours, which deflate better."""
    little = rows.astype(rows.dtype.newbyteorder("<"), copy=False)
    if rows.dtype.kind != "f":
        little = little.copy()
        little[:, 1:] -= rows[:, :-1]
    return zlib.compress(little.tobytes(), 6)
