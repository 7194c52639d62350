"""Pixels that Pillow cannot hold, more than 8 bits a channel in PNG and TIFF of every depth, or not vouch for, JPEG."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import getchunks

from mdrn_cli.errors import InputError, MdrnError, OutOfMemoryError, lacks_memory
from mdrn_cli.jpeg import LARGEST_TRAILER, has_restarts, put_right
from mdrn_cli.metadata import Metadata, save_arguments
from mdrn_cli.png import Chunk, with_chunks_alone

MOST_PIXELS = 178_956_970
"""Beyond this Pillow, too, takes a file for a decompression bomb."""
_GRAY = ("b-w", "grey16")
_HANDLED = (*_GRAY, "srgb", "rgb16", "rgb", "multiband", "scrgb")
_NOTHING_FOLLOWS = "extraneous bytes before marker 0xd9"
"""What libjpeg warns of only when it has decoded all, but for what has `jpeg.has_restarts`."""
TRIES = 5
"""How often a TIFF is decoded before errors that may be another thread's are taken for its own."""
_NOT_BUILT_IN = "compression support is not configured"


_errors = threading.Lock()


class CompressionError(InputError):
    """A TIFF is compressed in a way that libvips, as it is built here, cannot undo."""


def load_libvips() -> Any:
    """pyvips with its library, which is looked for when it is imported.

    Raises:
        OutOfMemoryError: there is no room for it.
        MdrnError: it is not there.
    """
    try:
        import pyvips
    except (ImportError, OSError) as error:
        if lacks_memory(error):
            raise OutOfMemoryError("not enough memory to load libvips") from error
        raise MdrnError(f"libvips does not load ({error})", "pip install --force-reinstall pyvips-binary") from error
    return pyvips


def read_deep(source: Path | bytes, name: str) -> tuple[NDArray[Any], bool, int]:
    """Decode a PNG or TIFF with libvips.

    Args:
        source: the file, or its content.
        name: what messages call it.

    Returns:
        uint8, uint16 or float32 (H, W, C), C being 1 to 4; whether the last channel is alpha; and the bits a
        channel had in the file.

    Raises:
        CompressionError: a TIFF of a compression that libvips does not have.
        InputError: damaged, of several pages, or of a kind that is not handled.
    """
    pyvips = load_libvips()
    try:
        image = _open(pyvips, source, "error")
        fields = set(image.get_fields())
        pages = image.get("n-pages") if "n-pages" in fields else 1
        if pages > 1:
            raise InputError(f"{name} has {pages} pages; only single images are handled")
        _refuse_unhandled(image, name)
        pixels = _decoded(pyvips, source, image)
        _refuse_nonfinite(pixels, name)
    except pyvips.Error as error:
        reason = _reason(error)
        if _NOT_BUILT_IN in reason:
            kind = reason.removeprefix("tiff2vips: ").split(_NOT_BUILT_IN)[0].strip()
            raise CompressionError(
                f"{name} has {kind} compression, which is not handled with its pixels", "save it with deflate"
            ) from None
        raise InputError(f"{name} is damaged or cannot be read ({reason})") from None
    bits = image.get("bits-per-sample") if "bits-per-sample" in fields else pixels.dtype.itemsize * 8
    # libvips drops axes of one band, and all of a single pixel.
    return pixels.reshape(image.height, image.width, image.bands), image.hasalpha(), bits


def _decoded(pyvips: Any, source: Path | bytes, image: Any) -> NDArray[Any]:
    """The pixels of an image as it was opened. Tiles of a TIFF that cannot be decoded libvips makes black, and says so
    in the log of its errors alone. That is one for all threads, of which some may be at images that fail: what it says
    counts if it says so each of TRIES times.

    Raises:
        pyvips.Error: they cannot be decoded.
    """
    pixels: NDArray[Any]
    if not image.get("vips-loader").startswith("tiff"):
        pixels = image.numpy()
        return pixels
    with _errors:
        for opened in (image, *[None] * (TRIES - 1)):
            pyvips.vips_lib.vips_error_clear()
            pixels = (_open(pyvips, source, "error") if opened is None else opened).numpy()
            if not pyvips.ffi.string(pyvips.vips_lib.vips_error_buffer()):
                return pixels
        raise pyvips.Error("cannot decode all of it")  # takes the log with it


def read_jpeg(source: Path | bytes, name: str) -> tuple[NDArray[np.uint8] | None, bool]:
    """Decode a JPEG of gray or RGB with libvips, which tells whether all of it is there. Pillow does not: it fills up
    with gray. But libvips ends at the first thing that libjpeg warns of, what is harmless, too.

    Args:
        source: the file, or its content.
        name: what messages call it.

    Returns:
        uint8 (H, W, C), C being 1 or 3, the same values as Pillow's, None where libvips does not decode what Pillow can
        read, also not as it is `put_right`; and whether that is all of it, as far as libjpeg can tell.

    Raises:
        InputError: its data are corrupt or end early.
    """
    pyvips = load_libvips()
    reason, form = "", source
    for form in _forms(source):
        try:
            image = _open(pyvips, form, "warning")
            return image.numpy().reshape(image.height, image.width, image.bands), True
        except pyvips.Error as error:
            reason = _reason(error)
        if "orrupt JPEG data" in reason and "extraneous bytes" not in reason:
            raise InputError(f"{name} is damaged ({reason})")
    all_decoded = _NOTHING_FOLLOWS in reason and isinstance(form, bytes) and not has_restarts(form)
    return None, all_decoded


def _forms(source: Path | bytes) -> Iterator[Path | bytes]:
    """A JPEG as it is, then `put_right`, unless that is too much to be held in memory."""
    yield source
    if isinstance(source, bytes) or source.stat().st_size <= LARGEST_TRAILER:
        yield put_right(source if isinstance(source, bytes) else source.read_bytes())


def _open(pyvips: Any, source: Path | bytes, fail_on: str) -> Any:
    # Its cache of recent operations would keep their files open, and their pixels.
    pyvips.cache_set_max(0)
    if isinstance(source, bytes):
        return pyvips.Image.new_from_buffer(source, "", access="sequential", fail_on=fail_on)
    # By descriptor: libvips takes names in UTF-8 only, and brackets in them for options. It keeps one of its own.
    with source.open("rb") as file:
        opened = pyvips.Source.new_from_descriptor(file.fileno())
    return pyvips.Image.new_from_source(opened, "", access="sequential", fail_on=fail_on)


def _reason(error: Any) -> str:
    lines = (error.detail or error.message).strip().splitlines()
    return lines[0] if lines else "unknown reason"


def _refuse_nonfinite(pixels: NDArray[Any], name: str) -> None:
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise InputError(f"{name} has values that are not finite")


def _refuse_unhandled(image: Any, name: str) -> None:
    if image.width * image.height > MOST_PIXELS:
        raise InputError(f"{name} is too large: {image.width}x{image.height}, more than {MOST_PIXELS} pixels")
    depth = {"uchar": "uint8", "ushort": "uint16", "float": "float32"}.get(image.format)
    colors = image.bands - image.hasalpha()
    some = (1,) if image.interpretation in _GRAY else (1, 3)
    if image.interpretation not in _HANDLED or colors not in some:
        raise InputError(
            f"{name} is {image.interpretation} with {image.bands} channels; gray and RGB are handled",
            "convert it to RGB first",
        )
    if depth is None:
        raise InputError(f"{name} has pixels of type {image.format}; 8 and 16 bits and 32-bit float are handled")


def encode_deep_png(data: NDArray[Any], metadata: Metadata) -> tuple[bytes, list[str]]:
    """A PNG of 16 bits a channel, and the names of what it cannot hold.

    Pixels alone are libvips' work: it would write EXIF, text and resolution anew, its own way.

    Args:
        data: uint16 (H, W, C), C being 1 to 4; the last of 2 or 4 is alpha.
        metadata: what else it is to carry.
    """
    pyvips = load_libvips()
    keep, lost = save_arguments(metadata, "PNG")
    gray = data.shape[2] < 3
    image = pyvips.Image.new_from_array(data, interpretation="grey16" if gray else "rgb16")
    pixels = image.pngsave_buffer(bitdepth=16, keep="none")
    return with_chunks_alone(pixels, (*metadata.png_chunks, *_pillow_chunks(keep))), lost


def _pillow_chunks(arguments: dict[str, Any]) -> list[Chunk]:
    """What Pillow writes into a PNG beside the pixels."""
    chunks = getchunks(Image.new("L", (1, 1)), **arguments)
    return [(kind, data) for kind, data, _ in chunks if kind not in (b"IHDR", b"IDAT", b"IEND")]
