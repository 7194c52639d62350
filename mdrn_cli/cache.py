"""The cache: files stored by SHA-256, fetched once, verified at each use. `plan` finds what is missing without
fetching it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import asdict, dataclass
from pathlib import Path

from mdrn_cli.addresses import shown
from mdrn_cli.errors import FetchError, UsageError
from mdrn_cli.fetch import Expected, OnBytes, download
from mdrn_cli.files import put_in_place
from mdrn_cli.locks import has_locks, locked, part_of
from mdrn_cli.paths import exists, is_folder, sha256_of, size_of

TAG_NAME = "CACHEDIR.TAG"
TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# This folder is a cache made by mdrn; it can be removed.\n"
ABOUT = "about.json"
KERNELS, FONTS = "kernels", "matplotlib"
"""Folders of the cache that libraries write into, triton and matplotlib; see `library_folder`."""
PARALLEL = 4
NOWHERE = Path(os.devnull, "mdrn")
"""A folder that cannot be made."""


@dataclass(frozen=True)
class Item:
    """A file that can be cached.

    Attributes:
        name: its file name, without a folder.
        sha256: of its content, hexadecimal.
        bytes: its size.
        sources: where it can be had, in order.
        licence: what its use is subject to.
    """

    name: str
    sha256: str
    bytes: int
    sources: tuple[str, ...]
    licence: str


@dataclass(frozen=True)
class Plan:
    """What a fetch would do: items that are here, with their files, and items to fetch."""

    present: tuple[tuple[Item, Path], ...]
    missing: tuple[Item, ...]


def cache_root() -> Path:
    """The cache folder: `MDRN_HOME`, or the platform's. For a user of whom no home is known, as in some containers, one
    that cannot be made: any other could be somebody else's.

    Raises:
        UsageError: `MDRN_HOME` is below a home that is not known.
    """
    home = os.environ.get("MDRN_HOME")
    if home:
        try:
            return Path(home).expanduser()
        except RuntimeError as error:
            raise UsageError(f"MDRN_HOME is {home}, and no such home is known", "give it in full") from error
    try:
        own = Path.home() / ".cache" / "mdrn"
    except RuntimeError:
        own = NOWHERE
    try:
        import platformdirs
    except ImportError:  # training runs without it
        return own
    if own == NOWHERE and not os.environ.get("XDG_CACHE_HOME"):
        return own
    return Path(platformdirs.user_cache_dir("mdrn", appauthor=False))


def library_folder(name: str) -> Path:
    """A folder of the cache that a library writes into; missing if it cannot be created. A folder created here gets the
    cache tag, which tells it from a folder of the same name that is somebody else's."""
    folder = (cache_root() / name).absolute()
    with contextlib.suppress(OSError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
        (folder / TAG_NAME).write_text(TAG)
    return folder


def is_intact(path: Path, item: Item) -> bool:
    """Whether a file is there, can be read and is the item, by size and SHA-256."""
    try:
        return path.is_file() and path.stat().st_size == item.bytes and sha256_of(path) == item.sha256
    except OSError:
        return False


class Cache:
    """Files under `root/files/SHA256/NAME`, beside each an `about.json` with its licence and source.

    Several processes may use one cache: a file is brought under a lock, which the system drops with the
    process that holds it, and appears whole. A cache that cannot be written serves what it holds.

    Args:
        root: the folder; made when something is first stored.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or cache_root()

    def refuse_file(self) -> None:
        """Refuse a cache folder that is a file.

        Raises:
            UsageError: it is one.
        """
        if exists(self.root) and not is_folder(self.root):
            raise UsageError(f"the cache folder {self.root} is a file", "give a folder by MDRN_HOME")

    def path(self, item: Item) -> Path:
        """Where the item is kept, whether or not it is there."""
        return self.root / "files" / item.sha256 / item.name

    def find(self, item: Item) -> Path | None:
        """The item's file if it is there and intact."""
        path = self.path(item)
        return path if is_intact(path, item) else None

    def plan(self, items: Sequence[Item]) -> Plan:
        """Which of the items are here, and which would have to be brought. A corrupt file counts as missing."""
        found = [(item, self.find(item)) for item in items]
        present = tuple((item, path) for item, path in found if path is not None)
        return Plan(present, tuple(item for item, path in found if path is None))

    def fetch(self, item: Item, on_bytes: OnBytes | None = None, stopped: threading.Event | None = None) -> Path:
        """Bring one item unless it is here; an interrupted fetch leaves a part that the next goes on from.

        Raises:
            FetchError: no source has it, or the cache cannot be written.
            StoppedError: `stopped` has been set meanwhile, see `download`.
        """
        found = self.find(item)
        if found:
            return found
        with self._locked(item) as part:
            found = self.find(item)  # another process may have brought it meanwhile
            if found:
                return found
            if on_bytes and part.is_file():
                on_bytes(part.stat().st_size)
            try:
                download(item.sources, part, Expected(item.bytes, item.sha256), on_bytes, stopped)
            except FetchError as error:
                raise FetchError(f"cannot fetch {item.name}: {error.message}", error.hint) from error
            self._keep(item, part)
        return self.path(item)

    def fetch_all(self, items: Sequence[Item], on_bytes: OnBytes | None = None) -> list[Path]:
        """Bring several items, a few at a time; the result is in their order.

        Raises:
            FetchError: for the first item that cannot be had; the others are not waited for.
        """
        stopped = threading.Event()
        futures: list[Future[Path]] = [Future() for _ in items]
        waiting = iter(list(zip(items, futures, strict=True)))

        def bring() -> None:
            for item, future in waiting:
                if stopped.is_set():
                    return
                try:
                    future.set_result(self.fetch(item, on_bytes, stopped))
                except BaseException as error:
                    future.set_exception(error)

        # Daemons: Ctrl-C and a failure wait neither for a server that is silent nor for another process' lock. What is
        # under way leaves its part behind, to be gone on from.
        for _ in range(min(PARALLEL, len(items))):
            threading.Thread(target=bring, daemon=True).start()
        try:
            done: set[Future[Path]] = set()
            # Now and then for a moment awake: on Windows Ctrl-C would wait for the end of a longer wait.
            while len(done) < len(futures) and not any(future.exception() for future in done):
                done, _ = wait(futures, 0.2, return_when=FIRST_EXCEPTION)
            return [future.result() for future in futures if future in done]
        finally:
            stopped.set()

    def store(self, item: Item, source: Path) -> Path:
        """Take a copy of a file that is the item.

        Raises:
            FetchError: the file is not the item, or the cache cannot be written.
        """
        if not is_intact(source, item):
            raise FetchError(f"{source} is not {item.name}: size or SHA-256 differ")
        with self._locked(item) as part:
            try:
                if not (part.exists() and part.samefile(source)):
                    shutil.copyfile(source, part)
            except OSError as error:
                with contextlib.suppress(OSError):
                    part.unlink(missing_ok=True)
                raise FetchError(f"cannot write {part} ({error.strerror or error})") from error
            self._keep(item, part)
        return self.path(item)

    def remove(self, item: Item) -> int:
        """Remove the item with whatever is kept beside it, after another process that fetches it; returns the bytes
        freed.

        Raises:
            FetchError: the cache cannot be written.
        """
        folder = self.path(item).parent
        freed = sum(size_of(path) for path in folder.glob("*"))
        try:
            if folder.is_dir():
                with self._locked(item):
                    shutil.rmtree(folder)
        except OSError as error:
            raise FetchError(f"cannot remove {folder} ({error.strerror or error})") from error
        return freed

    @contextlib.contextmanager
    def _locked(self, item: Item) -> Iterator[Path]:
        """Where the item is put together, in its folder, held by this process alone."""
        folder, held = self.path(item).parent, contextlib.ExitStack()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tag = self.root / TAG_NAME
            if not tag.exists():
                tag.write_text(TAG)
            locks = self.root / "locks"
            locks.mkdir(exist_ok=True)
            lock = locks / f"{item.sha256}.lock"
            held.enter_context(locked(lock))
            # `rm` of another process may have taken the folder while this one waited.
            folder.mkdir(parents=True, exist_ok=True)
            alone, part = has_locks(lock), part_of(self.path(item), lock)
        except OSError as error:
            held.close()
            raise FetchError(
                f"cannot write to the cache {self.root} ({error.strerror or error})", "set MDRN_HOME to another folder"
            ) from error
        with held:
            try:
                yield part
            finally:
                with contextlib.suppress(OSError):
                    if alone:
                        folder.rmdir()  # only when nothing came
                    else:  # others may have made the folder and not yet used it; nobody goes on with this part
                        part.unlink(missing_ok=True)

    def _keep(self, item: Item, part: Path) -> None:
        try:
            about = asdict(item) | {"sources": [shown(source) for source in item.sources]}
            (part.parent / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
            put_in_place(part, self.path(item))
        except OSError as error:  # where there are locks the next fetch takes the part, which is whole
            raise FetchError(f"cannot write {self.path(item)} ({error.strerror or error})") from error
