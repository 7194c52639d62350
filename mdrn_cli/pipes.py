"""Standard input and output, which a path of `-` stands for."""

from __future__ import annotations

import sys
from pathlib import Path

from mdrn_cli.content import read_content
from mdrn_cli.errors import InputError
from mdrn_cli.files import refuse_closed_stdout

PIPE = Path("-")


def path_of(text: str) -> Path:
    """The path that an argument means: `-` is a pipe, and `./-` a file, which `Path` takes for the same."""
    path = Path(text)
    return path.absolute() if path == PIPE and text != str(PIPE) else path


def readable(path: Path) -> Path | bytes:
    """What `read_picture` takes for a path of the command line: for `-` the content of standard input.

    Raises:
        InputError: standard input is closed, or no image.
    """
    if path == PIPE and sys.stdin is None:  # as a shell's <&- leaves it
        raise InputError("standard input is closed")
    return read_content(sys.stdin.buffer, "the input") if path == PIPE else path


def write_stdout(content: bytes) -> None:
    """Put the content of a file out on standard output.

    Raises:
        BrokenPipeError: nobody reads it.
        MdrnError: it is closed.
    """
    refuse_closed_stdout()
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()
