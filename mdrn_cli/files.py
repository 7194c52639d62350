"""Files written whole or not at all."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by `data` in one step that survives a crash at any moment.

    Raises:
        OSError: the folder cannot be written; `path` is as before.
    """
    partial = path.with_name(f".{_shortened(path.name)}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _shortened(name: str) -> str:
    """A name of at most 200 bytes, so that more can be added: file systems count bytes, most take 255."""
    return os.fsdecode(os.fsencode(name)[:200])


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


def real_path(path: Path) -> Path:
    """The path without links, as far as it is there; a link that leads back to itself stays as it is."""
    return Path(os.path.realpath(path))


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
