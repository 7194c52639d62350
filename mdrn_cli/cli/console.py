"""What the commands share: consoles, progress bars, values parsed."""

from __future__ import annotations

import re

import typer
from rich.console import Console
from rich.markup import escape
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

stdout = Console()
stderr = Console(stderr=True)

_UNITS = {"s": 1, "m": 60, "h": 3600}


def print_error(message: str, hint: str = "") -> None:
    """One `error:` line on stderr, and a `hint:` line if there is one."""
    for label, text in (("[bold red]error:[/]", message), ("[bold]hint:[/]", hint)):
        if text:
            stderr.print(f"{label} {escape(' '.join(text.split()))}", highlight=False, soft_wrap=True)


def print_warning(message: str) -> None:
    """A `warning:` line on stderr."""
    stderr.print(f"[yellow]warning:[/] {escape(' '.join(message.split()))}", highlight=False, soft_wrap=True)


def progress_bar(unit: str) -> Progress:
    """A bar on stderr that counts `unit`s; nothing is drawn when stderr is not a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=stderr,
        disable=not stderr.is_terminal,
        transient=True,
    )


def bytes_bar() -> Progress:
    """A bar on stderr for a download: size, rate, time to go."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=stderr,
        disable=not stderr.is_terminal,
        transient=True,
    )


def format_bytes(count: int) -> str:
    """A size such as 1.6 MB."""
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count} bytes"


def parse_bytes(text: str) -> int:
    """Bytes of "500000", "800M", "2G" or "1.5GiB": units are powers of 1024.

    Raises:
        typer.BadParameter: anything else.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([KMGT])(?:i?B)?)?", text, re.IGNORECASE)
    if not match:
        raise typer.BadParameter(f"{text!r} is not a size such as 800M or 2G")
    number, unit = match.groups()
    return int(float(number) * 1024 ** (" KMGT".index(unit.upper()) if unit else 0))


def parse_duration(text: str) -> float:
    """Seconds of "90", "90s", "15m", "1.5h" or "1h30m".

    Raises:
        typer.BadParameter: anything else.
    """
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    parts = re.findall(r"(\d+(?:\.\d+)?)([smh])", text)
    if not parts or "".join(n + u for n, u in parts) != text:
        raise typer.BadParameter(f"{text!r} is not a duration such as 45s, 60m or 1h30m")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def format_duration(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    whole = round(min(seconds, 359999))
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
