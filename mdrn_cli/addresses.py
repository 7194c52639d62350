"""Sources of files: network addresses, file URLs and paths; whether they may be used, and how they are shown."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from urllib.request import url2pathname

from mdrn_cli.errors import FetchError

_ON_WINDOWS = os.name == "nt"
_SHARE = re.compile(r"[\\/]{2}(?![?.][\\/][A-Za-z]:)")
"""Start of a Windows path that is not on a disk of this machine."""
_ADDRESS = re.compile(r"\w+://[^\s'\"<>]+")


def is_offline() -> bool:
    """Whether `MDRN_OFFLINE` (or `--offline`, which sets it) forbids the network."""
    return os.environ.get("MDRN_OFFLINE", "").strip().lower() not in ("", "0", "false", "no", "off")


def is_remote(source: str) -> bool:
    """Whether a source is an address of the network, rather than a file URL or a path."""
    return "://" in source and not source.lower().startswith("file:")


def is_elsewhere(source: str) -> bool:
    """Whether a source is on another machine: a network address, or on Windows a path on a network share."""
    if is_remote(source):
        return True
    try:
        path = _local(source)
    except FetchError:
        return True
    return _ON_WINDOWS and _SHARE.match(path) is not None


def shown(source: str) -> str:
    """A source as it may be shown and stored: an address without query, fragment, user name and password."""
    if not is_remote(source):
        return source
    try:
        scheme, place, path, _, _ = urlsplit(source)
    except ValueError:
        return source.partition("://")[0] + "://..."
    return urlunsplit((scheme, place.rpartition("@")[2], path, "", ""))


def local_path(source: str) -> Path:
    """The path of a source that is not remote.

    Raises:
        FetchError: it is a file URL of another machine, which Windows alone can open, or none at all.
    """
    return Path(_local(source))


def _local(source: str) -> str:
    if not source.lower().startswith("file:"):
        return source
    try:
        address = urlsplit(source, allow_fragments=False)
    except ValueError as error:
        raise FetchError(f"{source} is no address ({error})") from error
    path = address.path + (f"?{address.query}" if address.query else "")
    if address.netloc.lower() in ("", "localhost"):
        return url2pathname(path)
    if not _ON_WINDOWS:
        raise FetchError(f"{source} would be a file of another machine", "mount its folder, and give the path")
    return url2pathname(f"//{address.netloc}{path}")


def without_passwords(error: Exception) -> str:
    """The text of an error, with addresses as `shown`."""
    return _ADDRESS.sub(lambda address: shown(address[0]), str(error))
