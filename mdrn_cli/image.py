"""Image files read: what is taken, what is kept, what is refused. `encoding` has how they are written.

Read are PNG, JPEG, TIFF, WebP and BMP of one image: gray and RGB of 8 and 16 bits and (TIFF) 32-bit float, with or
without alpha, palettes and 1 bit. Whatever else there is (CMYK, animation, several pages) is refused by name, never
converted in silence. The depth is that of the data type, never guessed from values.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mdrn_cli import bmp, webp
from mdrn_cli.content import kind_of_file, name_of, open_source, refuse_other_formats
from mdrn_cli.decoding import JPEG, array_of, checked, is_deep, opened, plain_mode
from mdrn_cli.deep import read_deep, read_jpeg
from mdrn_cli.errors import InputError
from mdrn_cli.jpeg import LARGEST_TRAILER, Behind, behind_picture, listed_pictures
from mdrn_cli.metadata import Metadata, read_metadata
from mdrn_cli.picture import Picture, picture_of
from mdrn_cli.pixels import as_depth
from mdrn_cli.png import read_color_chunks, read_repeated_texts, read_unknown
from mdrn_cli.tiff import HEIGHT, WIDTH
from mdrn_cli.tiffreading import is_gray_tiff, read_tiff

_MAY_BE_CUT = "it cannot be told whether all of the picture is there"


def read_size(path: Path) -> tuple[int, int]:
    """Width and height that an image's header tells; pixels are decoded only of a TIFF that Pillow cannot open.

    Raises:
        InputError: the file is missing or no image.
    """
    try:
        with opened(path) as file:
            tags = getattr(file, "tag_v2", {})  # Pillow's own sizes are those of a TIFF that it has turned
            return tags.get(WIDTH, file.width), tags.get(HEIGHT, file.height)
    except InputError:
        if kind_of_file(path) != "TIFF":
            raise
    _, height, width = read_picture(path).channels.shape
    return width, height


def is_gray(path: Path) -> bool:
    """Whether an image has one channel, as its header tells; of what cannot be opened, no."""
    try:
        if kind_of_file(path) == "TIFF":
            return is_gray_tiff(path)
        with opened(path) as file:
            return Image.getmodebase(file.mode) == "L" or any(
                str(tile[3]).startswith("LA") for tile in getattr(file, "tile", ())
            )
    except InputError:
        return False


def read_uint8(path: Path, color: str) -> NDArray[np.uint8]:
    """An image as benchmarks and training take it: 8 bits, to which more are rounded, without alpha. Of a JPEG of which
    it cannot be told whether all of it is there, what there is.

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
    with opened(path) as file:
        if is_deep(file):
            return None
        checked(file, str(path))
        whole, _ = _read_whole_jpeg(file, path)
        decoded = file if whole is None else Image.fromarray(whole[:, :, 0] if whole.shape[2] == 1 else whole)
        return np.asarray(decoded.convert("L" if color == "gray" else "RGB"))


def read_picture(source: Path | bytes) -> Picture:
    """Read a file, or the content of one, for restoring.

    Raises:
        InputError: missing, not an image, damaged, or of a kind that is not handled.
    """
    if isinstance(source, Path):
        refuse_other_formats(source)
    return read_tiff(source) if kind_of_file(source) == "TIFF" else _read_other(source)


def _read_other(source: Path | bytes) -> Picture:
    with opened(source) as file:
        behind = _behind_jpeg(file, source)
        warnings = checked(file, name_of(source), len(behind.further) if behind else 0)
        data: NDArray[Any] | None = None
        has_alpha = False
        if is_deep(file):
            data, has_alpha, _ = read_deep(source, name_of(source))
        else:
            data, is_whole = _read_whole_jpeg(file, source)
            warnings += () if is_whole else (_MAY_BE_CUT,)
        if data is None:
            file.load()
            mode = plain_mode(file)
            plain = file if file.mode == mode else file.convert(mode)
            data, has_alpha = array_of(plain), plain.mode in ("LA", "RGBA")
        metadata, damages = read_metadata(file)
        with open_source(source) as stream:
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
            elif behind:
                metadata = _with_trailer(metadata, stream, behind)
        return picture_of(data, has_alpha, metadata, warnings + damages)


def _read_whole_jpeg(file: Image.Image, source: Path | bytes) -> tuple[NDArray[np.uint8] | None, bool]:
    """See `read_jpeg`; None of other formats, too, which are whole if they can be read."""
    return read_jpeg(source, name_of(source)) if file.format in JPEG else (None, True)


def _behind_jpeg(file: Image.Image, source: Path | bytes) -> Behind | None:
    """See `behind_picture`; None of other formats."""
    if file.format not in JPEG:
        return None
    with open_source(source) as stream:
        return behind_picture(stream, listed_pictures(getattr(file, "applist", ())))


def _with_trailer(metadata: Metadata, stream: IO[bytes], behind: Behind) -> Metadata:
    """With what a JPEG has behind its picture, which is left behind where it is too large to be held in memory, as
    further pictures are, which would not be found any more; smaller versions of it, as cameras add, are no loss."""
    if not all(one.is_preview for one in behind.further):
        metadata = replace(metadata, left_behind=("further images, such as a map of depth or highlights",))
    told: tuple[str, ...] = (f"{behind.between} bytes between its images",) if behind.between else ()
    if behind.size > LARGEST_TRAILER:
        told += (f"{behind.size} bytes behind the picture",)
    else:
        stream.seek(behind.start)
        metadata = replace(metadata, trailer=stream.read(behind.size))
    return replace(metadata, left_behind=metadata.left_behind + told, dropped=metadata.dropped + told)
