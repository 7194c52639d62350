"""Whether two paths are one place, however they are spelled: through links, by mounts of one folder under two names, in
upper and lower case where the file system makes no difference."""

from __future__ import annotations

import unicodedata
from collections.abc import Hashable
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
                self._folders[path] = self.of(real) if real.parent != real else str(real)
            else:
                self._folders[path] = (about.st_dev, about.st_ino)
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
        """Whether names in a folder are the same in upper and lower case; as far as the name of the folder itself
        tells, or of the nearest above it that is there and has letters."""
        if folder not in self._caseless:
            other = folder.with_name(folder.name.swapcase()) if folder.name else folder
            if folder.parent == folder:
                found = False
            elif other == folder or not exists(folder):
                found = self._ignores_case(folder.parent)
            else:
                found = exists(other) and other.samefile(folder)
            self._caseless[folder] = found
        return self._caseless[folder]
