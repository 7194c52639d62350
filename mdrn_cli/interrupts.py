"""Ctrl-C and SIGTERM as requests to stop at the next good moment."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class TerminatedError(BaseException):
    """SIGTERM has asked for the end, as the system or a batch queue does. No KeyboardInterrupt, which typer keeps to
    itself."""


INTERRUPTIONS = (KeyboardInterrupt, TerminatedError)


def interruption(number: int) -> BaseException:
    """What a stop ends in that a signal has asked for."""
    return TerminatedError() if number == signal.SIGTERM else KeyboardInterrupt()


@contextmanager
def terminable() -> Iterator[None]:
    """While this lasts, SIGTERM raises TerminatedError, so that a run leaves behind what it does after Ctrl-C.
    A process started to ignore the signal goes on doing so."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) == signal.SIG_IGN:
        yield
        return

    def end(number: int, _frame: Any) -> None:
        raise interruption(number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def stop_requests(insistent: bool) -> Iterator[Callable[[], int]]:
    """While this lasts, Ctrl-C and SIGTERM only set what the given function tells: the number of the last such signal,
    0 before one has come. What a process was started to ignore, as shells do to commands in the background, it goes on
    ignoring.

    Args:
        insistent: a second one raises `interruption` at once. Not under torchrun, which passes on a Ctrl-C
            that the terminal has already sent to every process.
    """
    asked = 0

    def ask(number: int, _frame: Any) -> None:
        nonlocal asked
        if asked and insistent:
            raise interruption(number)
        asked = number

    # Only the main thread may set handlers, and only it is interrupted.
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    heeded = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, ask) for number in heeded}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
