"""Asking a public service: by https, bounded in size and time, repeated where that may help.

The waits between tries and the answers after which a request is sent again are those of imagery.
A key never gets into an address that is told, kept or logged.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO, Any
from urllib.parse import urljoin, urlsplit

from popcorn_ml.agencies.addresses import is_here, is_safe
from popcorn_ml.errors import AgencyDown, CensusError
from popcorn_ml.imagery.backoff import RETRY_STATUS, Backoff
from popcorn_ml.imagery.secrets import Secrets, unsigned, veil

MOST_ANSWER_BYTES = 32 * 1024**2
"""An answer that is no file may not be larger."""
MOST_REDIRECTS = 5
LONGEST_WAIT_S = 60.0
"""A service that asks for a longer pause is not waited for, but said to be asked later."""
TIMEOUT_S = (10.0, 30.0)
"""Of connecting, and of each read."""
SLOWEST_BYTES_S, GRACE_S = 1024, 60.0
"""A file that comes more slowly than this, after a while, counts as one that was cut."""
BLOCK = 256 * 1024

PATIENCE = Backoff(retries=4, first_s=1.0, longest_s=20.0)
"""Between tries: a person waits at a terminal."""

Progress = Callable[[int, int | None], None]
"""Told how many bytes are there, and how many there will be where the service says so."""

_log = logging.getLogger(__name__)


class NotThere(CensusError):
    """An address with nothing at it."""


class Refused(CensusError):
    """A request that a service refuses, and would refuse again."""


@dataclass(frozen=True)
class Downloaded:
    """A file as it came.

    Attributes:
        size_bytes: its size.
        sha256, md5: of its bytes.
    """

    size_bytes: int
    sha256: str
    md5: str


class Web:
    """A client of one service, and of the addresses that its answers name.

    What is asked first decides whether this machine may be: an answer from elsewhere must not
    send us to it.

    Args:
        backoff: between tries; None = a few within half a minute.
        key: let in by this; sent as the parameter `key` to the host that is asked first.
        timeout_s: of connecting, and of each read.
    """

    def __init__(
        self,
        backoff: Backoff | None = None,
        key: str | None = None,
        timeout_s: tuple[float, float] = TIMEOUT_S,
    ) -> None:
        self._backoff = backoff or PATIENCE
        self._key, self._timeout = key, timeout_s
        self._here: bool | None = None
        veil(Secrets(us_census_key=key))  # the clients' libraries log whole addresses

    def json(self, address: str) -> Any:
        """What a service answers, as JSON.

        Raises:
            AgencyDown: it does not answer, or with errors of its own, after all tries.
            NotThere, Refused: as `download`.
            CensusError: it answers something else.
        """
        held = io.BytesIO()
        self._fill(address, held, MOST_ANSWER_BYTES, None)
        body = held.getvalue()
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            raise CensusError(
                "the service's answer is not JSON",
                where=address,
                expected="JSON",
                found=web_page(body) or f"{len(body)} bytes that begin with {body[:40]!r}",
                remedy="the service is being changed or is down: try again later",
            ) from None

    def download(
        self, address: str, path: Path, limit_bytes: int, progress: Progress | None = None
    ) -> Downloaded:
        """Write what is at an address to a file; a cut download goes on where it was cut.

        Args:
            path: an existing draft, overwritten.
            limit_bytes: more is refused.

        Raises:
            AgencyDown: it could not be had, after all tries.
            NotThere: there is nothing at the address.
            Refused: another refusal, a way back without https, or more than `limit_bytes`.
        """
        with path.open("wb+") as out:
            self._fill(address, out, limit_bytes, progress)
        sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                sha256.update(block)
                md5.update(block)
        return Downloaded(path.stat().st_size, sha256.hexdigest(), md5.hexdigest())

    def _fill(
        self, address: str, out: IO[bytes], limit_bytes: int, progress: Progress | None
    ) -> None:
        if self._here is None:
            self._here = is_here(address)
        reason, tag, began = "", "", False
        for attempt in self._backoff.attempts():
            if attempt:
                _log.warning(
                    "%s: %s: try %d of %d",
                    unsigned(address), reason, attempt + 1, self._backoff.retries + 1,
                )  # fmt: skip
            try:
                self._once(address, out, limit_bytes, progress, tag)
                return
            except _Again as failure:
                reason, began = str(failure), began or failure.tag is not None
                tag = tag if failure.tag is None else failure.tag
                if failure.wait_s is not None and attempt < self._backoff.retries:
                    self._pause(address, failure.wait_s)
        raise AgencyDown(
            "the file came only in part" if began else "the service could not be reached",
            where=address,
            expected="the whole file" if began else "an answer",
            found=f"{reason}, {self._backoff.retries + 1} times",
            remedy="see whether this machine reaches the network, and run again",
        )

    def _pause(self, address: str, seconds: float) -> None:
        if seconds > LONGEST_WAIT_S:
            raise AgencyDown(
                "the service asks for a pause",
                where=address,
                found=f"too many requests; come back after {seconds:.0f} s",
                remedy="run the same command again after that",
            )
        self._backoff.sleep(seconds)

    def _once(
        self,
        address: str,
        out: IO[bytes],
        limit_bytes: int,
        progress: Progress | None,
        tag: str,
    ) -> None:
        """One try.

        Args:
            tag: of the file whose beginning `out` holds; empty where it cannot be gone on with.

        Raises:
            _Again: it may succeed when it is sent again.
        """
        import requests

        start = out.tell() if tag else 0
        with requests.Session() as session:
            try:
                answer = self._answer(session, address, start, tag)
                if answer.status_code == 200:
                    start = 0
                elif not _goes_on(answer, start):
                    raise _Again("an answer to another request", tag="")
                out.seek(start)
                out.truncate()
                self._copy(answer, address, out, limit_bytes, progress)
            except requests.RequestException as error:  # its text would hold the address
                raise _Again(f"the connection failed ({type(error).__name__})") from None

    def _answer(self, session: Any, address: str, start: int, tag: str) -> Any:
        """The answer behind redirects; of status 200 or 206."""
        headers = {"Accept-Encoding": "identity", "User-Agent": "popcorn-assets"}
        if start:
            headers |= {"Range": f"bytes={start}-", "If-Range": tag}
        here, first = address, urlsplit(address).netloc
        for _ in range(MOST_REDIRECTS + 1):
            if not is_safe(here, from_here=bool(self._here)):
                raise Refused(
                    "a service is asked by https only",
                    where=address,
                    expected="an address elsewhere that begins with https://",
                    found=unsigned(here),
                    remedy="fetch the file by hand, if you trust where this leads",
                )
            key = self._key if urlsplit(here).netloc == first else None
            answer = session.get(
                here,
                params={"key": key} if key else None,
                headers=headers,
                timeout=self._timeout,
                stream=True,
                allow_redirects=False,
            )
            if not answer.is_redirect:
                return _accepted(answer, address)
            here = urljoin(here, answer.headers["Location"])
            answer.close()
        raise Refused(
            "the service sends from one address to the next",
            where=address,
            expected=f"at most {MOST_REDIRECTS} redirects",
            found=unsigned(here),
            remedy="try again later, or fetch the file by hand",
        )

    def _copy(
        self,
        answer: Any,
        address: str,
        out: IO[bytes],
        limit_bytes: int,
        progress: Progress | None,
    ) -> None:
        length = answer.headers.get("Content-Length", "")
        plain = not answer.headers.get("Content-Encoding")
        total = out.tell() + int(length) if length.isdigit() and plain else None
        tag = answer.headers.get("ETag", "")
        if not tag or tag.startswith("W/"):  # a weak one says nothing of the bytes
            tag = answer.headers.get("Last-Modified", "")
        begun, before = time.monotonic(), out.tell()
        of = f" of {total}" if total is not None else ""
        if total is not None and total > limit_bytes:
            raise _too_large(address, limit_bytes, total)
        from urllib3.exceptions import HTTPError

        try:
            # As it comes: `iter_content` waits for a whole block, and loses it where that is cut.
            while block := answer.raw.read1(BLOCK, decode_content=True):
                out.write(block)
                if out.tell() > limit_bytes:
                    raise _too_large(address, limit_bytes, out.tell())
                if progress is not None:
                    progress(out.tell(), total)
                seconds = time.monotonic() - begun
                if seconds > GRACE_S and out.tell() - before < SLOWEST_BYTES_S * seconds:
                    raise _Again(f"less than {SLOWEST_BYTES_S} bytes a second", tag=tag)
        except (HTTPError, OSError) as error:
            why = f"the connection was cut after {out.tell()}{of} bytes ({type(error).__name__})"
            raise _Again(why, tag=tag) from None
        if total is not None and out.tell() != total:
            raise _Again(f"the connection was cut after {out.tell()}{of} bytes", tag=tag)


class _Again(Exception):
    """A try that failed, and why.

    Attributes:
        wait_s: how long the service asks to be left alone.
        tag: of the file that came in part, empty where it cannot be gone on with; None where
            nothing came of it, and what was there before is as it was.
    """

    def __init__(self, reason: str, wait_s: float | None = None, tag: str | None = None) -> None:
        super().__init__(reason)
        self.wait_s, self.tag = wait_s, tag


def _accepted(answer: Any, address: str) -> Any:
    """The answer, unless it is a refusal."""
    status = answer.status_code
    if status in (200, 206):
        return answer
    wait = answer.headers.get("Retry-After", "")
    answer.close()
    if status in RETRY_STATUS:
        raise _Again(f"HTTP {status}", _seconds(wait))
    if status == 416:  # what is there is longer than the file
        raise _Again(f"HTTP {status}", tag="")
    if status in (404, 410):
        raise NotThere(
            "there is nothing at this address",
            where=address,
            found=f"HTTP {status}",
            remedy="see whether the country, level and year are what the agency has",
        )
    raise Refused(
        "the service refuses the request",
        where=address,
        found=f"HTTP {status}",
        remedy="see the agency's site whether its terms or its interface have changed",
    )


def _goes_on(answer: Any, start: int) -> bool:
    """Whether a part is the one that was asked for."""
    return answer.headers.get("Content-Range", "").startswith(f"bytes {start}-")


def _seconds(text: str) -> float | None:
    """What a Retry-After says: seconds, or a date."""
    if text.strip().isdigit():
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None


def _too_large(address: str, limit_bytes: int, found: int) -> Refused:
    return Refused(
        "the file is larger than such a file is",
        where=address,
        expected=f"at most {limit_bytes} bytes",
        found=f"{found} bytes or more",
        remedy="look at it, and fetch it by hand if it is right",
    )


def web_page(head: bytes) -> str | None:
    """What a web page that came instead of a file calls itself; None where it is none."""
    begin = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:16].lower()
    if not begin.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return None
    title = re.search(rb"<title[^>]*>(.*?)</title>", head[:65536], re.IGNORECASE | re.DOTALL)
    text = title[1].decode("utf-8", "replace").strip()[:80] if title else ""
    return f"a web page: {text!r}" if text else "a web page"
