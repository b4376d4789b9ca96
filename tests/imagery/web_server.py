"""A local provider for the real clients: a STAC API, rasters by byte ranges, a token service.

Items keep the property names of the collection on disk; their links point here, and asking for
them needs a signature that the token service gives out and that can be made to expire. Faults are
injected by a function that sees every request.
"""

from __future__ import annotations

import json
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

Fault = Callable[[str, int], Any]
"""(path, number of this request to it) -> None, a status code, "cut", or bytes to serve instead."""

PAGE_ITEMS = 10


class WebServer:
    """The server. Attributes may be changed while it runs.

    Attributes:
        fault: sees every request for a raster.
        signed: whether rasters are refused without a valid signature.
        tokens: the signatures given out so far; only the last is valid.
        seen: requests by path; searches: bodies of the searches.
        bytes_sent: of rasters.
    """

    def __init__(self, items: Path) -> None:
        self.folder = items.parent
        self.fault: Fault = lambda path, number: None
        self.search_fault: Callable[[int], int | None] = lambda number: None
        self.signed = False
        self.tokens: list[str] = []
        self.token_status: int | str = 200
        self.token_body: bytes | None = None
        self.seen: Counter[str] = Counter()
        self.searches: list[dict[str, Any]] = []
        self.bytes_sent = 0
        self._lock = threading.Lock()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.api = f"{self.url}/api"
        self.sas = f"{self.url}/sas"
        self.items = json.loads(items.read_text())["features"]
        for item in self.items:
            item.setdefault("links", [])
            for asset in item["assets"].values():
                asset["href"] = f"{self.url}/blob/{asset['href'].removeprefix('./')}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def asset_requests(self) -> int:
        """Requests for rasters so far."""
        return sum(n for path, n in self.seen.items() if path.startswith("/blob/"))

    def write_items(self, path: Path) -> Path:
        """An item collection whose links point to this server."""
        path.write_text(json.dumps({"type": "FeatureCollection", "features": self.items}))
        return path

    def landing_page(self) -> dict[str, Any]:
        return {
            "type": "Catalog",
            "id": "local",
            "description": "local",
            "stac_version": "1.0.0",
            "conformsTo": [
                "https://api.stacspec.org/v1.0.0/core",
                "https://api.stacspec.org/v1.0.0/item-search",
                "https://api.stacspec.org/v1.0.0/item-search#query",
            ],
            "links": [
                {"rel": "self", "href": self.api, "type": "application/json"},
                {"rel": "root", "href": self.api, "type": "application/json"},
                {
                    "rel": "search",
                    "href": f"{self.api}/search",
                    "type": "application/geo+json",
                    "method": "POST",
                },
            ],
        }

    def search(self, body: dict[str, Any]) -> dict[str, Any]:
        start, end = (
            datetime.fromisoformat(text.replace("Z", "+00:00"))
            for text in body["datetime"].split("/")
        )
        west, south, east, north = body["bbox"]
        assert "query" not in body, "an item that does not say how cloudy it is would be missing"
        found = []
        for item in self.items:
            said, box = item["properties"], item["bbox"]
            moment = datetime.fromisoformat(said["datetime"].replace("Z", "+00:00"))
            if (
                item["collection"] in body["collections"]
                and start <= moment <= end
                and box[0] <= east
                and west <= box[2]
                and box[1] <= north
                and south <= box[3]
            ):
                found.append(item)
        first = int(body.get("token") or 0)
        page = found[first : first + PAGE_ITEMS]
        links = []
        if first + PAGE_ITEMS < len(found):
            links.append(
                {
                    "rel": "next",
                    "href": f"{self.api}/search",
                    "method": "POST",
                    "body": {**body, "token": str(first + PAGE_ITEMS)},
                }
            )
        return {"type": "FeatureCollection", "features": page, "links": links}


def _handler(server: WebServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with server._lock:
                server.searches.append(body)
                number = len(server.searches)
            fault = server.search_fault(number)
            if fault:
                return self._send(b"{}", fault)
            self._send(json.dumps(server.search(body)).encode())

        def do_HEAD(self) -> None:  # only GDAL's own client asks so
            file = server.folder / urlsplit(self.path).path.removeprefix("/blob/")
            self.send_response(200 if file.is_file() else 404)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(file.stat().st_size if file.is_file() else 0))
            self.end_headers()

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            with server._lock:
                server.seen[parts.path] += 1
                number = server.seen[parts.path]
            if parts.path == "/api":
                return self._send(json.dumps(server.landing_page()).encode())
            if parts.path.startswith("/sas/"):
                return self._token()
            self._raster(parts.path, parts.query, number)

        def _token(self) -> None:
            if server.token_status == "cut":
                self.close_connection = True
                return self.connection.shutdown(socket.SHUT_RDWR)
            if server.token_status != 200 or server.token_body is not None:
                return self._send(server.token_body or b"{}", server.token_status)
            with server._lock:
                server.tokens.append(f"sig=canary-signature-{len(server.tokens)}")
                token = server.tokens[-1]
            expiry = datetime.now(UTC) + timedelta(hours=1)
            self._send(
                json.dumps({"token": token, "msft:expiry": f"{expiry:%Y-%m-%dT%H:%M:%SZ}"}).encode()
            )

        def _raster(self, path: str, query: str, number: int) -> None:
            if server.signed and (not server.tokens or query != server.tokens[-1]):
                return self._send(b"signature", 403)
            fault = server.fault(path, number)
            if isinstance(fault, int):
                return self._send(b"", fault)
            file = server.folder / path.removeprefix("/blob/")
            if not file.is_file():
                return self._send(b"", 404)
            held = fault if isinstance(fault, bytes) else file.read_bytes()
            wanted = re.match(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            assert wanted, "only byte ranges are asked for"
            start, end = int(wanted[1]), min(int(wanted[2]), len(held) - 1)
            if start >= len(held):
                return self._send(b"", 416)
            part = held[start : end + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(held)}")
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            if fault == "cut":
                self.wfile.write(part[: len(part) // 2])
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return
            with server._lock:
                server.bytes_sent += len(part)
            self.wfile.write(part)

        def _send(self, body: bytes, status: int = 200) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    return Handler
