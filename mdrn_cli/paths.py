"""Questions about what is at a path, answered without an error whatever the path is; and refusals."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from mdrn_cli.errors import UsageError

UNPROTECT = "make it writable, or give another name"
_WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
_JUNCTION = 0xA0000003
"""How Windows calls a folder that leads to another, a link in all but name."""


def exists(path: Path) -> bool:
    """Whether there is something of that name; never an error, as where the name is too long to be one."""
    try:
        path.stat()
    except (OSError, ValueError):
        return False
    return True


def is_folder(path: Path) -> bool:
    """Whether there is a folder of that name; never an error."""
    return exists(path) and path.is_dir()


def is_file(path: Path) -> bool:
    """Whether there is a file of that name; never an error."""
    return exists(path) and path.is_file()


def size_of(path: Path) -> int:
    """Bytes of a file; 0 where there is none of that name, or no file; never an error."""
    try:
        about = path.stat()
    except (OSError, ValueError):
        return 0
    return about.st_size if stat.S_ISREG(about.st_mode) else 0


def is_write_protected(path: Path) -> bool:
    """Whether there is a file that nobody may write, as one locks what is to stay as it is; never an error."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(mode) and not mode & _WRITABLE


def refuse_existing(path: Path, overwrite: bool, hint: str = "use --overwrite to replace it") -> None:
    """Refuse, before any work is done for it, the name of a file that cannot be written.

    Raises:
        UsageError: there is a file of that name, or a link that leads nowhere yet, not to be replaced, or
            write-protected; or a folder, a device or an open file (such as /dev/stdout, which may be a log that goes
            on), which never is.
    """
    there = exists(path)
    if not there and not is_link(path):
        return
    if there and (not path.is_file() or _is_open_file(path)):
        raise UsageError(f"{path} exists already and is not a file", "give another name")
    if not overwrite:
        raise UsageError(f"{path} {'exists already' if there else 'is a link that leads nowhere yet'}", hint)
    if is_write_protected(path):
        raise UsageError(f"{path} is write-protected", UNPROTECT)


def _is_open_file(path: Path) -> bool:
    """Whether a path is a descriptor of this process, whatever that is of."""
    folder = real_path(path.parent)
    return str(path) in ("/dev/stdin", "/dev/stdout", "/dev/stderr") or (
        folder.parts[:2] == ("/", "proc") and folder.name == "fd"
    )


def require_folder(folder: Path) -> None:
    """Refuse, before any work is done for it, a folder that does not exist.

    Raises:
        UsageError: there is no such folder.
    """
    if not is_folder(folder):
        raise UsageError(f"no folder {folder} to write to", "create it first")


def walk(folder: Path, on_error: Callable[[OSError], None]) -> Iterator[tuple[Path, list[str], list[str]]]:
    """`os.walk`, top down, for trees of any depth: until Python 3.12 os.walk is limited by the recursion limit."""
    waiting = [folder]
    while waiting:
        place = waiting.pop()
        folders: list[str] = []
        files: list[str] = []
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    (folders if _leads_to_folder(entry) else files).append(entry.name)
        except OSError as error:
            on_error(error)
            continue
        yield place, folders, files
        waiting += [Path(place, name) for name in reversed(folders)]


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_link(path: Path) -> bool:
    """Whether a path is a link, to whatever, or on Windows a junction; never an error."""
    try:
        about = path.lstat()
    except (OSError, ValueError):
        return False
    return stat.S_ISLNK(about.st_mode) or getattr(about, "st_reparse_tag", 0) == _JUNCTION


def behind_link(path: Path) -> Path:
    """The file that a link leads to, there or not, so that it is written and not the link; any other path as it is."""
    return real_path(path) if is_link(path) else path


def real_path(path: Path) -> Path:
    """The path without links, as far as it is there; a link that leads back to itself stays as it is."""
    return Path(os.path.realpath(path))


def stamp_of(path: Path) -> tuple[int, ...]:
    """A stamp that changes when the content of a file does; empty where there is none."""
    try:
        about = path.stat()
    except OSError:
        return ()
    return about.st_ino, about.st_size, about.st_mtime_ns


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
