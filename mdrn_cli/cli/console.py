"""What the commands share: consoles, progress bars, values parsed."""

from __future__ import annotations

import math
import re
import sys
import traceback
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from mdrn_cli.errors import MdrnError, UsageError
from mdrn_cli.files import refuse_closed_stdout, write_error


@contextmanager
def _as_far_as_possible() -> Iterator[None]:
    """Go on where stderr cannot be written, as of a log on a full disk: results are worth more than what is told of
    them. Where nobody reads it any more, that ends the program.

    Raises:
        BrokenPipeError: that.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError:
        pass


class _Stderr:
    """Standard error, whatever that is at the time, as far as it can be written."""

    def write(self, text: str) -> int:
        """Text, which may be lost."""
        if sys.stderr is not None:  # as a shell's 2>&- leaves it
            with _as_far_as_possible():
                sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        """What has been written."""
        if sys.stderr is not None:
            with _as_far_as_possible():
                sys.stderr.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


stdout = Console(emoji=False)
stderr = Console(file=cast(IO[str], _Stderr()), emoji=False)

_debugging = False
_UNITS = {"s": 1, "m": 60, "h": 3600}
_MOST_DIGITS = 30
"""Of a number given as text: longer ones Python does not read, or no float holds."""


def printable(text: str) -> str:
    """Text on one line; what a terminal would act on or cannot show, as names of files may have it, as escapes. Spaces
    of all widths stay: names of screenshots have them."""
    return "".join(c if c.isprintable() or unicodedata.category(c) == "Zs" else ascii(c)[1:-1] for c in text)


def echo(text: str, newline: bool = True) -> None:
    """Text on standard output.

    Raises:
        BrokenPipeError: nobody reads it.
        MdrnError: it cannot be written, on a full disk for one.
    """
    with _written_to_stdout():
        typer.echo(text, nl=newline)


def print_table(table: Table) -> None:
    """A table on standard output; raises what `echo` does."""
    with _written_to_stdout():
        stdout.print(table)


@contextmanager
def _written_to_stdout() -> Iterator[None]:
    refuse_closed_stdout()
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise write_error(Path("stdout"), error) from error


def debug(on: bool) -> None:
    """Whether errors are told with their tracebacks."""
    global _debugging
    _debugging = on


def print_error(error: BaseException, message: str = "", hint: str = "") -> None:
    """One `error:` line on stderr, and a `hint:` line if there is one; before them the traceback, if that is asked for.

    Args:
        error: what was raised.
        message, hint: what to tell of it where that is no error of our own, which has them.
    """
    if isinstance(error, MdrnError):
        message, hint = error.message, error.hint
    if _debugging:
        with _as_far_as_possible():
            traceback.print_exception(error)
    _print_labelled("error:", "bold red", message)
    if hint:
        _print_labelled("hint:", "bold", hint)


def raise_all(failed: Sequence[MdrnError]) -> None:
    """Print all errors but the first, and raise that.

    Raises:
        MdrnError: the first one, if there is any.
    """
    for error in failed[1:]:
        print_error(error)
    if failed:
        raise failed[0]


def not_had(failed: Sequence[MdrnError]) -> str:
    """How many could not be had, to stand in a line of what could."""
    return f", {len(failed)} failed" if failed else ""


def print_warning(message: str) -> None:
    """A `warning:` line on stderr."""
    _print_labelled("warning:", "yellow", message)


def print_note(text: str) -> None:
    """A line on stderr, as it is but for what a terminal would act on."""
    stderr.print(printable(text), highlight=False, markup=False, soft_wrap=True)


def _print_labelled(label: str, style: str, text: str) -> None:
    line = Text.assemble((label, style), " ", printable(" ".join(text.splitlines())))
    stderr.print(line, highlight=False, soft_wrap=True)


def shows_bars() -> bool:
    """Whether stderr is a terminal on which bars can be drawn, whatever FORCE_COLOR has rich take it for."""
    try:
        return sys.stderr is not None and sys.stderr.isatty() and not stderr.is_dumb_terminal
    except ValueError:  # it has been closed
        return False


def progress_bar(unit: str, quiet: bool = False) -> Progress:
    """A bar on stderr that counts `unit`s, which may be a field of each task as rich's columns have it. Nothing is
    drawn where stderr is no terminal, or if quiet."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit, markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=stderr,
        disable=quiet or not shows_bars(),
        transient=True,
    )


def bytes_bar() -> Progress:
    """A bar on stderr for a download: size, rate, time to go."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=stderr,
        disable=not shows_bars(),
        transient=True,
    )


def format_bytes(count: int) -> str:
    """A size such as 1.6 MB."""
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count} bytes"


def parse_tile(text: str) -> int | None:
    """Side of a tile in pixels, or None for "auto".

    Raises:
        UsageError: anything else.
    """
    if text == "auto":
        return None
    if not text.isdecimal() or len(text) > _MOST_DIGITS:
        raise UsageError(f"--tile {text[:40]!r} is neither auto nor a number of pixels such as 512")
    return int(text)


def parse_bytes(text: str) -> int:
    """Bytes of "500000", "800M", "2G" or "1.5GiB": units are powers of 1024.

    Raises:
        typer.BadParameter: anything else.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([KMGT])(?:i?B)?)?", text, re.IGNORECASE)
    if not match or len(text) > _MOST_DIGITS:
        raise typer.BadParameter(f"{text[:40]!r} is not a size such as 800M or 2G")
    number, unit = match.groups()
    return int(float(number) * 1024 ** (" KMGT".index(unit.upper()) if unit else 0))


def parse_duration(text: str) -> float:
    """Seconds of "90", "90s", "15m", "1.5h" or "1h30m".

    Raises:
        typer.BadParameter: anything else.
    """
    whole = f"{text}s" if re.fullmatch(r"\d+(\.\d+)?", text) else text
    parts = re.findall(r"(\d+(?:\.\d+)?)([smh])", whole)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not parts or "".join(n + u for n, u in parts) != whole or not math.isfinite(seconds):
        raise typer.BadParameter(f"{text[:40]!r} is not a duration such as 45s, 60m or 1h30m")
    return seconds


def format_duration(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    whole = round(min(seconds, 359999))
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
