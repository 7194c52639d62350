"""Named benchmark sets: found on disk by their content, fetched, verified, and what the paper reports on them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mdrn_cli.addresses import is_offline
from mdrn_cli.cache import Cache, Item
from mdrn_cli.errors import FetchError, InputError, UsageError, hint_of
from mdrn_cli.fetch import OnBytes
from mdrn_cli.formats import find_images
from mdrn_cli.image import is_gray
from mdrn_cli.paths import is_file, is_folder, sha256_of

REFERENCE = Path(__file__).parent / "reference"
PUBLISHED = REFERENCE / "published.json"
INDEX = REFERENCE / "datasets.json"
RAW_HOST = "https://raw.githubusercontent.com"
PAPER_SIGMAS = {"gray": (15.0, 25.0, 50.0), "color": (30.0, 50.0, 70.0)}


@dataclass(frozen=True)
class BenchmarkSet:
    """A public set of images, to the byte.

    Attributes:
        name: such as "Set12".
        color: "gray", "color", or "both" (reported in either).
        clean: whether its images are clean; those of RNI6 and RNI15 carry real noise and have no truth.
        source: repository, commit and folder.
        licence: what its use is subject to, as far as is known.
        items: its files, in order.
    """

    name: str
    color: str
    clean: bool
    source: str
    licence: str
    items: tuple[Item, ...]

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(item.bytes for item in self.items)


@dataclass(frozen=True)
class Dataset:
    """A folder of images, to be measured on.

    Attributes:
        name: of the set, or of the folder.
        color: "gray" or "color".
        files: in order.
        clean: False for images with real noise and no truth.
        verified: whether the files are those of the public set, byte for byte; None for a folder.
        folder: what all files lie under; None where each lies in a folder of its own, as in the cache.
    """

    name: str
    color: str
    files: tuple[Path, ...]
    clean: bool = True
    verified: bool | None = None
    folder: Path | None = None

    def path_of(self, file: Path) -> Path:
        """The path by which one of the files is told from the others: below the folder, or its name."""
        return file.relative_to(self.folder) if self.folder else Path(file.name)


@dataclass(frozen=True)
class Found:
    """Where a set is.

    Attributes:
        state: "on disk", "cached", "on disk, other files" (a folder of its name with other content), "partly cached"
            or "missing".
        files: of the set, in order; none where it is not here as a whole.
        missing: what would have to be fetched.
        folder: of a set on disk.
    """

    state: str
    files: tuple[Path, ...]
    missing: tuple[Item, ...] = ()
    folder: Path | None = None

    @property
    def place(self) -> Path | None:
        """Where all files lie, on disk or in the cache; None where they are missing."""
        return self.folder or (self.files[0].parents[1] if self.files else None)

    @property
    def verified(self) -> bool:
        """Whether the files are those of the public set, byte for byte."""
        return self.state in ("on disk", "cached")


@cache
def benchmark_sets() -> dict[str, BenchmarkSet]:
    """The sets the package knows, by name."""
    index: dict[str, Any] = json.loads(INDEX.read_text(encoding="utf-8"))
    return {name: _parse_set(name, entry) for name, entry in index.items()}


def _parse_set(name: str, entry: dict[str, Any]) -> BenchmarkSet:
    place = f"{entry['repository']}/{entry['commit']}/{entry['folder']}"
    items = tuple(
        Item(
            name=file["path"],
            sha256=file["sha256"],
            bytes=file["bytes"],
            sources=(f"{RAW_HOST}/{quote(place)}/{quote(file['path'])}",),
            licence=entry["licence"],
        )
        for file in entry["files"]
    )
    return BenchmarkSet(name, entry["color"], entry["clean"], place, entry["licence"], items)


def named_set(name: str) -> BenchmarkSet | None:
    """The set of a name, in any case, or None."""
    return {key.lower(): value for key, value in benchmark_sets().items()}.get(name.lower())


def open_dataset(
    name: str, data: Path | None = None, color: str | None = None, on_bytes: OnBytes | None = None
) -> Dataset:
    """A named set, or any folder of images.

    A named set is used in place when it lies under `data` or `MDRN_DATA`, else taken from the cache, else from a
    folder of its name with other content there, else what is called so here, else fetched once.

    Args:
        name: of a set, in any case; else a path to a folder.
        data: folder that holds sets.
        color: "gray" or "color"; by default the set's own; of a folder that is none "color", unless all its images
            are gray.
        on_bytes: told of progress when the set has to be fetched.

    Raises:
        UsageError: no such set or folder.
        InputError: the folder holds no images.
        FetchError: the set is not on this machine and cannot be fetched.
    """
    known = named_set(name)
    if known is None:
        return _open_folder(name, color)
    found = find_set(known, data)
    if not found.files and is_folder(Path(name)):
        found = find_set(known, Path(name))
    if not found.files:
        fetched = fetch_set(known, found.missing, on_bytes)
        found = Found("cached", tuple(fetched))
    return _dataset(known, found, color)


def _dataset(known: BenchmarkSet, found: Found, color: str | None) -> Dataset:
    color = color or ("gray" if known.color == "gray" else "color")
    return Dataset(known.name, color, found.files, known.clean, found.verified, found.folder)


def _open_folder(name: str, color: str | None) -> Dataset:
    """A folder of images; one that holds those of a set and no others is that set, whatever its name."""
    folder = Path(name)
    if is_file(folder):
        raise UsageError(f"{folder} is a file; a set or a folder is needed", "put it in a folder of its own")
    if not is_folder(folder):
        raise UsageError(f"no benchmark set or folder {name!r}", hint_of(name, benchmark_sets(), "sets are"))
    images = tuple(find_images(folder))
    if not images:
        raise InputError(f"no images in {folder}")
    for known in benchmark_sets().values():
        if len(images) == len(known.items) and (files := _match(known, images)):
            return _dataset(known, Found("on disk", files, folder=folder), color)
    # Gray images as color would have noise of their own in each of three equal channels: easier to remove.
    own = "gray" if all(map(is_gray, images)) else "color"
    return Dataset(folder.resolve().name, color or own, images, folder=folder)


def data_folder(data: Path | None = None) -> Path | None:
    """The folder that holds benchmark sets, `data` or `MDRN_DATA`; None where neither is given.

    Raises:
        UsageError: there is no such folder.
    """
    root = data or (Path(os.environ["MDRN_DATA"]) if os.environ.get("MDRN_DATA") else None)
    if root is not None and not is_folder(root):
        raise UsageError(f"no folder {root}", "--data or MDRN_DATA names the folder that holds the sets")
    return root


def find_set(known: BenchmarkSet, data: Path | None = None) -> Found:
    """Where a set is, every file of it hashed.

    A folder of any name with the right content, under `data` or `MDRN_DATA`, comes before the cache, and that before a
    folder of the set's name with other content.

    Raises:
        UsageError: there is no such folder as `data` or `MDRN_DATA`.
    """
    root = data_folder(data)
    folders = tuple(_folders(root)) if root else ()
    for folder in folders:
        if files := _match(known, _files(folder)):
            return Found("on disk", files, folder=folder)
    plan = Cache().plan(known.items)
    if not plan.missing:
        return Found("cached", tuple(path for _, path in plan.present))
    for folder in folders:
        if folder.name.lower() == known.name.lower() and (images := find_images(folder, on_unreadable=lambda _: None)):
            return Found("on disk, other files", tuple(images), plan.missing, folder)
    return Found("partly cached" if plan.present else "missing", (), plan.missing)


def _folders(root: Path) -> Iterator[Path]:
    """`root` and the folders one and two levels below it."""
    yield root
    for depth in ("*", "*/*"):
        yield from sorted(path for path in root.glob(depth) if is_folder(path))


def _files(folder: Path) -> list[Path]:
    """Files of a folder; none of one that may not be listed, such as lost+found."""
    with suppress(OSError):
        return [path for path in folder.iterdir() if is_file(path)]
    return []


def _match(known: BenchmarkSet, paths: Iterable[Path]) -> tuple[Path, ...] | None:
    """The set's files among others, whatever their names, or None unless all are there. What cannot be read, such as a
    link to nothing, is none of them."""
    by_size: dict[int, list[Path]] = {}
    for path in paths:
        with suppress(OSError):
            by_size.setdefault(path.stat().st_size, []).append(path)
    # Sizes first: they rule out most folders without reading a byte.
    if any(item.bytes not in by_size for item in known.items):
        return None
    by_hash: dict[str, Path] = {}
    for path in (path for size in {item.bytes for item in known.items} for path in by_size[size]):
        with suppress(OSError):
            by_hash[sha256_of(path)] = path
    if any(item.sha256 not in by_hash for item in known.items):
        return None
    return tuple(by_hash[item.sha256] for item in known.items)


def fetch_set(known: BenchmarkSet, missing: Sequence[Item], on_bytes: OnBytes | None = None) -> list[Path]:
    """Bring what a set lacks; all its files in the cache, in order.

    Args:
        known: the set.
        missing: what `find_set` has found to be missing.
        on_bytes: told of progress.

    Raises:
        FetchError: a file cannot be had.
    """
    hint = f"put the images of {known.source} in a folder and give --data or set MDRN_DATA"
    if missing and is_offline():
        raise FetchError(
            f"offline: {len(missing)} of {len(known.items)} files of {known.name} are not on this machine", hint
        )
    store = Cache()
    try:
        store.fetch_all(missing, on_bytes)
    except FetchError as error:
        raise FetchError(error.message, error.hint or hint) from error
    return [store.path(item) for item in known.items]


def published_tables() -> dict[str, dict[str, Any]]:
    """The paper's tables by key, such as "table1_gray": PSNR in dB by method, set and noise level."""
    tables: dict[str, Any] = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    return {key: table for key, table in tables.items() if key.startswith("table")}


def published_psnr(dataset: str, color: str, sigma: float) -> dict[str, float]:
    """What the paper's tables report: PSNR in dB by method, empty where they have no such column."""
    figures: dict[str, float] = {}
    for key, table in published_tables().items():
        if color in key:
            for method, sets in table.items():
                value = sets.get(dataset, {}).get(f"{sigma:g}")
                if value is not None:
                    figures.setdefault(method, value)
    return figures
