"""Image files read: what is taken, what is kept, what is refused. `encoding` has how they are written.

Read are PNG, JPEG, TIFF, WebP and BMP of one image: gray and RGB of 8 and 16 bits and (TIFF) 32-bit float, with or
without alpha, palettes and 1 bit. Whatever else there is (CMYK, animation, several pages) is refused by name, never
converted in silence. The depth is that of the data type, never guessed from values.
"""

from __future__ import annotations

import io
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any
from warnings import catch_warnings, simplefilter

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from mdrn_cli import bmp, webp
from mdrn_cli.deep import CompressionError, read_deep, read_jpeg
from mdrn_cli.errors import InputError, MdrnError
from mdrn_cli.formats import HANDLED, kind_of, not_handled
from mdrn_cli.jpeg import LARGEST_TRAILER, behind_picture, listed_pictures
from mdrn_cli.metadata import Metadata, read_metadata, read_tiff_metadata
from mdrn_cli.nesting import Nested
from mdrn_cli.picture import Picture
from mdrn_cli.pixels import as_depth
from mdrn_cli.png import LARGEST_TEXT, read_color_chunks, read_repeated_texts, read_unknown
from mdrn_cli.tiff import (
    APART,
    BITS,
    BLACK_IS_ZERO,
    EXTRA_SAMPLES,
    PALETTE,
    PHOTOMETRIC,
    PLANES,
    RGB,
    WHITE_IS_ZERO,
    bits_of,
    tiff_directory,
)

# The decoders let in, of the many that Pillow has.
_DECODERS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")
LARGEST_CONTENT = 1 << 32
"""Bytes of a file; more than the pixels that are let in can take."""
_BLOCK = 1 << 20
"""Bytes read from a pipe at once."""
_JPEG = ("JPEG", "MPO")
_WIDTH, _HEIGHT, _ORIENTATION = 256, 257, 274
"""Tags of TIFF."""
_STRIP = 256
"""Rows that are copied at a time."""
_ONE_BIT = "1 bit a pixel becomes 8"


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
def _opened(source: Path | bytes) -> Iterator[Image.Image]:
    """A Pillow image of a file or its content; what goes wrong while it is open becomes an InputError."""
    Image.init()  # a decoder named before it is loaded is an error of its own
    path = _name(source)
    try:
        with _room_for_texts, _stream(source) as stream:
            with catch_warnings():
                # Twice as large is an error; large photographs are what this is for.
                simplefilter("ignore", Image.DecompressionBombWarning)
                file = Image.open(stream, formats=_DECODERS)
            with file:
                if file.format == "BMP":
                    bmp.refuse_misread(file, stream)
                yield file
    except (MdrnError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise InputError(f"{path} is not an image that can be read") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} is too large: {error}") from error
    except Exception as error:  # of the many kinds that a broken file makes Pillow raise
        raise InputError(f"{path} is damaged or cannot be read ({error})") from error


def read_size(path: Path) -> tuple[int, int]:
    """Width and height that an image's header tells; pixels are decoded only of a TIFF that Pillow cannot open.

    Raises:
        InputError: the file is missing or no image.
    """
    try:
        with _opened(path) as file:
            tags = getattr(file, "tag_v2", {})  # Pillow's own sizes are those of a TIFF that it has turned
            return tags.get(_WIDTH, file.width), tags.get(_HEIGHT, file.height)
    except InputError:
        if kind_of_file(path) != "TIFF":
            raise
    _, height, width = read_picture(path).channels.shape
    return width, height


def is_gray(path: Path) -> bool:
    """Whether an image has one channel, as its header tells; of what cannot be opened, no."""
    try:
        if kind_of_file(path) == "TIFF":
            return _is_gray_tiff(path)
        with _opened(path) as file:
            return Image.getmodebase(file.mode) == "L" or any(
                str(tile[3]).startswith("LA") for tile in getattr(file, "tile", ())
            )
    except InputError:
        return False


def _is_gray_tiff(path: Path) -> bool:
    with open_file(path) as stream, catch_warnings():
        simplefilter("ignore")
        try:
            return tiff_directory(stream)[0].get(PHOTOMETRIC) in (WHITE_IS_ZERO, BLACK_IS_ZERO)
        except MemoryError:
            raise
        except Exception:  # of the many kinds that a broken directory makes Pillow raise
            return False


def read_uint8(path: Path, color: str) -> NDArray[np.uint8]:
    """An image as benchmarks and training take it: 8 bits, to which more are rounded, without alpha.

    Args:
        path: the file.
        color: "gray" (color images by ITU-R 601 luma) or "color".

    Returns:
        uint8 (H, W, C), C being 1 or 3.

    Raises:
        InputError: the file is missing, no image, damaged, or of a kind that is not handled.
    """
    pixels = _read_eight_bits(path, color)
    if pixels is None:
        picture = read_picture(path).to_color(color)
        return np.ascontiguousarray(as_depth(picture.channels, "uint8").transpose(1, 2, 0))
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _read_eight_bits(path: Path, color: str) -> NDArray[np.uint8] | None:
    """An image as Pillow converts it; None where there are more bits, which it clips or cuts off, and of a TIFF, of
    which it decodes some kinds as other pixels."""
    if kind_of_file(path) == "TIFF":
        return None
    with _opened(path) as file:
        if is_deep(file):
            return None
        _check(file, str(path))
        whole = _read_whole_jpeg(file, path)
        decoded = file if whole is None else Image.fromarray(whole[:, :, 0] if whole.shape[2] == 1 else whole)
        return np.asarray(decoded.convert("L" if color == "gray" else "RGB"))


def read_picture(source: Path | bytes) -> Picture:
    """Read a file, or the content of one, for restoring.

    Raises:
        InputError: missing, not an image, damaged, or of a kind that is not handled.
    """
    if isinstance(source, Path):
        refuse_other_formats(source)
    return _read_tiff(source) if kind_of_file(source) == "TIFF" else _read_other(source)


def refuse_other_formats(path: Path) -> None:
    """Hold a file that is called as a picture of a format that is not handled to be another.

    Raises:
        InputError: it is what it is called; or see `open_file`.
    """
    # What many cameras write begins as a TIFF does, and holds a small picture to look at.
    if (problem := not_handled(path)) and kind_of_file(path) in (None, "TIFF"):
        raise InputError(problem, HANDLED)


def _name(source: Path | bytes) -> str:
    return "the input" if isinstance(source, bytes) else str(source)


def read_content(stream: IO[bytes], name: str) -> bytes:
    """All of a stream that is an image; of anything else, no more than its first bytes.

    Raises:
        InputError: it does not begin as an image, or is larger than any.
    """
    start = stream.read(16)
    if not kind_of(start):
        raise InputError(f"{name} is not an image that can be read")
    content = bytearray(start)
    while block := stream.read(_BLOCK):  # to read all that there may be would take that much memory first
        content += block
        if len(content) > LARGEST_CONTENT:
            raise InputError(f"{name} is larger than {LARGEST_CONTENT} bytes")
    return bytes(content)


def open_file(path: Path) -> IO[bytes]:
    """A regular file opened for reading. Nothing else is: a pipe that nobody writes to would never end, nor would some
    devices.

    Raises:
        InputError: missing, no regular file, larger than any picture that is let in, or not to be read.
    """
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise InputError(f"{path} is not a file", "use - to read from a pipe")
        if about.st_size > LARGEST_CONTENT:
            raise InputError(f"{path} is larger than {LARGEST_CONTENT} bytes")
        return path.open("rb")
    except FileNotFoundError as error:
        raise InputError(f"no file {path}") from error
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror or error})") from error


def _stream(source: Path | bytes) -> IO[bytes]:
    return io.BytesIO(source) if isinstance(source, bytes) else open_file(source)


def kind_of_file(source: Path | bytes) -> str | None:
    """The format, as FORMATS of formats.py calls it, that a file or the content of one begins as.

    Raises:
        InputError: see `open_file`.
    """
    with _stream(source) as stream:
        return kind_of(stream.read(8))


def _read_tiff(source: Path | bytes) -> Picture:
    try:
        with _stream(source) as stream:
            metadata, photometric = read_tiff_metadata(stream)
    except InputError as error:
        raise InputError(f"{_name(source)}: {error.message}", error.hint) from error
    except MemoryError:
        raise
    except Exception as error:  # of the many kinds that a broken directory makes Pillow raise
        raise InputError(f"{_name(source)} is damaged or cannot be read ({error})") from error
    data, has_alpha, bits = _decoded_tiff(source, photometric in (BLACK_IS_ZERO, RGB))
    if photometric == WHITE_IS_ZERO and data.dtype.kind == "f":  # integers libvips turns round
        raise InputError(f"{_name(source)} has floats of which zero is white", "save it with zero as black")
    picture = picture_of(data, has_alpha, metadata, () if photometric == PALETTE else _more_bits(bits, data))
    return picture.warned(f"the palette becomes {picture.mode}") if photometric == PALETTE else picture


def _decoded_tiff(source: Path | bytes, is_plain: bool) -> tuple[NDArray[Any], bool, int]:
    """As `read_deep` has it; where libvips lacks the compression (ZSTD, LZMA), plain pixels of 8 bits by Pillow, which
    brings a libtiff of its own."""
    try:
        return read_deep(source, _name(source))
    except CompressionError:
        with _stream(source) as stream:
            bits = bits_of(tiff_directory(stream)[0])
        if not is_plain or bits != {8}:
            raise
        with _opened(source) as file:
            _check(file, _name(source))
            tags = getattr(file, "tag_v2", {})
            channels = len(tags.get(BITS, (1,)))
            # Pillow drops channels that have no meaning, and turns pixels as the orientation says.
            told = channels < 4 or tags.get(PLANES) != APART or EXTRA_SAMPLES in tags  # else it takes other bytes
            whole = told and channels == len(file.getbands()) and file.getexif().get(_ORIENTATION, 1) == 1
            if not whole or file.mode not in ("L", "LA", "RGB", "RGBA"):
                raise
            file.load()
            data = _array_of(file)
            return data.reshape(*data.shape[:2], -1), file.mode in ("LA", "RGBA"), 8


def _read_other(source: Path | bytes) -> Picture:
    with _opened(source) as file:
        warnings = _check(file, _name(source))
        data: NDArray[Any] | None = None
        has_alpha = False
        if is_deep(file):
            data, has_alpha, _ = read_deep(source, _name(source))
        else:
            data = _read_whole_jpeg(file, source)
        if data is None:
            file.load()
            mode = plain_mode(file)
            plain = file if file.mode == mode else file.convert(mode)
            data, has_alpha = _array_of(plain), plain.mode in ("LA", "RGBA")
        metadata, damages = read_metadata(file)
        with _stream(source) as stream:
            if file.format == "PNG":
                metadata = replace(
                    metadata,
                    color_chunks=read_color_chunks(stream),
                    repeated_texts=read_repeated_texts(stream),
                    dropped=tuple(f"chunk {kind}" for kind in read_unknown(stream)),
                )
            elif file.format == "WEBP":
                metadata = replace(metadata, dropped=tuple(f"chunk {kind}" for kind in webp.read_unknown(stream)))
            elif file.format == "BMP":
                metadata = replace(metadata, icc_profile=bmp.read_profile(stream))
            elif file.format in _JPEG:
                # Further images are left out; they would not be found any more.
                metadata = _with_trailer(replace(metadata, left_behind=_left_behind(file)), stream, file)
        return picture_of(data, has_alpha, metadata, warnings + damages)


def _read_whole_jpeg(file: Image.Image, source: Path | bytes) -> NDArray[np.uint8] | None:
    """See `read_jpeg`; None of other formats, too."""
    return read_jpeg(source, _name(source)) if file.format in _JPEG else None


def _with_trailer(metadata: Metadata, stream: IO[bytes], file: Image.Image) -> Metadata:
    """With what a JPEG has behind its picture, which is left behind where it is too large to be held in memory."""
    start, size = behind_picture(stream, _end_of_further(file))
    if size > LARGEST_TRAILER:
        told = f"{size} bytes behind the picture"
        return replace(metadata, left_behind=(*metadata.left_behind, told), dropped=(*metadata.dropped, told))
    stream.seek(start)
    return replace(metadata, trailer=stream.read(size))


def _left_behind(file: Image.Image) -> tuple[str, ...]:
    """As `Metadata` has it, of a JPEG; smaller versions of the picture, as cameras add, are no loss."""
    further = listed_pictures(getattr(file, "applist", ()))[1:]
    return () if all(one.is_preview for one in further) else ("further images, such as a map of depth or highlights",)


def _end_of_further(file: Image.Image) -> int:
    """Where the last of a JPEG's further images ends, in bytes from where its list of them (MPF) begins; 0 without."""
    return max((one.start + one.size for one in listed_pictures(getattr(file, "applist", ())) if one.start), default=0)


def _array_of(image: Image.Image) -> NDArray[np.uint8]:
    """Pixels of a Pillow image of 8 bits a channel, (H, W) or (H, W, C). Pillow makes two copies on the way, here of a
    strip only."""
    bands = len(image.getbands())
    data = np.empty((image.height, image.width, bands)[: 2 + (bands > 1)], np.uint8)
    for top in range(0, image.height, _STRIP):
        bottom = min(top + _STRIP, image.height)
        data[top:bottom] = np.asarray(image.crop((0, top, image.width, bottom)))
    return data


def picture_of(
    data: NDArray[Any], has_alpha: bool, metadata: Metadata | None = None, warnings: tuple[str, ...] = ()
) -> Picture:
    """A picture of decoded pixels.

    Args:
        data: uint8, uint16 or float32 (H, W) or (H, W, C).
        has_alpha: whether the last channel is alpha.
        metadata, warnings: see Picture.
    """
    planes = data[:, :, None] if data.ndim == 2 else data
    alpha = planes[:, :, -1].copy() if has_alpha else None
    colors = planes[:, :, : planes.shape[2] - has_alpha]
    return Picture(colors.transpose(2, 0, 1), alpha, str(data.dtype), metadata or Metadata(), warnings)


def _check(file: Image.Image, name: str) -> tuple[str, ...]:
    """Refuse what is not handled; returns what is worth a warning."""
    # Not what Pillow says of a JPEG, which has one for it if it is of those with a map of highlights ("Ultra HDR").
    is_jpeg = file.format in _JPEG
    frames = len(listed_pictures(getattr(file, "applist", ()))) if is_jpeg else getattr(file, "n_frames", 1)
    if frames > 1 and not is_jpeg:
        raise InputError(f"{name} has {frames} frames; only single images are handled")
    if plain_mode(file) is None and not is_deep(file):
        raise InputError(f"{name} is of mode {file.mode}; gray and RGB are handled", "convert it to RGB first")
    if frames > 1:  # a JPEG with more behind it, as cameras and phones write it
        return (f"only the first of {frames} images in the file is kept",)
    if file.mode in ("P", "PA"):
        return (f"the palette becomes {plain_mode(file)}",)
    return (_ONE_BIT,) if file.mode == "1" else ()


def _more_bits(bits: int, data: NDArray[Any]) -> tuple[str, ...]:
    """What is told of the bits a channel has in a file, if its result has others."""
    if data.dtype.kind == "f" and bits < 32:
        return (f"floats of {bits} bits become floats of 32",)
    return (_ONE_BIT,) if bits == 1 else ()


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
