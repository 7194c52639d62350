"""What a picture is read from: a file, or bytes with the content of one."""

from __future__ import annotations

import io
import stat
from pathlib import Path
from typing import IO

from mdrn_cli.errors import InputError
from mdrn_cli.formats import HANDLED, kind_of, not_handled

LARGEST_CONTENT = 1 << 32
"""Most bytes of a file: more than the largest picture that is accepted can take."""
_BLOCK = 1 << 20
"""Bytes read from a pipe at once."""


def open_file(path: Path) -> IO[bytes]:
    """A regular file opened for reading. Nothing else is: a pipe that nobody writes to would never end, nor would some
    devices.

    Raises:
        InputError: missing, no regular file, larger than any picture that is accepted, or unreadable.
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
    """As `open_file`; content is opened, too."""
    return io.BytesIO(source) if isinstance(source, bytes) else open_file(source)


def name_of(source: Path | bytes) -> str:
    """What messages call the source."""
    return "the input" if isinstance(source, bytes) else str(source)


def kind_of_file(source: Path | bytes) -> str | None:
    """The format, by its name in FORMATS of formats.py, that the first bytes of a file or content show.

    Raises:
        InputError: see `open_file`.
    """
    with open_source(source) as stream:
        return kind_of(stream.read(8))


def refuse_other_formats(path: Path) -> None:
    """Refuse a file whose name is that of a format not handled, unless its content is of one that is.

    Raises:
        InputError: its content is not of another format, or see `open_file`.
    """
    # Many cameras' raw files begin as a TIFF does, but what would be read as one is a small preview.
    if (problem := not_handled(path)) and kind_of_file(path) in (None, "TIFF"):
        raise InputError(problem, HANDLED)


def read_content(stream: IO[bytes], name: str) -> bytes:
    """All of a stream that begins as an image; of any other no more than its first bytes are read.

    Raises:
        InputError: it does not begin as an image, or is larger than any.
    """
    start = stream.read(16)
    if not kind_of(start):
        raise InputError(f"{name} is not an image that can be read")
    content = bytearray(start)
    while block := stream.read(_BLOCK):  # a single read of the limit would reserve that much memory
        content += block
        if len(content) > LARGEST_CONTENT:
            raise InputError(f"{name} is larger than {LARGEST_CONTENT} bytes")
    return bytes(content)
