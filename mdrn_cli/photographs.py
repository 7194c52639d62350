"""The photographs of a folder tree, decoded once: into memory, or, when they do not fit, into a memory map on disk that
later runs, and other processes of this one, use as it is."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mdrn_cli.cache import cache_root
from mdrn_cli.errors import InputError, MdrnError
from mdrn_cli.files import put_in_place, write_atomically
from mdrn_cli.formats import find_images
from mdrn_cli.image import read_size, read_uint8
from mdrn_cli.locks import locked, part_of
from mdrn_cli.model import COLOR_CHANNELS
from mdrn_cli.paths import real_path
from mdrn_cli.places import Places

READERS = 8
FOLDER = "photographs"
FORMAT = "mdrn.photographs/3"


@dataclass(frozen=True)
class PhotoFolder:
    """The photographs of a folder tree.

    Attributes:
        pixels: uint8 (P, C), row by row, one photograph after another.
        shapes: height and width of each.
        files: the file of each.
        unreadable: files that could not be read, with the reason.
        map: the file `pixels` are mapped from, or None where they are in memory.
    """

    pixels: NDArray[np.uint8]
    shapes: list[tuple[int, int]]
    files: list[Path]
    unreadable: list[tuple[Path, str]]
    map: Path | None = None

    def digest(self, folder: Path) -> str:
        """SHA-256 of the photographs' names and sizes, which identifies them wherever their folder lies."""
        root = real_path(folder)
        names = (_name_within(root, real_path(file)) for file in self.files)
        return hashlib.sha256(json.dumps([*zip(names, self.shapes, strict=True)]).encode()).hexdigest()


def _name_within(root: Path, file: Path) -> str:
    """Of a file from a folder; in full where it is on another drive, as links of Windows may lead to."""
    try:
        return os.path.relpath(file, root)
    except ValueError:
        return str(file)


def _ignore(*_: object) -> None:
    pass


@dataclass(frozen=True)
class Reading:
    """What a caller is told as photographs are read.

    Attributes:
        planned: before the first is decoded: how many they are, bytes they take decoded, the memory map or None.
        file: (files read, files in all), after each.
        unreadable: a file that is skipped, and why.
        too_small: in the end: how many photographs are smaller than a patch.
        held_out: how many are left out, for they are validated on.
        changed: a run goes on with photographs other than those it began with.
        validated_otherwise: and so do those it is validated on.
        validated_on_own: photographs that are trained on are validated on, how many.
    """

    planned: Callable[[int, int, Path | None], None] = _ignore
    file: Callable[[int, int], None] = _ignore
    unreadable: Callable[[Path, str], None] = _ignore
    too_small: Callable[[int], None] = _ignore
    held_out: Callable[[int], None] = _ignore
    changed: Callable[[], None] = _ignore
    validated_otherwise: Callable[[], None] = _ignore
    validated_on_own: Callable[[int], None] = _ignore


def read_photographs(
    folder: Path,
    color: str,
    memory: float = math.inf,
    reading: Reading | None = None,
    held_out: Path | None = None,
) -> PhotoFolder:
    """Read every image under `folder`, nested or not, as 8-bit gray or color (ITU-R 601 luma for gray).

    Args:
        folder: searched recursively, in sorted order.
        color: "gray" or "color".
        memory: bytes; what takes more, decoded, becomes a memory map in the cache folder. It is found again by the
            names, sizes and times of the files.
        reading: told how it goes.
        held_out: a folder whose images are left out.

    Raises:
        InputError: no image in the folder can be read.
        MdrnError: the cache folder cannot hold the map.
    """
    reading = reading or Reading()
    files = find_images(folder)
    if not files:
        raise _nothing_readable(folder)
    if held_out:
        places, found = Places(), len(files)
        kept = {places.of(file) for file in find_images(held_out)}  # may be links, or what they lead to
        files = [file for file in files if places.of(file) not in kept]
        if found > len(files):
            reading.held_out(found - len(files))
        if not files:
            raise InputError(
                f"all of {folder} is inside {held_out}, the folder for validation",
                "give --data and --val different folders",
            )
    path = cache_root() / FOLDER / f"{_key(files, color)}.bin"
    photos = _open_map(path, color)
    if photos:
        reading.planned(len(photos.files), photos.pixels.nbytes, path)
        return photos
    with ThreadPoolExecutor(READERS) as pool:
        pixels = list(pool.map(_count_pixels, files))
    size = sum(pixels) * COLOR_CHANNELS[color]
    mapped = size > memory
    reading.planned(sum(count > 0 for count in pixels), size, path if mapped else None)
    if mapped:
        return _make_map(path, files, color, size, reading)
    return _read_into_memory(files, color, sum(pixels), reading)


def each_photograph(
    folder: Path, color: str, unreadable: Callable[[Path, str], None] = _ignore
) -> Iterator[NDArray[np.uint8]]:
    """The readable images under `folder`, one at a time; see `read_photographs`. What is not readable is told.

    Raises:
        InputError: there is none.
    """
    files, none = find_images(folder), True
    for file, result in zip(files, _decoded(files, color, Reading()), strict=True):
        if isinstance(result, str):
            unreadable(file, result)
            continue
        none = False
        yield result
    if none:
        raise _nothing_readable(folder)


def _nothing_readable(folder: Path | str) -> InputError:
    return InputError(f"no readable image among the photographs of {folder}", "give a folder that holds photographs")


def _key(files: Sequence[Path], color: str) -> str:
    stats = [(str(real_path(file)), *_size_and_time(file)) for file in files]
    return hashlib.sha256(json.dumps([FORMAT, color, stats]).encode()).hexdigest()


def _size_and_time(file: Path) -> tuple[int, int]:
    """Bytes, and nanoseconds of the last change; zeros of what cannot be had, such as a link to nothing."""
    try:
        about = file.stat()
    except OSError:
        return 0, 0
    return about.st_size, about.st_mtime_ns


def _count_pixels(file: Path) -> int:
    """Pixels of an image by its header; 0 when that cannot be read."""
    try:
        return math.prod(read_size(file))
    except InputError:
        return 0


def _decoded(files: Sequence[Path], color: str, reading: Reading) -> Iterator[NDArray[np.uint8] | str]:
    """Each file's pixels, or why it has none; a few files ahead and no more, so that memory is bounded."""
    left = iter(files)
    with ThreadPoolExecutor(READERS) as pool:
        ahead: deque[Future[NDArray[np.uint8] | str]] = deque(
            pool.submit(_read_or_reason, file, color) for file in islice(left, 2 * READERS)
        )
        done = 0
        while ahead:
            result = ahead.popleft().result()
            ahead.extend(pool.submit(_read_or_reason, file, color) for file in islice(left, 1))
            done += 1
            reading.file(done, len(files))
            yield result


def _read_or_reason(file: Path, color: str) -> NDArray[np.uint8] | str:
    try:
        return read_uint8(file, color)
    except InputError as error:
        return error.message


def _collect(
    files: Sequence[Path], color: str, reading: Reading, keep: Callable[[NDArray[np.uint8]], bool]
) -> tuple[list[tuple[int, int]], list[Path], list[tuple[Path, str]]]:
    """Hand the pixels (H*W, C) of each photograph to `keep`, which tells whether it has room for them; returns shapes,
    files and what is unreadable."""
    shapes: list[tuple[int, int]] = []
    read: list[Path] = []
    unreadable: list[tuple[Path, str]] = []
    for file, result in zip(files, _decoded(files, color, reading), strict=True):
        if isinstance(result, str):
            unreadable.append((file, result))
            continue
        if not keep(result.reshape(-1, result.shape[2])):
            unreadable.append((file, "it has changed since its size was read"))
            continue
        shapes.append((result.shape[0], result.shape[1]))
        read.append(file)
    if not read:
        raise _nothing_readable(os.path.commonpath([file.parent for file in files]))
    return shapes, read, unreadable


def _read_into_memory(files: Sequence[Path], color: str, pixels: int, reading: Reading) -> PhotoFolder:
    store = np.empty((pixels, COLOR_CHANNELS[color]), np.uint8)
    end = 0

    def keep(photo: NDArray[np.uint8]) -> bool:
        nonlocal end
        if end + len(photo) > len(store):
            return False
        store[end : end + len(photo)] = photo
        end += len(photo)
        return True

    shapes, read, unreadable = _collect(files, color, reading, keep)
    return PhotoFolder(store[:end], shapes, read, unreadable)


def _make_map(path: Path, files: Sequence[Path], color: str, size: int, reading: Reading) -> PhotoFolder:
    """Decode into a file, unless another process does so meanwhile: under a lock that dies with its holder."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_suffix(".lock")):
            made = _open_map(path, color)
            if made is None:
                _write_map(path, files, color, size, reading)
                made = _open_map(path, color)
    except OSError as error:
        raise MdrnError(
            f"cannot keep {size / 1e9:.1f} GB of decoded photographs in {path.parent} ({error.strerror or error})",
            "set MDRN_HOME to a folder with room for them, or give more --cache-memory",
        ) from error
    if made is None:
        raise MdrnError(f"{path} was removed while it was made", "run it again")
    return made


def _write_map(path: Path, files: Sequence[Path], color: str, size: int, reading: Reading) -> None:
    """The file, whole, and then its index, without which it counts for nothing."""
    if shutil.disk_usage(path.parent).free < size:
        raise OSError(None, "too little space is left")
    part = part_of(path, path.with_suffix(".lock"))
    try:
        with part.open("wb") as file:

            def keep(photo: NDArray[np.uint8]) -> bool:
                photo.tofile(file)
                return True

            shapes, read, unreadable = _collect(files, color, reading, keep)
        put_in_place(part, path)
    finally:
        with suppress(OSError):  # which would hide what has happened
            part.unlink(missing_ok=True)
    index = {"shapes": shapes, "files": [*map(str, read)], "unreadable": [(str(f), reason) for f, reason in unreadable]}
    write_atomically(path.with_suffix(".json"), json.dumps(index).encode())


def _open_map(path: Path, color: str) -> PhotoFolder | None:
    """The photographs of a complete map, or None."""
    try:
        about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        shapes = [(height, width) for height, width in about["shapes"]]
        shape = sum(height * width for height, width in shapes), COLOR_CHANNELS[color]
        files = [Path(file) for file in about["files"]]
        unreadable = [(Path(file), reason) for file, reason in about["unreadable"]]
        if path.stat().st_size != math.prod(shape):
            return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # there is no index, or it is damaged
        return None
    try:
        # Copy on write: torch wants arrays it could write to, and nothing writes.
        pixels = np.memmap(path, np.uint8, "c", shape=shape)
    except FileNotFoundError:  # another process is removing it
        return None
    return PhotoFolder(pixels, shapes, files, unreadable, path)
