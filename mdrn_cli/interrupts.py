"""Ctrl-C, SIGTERM and SIGHUP as requests to stop at the next good moment."""

from __future__ import annotations

import os
import signal
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any


class TerminatedError(BaseException):
    """A signal has asked for the end: SIGTERM, as the system or a batch queue sends it, or SIGHUP, as a terminal does
    that is closed. No KeyboardInterrupt, which typer keeps to itself.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__("terminated" if number == signal.SIGTERM else "hung up")
        self.number = number


INTERRUPTIONS = (KeyboardInterrupt, TerminatedError)
TERMINATIONS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Windows has no SIGHUP."""


def interruption(number: int) -> BaseException:
    """What a stop ends in that a signal has asked for."""
    return TerminatedError(number) if number in TERMINATIONS else KeyboardInterrupt()


@contextmanager
def terminable() -> Iterator[None]:
    """While this lasts, SIGTERM and SIGHUP raise TerminatedError, so that a run leaves behind what it does after
    Ctrl-C. A process started to ignore one, as nohup does, goes on doing so."""

    def end(number: int, _frame: Any) -> None:
        leave_closed_terminal()
        raise interruption(number)

    with _handling(TERMINATIONS, end):
        yield


@contextmanager
def stop_requests(insistent: bool) -> Iterator[Callable[[], int]]:
    """While this lasts, Ctrl-C, SIGTERM and SIGHUP only set what the given function tells: the number of the last such
    signal, 0 before one has come. What a process was started to ignore, as shells do to commands in the background, it
    goes on ignoring.

    Args:
        insistent: a second one raises `interruption` at once. Not under torchrun, which passes on a Ctrl-C
            that the terminal has already sent to every process.
    """
    asked = 0

    def ask(number: int, _frame: Any) -> None:
        nonlocal asked
        leave_closed_terminal()
        if asked and insistent:
            raise interruption(number)
        asked = number

    with _handling((signal.SIGINT, *TERMINATIONS), ask):
        yield lambda: asked


@contextmanager
def _handling(numbers: Sequence[int], handler: Callable[[int, Any], None]) -> Iterator[None]:
    """While this lasts, a handler for those of the signals that are not ignored. Only the main thread may set
    handlers, and only it is interrupted: in others there is none."""
    main = threading.current_thread() is threading.main_thread()
    heeded = [number for number in numbers if main and signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in heeded}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


def leave_closed_terminal() -> None:
    """Standard output and error go nowhere where they went to a terminal that is gone: what is still to be told must
    not fail, and with it what is still to be saved."""
    for descriptor in (1, 2):
        with suppress(OSError):
            # A character device still, but none that a program can talk with.
            if stat.S_ISCHR(os.fstat(descriptor).st_mode) and not os.isatty(descriptor):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
