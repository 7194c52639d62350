"""One file from the network or a mirror folder into a `.part` file, resumed, bounded, checked."""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from mdrn_cli.addresses import is_elsewhere, is_offline, is_remote, local_path, shown, without_passwords
from mdrn_cli.errors import FetchError
from mdrn_cli.paths import is_file, sha256_of, size_of

if TYPE_CHECKING:
    import requests

TIMEOUT = (10.0, 30.0)
"""Seconds to connect, and between two pieces of the answer."""
BLOCK = 1 << 16
RETRIES = 4
"""Tries after the first; the count starts again whenever PROGRESS bytes more than ever before have arrived."""
PROGRESS = 1 << 20
BACKOFF = 0.5
LONGEST_WAIT = 30.0
RETRIED_STATUS = frozenset({408, 425, 429, *range(500, 600)}) - {501, 505}

_TLS_REASON = re.compile(r"\[SSL[^]]*\] ([^'\"]*?)( \(_ssl|['\")])")
"""Finds the reason in the libraries' text on a failed TLS connection."""
_LASTING = ("CERTIFICATE_VERIFY_FAILED", "WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNSUPPORTED_PROTOCOL")
"""TLS errors that trying again does not cure."""

OnBytes = Callable[[int], None]
"""Called with the number of bytes that have come since the last call; negative when some are dropped."""


@dataclass(frozen=True)
class Expected:
    """What a file must be: its size in bytes and SHA-256, hexadecimal."""

    bytes: int
    sha256: str


class StoppedError(Exception):
    """A download was asked to stop; what has arrived is kept and can be continued."""


class _GiveUpError(Exception):
    """This source will not do; the next may."""


class _TryAgainError(Exception):
    """This source may do later.

    Attributes:
        wait: seconds the server asked for, None if it did not.
    """

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


def download(
    sources: Sequence[str],
    part: Path,
    expected: Expected,
    on_bytes: OnBytes | None = None,
    stopped: threading.Event | None = None,
) -> None:
    """Bring a file into `part` from the first source that has it, going on from what `part` holds already.

    On return `part` has the right size and hash. A dropped connection leaves it to be resumed; content that
    is wrong, or a full disk, removes it.

    Args:
        sources: http(s) or file URLs, or paths, in order of preference.
        part: the file to write; its folder exists.
        expected: what the content must be.
        on_bytes: told of progress.
        stopped: set by another thread, ends this at the next bytes, the next try, or in a pause between two.

    Raises:
        FetchError: no source had it; the message says why for each.
        StoppedError: see `stopped`.
    """
    stop = stopped or threading.Event()

    def watched(count: int) -> None:
        if stop.is_set():
            raise StoppedError
        if on_bytes:
            on_bytes(count)

    reasons = []
    for source in sources:
        try:
            _from_source(source, part, expected, watched, stop)
            return
        except _GiveUpError as error:
            reasons.append(f"{shown(source)}: {error}")
        except OSError as error:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            hint = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "look at its folder"
            raise FetchError(f"cannot write {part} ({error.strerror or error})", hint) from error
    raise FetchError("; ".join(reasons) or "no source is known for it")


def _from_source(source: str, part: Path, expected: Expected, on_bytes: OnBytes, stopped: threading.Event) -> None:
    resumed = is_remote(source) and size_of(part) > 0
    if is_offline() and is_elsewhere(source):
        raise _GiveUpError("offline")
    if not is_remote(source):
        try:
            path = local_path(source)
        except FetchError as error:
            raise _GiveUpError(error.message) from error
        _copy(path, part, expected, on_bytes)
    else:
        _download_with_retries(source, part, expected, on_bytes, stopped)
    if sha256_of(part) == expected.sha256:
        return
    on_bytes(-part.stat().st_size)
    part.unlink()
    if not resumed:
        raise _GiveUpError("the content has another SHA-256 than it should")
    # The wrong bytes may be those that were here before. Now there are none.
    _from_source(source, part, expected, on_bytes, stopped)


def _copy(path: Path, part: Path, expected: Expected, on_bytes: OnBytes) -> None:
    if not is_file(path):
        raise _GiveUpError("no such file")
    try:
        source = path.open("rb")
    except OSError as error:
        raise _GiveUpError(f"cannot be read ({error.strerror or error})") from error
    with source:
        size = os.fstat(source.fileno()).st_size
        if size != expected.bytes:
            raise _GiveUpError(f"has {size} bytes, not {expected.bytes}")
        on_bytes(-size_of(part))
        try:
            with part.open("wb") as copy:
                for block in _blocks(source):
                    copy.write(block)
        except _GiveUpError:
            part.unlink()
            raise
    on_bytes(expected.bytes)


def _blocks(source: BinaryIO) -> Iterator[bytes]:
    """The content of a file in blocks; if it cannot be read, this source is given up."""
    while True:
        try:
            block = source.read(BLOCK)
        except OSError as error:
            raise _GiveUpError(f"cannot be read ({error.strerror or error})") from error
        if not block:
            return
        yield block


def _download_with_retries(
    url: str, part: Path, expected: Expected, on_bytes: OnBytes, stopped: threading.Event
) -> None:
    failures, most = 0, size_of(part)
    while not stopped.is_set():
        try:
            _download_once(url, part, expected.bytes, on_bytes)
            return
        except _TryAgainError as error:
            come = size_of(part) - most  # a server that restarts each time makes no progress
            failures, most = (0, most + come) if come >= PROGRESS else (failures + 1, most)
            if failures > RETRIES:
                raise _GiveUpError(f"{error}, after {RETRIES + 1} tries") from error
            wait = error.wait if error.wait is not None else BACKOFF * 2 ** max(failures - 1, 0)
            stopped.wait(min(wait, LONGEST_WAIT))
    raise StoppedError


def _download_once(url: str, part: Path, size: int, on_bytes: OnBytes) -> None:
    import requests  # a quarter of a second, which no one should wait for who fetches nothing

    have = size_of(part)
    if have > size:
        on_bytes(-have)
        part.unlink()
        have = 0
    if have == size:
        return
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with _answer(url, headers=headers) as response:
            have = _begin(response, have, size, part, on_bytes)
            _stream(response, part, have, size, on_bytes)
    except requests.exceptions.SSLError as error:
        lasting = any(text in str(error) for text in _LASTING)
        raise (_GiveUpError if lasting else _TryAgainError)(_failed_connection(error)) from error
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
        raise _TryAgainError(_failed_connection(error)) from error
    except (requests.RequestException, ValueError) as error:  # the latter of a redirect to what is no address
        raise _GiveUpError(without_passwords(error)) from error
    if size_of(part) < size:
        raise _TryAgainError(f"the answer ended after {size_of(part)} of {size} bytes")


def _failed_connection(error: Exception) -> str:
    """In a few words; those of the library run over several lines."""
    import requests

    if isinstance(error, requests.exceptions.SSLError):
        why = _TLS_REASON.search(str(error))
        hint = "; REQUESTS_CA_BUNDLE names other certificates" if _LASTING[0] in str(error) else ""
        return f"no secure connection: {why[1] if why else 'TLS failed'}{hint}"
    return f"the connection failed ({type(error).__name__})"


def _answer(url: str, **options: Any) -> requests.Response:
    """The head of an answer.

    Raises:
        requests.RequestException: there is none, also because certificates that the environment names are not there.
    """
    import requests

    try:
        return requests.get(url, stream=True, timeout=TIMEOUT, **options)
    except requests.RequestException:
        raise
    except OSError as error:
        raise requests.RequestException(str(error)) from error


def _begin(response: requests.Response, have: int, size: int, part: Path, on_bytes: OnBytes) -> int:
    """Judge the answer's head; returns how many bytes of `part` it goes on from."""
    status = response.status_code
    if status in RETRIED_STATUS:
        raise _TryAgainError(f"the server answered {status}", _retry_after(response))
    resumed = status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
    if status not in (200, 206, 416):
        raise _GiveUpError(f"the server answered {status}")
    if resumed:
        return have
    # The server ignored the range or does not like it: what there is cannot be gone on from.
    on_bytes(-have)
    part.unlink(missing_ok=True)
    if status != 200:
        raise _TryAgainError(f"the server cannot resume ({status})")
    length = response.headers.get("Content-Length", "")
    if length.isdecimal() and int(length) != size:
        raise _GiveUpError(f"offers {length} bytes, not {size}")
    return 0


def _stream(response: requests.Response, part: Path, have: int, size: int, on_bytes: OnBytes) -> None:
    with part.open("ab") as file:
        for block in response.iter_content(BLOCK):
            have += len(block)
            if have > size:
                file.close()
                on_bytes(-size_of(part))
                part.unlink()
                raise _GiveUpError(f"sends more than {size} bytes")
            file.write(block)
            on_bytes(len(block))


def _retry_after(response: requests.Response) -> float | None:
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else None


def read_small(source: str, most: int) -> bytes:
    """The content of a small file: http(s) or file URL, or path.

    Args:
        source: where it is.
        most: bytes beyond which it is refused.

    Raises:
        FetchError: it cannot be had, or is too large.
    """
    if not is_remote(source):
        try:
            with local_path(source).open("rb") as file:
                content = file.read(most + 1)
        except (OSError, ValueError) as error:  # the latter of a name that can be none
            raise FetchError(f"cannot read {source} ({getattr(error, 'strerror', None) or error})") from error
    elif is_offline():
        raise FetchError(f"offline: {shown(source)} cannot be fetched", "unset MDRN_OFFLINE, or give a file")
    else:
        import requests

        try:
            with _answer(source) as response:
                if not response.ok:
                    raise requests.RequestException(f"the server answered {response.status_code}")
                content = b""
                for block in response.iter_content(BLOCK):
                    content += block
                    if len(content) > most:
                        break
        except (requests.RequestException, ValueError) as error:
            failed = isinstance(error, (requests.ConnectionError, requests.Timeout))
            reason = _failed_connection(error) if failed else without_passwords(error)
            raise FetchError(
                f"cannot fetch {shown(source)} ({reason})", "bring it by hand, and give the file"
            ) from error
    if len(content) > most:
        raise FetchError(f"{shown(source)} is larger than {most} bytes")
    return content
