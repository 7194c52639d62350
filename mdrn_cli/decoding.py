"""Image files as Pillow opens and decodes them: what of it is let in, what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from warnings import catch_warnings, simplefilter

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from mdrn_cli import bmp
from mdrn_cli.content import kind_of_file, name_of, open_source
from mdrn_cli.errors import InputError, MdrnError
from mdrn_cli.formats import FORMATS
from mdrn_cli.nesting import Nested
from mdrn_cli.png import LARGEST_TEXT

JPEG = ("JPEG", "MPO")
"""What Pillow calls a JPEG, of one picture and of several."""
ONE_BIT = "1 bit a pixel becomes 8"
_STRIP = 256
"""Rows that are copied at a time."""


@contextmanager
def _larger_texts() -> Iterator[None]:
    """Let Pillow take profiles and texts of a PNG that are as large as those of scanners and printers; together they
    may have no more than ever."""
    before = PngImagePlugin.MAX_TEXT_CHUNK
    PngImagePlugin.MAX_TEXT_CHUNK = max(before, LARGEST_TEXT)
    try:
        yield
    finally:
        PngImagePlugin.MAX_TEXT_CHUNK = before


_room_for_texts = Nested(_larger_texts)


@contextmanager
def opened(source: Path | bytes) -> Iterator[Image.Image]:
    """A Pillow image of a file or its content; what goes wrong while it is open becomes an InputError."""
    Image.init()  # a decoder named before it is loaded is an error of its own
    path = name_of(source)
    try:
        with _room_for_texts, open_source(source) as stream:
            with catch_warnings():
                # Twice as large is an error; large photographs are what this is for.
                simplefilter("ignore", Image.DecompressionBombWarning)
                # Of the many decoders that Pillow has, only those of the formats that are handled.
                file = Image.open(stream, formats=list(dict.fromkeys(FORMATS.values())))
            with file:
                if file.format == "BMP":
                    bmp.refuse_misread(file, stream)
                yield file
    except (MdrnError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        if kind := kind_of_file(source):
            raise InputError(f"{path} is damaged, or a kind of {kind} that is not handled") from error
        raise InputError(f"{path} is not an image that can be read") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} is too large: {error}") from error
    except Exception as error:  # of the many kinds that a broken file makes Pillow raise
        raise InputError(f"{path} is damaged or cannot be read ({error})") from error


def checked(file: Image.Image, name: str, further: int = 0) -> tuple[str, ...]:
    """Refuse what is not handled; returns what is worth a warning, as that a JPEG has further pictures, so many."""
    # Not what Pillow says of a JPEG, which has one for it if it is of those with a map of highlights ("Ultra HDR").
    is_jpeg = file.format in JPEG
    frames = 1 + further if is_jpeg else getattr(file, "n_frames", 1)
    if frames > 1 and not is_jpeg:
        raise InputError(f"{name} has {frames} frames; only single images are handled")
    if plain_mode(file) is None and not is_deep(file):
        raise InputError(f"{name} is of mode {file.mode}; gray and RGB are handled", "convert it to RGB first")
    if frames > 1:  # a JPEG with more behind it, as cameras and phones write it
        return (f"only the first of {frames} images in the file is kept",)
    if file.mode in ("P", "PA"):
        return (f"the palette becomes {plain_mode(file)}",)
    return (ONE_BIT,) if file.mode == "1" else ()


def is_deep(file: Image.Image) -> bool:
    """Whether a file that Pillow has opened, and not read yet, has pixels that it would not give as they are."""
    # Pillow opens 16-bit RGB as 8-bit RGB; only the decoder's raw mode tells.
    # Of PNG alone: a BMP has the length of its rows there, which may be 16, too.
    raw = [str(tile[3]) for tile in getattr(file, "tile", ())] if file.format == "PNG" else []
    # Of gray with less than 8 bits, Pillow makes the wrong pixels transparent.
    narrow = "transparency" in file.info and any(mode in ("1", "L;2", "L;4") for mode in raw)
    return narrow or file.mode.startswith("I") or any("16" in mode for mode in raw)


def plain_mode(file: Image.Image) -> str | None:
    """The mode with 8 bits a channel that loses nothing, or None if there is none."""
    clear = "transparency" in file.info
    return {
        "1": "LA" if clear else "L",
        "L": "LA" if clear else "L",
        "LA": "LA",
        "P": "RGBA" if clear else "RGB",
        "PA": "RGBA",
        "RGB": "RGBA" if clear else "RGB",
        "RGBA": "RGBA",
    }.get(file.mode)


def array_of(image: Image.Image) -> NDArray[np.uint8]:
    """Pixels of a Pillow image of 8 bits a channel, (H, W) or (H, W, C). Pillow makes two copies on the way, here of a
    strip only."""
    bands = len(image.getbands())
    data = np.empty((image.height, image.width, bands)[: 2 + (bands > 1)], np.uint8)
    for top in range(0, image.height, _STRIP):
        bottom = min(top + _STRIP, image.height)
        data[top:bottom] = np.asarray(image.crop((0, top, image.width, bottom)))
    return data
