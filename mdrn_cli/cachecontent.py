"""What the cache folder holds, and removing it: only names that mdrn gives, and no links are followed, so that other
things in the folder are not lost."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mdrn_cli.cache import ABOUT, FONTS, KERNELS, TAG, TAG_NAME, Cache
from mdrn_cli.errors import MdrnError
from mdrn_cli.locks import locked
from mdrn_cli.manifest import SHA256_PATTERN
from mdrn_cli.paths import is_link
from mdrn_cli.photographs import FOLDER

KINDS = ("checkpoints", "sets", "photographs", "libraries")
"""Fetched or imported checkpoints; images of benchmark sets; photographs decoded for training; what libraries store:
compiled kernels, and a list of fonts."""
_MAP_SUFFIXES = (".bin", ".json", ".part")
_PART = re.compile(r"(\.[0-9a-f]{16})?\.part$")
"""Suffix that `part_of` adds to a name."""


@dataclass(frozen=True)
class Kept:
    """One thing in the cache.

    Attributes:
        kind: one of KINDS.
        name: a file's name; for decoded photographs the folder they come from; for a library the name of its folder.
            Empty if the file is not here (yet) or the photographs are not finished.
        path: its folder, or the map of photographs.
        files: what it consists of.
        bytes: their size.
        lock: held by whoever is making it; libraries hold none.
    """

    kind: str
    name: str
    path: Path
    files: tuple[Path, ...]
    bytes: int
    lock: Path


def kept_in(cache: Cache) -> list[Kept]:
    """All that a cache holds, by kind; empty where there is none, or none that may be listed."""
    found = *_files(cache.root), *_maps(cache.root), *_made_by_libraries(cache.root)
    return sorted(found, key=lambda kept: (KINDS.index(kept.kind), kept.path))


def remove(kept: Kept) -> bool:
    """Remove it, unless another process is making it; returns whether it is gone.

    Raises:
        MdrnError: the cache cannot be written.
    """
    try:
        kept.lock.parent.mkdir(exist_ok=True)
        with locked(kept.lock, wait=False) as free:
            if free and kept.path.is_dir():
                shutil.rmtree(kept.path)
            for file in kept.files if free else ():
                file.unlink(missing_ok=True)
            return free
    except OSError as error:
        raise MdrnError(f"cannot remove {kept.path} ({error.strerror or error})", "look at the folder") from error


def _files(root: Path) -> Iterator[Kept]:
    """What `Cache` keeps: a folder for each file, called by its SHA-256."""
    for folder in _entries(root / "files"):
        if folder.is_dir(follow_symlinks=False) and SHA256_PATTERN.fullmatch(folder.name):
            path = Path(folder.path)
            files = tuple(Path(entry.path) for entry in _entries(path))
            name = next((_PART.sub("", file.name) for file in files if file.name != ABOUT), "")
            kind = "checkpoints" if name.endswith(".safetensors") else "sets"
            yield Kept(kind, name, path, files, _size(files), root / "locks" / f"{folder.name}.lock")


def _maps(root: Path) -> Iterator[Kept]:
    """What `read_photographs` keeps: a map and its index, or a part of one."""
    found: dict[str, list[Path]] = {}
    for entry in _entries(root / FOLDER):
        file, key = Path(entry.path), entry.name.partition(".")[0]
        if SHA256_PATTERN.fullmatch(key) and file.suffix in _MAP_SUFFIXES:
            found.setdefault(key, []).append(file)
    for key, files in found.items():
        path = root / FOLDER / f"{key}.bin"
        yield Kept("photographs", _source(path), path, tuple(files), _size(files), path.with_suffix(".lock"))


def _made_by_libraries(root: Path) -> Iterator[Kept]:
    for name in (KERNELS, FONTS):
        folder = root / name
        if len(_entries(folder)) > 1 and _is_ours(folder):
            files = tuple(Path(path, file) for path, _, names in os.walk(folder) for file in names)
            yield Kept("libraries", name, folder, files, _size(files), root / "locks" / f"{name}.lock")


def _is_ours(folder: Path) -> bool:
    """Whether `library_folder` has made it."""
    with suppress(OSError, ValueError):
        return (folder / TAG_NAME).read_text() == TAG
    return False


def _source(path: Path) -> str:
    """The folder that mapped photographs come from."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        files = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["files"]
        return os.path.commonpath([Path(file).parent for file in files])
    return ""


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in a folder; nothing in what is none, is a link, or may not be listed."""
    with suppress(OSError):
        if not is_link(folder):
            return list(os.scandir(folder))
    return []


def _size(files: Iterable[Path]) -> int:
    total = 0
    for file in files:
        with suppress(OSError):
            total += file.lstat().st_size
    return total
