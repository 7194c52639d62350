"""A real HTTP server on loopback that can be told to misbehave."""

from __future__ import annotations

import gzip
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SILENCE = 20.0
"""Seconds at most, so that a test of what would wait forever ends."""


@dataclass
class Site:
    """What the server serves and how it behaves.

    Attributes:
        files: content by path, such as {"/a.bin": b"..."}.
        faults: by path, one behaviour for each request to come, used up in order; then all is well. A
            behaviour is a status code, "drop:N" (close after N bytes of the body), "stall:N" (silence after N
            bytes, as long as the site is served), "corrupt", "short" (declares and sends less), "long" (sends
            more than it should), "ignore-range", "gzip" (compressed for those who take that), "redirect:URL", or
            "slow:SECONDS" (before the body).
        requests: (path, value of the Range header) of every request, in order.
        most_at_once: slow requests under way at the same time, at most.
        base: URL of the server.
        over: set when the site is served no longer.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[object]] = field(default_factory=dict)
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    most_at_once: int = 0
    base: str = ""
    over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    _slow: int = 0

    def next_fault(self, path: str, range_header: str | None) -> str:
        with self.lock:
            self.requests.append((path, range_header))
            queue = self.faults.get(path, [])
            return str(queue.pop(0)) if queue else ""

    def dawdle(self, seconds: float) -> None:
        with self.lock:
            self._slow += 1
            self.most_at_once = max(self.most_at_once, self._slow)
        time.sleep(seconds)
        with self.lock:
            self._slow -= 1


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    """Serve `site` on a free port of 127.0.0.1 for the length of the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_args: object) -> None:
            pass

        def do_GET(self) -> None:
            fault = site.next_fault(self.path, self.headers.get("Range"))
            kind, _, argument = fault.partition(":")
            body = site.files.get(self.path)
            if kind == "redirect":
                self._head(302, {"Location": argument, "Content-Length": "0"})
            elif kind.isdigit():
                extra = {"Retry-After": argument} if argument else {}
                self._head(int(kind), {"Content-Length": "0", **extra})
            elif body is None:
                self._head(404, {"Content-Length": "0"})
            else:
                self._serve(body, kind, argument)

        def _serve(self, body: bytes, kind: str, argument: str) -> None:
            start, status, headers = 0, 200, {}
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            if asked and kind != "ignore-range":
                start, status = int(asked[1]), 206
                if start >= len(body):
                    self._head(416, {"Content-Length": "0"})
                    return
                headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            content = body[start:]
            if kind == "corrupt":
                content = bytes(byte ^ 0xFF for byte in content)
            elif kind == "short":
                content = content[: len(content) // 2]
            elif kind == "long":
                content += b"more"
            elif kind == "gzip" and "gzip" in self.headers.get("Accept-Encoding", ""):
                content = gzip.compress(content)
                headers["Content-Encoding"] = "gzip"
            self._head(status, {**headers, "Content-Length": str(len(content))})
            if kind == "slow":
                site.dawdle(float(argument))
            sent = content[: int(argument)] if kind in ("drop", "stall") else content
            self.wfile.write(sent)
            self.wfile.flush()
            if kind == "stall":
                site.over.wait(SILENCE)
            if kind in ("drop", "stall"):
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)

        def _head(self, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    site.base = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        site.over.set()
        server.shutdown()
        server.server_close()
