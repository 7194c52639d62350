"""Which files are images: the formats that are handled, told by names and by first bytes, and where there are such."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from mdrn_cli.errors import InputError
from mdrn_cli.paths import is_folder, is_link, walk

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
    ".bmp": "BMP",
}
"""What is handled: suffixes, and the formats as Pillow names them."""
_RAW = "3fr arw cr2 cr3 crw dcr dng erf fff gpr iiq kdc mef mos mrw nef nrw orf pef raf raw rw2 rwl sr2 srf srw x3f"
_OTHER = (
    "apng avif avifs dib exr gif hdr heic heics heif heifs hif ico j2c j2k jp2 jpf jps jpx jxl jxr mpo pam pbm pcx pfm"
    " pgm pnm ppm psb psd qoi svg tga wdp xcf"
)
OTHER_PICTURES = frozenset(f".{suffix}" for suffix in f"{_RAW} {_OTHER}".split())
"""Suffixes of pictures that are not handled, so that messages can name them as such."""
HANDLED = f"handled are {', '.join(sorted(FORMATS))}"
"""The hint for such files."""
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes: either byte order, plain and BigTIFF."""
_STARTS = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"RIFF": "WEBP",
    b"BM": "BMP",
    **dict.fromkeys(TIFF_STARTS, "TIFF"),
}


def not_handled(path: Path) -> str:
    """A message for a file whose suffix is of a picture that is not handled; empty for any other."""
    suffix = path.suffix.lower()
    return f"{suffix[1:].upper()} is not handled: {path.name!r}" if suffix in OTHER_PICTURES else ""


def kind_of(content: bytes) -> str | None:
    """The format, by its name in `FORMATS`, that the first bytes of content show; None if unknown."""
    return next((kind for start, kind in _STARTS.items() if content.startswith(start)), None)


def find_images(
    folder: Path,
    recursive: bool = True,
    on_unreadable: Callable[[OSError], None] | None = None,
    on_other: Callable[[Path], None] | None = None,
) -> list[Path]:
    """Whatever is named like an image in a folder, sorted; folders are not, nor is what is hidden. Links to folders are
    not followed.

    Args:
        folder: where to look.
        recursive: whether at any depth.
        on_unreadable: called with the error for each folder that cannot be listed.
        on_other: called with each file that is passed over though it is named like a picture of another format, and,
            where the search goes deeper, with each link to a folder.

    Raises:
        InputError: the folder does not exist; or without `on_unreadable`, a folder cannot be listed.
    """
    if not is_folder(folder):
        raise InputError(f"no folder {folder}")
    found: list[Path] = []
    others: list[Path] = []
    for place, folders, files in walk(folder, on_unreadable or _refuse_folder):
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        links = [path for path in (Path(place, name) for name in folders) if is_link(path)]
        others += links
        folders[:] = [name for name in folders if Path(place, name) not in links]
        found += [Path(place, name) for name in files if not name.startswith(".")]
    if on_other:
        for path in others + [path for path in found if path.suffix.lower() in OTHER_PICTURES]:
            on_other(path)
    return sorted(path for path in found if path.suffix.lower() in FORMATS)


def images_of(
    folder: Path, recursive: bool, on_other: Callable[[Path], None] | None = None
) -> tuple[list[Path], list[tuple[Path, InputError]]]:
    """What `find_images` finds, and the folders that cannot be listed, each with what to tell of it.

    Args:
        folder, recursive, on_other: see there.

    Raises:
        InputError: the folder does not exist.
    """
    unreadable: list[OSError] = []
    found = find_images(folder, recursive, unreadable.append, on_other)
    return found, [(Path(error.filename), _unlisted(error)) for error in unreadable]


def without_images(folder: Path, recursive: bool) -> InputError:
    """What to tell of a folder without images: that those in it were not searched, if there are any."""
    _, folders, _ = next(os.walk(folder), ("", [], []))
    nested = any(not name.startswith(".") and not is_link(Path(folder, name)) for name in folders)
    return InputError(
        f"no images in {folder}", "use --recursive for nested folders" if nested and not recursive else ""
    )


def _refuse_folder(error: OSError) -> None:
    raise _unlisted(error) from error


def _unlisted(error: OSError) -> InputError:
    return InputError(f"cannot list {Path(error.filename)} ({error.strerror})")
