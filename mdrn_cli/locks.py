"""Locks among processes, which die with their holder."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform != "win32":
    import fcntl

_NO_LOCKS = frozenset((errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP))
"""What file systems without locks answer, some network ones among them."""


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold a lock, a file that is made; a file system without locks does without.

    Args:
        path: the file, in a folder that is there.
        wait: for another process that holds it.

    Yields:
        Whether no other process holds it.

    Raises:
        OSError: the file cannot be written.
    """
    from filelock import FileLock, Timeout

    if not _can_lock(path):
        yield True
        return
    lock, free = FileLock(path), True
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        free = False
    try:
        yield free
    finally:
        lock.release()


def _can_lock(path: Path) -> bool:
    """Whether the file system of a file has locks. Where it has none, versions of filelock wait for one that never
    comes, or take one that a kill would leave."""
    if sys.platform == "win32":
        return True
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno not in _NO_LOCKS
    return True
