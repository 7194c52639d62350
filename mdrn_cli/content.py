"""What a picture is read from: a file, or the content of one."""

from __future__ import annotations

import io
import stat
from pathlib import Path
from typing import IO

from mdrn_cli.errors import InputError
from mdrn_cli.formats import HANDLED, kind_of, not_handled

LARGEST_CONTENT = 1 << 32
"""Bytes of a file; more than the pixels that are let in can take."""
_BLOCK = 1 << 20
"""Bytes read from a pipe at once."""


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


def open_source(source: Path | bytes) -> IO[bytes]:
    """As `open_file`, of content, too."""
    return io.BytesIO(source) if isinstance(source, bytes) else open_file(source)


def name_of(source: Path | bytes) -> str:
    """What messages call it."""
    return "the input" if isinstance(source, bytes) else str(source)


def kind_of_file(source: Path | bytes) -> str | None:
    """The format, as FORMATS of formats.py calls it, that a file or the content of one begins as.

    Raises:
        InputError: see `open_file`.
    """
    with open_source(source) as stream:
        return kind_of(stream.read(8))


def refuse_other_formats(path: Path) -> None:
    """Hold a file that is called as a picture of a format that is not handled to be another.

    Raises:
        InputError: it is what it is called; or see `open_file`.
    """
    # What many cameras write begins as a TIFF does, and holds a small picture to look at.
    if (problem := not_handled(path)) and kind_of_file(path) in (None, "TIFF"):
        raise InputError(problem, HANDLED)


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
