"""Rasters behind links, read by byte ranges: signed, repeated, counted, and never leaking a link.

GDAL reads through `RangeFile` instead of its own HTTP client, for four reasons: the answer's
status is known (404: gone; 403: signature expired, sign anew; 5xx: try again), requests and bytes
are counted, a signed link never gets into GDAL's error messages or logs, and no failed answer is
remembered for the next try.
"""

from __future__ import annotations

import uuid
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from rasterio.abc import MultiByteRangeResourceContainer

from popcorn_ml.errors import ImageryError, ProviderDown
from popcorn_ml.imagery.backoff import RETRY_STATUS, Backoff
from popcorn_ml.imagery.secrets import unsigned
from popcorn_ml.imagery.signing import Sign
from popcorn_ml.imagery.source import Traffic

HEADER_BYTES = 65536
"""Fetched first: holds the header and the tile index of a 10980 x 10980 COG."""

MOST_SIGNATURES = 3
"""How often a link that is refused is signed anew before it is given up."""

DOWN_AFTER = 8
"""So many assets of one host in a row that were tried to the end in vain: the host is down."""


class AssetLost(Exception):
    """An asset that is not there or not readable; the composite goes on without it.

    Attributes:
        down: its provider did not answer, or answered with errors of its own, to the end.
    """

    def __init__(self, reason: str, *, down: bool = False) -> None:
        super().__init__(reason)
        self.down = down


class Fetcher:
    """Fetches byte ranges of links. Threads share it.

    Args:
        sign: from `signer`.
        retries: repetitions of a request after a server error or a cut connection.
        timeout_s: of one request.
        connections: kept open.
        first_wait_s: mean wait before the first repetition.
    """

    def __init__(
        self,
        sign: Sign,
        *,
        retries: int = 6,
        timeout_s: float = 60.0,
        connections: int = 8,
        first_wait_s: float = 0.5,
    ) -> None:
        import requests
        from requests.adapters import HTTPAdapter

        self._sign, self._timeout = sign, timeout_s
        self._backoff = Backoff(retries, first_wait_s)
        self._session = requests.Session()
        self._session.trust_env = True
        adapter = HTTPAdapter(pool_connections=4, pool_maxsize=connections + 2)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)
        self._in_vain: Counter[str] = Counter()

    def open(self, href: str, traffic: Traffic) -> RangeFile:
        """A link as a file for `rasterio.open(file.name, opener=file)`; nothing is fetched yet."""
        return RangeFile(self, href, traffic)

    def fetch(self, href: str, start: int, length: int, traffic: Traffic) -> tuple[bytes, int]:
        """Bytes of a link, and its size.

        Returns:
            The bytes from `start`, as many as asked for or as there are, and the size of the whole.

        Raises:
            AssetLost: not there, refused after signing anew, or failing after all repetitions.
            ProviderDown: so have the last of this host's, one after the other.
        """
        import requests

        reason, signatures, host = "", 0, urlsplit(href).netloc
        link = self._sign(href, None)
        for attempt in self._backoff.attempts():
            self._refuse_if_down(host, reason)
            if attempt:
                traffic.retries += 1
            while True:
                traffic.requests += 1
                try:
                    answer = self._session.get(
                        link,
                        headers={
                            "Range": f"bytes={start}-{start + length - 1}",
                            "Accept-Encoding": "identity",
                        },
                        timeout=self._timeout,
                    )
                    body = answer.content
                except requests.RequestException as error:
                    reason = f"the connection failed ({type(error).__name__})"
                    break
                traffic.bytes += len(body)
                status = answer.status_code
                if status not in RETRY_STATUS:
                    self._in_vain.pop(host, None)
                if status in (401, 403) and link != href and signatures < MOST_SIGNATURES:
                    traffic.resigned += 1
                    signatures += 1
                    link = self._sign(href, link)
                    continue
                if status in (200, 206):
                    part, size, whole = _part(answer, body, start, length)
                    if whole:
                        return part, size
                    reason = "the connection was cut"
                    break
                if status == 416:
                    return b"", start
                reason = f"HTTP {status}"
                if status not in RETRY_STATUS:
                    raise AssetLost(reason)
                break
        self._in_vain[host] += 1
        self._refuse_if_down(host, reason)
        raise AssetLost(f"{reason}, {self._backoff.retries + 1} times", down=True)

    def _refuse_if_down(self, host: str, reason: str) -> None:
        """Give up on a host that has failed to the end again and again, without another try."""
        if self._in_vain[host] >= DOWN_AFTER:
            raise ProviderDown(
                f"{self._in_vain[host]} scene assets in a row could not be had",
                where=host,
                expected="an answer",
                found=f"{reason or 'none'}, {self._backoff.retries + 1} times each",
                remedy="run again later: finished tiles are kept",
            )

    def close(self) -> None:
        """Close the connections."""
        self._session.close()


def _part(answer: Any, body: bytes, start: int, length: int) -> tuple[bytes, int, bool]:
    """What was asked for, the size of the whole, and whether the answer is complete."""
    if answer.status_code == 200:  # the server does not know ranges and sent everything
        said = int(answer.headers.get("Content-Length", len(body)))
        return body[start : start + length], len(body), len(body) >= said
    _, _, size_text = answer.headers.get("Content-Range", "").rpartition("/")
    size = int(size_text) if size_text.isdigit() else start + len(body)
    return body, size, len(body) >= min(length, max(size - start, 0))


class RangeFile(MultiByteRangeResourceContainer):
    """One link, as rasterio wants what it opens: a container with a single file, and that file.

    Nothing it does raises into GDAL: a failure is kept in `failure`, the bytes are missing, and
    GDAL gives up on the file.
    """

    def __init__(self, fetcher: Fetcher, href: str, traffic: Traffic) -> None:
        self._fetcher, self._href, self._traffic = fetcher, href, traffic
        self.name = f"{uuid.uuid4().hex}.tif"
        self.failure: AssetLost | ImageryError | None = None
        self._size: int | None = None
        self._starts: list[int] = []
        self._parts: list[bytes] = []

    # The container

    def open(self, path: str, mode: str = "rb", **options: Any) -> _Handle:
        return _Handle(self)

    def isfile(self, path: str) -> bool:
        return str(path).endswith(self.name)

    def isdir(self, path: str) -> bool:
        return False

    def ls(self, path: str) -> list[str]:
        return [self.name]

    def mtime(self, path: str) -> int:
        return 0

    def size(self, path: str | None = None) -> int:
        """Bytes of the whole, 0 where it cannot be had."""
        if self._size is None:
            self.bytes_at(0, 1)
        return self._size or 0

    def rm(self, path: str) -> None:
        pass

    def close(self) -> None:
        """Let go of what was fetched."""
        self._starts, self._parts = [], []

    # The bytes

    def bytes_at(self, start: int, length: int) -> bytes:
        """Bytes from `start`; fewer at the end of the file or after a failure."""
        if self.failure is not None or length <= 0:
            return b""
        if self._size is not None:
            length = min(length, self._size - start)
            if length <= 0:
                return b""
        held = self._held(start, length)
        if held is not None:
            return held
        try:
            part, size = self._fetcher.fetch(
                self._href, start, max(length, HEADER_BYTES), self._traffic
            )
        except AssetLost as error:
            self.failure = error
            return b""
        except ImageryError as error:  # no link of this container can be had: ends the season
            self.failure = error
            return b""
        if self._size is None and not (start and not part):
            self._size = size
        self._keep(start, part)
        return part[:length]

    def _held(self, start: int, length: int) -> bytes | None:
        place = bisect_right(self._starts, start) - 1
        if place < 0:
            return None
        offset = start - self._starts[place]
        part = self._parts[place][offset : offset + length]
        return part if len(part) == length else None

    def _keep(self, start: int, part: bytes) -> None:
        place = bisect_right(self._starts, start)
        self._starts.insert(place, start)
        self._parts.insert(place, part)

    def __repr__(self) -> str:
        return f"RangeFile({unsigned(self._href)})"


class _Handle:
    """A file position in a `RangeFile`."""

    def __init__(self, file: RangeFile) -> None:
        self._file, self._position = file, 0

    def read(self, size: int = -1) -> bytes:
        length = self._file.size() - self._position if size < 0 else size
        part = self._file.bytes_at(self._position, length)
        self._position += len(part)
        return part

    def seek(self, offset: int, whence: int = 0) -> int:
        base = (0, self._position, self._file.size() if whence == 2 else 0)[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def get_byte_ranges(self, offsets: Sequence[int], sizes: Sequence[int]) -> list[bytes]:
        """Several ranges, as GDAL asks for the tiles of a window at once."""
        return [
            self._file.bytes_at(int(offset), int(size))
            for offset, size in zip(offsets, sizes, strict=True)
        ]

    def close(self) -> None:
        pass

    def __enter__(self) -> _Handle:
        return self

    def __exit__(self, *error: object) -> None:
        pass
