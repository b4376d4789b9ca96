"""Credentials for imagery: carried apart from settings, never printed, logged or kept.

Settings end up in manifests; what is here must not. `scrub` takes out of a text what a provider's
library may have put into it: the query of a link, where signatures are, and the user before its
host. `Secrets.scrub` takes out the credentials themselves as well. `guarded` does so with whatever
leaves a block as an exception, and with what the clients' libraries log meanwhile.
"""

from __future__ import annotations

import json
import logging
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from popcorn_ml.errors import ImageryError, PopcornError

HIDDEN = "***"

KEY_FIELDS = ("private_key", "private_key_id", "client_email", "client_id", "project_id")
"""What a service account's key file holds that identifies or lets in."""

MIN_SECRET = 6
"""Shorter values would be found in ordinary words."""

LONG_SECRET = 32
"""Longer values are taken out wherever they stand, shorter ones where they stand alone."""

LOGGERS = (
    "ee", "google.auth", "google.auth._regional_access_boundary_utils",
    "google.auth.transport.requests", "google_auth_httplib2", "google.cloud.storage",
    "googleapiclient.discovery", "googleapiclient.http",
    "planetary_computer", "planetary_computer.sas", "pystac_client", "pystac_client.stac_api_io",
    "rasterio", "rasterio._env", "rasterio._io", "rasterio.session",
    "urllib3", "urllib3.connectionpool", "urllib3.util.retry",
)  # fmt: skip
"""Loggers of the libraries that see links and credentials. A filter holds for its own logger only,
not for those below it; these may not be there yet when the filter is set."""
LIBRARIES = (
    "ee", "google", "httplib2", "planetary_computer", "pystac_client", "rasterio", "requests",
    "urllib3",
)  # fmt: skip

_QUERY = re.compile(r"(https?://[^\s?#'\"<>]+)\?[^\s'\"<>]*")
_USER = re.compile(r"\b([a-z][a-z0-9+.-]*://)[^\s/?#'\"<>@]+@", re.IGNORECASE)
_SIGNED = re.compile(r"(?<=[?&])(sig|token|key|access_token|signature)=[^\s&'\"<>]+", re.IGNORECASE)


@dataclass(frozen=True, repr=False)
class Secrets:
    """What the sources may need to be let in.

    Attributes:
        earthengine_project: Google Cloud project that Earth Engine's use is counted on.
        earthengine_key_file: service account key (JSON); None = application default credentials.
        planetary_computer_key: subscription key; None = anonymous, with lower limits.
        us_census_key: of the United States Census Bureau's data API, where counts come from.
    """

    earthengine_project: str | None = None
    earthengine_key_file: Path | None = None
    planetary_computer_key: str | None = None
    us_census_key: str | None = None

    def __repr__(self) -> str:
        given = ", ".join(
            f"{name}={'given' if getattr(self, name) else 'none'}"
            for name in self.__dataclass_fields__
        )
        return f"Secrets({given})"

    __str__ = __repr__

    @cached_property
    def values(self) -> tuple[str, ...]:
        """The credentials themselves, the longest first; of the key file, what is in it."""
        found = {self.earthengine_project, self.planetary_computer_key, self.us_census_key}
        if self.earthengine_key_file is not None:
            try:
                held = json.loads(Path(self.earthengine_key_file).read_text("utf-8"))
                found |= {str(held[name]) for name in KEY_FIELDS if held.get(name)}
            except (OSError, ValueError, AttributeError):
                pass  # whoever uses it says what is wrong with it
        lines = {line for value in found if value for line in value.splitlines()}
        known = {value for value in {*found, *lines} if value and len(value) >= MIN_SECRET}
        return tuple(sorted(known, key=lambda value: (-len(value), value)))

    def scrub(self, text: str) -> str:
        """A text without credentials, signatures and users."""
        for value in self.values:
            if len(value) >= LONG_SECRET:
                text = text.replace(value, HIDDEN)
            else:  # a project may be called what every path here begins with
                text = re.sub(rf"(?<![\w-]){re.escape(value)}(?![\w-])", HIDDEN, text)
        return scrub(text)


def unsigned(href: str) -> str:
    """A link without its query, where signatures are."""
    return href.partition("?")[0]


def scrub(text: str) -> str:
    """A text with the query and the user of every link in it removed."""
    text = _USER.sub(r"\1", _QUERY.sub(r"\1", text))
    return _SIGNED.sub(rf"\1={HIDDEN}", text)


@contextmanager
def guarded(secrets: Secrets) -> Iterator[None]:
    """Let nothing secret out of a block, neither in an exception nor in a library's log.

    An exception whose text, or that of one of its causes, would tell something goes on as
    `ImageryError` (or as the error of this project that it was) with the text scrubbed.
    """
    veil(secrets)
    try:
        yield
    except Exception as error:
        told = "".join(traceback.format_exception(error))
        if secrets.scrub(told) == told:
            raise
        raise _scrubbed(error, secrets) from None


def veil(secrets: Secrets) -> None:
    """Put a veil over the libraries' loggers, for good: some of their threads outlive a fetch."""
    known = [name for name in logging.root.manager.loggerDict if name.startswith(LIBRARIES)]
    for name in {*LOGGERS, *known}:
        logger = logging.getLogger(name)
        if not any(isinstance(f, _Veil) and f.secrets == secrets for f in logger.filters):
            logger.addFilter(_Veil(secrets))


def _scrubbed(error: Exception, secrets: Secrets) -> PopcornError:
    if not isinstance(error, PopcornError):
        return ImageryError(
            "the source failed",
            found=f"{type(error).__name__}: {secrets.scrub(str(error))}",
            remedy="see `popcorn doctor`, and run again: finished tiles are kept",
        )

    def clean(value: object) -> str | None:
        return None if value is None else secrets.scrub(str(value))

    return type(error)(
        secrets.scrub(error.what),
        where=clean(error.where),
        expected=clean(error.expected),
        found=clean(error.found),
        remedy=clean(error.remedy),
    )


class _Veil(logging.Filter):
    """Rewrites what is logged without what is secret."""

    def __init__(self, secrets: Secrets) -> None:
        super().__init__()
        self.secrets = secrets

    def filter(self, record: logging.LogRecord) -> bool:
        told = record.getMessage()
        clean = self.secrets.scrub(told)
        if clean != told:
            record.msg, record.args = clean, ()
        if record.exc_info:  # a traceback may tell it too
            record.exc_text = self.secrets.scrub(
                "".join(traceback.format_exception(*record.exc_info)).rstrip()
            )
            record.exc_info = None
        return True
