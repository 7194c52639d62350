"""Where the weights for a request come from (docs/weights.md): an explicit path, the verified cache, the bundled
files, or a download from the record's sources or a mirror."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mdrn_cli.addresses import is_elsewhere, is_offline, is_remote, local_path, shown
from mdrn_cli.cache import Cache, Item, is_intact
from mdrn_cli.errors import FetchError, UsageError, WeightsError, hint_of
from mdrn_cli.fetch import OnBytes, read_small
from mdrn_cli.manifest import FAMILIES, RESERVED, Record, choose, load_manifest, parse_manifest
from mdrn_cli.paths import exists, is_file, is_folder, is_link, size_of, walk

BUNDLED = Path(__file__).parent / "weights"
LARGEST_MANIFEST = 1 << 22
LAST_FILE, BEST_FILE = "last.safetensors", "best.safetensors"
"""Of a run folder: the averaged weights as they are, and as they were where they validated best."""


@dataclass(frozen=True)
class Status:
    """Where a checkpoint is: "cached", "bundled", "local" (where a manifest of one's own says), "missing", or "corrupt"
    (a damaged copy and no good one)."""

    record: Record
    state: str
    path: Path | None


def all_records(manifests: Sequence[str] = ()) -> tuple[Record, ...]:
    """The project's own records and those of further manifests.

    Args:
        manifests: paths or URLs.

    Raises:
        WeightsError: a manifest cannot be had or is broken, or two name the same checkpoint.
    """
    records = list(load_manifest())
    for origin in manifests:
        for record in parse_manifest(read_small(origin, LARGEST_MANIFEST), shown(origin)):
            if any(other.name == record.name for other in records):
                raise WeightsError(f"{shown(origin)} names {record.name}, which is taken by another manifest")
            records.append(record)
    return tuple(records)


def item_of(record: Record) -> Item:
    """What the cache is to keep for a record; a mirror named by `MDRN_WEIGHTS_URL` is asked first."""
    mirror = os.environ.get("MDRN_WEIGHTS_URL", "").rstrip("/")
    mirrored = (f"{mirror}/{record.file}",) if mirror else ()
    return Item(record.file, record.sha256, record.bytes, (*mirrored, *record.urls), record.licence)


def check_mirror() -> None:
    """Refuse a `MDRN_WEIGHTS_URL` that cannot be a mirror.

    Raises:
        UsageError: it is neither an http(s) address nor a folder of this machine.
    """
    mirror = os.environ.get("MDRN_WEIGHTS_URL")
    if not mirror:
        return
    if is_remote(mirror):
        if not re.match(r"https?://[^/]", mirror, re.IGNORECASE):
            raise UsageError(f"MDRN_WEIGHTS_URL is {shown(mirror)}, and mirrors are asked by http, https or file alone")
    elif is_elsewhere(mirror) or not is_folder(local_path(mirror)):
        raise UsageError(f"MDRN_WEIGHTS_URL is {mirror}, and there is no such folder")


def named(records: Sequence[Record], name: str, others: Sequence[str] = ()) -> Record:
    """The record of a name.

    Raises:
        WeightsError: there is none; the hint lists those there are, after others that may be given.
    """
    for record in records:
        if record.name == name:
            return record
    if name in FAMILIES and name not in others:
        members = ", ".join(record.name for record in records if record.family == name)
        raise WeightsError(f"{name} is a family of checkpoints, and one is to be named", f"it has: {members}")
    known = [*others, *(record.name for record in records)]
    raise WeightsError(f"no checkpoint {name!r}", hint_of(name, known, most=3))


def status(record: Record, cache: Cache | None = None) -> Status:
    """Where a checkpoint is, its content checked."""
    cache, item = cache or Cache(), item_of(record)
    copies = (("cached", cache.path(item)), ("bundled", BUNDLED / record.file))
    for state, path in copies:
        if is_intact(path, item):
            return Status(record, state, path)
    local = [local_path(source) for source in record.urls if not is_elsewhere(source)]
    for path in local:
        if is_intact(path, item):
            return Status(record, "local", path)
    # The file of another manifest's record may be called as one of ours.
    own = [path for state, path in copies if state == "cached" or record in load_manifest()]
    damaged = next(filter(is_file, (*own, *local)), None)
    return Status(record, "corrupt" if damaged else "missing", damaged)


def locate(record: Record, on_bytes: OnBytes | None = None) -> Path:
    """The file of a record, its SHA-256 checked; fetched when it is not here or damaged.

    Raises:
        WeightsError: it is not here, or corrupt, and cannot be fetched.
    """
    found = status(record)
    if found.state in ("cached", "bundled", "local") and found.path:
        return found.path
    item = item_of(record)
    if not item.sources or (is_offline() and all(map(is_elsewhere, item.sources))):
        problem = (
            f"{found.path} is corrupt: its SHA-256 is not the manifest's"
            if found.state == "corrupt"
            else f"the weights {record.name} are not on this machine"
        )
        reason = ", and the network is off" if is_offline() else ""
        raise WeightsError(problem + reason, f"bring {record.file} with `mdrn weights import FILE`")
    try:
        return Cache().fetch(item, on_bytes)
    except FetchError as error:
        raise FetchError(error.message, error.hint or "see `mdrn weights import` and MDRN_WEIGHTS_URL") from error


def recorded(sha256: str) -> Record | None:
    """The record of this project's own checkpoint whose file has this hash, wherever that lies; files that were packed
    before they said it of themselves do not tell what noise they are for."""
    return next((record for record in load_manifest() if record.sha256 == sha256), None)


def explicit_path(model: str, manifests: Sequence[str] = ()) -> Path | None:
    """The file that a request for a model names, of a run folder its best checkpoint; None if it is a name. Names have
    neither folder nor suffix; what lies here and is called as a checkpoint is has to be given as `./NAME`.

    Args:
        model: name or path.
        manifests: see `all_records`.

    Raises:
        WeightsError: see `all_records`.
    """
    path = Path(model)
    is_path = bool(any(sep in model for sep in (os.sep, os.altsep) if sep) or path.suffix)
    for file in (path, path / BEST_FILE, path / LAST_FILE):
        if model and is_file(file):
            names = () if is_path else (*RESERVED, *(record.name for record in all_records(manifests)))
            return None if model in names else file
    return path if is_path else None


def find_weights(model: str, color: str, sigma: float) -> Path:
    """The weights file of a network trained at the very level of a request.

    Args:
        model: "auto", a family, the name of a checkpoint, or a path to a safetensors file or run folder.
        color: "gray" or "color".
        sigma: noise level, 0-255 scale.

    Raises:
        WeightsError: nothing serves the request, or the file is missing or corrupt.
        UsageError: the named checkpoint is for something else.
    """
    if path := explicit_path(model):
        return path
    return locate(choose(all_records(), model, color, sigma, exact=True))


def _files_in(folder: Path) -> list[Path]:
    """Files at any depth, sorted; links to folders are not followed."""
    found = []
    for place, folders, files in walk(folder, lambda _error: None):
        folders[:] = [name for name in folders if not is_link(place / name)]
        found += [place / name for name in files if is_file(place / name)]
    return sorted(found)


def import_files(source: Path, records: Sequence[Record]) -> list[Record]:
    """Take checkpoints brought by hand into the cache; a file is recognised by its content, not its name.

    Args:
        source: a file, or a folder searched at any depth, whatever files in it are called.
        records: what may be imported.

    Returns:
        The records found.

    Raises:
        UsageError: the source does not exist, or a file is no known checkpoint and not called as safetensors are.
        WeightsError: nothing in it is a known checkpoint.
    """
    cache = Cache()
    if not exists(source):
        raise UsageError(f"no file or folder {source}")
    files = [source] if is_file(source) else _files_in(source)
    sizes = {record.bytes for record in records}
    found = []
    for path in (file for file in files if size_of(file) in sizes):
        for record in records:
            item = item_of(record)
            if is_intact(path, item):
                cache.store(item, path)
                found.append(record)
    if not found and is_file(source) and source.suffix != ".safetensors":
        raise UsageError(f"{source} is not safetensors, the only format taken", "pickled checkpoints can run code")
    if not found:
        raise WeightsError(f"no known checkpoint in {source}", "their SHA-256 must be one of a manifest's")
    return found
