"""Ctrl-C as a request to stop at the next good moment."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def stop_requests(insistent: bool) -> Iterator[Callable[[], bool]]:
    """While this lasts, Ctrl-C only sets what the given function tells.

    Args:
        insistent: a second Ctrl-C raises KeyboardInterrupt at once. Not under torchrun, which passes on a Ctrl-C
            that the terminal has already sent to every process.
    """
    asked = False

    def ask(_number: int, _frame: Any) -> None:
        nonlocal asked
        if asked and insistent:
            raise KeyboardInterrupt
        asked = True

    # Only the main thread may set handlers, and only it is interrupted.
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)
