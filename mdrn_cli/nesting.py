"""Settings of the whole process that several of its threads want for a while."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack


class Nested:
    """A context that any number of threads may be in at once: the first to enter sets, the last to leave sets back.

    Args:
        setting: the context that does so.
    """

    def __init__(self, setting: Callable[[], AbstractContextManager[None]]) -> None:
        self.setting = setting
        self._lock, self._inside, self._set = threading.Lock(), 0, ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._set.enter_context(self.setting())
            self._inside += 1

    def __exit__(self, *_error: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._set.close()
