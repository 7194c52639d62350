"""The fetcher and the cache against a server that drops, stalls, truncates, corrupts, redirects and refuses."""

import errno
import hashlib
import json
import nturl2path
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import requests
from server import Site, serving

from mdrn_cli import addresses, fetch
from mdrn_cli import cache as cache_module
from mdrn_cli.cache import Cache, Item
from mdrn_cli.errors import FetchError

CONTENT = os.urandom(300_000)
USUAL_BACKOFF = fetch.BACKOFF


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tmp_path):
    monkeypatch.setattr(fetch, "BACKOFF", 0.01)
    monkeypatch.setattr(fetch, "TIMEOUT", (2.0, 0.5))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("MDRN_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MDRN_OFFLINE", raising=False)


@pytest.fixture
def site():
    with serving(Site({"/a.bin": CONTENT})) as running:
        yield running


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


def item_at(*sources: str, content: bytes = CONTENT, name: str = "a.bin") -> Item:
    return Item(name, hashlib.sha256(content).hexdigest(), len(content), sources, "CC0")


def leftovers(cache: Cache) -> list[str]:
    """Files in the cache that are neither locks, tags nor about-files."""
    return sorted(
        p.name
        for p in cache.root.rglob("*")
        if p.is_file() and p.suffix != ".lock" and p.name not in ("CACHEDIR.TAG", "about.json")
    )


def test_a_file_comes_once_with_its_licence_beside_it(site, cache):
    item, seen = item_at(f"{site.base}/a.bin"), []
    path = cache.fetch(item, seen.append)
    assert path.read_bytes() == CONTENT
    assert sum(seen) == len(CONTENT)
    assert cache.fetch(item) == path
    assert len(site.requests) == 1
    about = json.loads((path.parent / "about.json").read_text())
    assert (about["licence"], about["sources"]) == ("CC0", [f"{site.base}/a.bin"])
    assert (cache.root / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55")
    assert leftovers(cache) == ["a.bin"]


@pytest.mark.parametrize(
    "faults",
    [[503], [500, 522], ["429:0"], ["drop:1000"], ["drop:100000", "drop:100000"], ["stall:5000"], ["drop:0", 503]],
)
def test_passing_faults_are_retried(site, cache, faults):
    site.faults["/a.bin"] = list(faults)
    seen = []
    assert cache.fetch(item_at(f"{site.base}/a.bin"), seen.append).read_bytes() == CONTENT
    assert len(site.requests) == len(faults) + 1
    assert sum(seen) == len(CONTENT)


def test_a_server_that_falls_silent_is_not_waited_for(site, cache):
    site.faults["/a.bin"] = ["stall:5000"]
    began = time.monotonic()
    assert cache.fetch(item_at(f"{site.base}/a.bin")).read_bytes() == CONTENT
    assert len(site.requests) == 2
    site.faults["/a.bin"] = ["stall:5000"]
    with pytest.raises(FetchError, match="the connection failed"):
        fetch.read_small(f"{site.base}/a.bin", len(CONTENT))
    assert len(site.requests) == 3
    assert time.monotonic() - began < 8


def test_a_server_that_compresses_sends_a_file_as_it_is(site, cache):
    site.faults["/a.bin"] = ["gzip"] * 9
    assert cache.fetch(item_at(f"{site.base}/a.bin")).read_bytes() == CONTENT
    assert len(site.requests) == 1


def test_a_dropped_download_goes_on_where_it_stopped(site, cache):
    site.faults["/a.bin"] = ["drop:100000"]
    cache.fetch(item_at(f"{site.base}/a.bin"))
    ranges = [header for _, header in site.requests]
    assert ranges[0] is None
    assert 0 < int(ranges[1].removeprefix("bytes=").rstrip("-")) <= 100_000


@pytest.mark.parametrize("length", [1000, len(CONTENT), len(CONTENT) + 1])
def test_a_part_that_is_wrong_costs_no_source(site, cache, length):
    item, seen = item_at(f"{site.base}/a.bin"), []
    part = cache.path(item).with_name("a.bin.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(b"?" * length)
    assert cache.fetch(item, seen.append).read_bytes() == CONTENT
    assert site.requests[-1][1] is None
    assert sum(seen) == len(CONTENT)
    site.faults["/a.bin"] = ["corrupt"] * 9
    site.requests.clear()
    cache.remove(item)
    part.parent.mkdir(parents=True)
    part.write_bytes(b"?" * 1000)
    with pytest.raises(FetchError, match="SHA-256"):
        cache.fetch(item)
    assert len(site.requests) == 2


def test_a_server_that_ignores_ranges_is_read_from_the_start(site, cache):
    site.faults["/a.bin"] = ["drop:100000", "ignore-range"]
    seen = []
    assert cache.fetch(item_at(f"{site.base}/a.bin"), seen.append).read_bytes() == CONTENT
    assert sum(seen) == len(CONTENT)


def test_retries_are_bounded_and_leave_a_part_to_go_on_from(site, cache):
    site.faults["/a.bin"] = ["drop:70000"] + [503] * 100
    item = item_at(f"{site.base}/a.bin")
    with pytest.raises(FetchError, match="503, after 5 tries"):
        cache.fetch(item)
    assert leftovers(cache) == ["a.bin.part"]
    site.faults.clear()
    site.requests.clear()
    assert cache.fetch(item).read_bytes() == CONTENT
    assert site.requests[0][1] is not None
    assert leftovers(cache) == ["a.bin"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 501, 505])
def test_a_plain_no_is_not_asked_again(site, cache, status):
    site.faults["/a.bin"] = [status] * 9
    with pytest.raises(FetchError, match=str(status)) as caught:
        cache.fetch(item_at(f"{site.base}/a.bin"))
    assert caught.value.exit_code == 5
    assert len(site.requests) == 1


class Hurry(threading.Event):
    """Writes down what it would wait."""

    def __init__(self):
        super().__init__()
        self.waits = []

    def wait(self, timeout=None):
        self.waits.append(timeout)
        return False


def test_wait_asked_by_the_server_is_kept_within_bounds(site, cache):
    site.faults["/a.bin"] = ["429:7", "503:999999"]
    hurry = Hurry()
    cache.fetch(item_at(f"{site.base}/a.bin"), stopped=hurry)
    assert hurry.waits == [7, fetch.LONGEST_WAIT]


def test_without_being_asked_to_it_waits_longer_after_each_failure(site, cache, monkeypatch):
    monkeypatch.setattr(fetch, "BACKOFF", USUAL_BACKOFF)
    site.faults["/a.bin"] = [503, "drop:0", 500, "drop:0"]
    hurry = Hurry()
    cache.fetch(item_at(f"{site.base}/a.bin"), stopped=hurry)
    assert hurry.waits == [0.5, 1, 2, 4]


@pytest.mark.parametrize("fault", ["corrupt", "short", "long"])
def test_wrong_content_is_refused_and_the_next_source_taken(site, cache, fault):
    site.files["/b.bin"] = CONTENT
    site.faults["/a.bin"] = [fault] * 9
    assert cache.fetch(item_at(f"{site.base}/a.bin", f"{site.base}/b.bin")).read_bytes() == CONTENT
    assert leftovers(cache) == ["a.bin"]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("corrupt", "SHA-256"),
        ("short", "offers 150000 bytes, not 300000"),
        ("long", "offers 300004 bytes, not 300000"),
    ],
)
def test_wrong_content_alone_is_an_error_and_nothing_is_kept(site, cache, fault, message):
    site.faults["/a.bin"] = [fault] * 9
    item = item_at(f"{site.base}/a.bin")
    with pytest.raises(FetchError, match=message):
        cache.fetch(item)
    assert "a.bin" not in leftovers(cache)
    assert len(site.requests) == 1
    assert not cache.path(item).parent.exists()


def test_what_is_stored_is_the_file_by_its_content(cache, tmp_path):
    given, item = tmp_path / "given.bin", item_at()
    given.write_bytes(bytes(byte ^ 0xFF for byte in CONTENT))
    with pytest.raises(FetchError, match=r"given\.bin is not a\.bin: size or SHA-256 differ"):
        cache.store(item, given)
    assert not cache.path(item).exists()
    given.write_bytes(CONTENT)
    assert cache.store(item, given).read_bytes() == CONTENT


def test_more_than_was_declared_is_cut_off(cache):
    """A server that sends without a length, forever."""
    listener = socket.create_server(("127.0.0.1", 0))

    def pour():
        connection, _ = listener.accept()
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        try:
            while True:
                connection.sendall(b"x" * 65536)
        except OSError:
            connection.close()

    threading.Thread(target=pour, daemon=True).start()
    with pytest.raises(FetchError, match="more than"):
        cache.fetch(item_at(f"http://127.0.0.1:{listener.getsockname()[1]}/a.bin"))
    assert leftovers(cache) == []
    listener.close()


def test_redirects_are_followed_over_http_and_never_to_files(site, cache, tmp_path):
    (tmp_path / "secret").write_bytes(CONTENT)
    site.faults["/c.bin"] = [f"redirect:{site.base}/a.bin"]
    assert cache.fetch(item_at(f"{site.base}/c.bin")).read_bytes() == CONTENT
    cache.remove(item_at())
    site.faults["/c.bin"] = [f"redirect:file://{tmp_path}/secret"]
    with pytest.raises(FetchError):
        cache.fetch(item_at(f"{site.base}/c.bin"))
    assert leftovers(cache) == []


def test_what_is_no_address_is_an_error_and_the_next_source_taken(site, cache):
    site.faults["/c.bin"] = ["redirect:http://[x"] * 9
    for source in ("http://[x/a.bin", "http://", f"{site.base}/c.bin", "file://[x/a.bin"):
        assert cache.fetch(item_at(source, f"{site.base}/a.bin")).read_bytes() == CONTENT
        cache.remove(item_at())
        with pytest.raises(FetchError):
            cache.fetch(item_at(source))
        with pytest.raises(FetchError):
            fetch.read_small(source, 10)


def test_what_is_of_the_network_and_what_is_here():
    assert all(map(addresses.is_remote, ("http://x/a", "HTTPS://x", "ftp://x", "http://[x")))
    assert not any(map(addresses.is_remote, ("a", "/a/b", "C:\\a", "file:///a", "FILE:///a", "file:/a", "")))
    assert all(map(addresses.is_elsewhere, ("http://x/a", "file://x/a", "FILE://x/share/a", "file://[x")))
    assert not any(map(addresses.is_elsewhere, ("a", "/a/b", "file:///a", "file://localhost/a", "file:/a")))


def test_what_windows_would_open_of_another_machine_is_of_the_network(monkeypatch):
    """It sends the user's name and a proof of the password there."""
    shares = ("\\\\host\\share\\a", "//host/share/a", "\\\\?\\UNC\\host\\share\\a")
    disks = ("C:\\a", "\\\\?\\C:\\a", "a\\b", "/a")
    assert not any(map(addresses.is_elsewhere, (*shares, *disks)))
    urls = (
        "file:////host/share/a",
        "file://localhost//host/share/a",
        "file:///%5C%5Chost/share/a",
        "file://h/s/a",
    )
    monkeypatch.setattr(addresses, "url2pathname", nturl2path.url2pathname)
    monkeypatch.setattr(addresses, "_ON_WINDOWS", True)
    assert all(map(addresses.is_elsewhere, (*shares, "//host/c:/a", *urls)))
    assert not any(map(addresses.is_elsewhere, (*disks, "file:///C:/a")))


def test_passwords_in_addresses_are_neither_told_nor_kept(site, cache):
    assert addresses.shown("https://me:secret@host:1/a b?key=secret#x") == "https://host:1/a b"
    assert addresses.shown("http://me:secret@[x") == "http://..."
    assert [addresses.shown(local) for local in ("a@b", "file:///me:x@y")] == ["a@b", "file:///me:x@y"]
    site.files["/a.bin?key=secret"] = CONTENT
    private = site.base.replace("http://", "http://me:secret@")
    path = cache.fetch(item_at(f"{private}/a.bin?key=secret"))
    assert json.loads((path.parent / "about.json").read_text())["sources"] == [f"{site.base}/a.bin"]
    for fault in (404, "redirect:ftp://me:secret@x/a?key=secret", "redirect:http://127.0.0.1:9/%20b?key=secret"):
        cache.remove(item_at())
        site.faults["/a.bin"] = site.faults["/b.bin"] = [fault] * 9
        with pytest.raises(FetchError) as caught:
            cache.fetch(item_at(f"{private}/a.bin"))
        assert "secret" not in caught.value.message
        for spelled in (f"{private}/b.bin", f"{private.replace('http', 'HTTP')}/b.bin?key=secret"):
            with pytest.raises(FetchError) as caught:
                fetch.read_small(spelled, 10)
            assert "secret" not in caught.value.message


def test_a_server_that_takes_back_what_it_sent_is_not_asked_for_ever(site, cache, monkeypatch):
    """Each time it sends much, breaks off, and then will not go on from there."""
    monkeypatch.setattr(fetch, "BACKOFF", 0)
    monkeypatch.setattr(fetch, "PROGRESS", 50_000)
    site.faults["/a.bin"] = ["drop:100000", 416] * 50
    with pytest.raises(FetchError, match="after 5 tries"):
        cache.fetch(item_at(f"{site.base}/a.bin"))
    assert len(site.requests) < 10


def test_a_connection_that_is_not_secure_is_told_at_once(site, cache):
    source = f"{site.base}/a.bin".replace("http:", "https:")
    started = time.monotonic()
    with pytest.raises(FetchError, match="no secure connection: ") as told:
        cache.fetch(item_at(source))
    assert "tries" not in told.value.message
    with pytest.raises(FetchError, match="no secure connection"):
        fetch.read_small(source, 10)
    assert time.monotonic() - started < 5


def test_reasons_of_tls_are_told_in_a_few_words():
    said = (
        "HTTPSConnectionPool(host='x', port=443): Max retries exceeded (Caused by SSLError(SSLCertVerificationError(1, "
    )
    for reason in (
        "certificate verify failed: self-signed certificate",
        "certificate verify failed: Hostname mismatch",
    ):
        error = requests.exceptions.SSLError(f"{said}'[SSL: CERTIFICATE_VERIFY_FAILED] {reason} (_ssl.c:1006)')))")
        assert fetch._failed_connection(error).startswith(f"no secure connection: {reason}; REQUESTS_CA_BUNDLE")


def test_a_secure_connection_that_breaks_off_is_tried_again(cache):
    """A server, or a proxy, may be busy."""
    tried = []
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def hang_up():
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    tried.append(connection.recv(10))
                    connection.close()

        threading.Thread(target=hang_up, daemon=True).start()
        with pytest.raises(FetchError, match="after 5 tries"):
            cache.fetch(item_at(f"https://127.0.0.1:{server.getsockname()[1]}/a.bin"))
    assert len(tried) == 5


def test_without_locks_processes_do_not_get_into_each_others_way(site, cache, monkeypatch):
    """As on some network file systems: each brings its own, and all have it."""
    monkeypatch.setattr("mdrn_cli.locks.has_locks", lambda _path: False)
    monkeypatch.setattr("mdrn_cli.cache.has_locks", lambda _path: False)
    site.faults["/a.bin"] = ["slow:0.3", "slow:0.1", "corrupt"] + [500] * 2
    with ThreadPoolExecutor(4) as pool:
        done = [pool.submit(Cache(cache.root).fetch, item_at(f"{site.base}/a.bin")) for _ in range(4)]
    assert len([future for future in done if not future.exception()]) >= 3, "all but that of the corrupt answer"
    assert cache.find(item_at()).read_bytes() == CONTENT
    assert leftovers(cache) == ["a.bin"]


def test_folders_and_file_urls_are_sources_too(cache, tmp_path):
    source = tmp_path / "mirror" / "a b.bin"
    source.parent.mkdir()
    source.write_bytes(CONTENT)
    for address in (str(source), source.as_uri(), source.as_uri().replace("file:///", "FILE://localhost/")):
        assert cache.fetch(item_at(address)).read_bytes() == CONTENT
        cache.remove(item_at())
    source.write_bytes(CONTENT[:-1])
    with pytest.raises(FetchError, match="bytes"):
        cache.fetch(item_at(str(source)))
    for address in ("ftp://x/a.bin", "gopher://x", str(tmp_path / "none")):
        with pytest.raises(FetchError):
            cache.fetch(item_at(address))
    source.write_bytes(CONTENT)
    with pytest.raises(FetchError, match="another machine"):
        cache.fetch(item_at(source.as_uri().replace("file:///", "file://server/")))


def test_what_a_folder_does_not_go_on_from_is_taken_back_from_the_progress(cache, tmp_path):
    (tmp_path / "a.bin").write_bytes(CONTENT)
    item, seen = item_at(str(tmp_path / "a.bin")), []
    part = cache.path(item).with_name("a.bin.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT[:1000])
    assert cache.fetch(item, seen.append).read_bytes() == CONTENT
    assert sum(seen) == len(CONTENT)


def test_a_file_url_may_have_any_character(tmp_path):
    for name in ("a#b?c.bin", "100%.bin", "caf\u00e9.bin"):
        (tmp_path / name).write_bytes(b"x")
        assert fetch.read_small((tmp_path / name).as_uri(), 1) == b"x"
        assert fetch.read_small(str(tmp_path / name), 1) == b"x"
    assert fetch.read_small(f"file://{tmp_path}/a#b?c.bin", 1) == b"x"


def test_a_file_that_cannot_be_read_is_no_fault_of_the_cache(cache, tmp_path, monkeypatch):
    first, second = tmp_path / "a.bin", tmp_path / "b.bin"
    for path in (first, second):
        path.write_bytes(CONTENT)
    open_any = Path.open

    def open_but_the_first(path, *args, **kwargs):
        if path == first:  # as of another user's, which root could read
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return open_any(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", open_but_the_first)
    with pytest.raises(FetchError, match=r"a\.bin: cannot be read \(Permission denied\)"):
        cache.fetch(item_at(str(first)))
    assert cache.fetch(item_at(str(first), str(second))).read_bytes() == CONTENT


def test_a_file_that_ends_in_an_error_is_no_fault_of_the_cache_either(cache, tmp_path, monkeypatch):
    first, second, seen = tmp_path / "a.bin", tmp_path / "b.bin", []
    for path in (first, second):
        path.write_bytes(CONTENT)

    class Failing:
        """A file on a disk that fails, after its first block."""

        def __init__(self, file):
            self.file, self.reads = file, 0

        def read(self, size):
            self.reads += 1
            if self.file.name == str(first) and self.reads > 1:
                raise OSError(errno.EIO, "Input/output error")
            return self.file.read(size)

    blocks = fetch._blocks
    monkeypatch.setattr(fetch, "_blocks", lambda file: blocks(Failing(file)))
    assert cache.fetch(item_at(str(first), str(second)), seen.append).read_bytes() == CONTENT
    assert sum(seen) == len(CONTENT)


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_certificates_that_are_not_there_are_no_fault_of_the_cache(cache, tmp_path, monkeypatch, name):
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.setenv(name, str(tmp_path / "none.pem"))
    (tmp_path / "a.bin").write_bytes(CONTENT)
    address = "https://localhost:1/a.bin"
    with pytest.raises(FetchError, match=r"TLS CA certificate bundle.*none\.pem"):
        cache.fetch(item_at(address))
    with pytest.raises(FetchError, match=r"TLS CA certificate bundle.*none\.pem"):
        fetch.read_small(address, 100)
    assert cache.fetch(item_at(address, str(tmp_path / "a.bin"))).read_bytes() == CONTENT


def test_offline_no_socket_is_opened(site, cache, monkeypatch, tmp_path):
    monkeypatch.setenv("MDRN_OFFLINE", "1")

    def forbidden(*_args, **_kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", forbidden)
    monkeypatch.setattr(socket, "create_connection", forbidden)
    with pytest.raises(FetchError, match="offline"):
        cache.fetch(item_at(f"{site.base}/a.bin"))
    with pytest.raises(FetchError, match="offline"):
        fetch.read_small(f"{site.base}/a.bin", 10)
    (tmp_path / "a.bin").write_bytes(CONTENT)
    assert cache.fetch(item_at(f"{site.base}/a.bin", str(tmp_path / "a.bin"))).read_bytes() == CONTENT


def test_a_corrupt_cached_file_is_fetched_again(site, cache):
    item = item_at(f"{site.base}/a.bin")
    path = cache.fetch(item)
    path.write_bytes(CONTENT[:-1] + b"?")
    assert cache.find(item) is None
    assert [i.name for i in cache.plan([item]).missing] == ["a.bin"]
    assert cache.fetch(item).read_bytes() == CONTENT


def test_a_plan_says_what_is_missing_without_fetching(site, cache):
    here, missing = item_at(f"{site.base}/a.bin"), item_at(content=b"other", name="b.bin")
    cache.fetch(here)
    site.requests.clear()
    plan = cache.plan([here, missing])
    assert [i.name for i, _ in plan.present] == ["a.bin"]
    assert plan.missing == (missing,)
    assert site.requests == []


def test_many_files_come_in_parallel_and_in_order(site, cache):
    contents = [os.urandom(2000 + k) for k in range(12)]
    items = []
    for k, content in enumerate(contents):
        site.files[f"/{k}"] = content
        site.faults[f"/{k}"] = ["slow:0.1"]
        items.append(item_at(f"{site.base}/{k}", content=content, name=str(k)))
    paths = cache.fetch_all(items)
    assert site.most_at_once > 1
    assert [path.read_bytes() for path in paths] == contents


def test_one_bad_file_of_many_ends_the_fetch_with_its_name(site, cache):
    items = [item_at(f"{site.base}/a.bin"), item_at(f"{site.base}/none", content=b"n", name="none")]
    with pytest.raises(FetchError, match="none"):
        cache.fetch_all(items)


def test_once_one_file_of_many_is_bad_no_more_are_asked_for(site, cache):
    items = [item_at(f"{site.base}/none", content=b"none", name="none")]
    for k in range(30):
        site.files[f"/{k}"] = content = str(k).encode()
        site.faults[f"/{k}"] = ["slow:0.5"]
        items.append(item_at(f"{site.base}/{k}", content=content, name=str(k)))
    with pytest.raises(FetchError, match="404"):
        cache.fetch_all(items)
    asked = -1
    while asked < len(site.requests):  # by those under way
        asked = len(site.requests)
        time.sleep(1)
    assert asked < len(items)


@pytest.mark.parametrize("fault", ["503:20", "stall:5000"])
def test_one_bad_file_is_told_of_without_waiting_for_the_others(site, cache, fault):
    site.faults |= {"/a.bin": [fault] * 9, "/none": ["drop:0", 404]}
    site.files["/none"] = b"none"
    items = [item_at(f"{site.base}/a.bin"), item_at(f"{site.base}/none", content=b"none", name="none")]
    began = time.monotonic()
    with pytest.raises(FetchError, match=r"cannot fetch none: .*404"):
        cache.fetch_all(items)
    assert time.monotonic() - began < 5
    assert [path for path, _ in site.requests].count("/a.bin") == 1


@pytest.mark.parametrize("fault", ["503:20", "stall:5000"])
def test_ctrl_c_ends_a_fetch_whatever_it_waits_for(site, cache, monkeypatch, fault):
    """The next try, or a server that says nothing."""
    site.faults["/a.bin"] = [fault] * 9

    def interrupted(*_arguments, **_options):
        while not site.requests:
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(cache_module, "wait", interrupted)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        cache.fetch_all([item_at(f"{site.base}/a.bin")])
    assert time.monotonic() - began < 2


def test_ctrl_c_does_not_wait_for_another_process_that_fetches_the_same(site, cache):
    item = item_at(f"{site.base}/a.bin")
    with cache._locked(item):
        interruption = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        interruption.start()
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            cache.fetch_all([item])
        assert time.monotonic() - began < 2
    assert site.requests == []


def test_a_read_only_cache_serves_what_it_holds(site, cache, monkeypatch):
    item = item_at(f"{site.base}/a.bin")
    path = cache.fetch(item)

    def refuse(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)  # the suite may run as root, whom modes do not stop
    assert cache.fetch(item) == path
    with pytest.raises(FetchError, match="cannot write to the cache"):
        cache.fetch(item_at(f"{site.base}/a.bin", content=b"other"))


def test_a_full_disk_leaves_no_half_file(site, cache, monkeypatch):
    real_open = Path.open

    def full(self, mode="r", *args, **kwargs):
        file = real_open(self, mode, *args, **kwargs)
        if mode == "ab":
            file.close()
            raise OSError(28, "No space left on device")
        return file

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(FetchError, match="No space left"):
        cache.fetch(item_at(f"{site.base}/a.bin"))
    assert leftovers(cache) == []


SCRIPT = """
import sys
from pathlib import Path
from mdrn_cli.cache import Cache, Item
name, sha256, size, source, root = sys.argv[1:]
print(Cache(Path(root)).fetch(Item(name, sha256, int(size), (source,), "CC0")))
"""


def start_fetch(item: Item, cache: Cache) -> subprocess.Popen:
    arguments = [item.name, item.sha256, str(item.bytes), item.sources[0], str(cache.root)]
    environment = {**os.environ, "NO_PROXY": "*"}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *arguments], stdout=subprocess.PIPE, text=True, env=environment
    )


def test_two_processes_fetch_once_between_them(site, cache):
    site.faults["/a.bin"] = ["slow:0.5"]
    item = item_at(f"{site.base}/a.bin")
    processes = [start_fetch(item, cache) for _ in range(3)]
    outputs = [process.communicate(timeout=30)[0].strip() for process in processes]
    assert outputs == [str(cache.path(item))] * 3
    assert len(site.requests) == 1
    assert cache.path(item).read_bytes() == CONTENT


def test_a_killed_fetch_frees_its_lock_and_is_gone_on_with(site, cache):
    site.faults["/a.bin"] = ["stall:150000"]
    item = item_at(f"{site.base}/a.bin")
    process = start_fetch(item, cache)
    part = cache.path(item).with_name("a.bin.part")
    deadline = time.monotonic() + 20
    while not (part.is_file() and part.stat().st_size >= 65536):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    site.requests.clear()
    assert cache.fetch(item).read_bytes() == CONTENT
    assert site.requests[0][1] is not None


def test_interrupted_parallel_fetch_leaves_parts(site, cache):
    """Ctrl-C in the middle of a set."""
    seen = []

    def interrupt(count):
        seen.append(count)
        if len(seen) == 2:
            raise KeyboardInterrupt

    item = item_at(f"{site.base}/a.bin")
    with pytest.raises(KeyboardInterrupt):
        cache.fetch_all([item], interrupt)
    assert leftovers(cache) == ["a.bin.part"]
    assert cache.fetch(item).read_bytes() == CONTENT


def test_a_proxy_named_by_the_environment_is_used(site, cache, monkeypatch):
    """The server stands in for a proxy: a proxy is asked for the whole address."""
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("http_proxy", site.base)
    site.files["http://mirror.invalid/a.bin"] = CONTENT
    assert cache.fetch(item_at("http://mirror.invalid/a.bin")).read_bytes() == CONTENT
    assert site.requests == [("http://mirror.invalid/a.bin", None)]


def test_small_files_are_bounded(site, tmp_path):
    assert fetch.read_small(f"{site.base}/a.bin", len(CONTENT)) == CONTENT
    with pytest.raises(FetchError, match="larger"):
        fetch.read_small(f"{site.base}/a.bin", len(CONTENT) - 1)
    (tmp_path / "big").write_bytes(b"12345")
    with pytest.raises(FetchError, match="larger"):
        fetch.read_small(str(tmp_path / "big"), 4)
    with pytest.raises(FetchError):
        fetch.read_small(str(tmp_path / "none"), 4)
    with pytest.raises(FetchError, match="404"):
        fetch.read_small(f"{site.base}/none", 4)


def test_what_another_process_fetches_is_removed_after_it(site, cache):
    item = item_at(f"{site.base}/a.bin")
    cache.fetch(item)
    with ThreadPoolExecutor() as pool, cache._locked(item):
        removed = pool.submit(cache.remove, item)
        time.sleep(0.2)
        assert cache.path(item).exists()
    assert removed.result() > len(CONTENT)
    assert cache.find(item) is None


def test_removing_says_what_it_freed(site, cache):
    item = item_at(f"{site.base}/a.bin")
    cache.fetch(item)
    assert cache.remove(item) > len(CONTENT)
    assert cache.remove(item) == 0
    assert cache.find(item) is None


def test_the_cache_folder_of_a_setting_that_no_shell_has_read_is_the_users(tmp_path, monkeypatch):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("MDRN_HOME", "~/networks")
    assert Cache().root == tmp_path / "networks"
