"""Talking to Earth Engine: credentials, repeated requests, lists of scenes, pixels of a window."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from popcorn_ml.errors import ConfigError, ImageryError, ProviderDown
from popcorn_ml.files import NUMPY_READS
from popcorn_ml.grid import Grid, Window
from popcorn_ml.imagery.backoff import RETRY_STATUS, Backoff
from popcorn_ml.imagery.secrets import Secrets, scrub
from popcorn_ml.imagery.source import Traffic

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")

MAX_REQUEST_BYTES = 40_000_000
"""The service takes 48 MB a request."""

SMALLEST_PX = 128
"""A window that is too much for the service's memory is quartered down to this side."""

TOO_MUCH = ("memory limit", "computation timed out", "request size", "too large")
TRY_LATER = ("quota exceeded", "too many concurrent", "rate limit", "backend error")
PAGE_FEATURES = 1000

_initialising = threading.Lock()
_initialised_for: list[Any] = [None]


def credentials(secrets: Secrets) -> Any:
    """Google credentials: the service account's key, or the application default ones.

    Raises:
        ConfigError: the key file is missing or is none, or there are no default credentials. The
            message names the file and never what is in it.
    """
    import google.auth
    from ee import oauth
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
    from google.oauth2 import service_account

    path = secrets.earthengine_key_file
    if path is None:
        try:
            found, _ = google.auth.default(scopes=oauth.SCOPES)
        except DefaultCredentialsError:
            raise ConfigError(
                "there are no Google credentials",
                where="Earth Engine",
                expected="a service account key file, or application default credentials",
                remedy="set POPCORN_EARTHENGINE_KEY_FILE to the key's path, or run: gcloud auth "
                "application-default login --scopes=https://www.googleapis.com/auth/earthengine,"
                "https://www.googleapis.com/auth/cloud-platform",
            ) from None
        return found
    if not Path(path).is_file():
        raise ConfigError(
            "the service account's key file is missing",
            where=path,
            remedy="set POPCORN_EARTHENGINE_KEY_FILE to where it is",
        )
    try:
        return service_account.Credentials.from_service_account_file(str(path), scopes=oauth.SCOPES)
    except (ValueError, KeyError, GoogleAuthError) as error:
        raise ConfigError(
            "this is not a service account's key",
            where=path,
            expected='the JSON file that Google Cloud gives for a service account ("type": '
            '"service_account")',
            found=type(error).__name__,
            remedy="create a key for the service account and download it again",
        ) from None


def project_of(secrets: Secrets) -> str:
    """The Google Cloud project that use is counted on: the given one, or the key's own.

    Raises:
        ConfigError: neither says one.
    """
    if secrets.earthengine_project:
        return secrets.earthengine_project
    if secrets.earthengine_key_file and Path(secrets.earthengine_key_file).is_file():
        try:
            own = json.loads(Path(secrets.earthengine_key_file).read_text("utf-8"))
            if own.get("project_id"):
                return str(own["project_id"])
        except (ValueError, AttributeError):
            pass
    raise ConfigError(
        "Earth Engine needs the Google Cloud project that its use is counted on",
        where="Earth Engine",
        remedy="set POPCORN_EARTHENGINE_PROJECT to a project registered for Earth Engine",
    )


class EarthEngine:
    """The initialised client with bounded, repeated requests. Threads share it.

    Args:
        secrets: key file and project.
        url: of the service; None = the provider's.
        backoff: between repetitions after quota answers, server errors and cut connections.
    """

    def __init__(self, secrets: Secrets, url: str | None, backoff: Backoff) -> None:
        import ee

        self._backoff = backoff
        identity = (secrets.earthengine_key_file, secrets.earthengine_project, url)
        with _initialising:
            if _initialised_for[0] != identity:
                project = project_of(secrets)
                allowed = credentials(secrets)
                try:
                    ee.Reset()
                    ee.Initialize(allowed, url=url, project=project)
                except Exception as error:  # auth, transport and service errors of three libraries
                    raise _uninitialised(error) from None
                ee.data.setMaxRetries(0)  # repeated and counted here instead
                _initialised_for[0] = identity

    def call(self, request: Callable[[], T], traffic: Traffic, what: str) -> T:
        """Send a request, again after a failure that may pass.

        Raises:
            TooMuch: the service has not the memory or time for so much at once.
            ImageryError: refused, or failing after all repetitions.
        """
        from http.client import HTTPException

        import ee
        from google.auth.exceptions import TransportError
        from httplib2 import HttpLib2Error

        reason = ""
        for attempt in self._backoff.attempts():
            traffic.requests += 1
            traffic.retries += bool(attempt)
            try:
                return request()
            except ee.EEException as error:
                reason = scrub(str(error))
                response = getattr(error.__context__, "resp", None)
                status = int(response.status) if response is not None else 0
                lower = reason.lower()
                if any(word in lower for word in TOO_MUCH):
                    raise TooMuch(reason) from None
                if status not in RETRY_STATUS and not any(word in lower for word in TRY_LATER):
                    raise _refused(what, status, reason) from None
                reason = f"HTTP {status}: {reason}" if status else reason
            except (OSError, HTTPException, HttpLib2Error, TransportError, EOFError) as error:
                reason = f"the connection failed ({type(error).__name__})"
        raise ProviderDown(
            f"Earth Engine failed {self._backoff.retries + 1} times on {what}",
            found=reason,
            remedy="run again later: finished tiles are kept",
        )

    def features(self, collection: Any, traffic: Traffic, what: str) -> Iterator[dict[str, Any]]:
        """Features of an ee.FeatureCollection, page by page."""
        import ee

        token: str | None = None
        while True:
            params: dict[str, Any] = {"expression": collection, "pageSize": PAGE_FEATURES}
            if token:
                params["pageToken"] = token
            page = self.call(partial(ee.data.computeFeatures, params), traffic, what)
            yield from page.get("features", [])
            token = page.get("nextPageToken")
            if not token:
                return

    def pixels(self, image: Any, grid: Grid, window: Window, traffic: Traffic) -> np.ndarray:
        """A window of an image on a grid, exactly: the pixel whose centre is nearest.

        Args:
            image: ee.Image.
            grid: the country's.
            window: what to fetch; in parts where it is too much at once.

        Returns:
            Structured array (rows, columns), a field a band.
        """
        import ee
        import numpy as np

        if window.height * window.width * BYTES_A_PIXEL <= MAX_REQUEST_BYTES:
            params = {
                "expression": image,
                "fileFormat": "NPY",
                "grid": pixel_grid(grid.subgrid(window)),
            }
            try:
                body = self.call(
                    lambda: _complete(ee.data.computePixels(params)), traffic, f"pixels {window}"
                )
                traffic.bytes += len(body)
                with NUMPY_READS:
                    return np.load(io.BytesIO(body), allow_pickle=False)
            except TooMuch as error:
                if min(window.height, window.width) < 2 * SMALLEST_PX:
                    raise ImageryError(
                        "the season is too much for Earth Engine even in small pieces",
                        where=str(window),
                        found=str(error),
                        remedy="export to a bucket instead (imagery.earthengine.mode: export)",
                    ) from None
        top, left = window.height // 2, window.width // 2
        rows = []
        for row, height in ((0, top), (top, window.height - top)):
            parts = [
                self.pixels(
                    image,
                    grid,
                    Window(window.row + row, window.col + col, height, width),
                    traffic,
                )
                for col, width in ((0, left), (left, window.width - left))
            ]
            rows.append(np.concatenate(parts, axis=1))
        return np.concatenate(rows, axis=0)


BYTES_A_PIXEL = 10
"""Five bands of two bytes."""


def _uninitialised(error: Exception) -> ImageryError:
    """What to tell of a client that could not be made ready, whichever library failed."""
    from http.client import HTTPException

    from google.auth.exceptions import TransportError
    from httplib2 import HttpLib2Error

    status = getattr(getattr(error.__context__, "resp", None), "status", None)
    down = isinstance(error, OSError | HTTPException | HttpLib2Error | TransportError)
    kind = ProviderDown if down or (status and int(status) in RETRY_STATUS) else ImageryError
    return kind(
        "Earth Engine could not be initialised",
        where="the project that use is counted on",
        found=scrub(str(error)) or type(error).__name__,
        remedy="see `popcorn doctor`",
    )


class TooMuch(Exception):
    """More than the service computes at once; a smaller piece may do."""


def _complete(body: bytes) -> bytes:
    """The body of an NPY answer, if all of it came.

    Raises:
        EOFError: it was cut short, which a chunked answer does not show.
    """
    import numpy as np

    handle = io.BytesIO(body)
    try:
        version = np.lib.format.read_magic(handle)
        read = np.lib.format.read_array_header_1_0
        if version != (1, 0):
            read = np.lib.format.read_array_header_2_0
        shape, _, dtype = read(handle)
    except ValueError as error:
        raise EOFError(f"not an NPY answer: {error}") from None
    size = dtype.itemsize
    for side in shape:
        size *= side
    if len(body) - handle.tell() < size:
        raise EOFError(f"{len(body) - handle.tell()} of {size} bytes")
    return body


def pixel_grid(grid: Grid) -> dict[str, Any]:
    """A grid in the service's words."""
    code = {"crsCode": grid.crs} if ":" in grid.crs[:12] else {"crsWkt": grid.crs}
    a, b, c, d, e, f = grid.transform
    return {
        "dimensions": {"width": grid.width, "height": grid.height},
        "affineTransform": {
            "scaleX": a,
            "shearX": b,
            "translateX": c,
            "shearY": d,
            "scaleY": e,
            "translateY": f,
        },
        **code,
    }


def _refused(what: str, status: int, reason: str) -> ImageryError:
    remedy = "see `popcorn doctor`" if status in (401, 403) else None
    return ImageryError(
        f"Earth Engine refuses {what}",
        where=f"HTTP {status}" if status else None,
        found=reason,
        remedy=remedy,
    )
