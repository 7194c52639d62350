"""The errors that are shown to users, each with the exit code of its kind."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

BY_SIGNAL = 128
"""Added to the number of the signal that ended a program, gives its exit code in shells."""
INTERRUPTED = BY_SIGNAL + 2
"""Exit code after Ctrl-C."""
UNREAD = BY_SIGNAL + 13
"""Exit code where nobody reads standard output any more, as that of programs which SIGPIPE ends."""


class MdrnError(Exception):
    """A problem to be told to the user in one line.

    Args:
        message: what went wrong, without a trailing full stop.
        hint: what the user can do about it; may be empty.
        exit_code: overrides the exit code of the class.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "", exit_code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if exit_code is not None:
            self.exit_code = exit_code

    def naming(self, path: Path) -> Self:
        """The same error, with the name of the file in its message; `-`, a pipe, has none. Where it came from stays."""
        if str(path) == "-" or _names(self.message, str(path)):
            return self
        named = type(self)(f"{path}: {self.message}", self.hint, self.exit_code).with_traceback(self.__traceback__)
        named.__cause__, named.__suppress_context__ = self.__cause__, self.__suppress_context__
        return named


def _names(message: str, path: str) -> bool:
    """Whether a message names a file: as any word of it, or as the first if it might be an ordinary word."""
    begins = "" if {".", "/", "\\"} & {*path} else "^"
    return bool(re.search(rf"{begins}(?<!\S){re.escape(path)}(?![^\s:,)])", message))


def hint_of(name: str, names: Iterable[str], whole: str = "there are", most: int = 1) -> str:
    """A hint for an unknown name: those with similar spelling, else all.

    Args:
        name: what was given.
        names: the known names.
        whole: words before the list of all names.
        most: how many similar names are given at most.
    """
    from difflib import get_close_matches

    spelled = {each.lower(): each for each in names}
    near = [spelled[each] for each in get_close_matches(name.lower(), spelled, most, 0.8)]
    return f"did you mean {' or '.join(near)}?" if near else f"{whole}: {', '.join(spelled.values()) or 'none'}"


def told_by(error: Exception) -> str:
    """The first line of a library's error, or its type if it has no text."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


class SharedError(MdrnError):
    """An error that all processes of a run raise at the same step: it diverged (exit code 1)."""


class UsageError(MdrnError):
    """The request itself makes no sense (exit code 2)."""

    exit_code = 2


class InputError(MdrnError):
    """An input cannot be read (exit code 4: nothing readable)."""

    exit_code = 4


class WeightsError(MdrnError):
    """Weights are missing, corrupt or cannot be fetched (exit code 5)."""

    exit_code = 5


class FetchError(WeightsError):
    """A file of weights or images is missing here and cannot be had, or is not what it should be (exit code 5)."""


class DeviceError(MdrnError):
    """The device is absent, fails or is out of memory (exit code 6)."""

    exit_code = 6


class OutOfMemoryError(DeviceError):
    """The device ran out of memory (exit code 6)."""


_NO_ROOM = (
    # Loading a library, or starting a thread, where there is no memory or address space for it.
    *("failed to map segment", "annot allocate memory", "can't start new thread"),
    # Torch: its allocator on the CPU (second one: Windows), CUDA, its driver and libraries, and MPS, which does not
    # mention memory. Where cuDNN lacks the room for any way of computing a convolution, torch finds no engine.
    *("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED", "ALLOCATION_FAILED"),
    *("unable to find an engine", "Invalid buffer size"),
)


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory left, this machine's, a GPU's or of the process's limit."""
    if isinstance(error, OSError) and error.errno is not None:  # its text may have the name of a file
        return error.errno == errno.ENOMEM
    says = isinstance(error, (ImportError, OSError, RuntimeError)) and any(text in str(error) for text in _NO_ROOM)
    return isinstance(error, MemoryError) or says


class MdrnWarning(UserWarning):
    """What this package itself warns of; the command tells it in one line."""


class DeviceWarning(MdrnWarning):
    """A device does not do what is usual, and something slower takes its place."""


def exit_code_of(failures: Sequence[MdrnError], tried: int) -> int:
    """The exit code of a run over several inputs (README): 0 where none failed, 3 where some did; where all
    did, their common code, or 4."""
    if not failures:
        return 0
    if len(failures) < tried:
        return 3
    codes = {failure.exit_code for failure in failures}
    return codes.pop() if len(codes) == 1 else 4
