"""Whether two paths are one place, however they are spelled: through links, by mounts of one folder under two names, in
upper and lower case where the file system makes no difference."""

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
        self._folders: dict[Path, Hashable] = {}
        self._caseless: dict[Path, bool] = {}

    def of(self, path: Path) -> Place:
        """The file that a path leads to: equal for all its spellings. Names that were given to one file (hard links)
        are places of their own."""
        real = real_path(path)
        return self.folder(real.parent), self._name(real)

    def folder(self, path: Path) -> Hashable:
        """A folder, there or not."""
        if path not in self._folders:
            real = real_path(path)
            try:
                about = real.stat()
            except (OSError, ValueError):
                about = None
            if about and about.st_ino:
                self._folders[path] = (about.st_dev, about.st_ino)
            else:  # some network file systems on Windows number no files
                self._folders[path] = self.of(real) if real.parent != real else str(real)
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
        """Whether names in a folder are the same in upper and lower case; as far as something in it tells, or its own
        name, or that of the nearest above it that is there and has letters."""
        if folder not in self._caseless:
            found = _told_by_content(folder)
            other = folder.with_name(folder.name.swapcase()) if folder.name else folder
            if found is None and other != folder and exists(folder):
                found = exists(other) and other.samefile(folder)
            elif found is None:
                found = os.name == "nt" if folder.parent == folder else self._ignores_case(folder.parent)
            self._caseless[folder] = found
        return self._caseless[folder]


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
