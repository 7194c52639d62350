"""Image files and their pixels: what is read, what is kept, what is refused.

Handled so far: 8-bit gray and RGB, with or without alpha, one frame. Anything else (16-bit, float, palette,
CMYK, animation) is refused by name, never converted in silence.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from mdrn_cli.errors import InputError, UsageError

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
    ".bmp": "BMP",
}
JPEG_QUALITY = 95
# What else a format needs for the pixels written to be the pixels given, or close to it.
SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "PNG": {},
    "JPEG": {"quality": JPEG_QUALITY, "subsampling": "4:4:4"},
    "TIFF": {"compression": "tiff_deflate"},
    "WEBP": {"lossless": True, "exact": True},
    "BMP": {},
}
METADATA_KEYS = {
    "PNG": ("icc_profile", "exif", "dpi"),
    "JPEG": ("icc_profile", "exif", "xmp", "dpi"),
    "TIFF": ("icc_profile", "exif", "dpi"),
    "WEBP": ("icc_profile", "exif", "xmp"),
    "BMP": ("dpi",),
}
BIT_DEPTH = 8


@dataclass(frozen=True)
class Picture:
    """An image file's content.

    Attributes:
        pixels: float32 (C, H, W) in [0, 1], C being 1 (gray) or 3 (RGB).
        alpha: uint8 (H, W), or None.
        metadata: ICC profile, EXIF (with its orientation, which the pixels do not have applied), XMP, DPI.
    """

    pixels: NDArray[np.float32]
    alpha: NDArray[np.uint8] | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def color(self) -> str:
        """ "gray" or "color"."""
        return "gray" if self.pixels.shape[0] == 1 else "color"

    @property
    def mode(self) -> str:
        """Pillow's name of the pixel layout: L, LA, RGB or RGBA."""
        return ("L" if self.color == "gray" else "RGB") + ("A" if self.alpha is not None else "")

    def to_color(self, color: str) -> Picture:
        """The same picture as "gray" (ITU-R 601 luma) or "color" (three equal channels)."""
        if color == self.color:
            return self
        if color == "color":
            return replace(self, pixels=np.repeat(self.pixels, 3, axis=0))
        luma = np.tensordot(np.array([0.299, 0.587, 0.114], np.float32), self.pixels, axes=1)[None]
        return replace(self, pixels=luma)


def find_images(folder: Path) -> list[Path]:
    """Image files under `folder`, at any depth, sorted; hidden files and folders are left out.

    Raises:
        InputError: the folder does not exist.
    """
    if not folder.is_dir():
        raise InputError(f"no folder {folder}")
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in FORMATS
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


@contextmanager
def _opened(source: Path | bytes) -> Iterator[Image.Image]:
    """A Pillow image of a file or its content; what goes wrong while it is open becomes an InputError."""
    path = "the input" if isinstance(source, bytes) else source
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
            yield file
    except FileNotFoundError as error:
        raise InputError(f"no file {path}") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{path} is not an image that can be read") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} is too large: {error}") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise InputError(f"{path} is damaged or cannot be read ({error})") from error


def read_uint8(path: Path, color: str) -> NDArray[np.uint8]:
    """An 8-bit image without alpha, as benchmarks and training take it.

    Args:
        path: the file.
        color: "gray" (color images by ITU-R 601 luma) or "color".

    Returns:
        uint8 (H, W, C), C being 1 or 3.

    Raises:
        InputError: the file is missing, no image, or damaged.
    """
    with _opened(path) as file:
        pixels = np.asarray(file.convert("L" if color == "gray" else "RGB"))
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def read_picture(source: Path | bytes) -> Picture:
    """Read a file, or the content of one, for restoring.

    Raises:
        InputError: missing, not an image, damaged, or of a kind that is not handled.
    """
    with _opened(source) as file:
        _refuse_unhandled(file, "the input" if isinstance(source, bytes) else str(source))
        file.load()
        data = np.asarray(file)
        metadata = {key: file.info[key] for key in ("icc_profile", "exif", "xmp", "dpi") if file.info.get(key)}
    planes = data[:, :, None] if data.ndim == 2 else data
    alpha = planes[:, :, -1].copy() if planes.shape[2] in (2, 4) else None
    colors = planes[:, :, : planes.shape[2] - (alpha is not None)]
    return Picture(np.ascontiguousarray(colors.transpose(2, 0, 1), np.float32) / np.float32(255), alpha, metadata)


def _refuse_unhandled(file: Image.Image, path: str) -> None:
    if getattr(file, "n_frames", 1) > 1:
        raise InputError(f"{path} has {getattr(file, 'n_frames', 1)} frames; only single images are handled")
    # Pillow opens 16-bit RGB as 8-bit RGB; only the decoder's raw mode tells.
    deep = any("16" in str(tile[3]) for tile in getattr(file, "tile", ()))
    if file.mode not in ("L", "LA", "RGB", "RGBA") or deep:
        kind = "16-bit" if deep or file.mode.startswith("I") else f"of mode {file.mode}"
        raise InputError(f"{path} is {kind}; 8-bit gray and RGB are handled, with or without alpha")


def format_of(path: Path) -> str:
    """Pillow's name of the format a file name stands for.

    Raises:
        UsageError: the suffix names no handled format.
    """
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise UsageError(
            f"cannot tell the format of {path.name!r}", f"use one of the suffixes {', '.join(sorted(FORMATS))}"
        )
    return kind


def encode_picture(picture: Picture, kind: str) -> bytes:
    """The content of an image file, with the picture's alpha and metadata.

    Args:
        picture: its pixels are clipped and rounded to 8 bits.
        kind: PNG, JPEG, TIFF, WEBP or BMP.

    Raises:
        UsageError: the format cannot hold the alpha channel.
    """
    if picture.alpha is not None and kind in ("JPEG", "BMP"):
        raise UsageError(f"{kind} cannot hold the transparency of the input", "write PNG, TIFF or WebP")
    data = np.rint(np.clip(picture.pixels, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    if picture.alpha is not None:
        data = np.concatenate([data, picture.alpha[:, :, None]], axis=2)
    metadata = {key: value for key, value in picture.metadata.items() if key in METADATA_KEYS[kind]}
    buffer = io.BytesIO()
    Image.fromarray(data.squeeze(2) if data.shape[2] == 1 else data).save(
        buffer, kind, **SAVE_OPTIONS[kind], **metadata
    )
    return buffer.getvalue()
