"""Whether two paths are the same place, however spelled: through links, by two mounts of one folder, in upper or lower
case where the file system makes no difference."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Hashable
from contextlib import suppress
from pathlib import Path

from mdrn_cli.paths import exists, real_path

Place = tuple[Hashable, str]


class Places:
    """What is known of a run's paths; folders are looked at once each."""

    def __init__(self) -> None:
        self._folders: dict[Path, tuple[Hashable, ...]] = {}
        self._caseless: dict[Path, bool] = {}

    def of(self, path: Path) -> Place:
        """A key of the file that a path leads to, equal for all spellings of it. Hard links to one file are different
        places."""
        real = real_path(path)
        return self.folder(real.parent), self._name(real)

    def folder(self, path: Path) -> Hashable:
        """A key of a folder, which need not exist."""
        if path not in self._folders:
            above, below = real_path(path), []
            while not (place := self._folders.get(above) or _number(above)):
                below.append(above)
                if above.parent == above:
                    place = (str(below.pop()),)
                    break
                above = above.parent
            self._folders[path] = place + tuple(map(self._name, reversed(below)))
        return self._folders[path]

    def within(self, path: Path, folder: Path) -> bool:
        """Whether a path is a folder or below it."""
        place, real = self.folder(folder), real_path(path)
        return any(self.folder(above) == place for above in (real, *real.parents))

    def _name(self, real: Path) -> str:
        if not self._ignores_case(real.parent):
            return real.name
        return unicodedata.normalize("NFC", real.name).casefold()

    def _ignores_case(self, folder: Path) -> bool:
        """Whether upper and lower case are the same in a folder: tried on something in it, else on its own name, else
        on those of the folders above it, from the nearest that exists and has letters."""
        below: list[Path] = []
        while folder not in self._caseless:
            found = _told_by_content(folder)
            other = folder.with_name(folder.name.swapcase()) if folder.name else folder
            if found is None and other != folder and exists(folder):
                found = exists(other) and other.samefile(folder)
            elif found is None and folder.parent == folder:
                found = os.name == "nt"
            if found is not None:
                self._caseless[folder] = found
                break
            below.append(folder)
            folder = folder.parent
        self._caseless.update(dict.fromkeys(below, self._caseless[folder]))
        return self._caseless[folder]


def _number(folder: Path) -> tuple[Hashable, ...]:
    """Device and inode of a folder; empty if it does not exist, or has no inode, as on some network file systems on
    Windows."""
    try:
        about = folder.stat()
    except (OSError, ValueError):
        return ()
    return (about.st_dev, about.st_ino) if about.st_ino else ()


def _told_by_content(folder: Path) -> bool | None:
    """Whether something in a folder goes by another spelling of its name, too; None where nothing has letters."""
    with suppress(OSError, ValueError):
        with os.scandir(folder) as entries:
            names = (entry.name for entry in entries if entry.name.isascii())
            name = next((name for name in names if name.swapcase() != name), None)
        if name is not None:
            other = folder / name.swapcase()
            return exists(other) and other.samefile(folder / name) and other not in folder.iterdir()
    return None
