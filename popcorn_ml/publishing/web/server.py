"""Serves published maps on this machine, read-only and with range requests.

Python's own file server sends whole files, of which a map tile needs a few kilobytes. Here a name
is looked up among the files that may be seen and is never a path: nothing else can be asked for.
"""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from popcorn_ml.publishing.web.page import PAGE

TYPES = {
    ".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8", ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json", ".geojson": "application/geo+json", ".tif": "image/tiff",
    ".csv": "text/csv; charset=utf-8", ".qml": "application/xml",
    ".md": "text/plain; charset=utf-8", ".txt": "text/plain; charset=utf-8",
}  # fmt: skip
CHUNK = 1 << 18
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_LIBRARIES = re.compile(r"web/vendor/")


@dataclass(frozen=True)
class Served:
    """What a name stands for: a file, or contents made for the purpose.

    Attributes:
        file: None where there are contents.
        content: of no file.
    """

    file: Path | None = None
    content: bytes = b""


Find = Callable[[str], Served | None]
"""Name below the address, without a leading slash -> what to send; None where there is nothing."""


def of_folder(folder: Path) -> Find:
    """Files in a folder and below, nothing that begins with a dot, nothing that leads out of it."""
    root = folder.resolve()

    def find(name: str) -> Served | None:
        parts = name.split("/")
        if any(not part or part.startswith(".") or "\\" in part or "\0" in part for part in parts):
            return None
        try:
            path = root.joinpath(*parts).resolve()
            inside = path.is_relative_to(root) and path.is_file()
        except (OSError, ValueError):
            return None
        return Served(path) if inside else None

    return find


class MapServer(ThreadingHTTPServer):
    """The server; `serve_forever` runs it.

    Args:
        host, port: to listen on; port 0 takes a free one.
        find: what may be seen.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, host: str, port: int, find: Find) -> None:
        self.find = find
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), _Handler)

    @property
    def address(self) -> str:
        """For a browser on this machine."""
        host, port = str(self.server_address[0]), self.server_address[1]
        here = "127.0.0.1" if host in ("0.0.0.0", "::") else host
        return f"http://{here}:{port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no error."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: MapServer
    protocol_version = "HTTP/1.1"
    server_version = "popcorn"
    sys_version = ""
    timeout = 60

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        name = unquote(urlsplit(self.path).path).lstrip("/") or PAGE
        served = self.server.find(name)
        if served is None:
            self._head(HTTPStatus.NOT_FOUND, name, 0)
            return
        if served.file is None:
            self._send(name, len(served.content), served, body)
            return
        try:
            size = served.file.stat().st_size
            self._send(name, size, served, body)
        except ConnectionError:
            self.close_connection = True
        except OSError:  # gone meanwhile, or not ours to read
            self._head(HTTPStatus.NOT_FOUND, name, 0)

    def _send(self, name: str, size: int, served: Served, body: bool) -> None:
        asked = self.headers.get("Range")
        span = _span(asked, size) if asked else (0, size)
        if span is None:
            self._head(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, name, 0, f"bytes */{size}")
            return
        start, length = span
        part = bool(asked) and _RANGE.fullmatch(asked or "") is not None
        status = HTTPStatus.PARTIAL_CONTENT if part else HTTPStatus.OK
        told = f"bytes {start}-{start + length - 1}/{size}" if part else None
        if served.file is None:
            self._head(status, name, length, told)
            if body:
                self.wfile.write(served.content[start : start + length])
            return
        with served.file.open("rb") as source:
            source.seek(start)
            self._head(status, name, length, told)
            while body and length > 0:
                piece = source.read(min(length, CHUNK))
                if not piece:  # cut short meanwhile: the browser must not take it for whole
                    self.close_connection = True
                    return
                self.wfile.write(piece)
                length -= len(piece)

    def _head(self, status: HTTPStatus, name: str, length: int, span: str | None = None) -> None:
        self.send_response(status)
        kind = TYPES.get(Path(name).suffix, "application/octet-stream")
        self.send_header("Content-Type", kind if status < 400 else "text/plain")
        self.send_header("Content-Length", str(length))
        self.send_header("Accept-Ranges", "bytes")
        if span is not None:
            self.send_header("Content-Range", span)
        kept = _LIBRARIES.match(name) is not None
        self.send_header("Cache-Control", "max-age=604800" if kept else "no-cache")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: requests are no news to whoever looks at a map."""


def _span(asked: str, size: int) -> tuple[int, int] | None:
    """Start and length of a range; the whole where it is of another form; None beyond the end."""
    match = _RANGE.fullmatch(asked)
    if match is None or match.groups() == ("", ""):
        return 0, size
    first, last = match.groups()
    if first == "":
        start = max(size - int(last), 0)
        return (start, size - start) if int(last) and size else None
    start = int(first)
    stop = min(int(last), size - 1) if last else size - 1
    return (start, stop - start + 1) if start <= stop and start < size else None


def serve(server: MapServer) -> None:
    """Serve until the process is asked to end."""
    with suppress(KeyboardInterrupt):
        server.serve_forever()
