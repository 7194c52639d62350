"""The one place where errors become messages and exit codes (README)."""

from __future__ import annotations

import errno
import glob
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer

from mdrn_cli.cli import console
from mdrn_cli.cli.console import stderr
from mdrn_cli.errors import (
    BY_SIGNAL,
    INTERRUPTED,
    UNREAD,
    DeviceError,
    InputError,
    MdrnError,
    MdrnWarning,
    UsageError,
    WeightsError,
    lacks_memory,
)
from mdrn_cli.files import write_error
from mdrn_cli.interrupts import TerminatedError, terminable
from mdrn_cli.parallel import launched
from mdrn_cli.paths import exists

# What may befall a single process of torchrun; other errors are met by all, and told by the first.
_OF_ONE_PROCESS = (DeviceError, InputError, WeightsError)
_OF_NO_FOLDER = {"--version", "--help"}
# Click's UsageError, from wherever this version of typer takes click.
_ClickUsageError: type[Exception] = typer.BadParameter.__bases__[0]


def run(app: typer.Typer) -> int:
    """Run an app; whatever it raises becomes one `error:` line, a `hint:` and an exit code. `--debug`,
    which may stand anywhere before a `--`, adds the traceback."""
    with warnings.catch_warnings():
        return _run(app)


def _run(app: typer.Typer) -> int:
    arguments = sys.argv[1:]
    end = arguments.index("--") if "--" in arguments else len(arguments)
    debug = "--debug" in arguments[:end]
    arguments[:end] = (argument for argument in arguments[:end] if argument != "--debug")
    console.debug(debug)
    warnings.showwarning = _showing_ours(warnings.showwarning)
    if not debug:
        # Pillow tells programmers of odd files so; what concerns the user is a warning or an error of our own.
        warnings.filterwarnings("ignore", module="PIL")
    # A name that the locale cannot encode is no reason to fail; stderr writes such as escapes anyway.
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        _refuse_empty(arguments)
        if not _OF_NO_FOLDER.intersection(arguments):
            _refuse_gone_folder()
        if os.name == "nt":
            arguments = with_patterns_expanded(arguments)
        with terminable():
            # A name that is one word: of `python -m mdrn_cli`, completions would be made for python.
            code = app(arguments, prog_name="mdrn", standalone_mode=False)
    except (Exception, KeyboardInterrupt, TerminatedError) as error:
        return _told(_of_typer(error), debug)
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):  # which typer has taken upon itself
            return UNREAD
        raise
    if code == INTERRUPTED and launched().first:  # newer versions of typer answer Ctrl-C so themselves
        stderr.print("interrupted")
    return code if isinstance(code, int) else 0


def _told(error: BaseException, debug: bool) -> int:
    """Tell of what has ended a command; returns the exit code. Raises it where it is not known and `debug` is asked
    for."""
    first = launched().first
    if isinstance(error, BrokenPipeError):
        return UNREAD
    if isinstance(error, MdrnError):
        if first or isinstance(error, _OF_ONE_PROCESS):
            console.print_error(error)
        return error.exit_code
    if isinstance(error, _ClickUsageError):
        return _usage(error) if first else 2
    if isinstance(error, (KeyboardInterrupt, typer.Abort, TerminatedError)):
        ended = error if isinstance(error, TerminatedError) else None
        if first:
            stderr.print(str(ended) if ended else "interrupted")
        return BY_SIGNAL + ended.number if ended else INTERRUPTED
    if lacks_memory(error):
        console.print_error(error, "not enough memory", "use a smaller image or --tile")
        return DeviceError.exit_code
    if debug:
        raise error
    console.print_error(error, f"unexpected {type(error).__name__}: {error}", "run with --debug for the traceback")
    return 1


def _of_typer(error: BaseException) -> BaseException:
    """What to tell of what typer itself cannot write: help and completions to a full disk, which is no file's, and the
    script that completes."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:
        return write_error(Path("stdout"), error)
    if isinstance(error, OSError) and error.filename and "--install-completion" in sys.argv:
        return write_error(Path(error.filename), error)
    return error


def _showing_ours(others: Callable[..., None]) -> Callable[..., None]:
    """What shows warnings: our own as a line, others as they were."""

    def show(message: Warning | str, category: type[Warning], *where: Any) -> None:
        if issubclass(category, MdrnWarning):
            console.print_warning(str(message))
        else:
            others(message, category, *where)

    return show


def with_patterns_expanded(arguments: Sequence[str]) -> list[str]:
    """What the shell of other systems makes of * and ? where that of Windows leaves them to programs: the files and
    folders that they stand for, in order; a pattern that stands for none, as it is."""
    expanded: list[str] = []
    for argument in arguments:
        is_pattern = any(character in argument for character in "*?") and not exists(Path(argument))
        # Path's own takes no pattern that begins with a drive, and gives other spellings.
        found = sorted(glob.glob(argument.replace("[", "[[]"))) if is_pattern else []  # noqa: PTH207
        expanded += found or [argument]
    return expanded


def _refuse_empty(arguments: Sequence[str]) -> None:
    """An empty path would be the current folder, which nobody means: `mdrn denoise "$FILE" --in-place`.

    Raises:
        UsageError: an argument is empty, or the value of an option.
    """
    for before, argument in pairwise(("", *arguments)):
        name, equals, value = argument.partition("=")
        if argument and not (name.startswith("--") and equals and not value):
            continue
        named = name or (f"the argument after {before}" if before[:1] == "-" else "an argument")
        raise UsageError(f"{named} is empty", "an unset variable of the shell?")


def _refuse_gone_folder() -> None:
    """Without a current folder no relative path means anything, and torch's libraries do not load.

    Raises:
        MdrnError: it has been removed.
    """
    try:
        os.getcwd()  # noqa: PTH109 - as Path.cwd() calls it
    except FileNotFoundError as error:
        raise MdrnError("the current folder is gone", "cd to another, then run it again") from error


def _usage(error: Exception) -> int:
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "mdrn"
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()  # type: ignore[attr-defined]
    else:
        message = error.format_message().rstrip(".")  # type: ignore[attr-defined]
        console.print_error(error, message, f"see {command} --help")
    return 2
