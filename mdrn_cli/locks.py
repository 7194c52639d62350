"""Locks among processes, which die with their holder."""

from __future__ import annotations

import errno
import os
import secrets
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

    if not has_locks(path):
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


@contextmanager
def folder_locked(folder: Path) -> Iterator[None]:
    """Hold a folder that is there, after other processes that do, and leave nothing in it; a file system without locks
    does without.

    Raises:
        OSError: the folder cannot be opened.
    """
    if sys.platform == "win32":  # where a lock is a file that goes with it
        with locked(folder / ".mdrn.lock"):
            yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        yield
    finally:
        os.close(descriptor)


def part_of(path: Path, lock: Path) -> Path:
    """Where a file is put together, beside it, by whoever holds a lock: a file that the next to hold it knows. On a
    file system without locks, of a name that no other process takes."""
    name = f"{path.name}.part" if has_locks(lock) else f"{path.name}.{secrets.token_hex(8)}.part"
    return path.with_name(name)


def has_locks(path: Path) -> bool:
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
