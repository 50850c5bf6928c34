"""A file server on this machine that can be told to misbehave as servers and networks do."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote


class FileServer(ThreadingHTTPServer):
    """Serves a folder.

    Attributes:
        folder: The folder.
        break_after: Bytes of an answer after which the connection is cut, None for never.
        breaks_left: How many answers are cut so.
        ranges: Whether ranges are served; else the whole file comes.
        heads: Whether HEAD is answered.
        etags: Whether answers have ETags.
        failures: Status that the next requests get, in order.
        asked: Method, path and Range of every request.
        slow_s: Seconds before every 16 KiB.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.break_after: int | None = None
        self.breaks_left = 10**9
        self.ranges = True
        self.heads = True
        self.etags = True
        self.failures: list[int] = []
        self.asked: list[tuple[str, str, str]] = []
        self.slow_s = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that go away are what is tested."""


class _Handler(BaseHTTPRequestHandler):
    server: FileServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        server, wanted = self.server, self.headers.get("Range", "")
        server.asked.append((self.command, self.path, wanted))
        path = server.folder / unquote(self.path).lstrip("/")
        status = 200
        if server.failures and body:
            status = server.failures.pop(0)
        elif not path.is_file():
            status = 404
        elif not body and not server.heads:
            status = 405
        if status != 200:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = path.read_bytes()
        etag = f'"{hashlib.sha1(content).hexdigest()}"' if server.etags else ""
        first = 0
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)
        if match and server.ranges and self.headers.get("If-Range", etag) == etag:
            first = int(match[1])
            last = min(int(match[2] or len(content)), len(content) - 1)
            if first >= len(content):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
            part = content[first : last + 1]
        else:
            self.send_response(200)
            part = content
        self.send_header("Content-Length", str(len(part)))
        if server.ranges:
            self.send_header("Accept-Ranges", "bytes")
        if etag:
            self.send_header("ETag", etag)
        self.end_headers()
        if body:
            self.send(part)

    def send(self, part: bytes) -> None:
        server = self.server
        if server.break_after is not None and server.breaks_left > 0 and len(part) > server.break_after:
            server.breaks_left -= 1
            part = part[: server.break_after]
            self.close_connection = True
        for start in range(0, len(part), 2**14):
            if server.slow_s:
                threading.Event().wait(server.slow_s)
            self.wfile.write(part[start : start + 2**14])


@contextmanager
def serving(folder: Path) -> Iterator[FileServer]:
    """Serve a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileServer(folder) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
