"""Signatures for links: given out by a token service for a container, and renewed.

The service may be out of reach. Then it is asked a few times, said so, and left alone for a while:
the next link fails at once instead of waiting all over again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from popcorn_ml.errors import ImageryError, ProviderDown
from popcorn_ml.imagery.backoff import RETRY_STATUS, Backoff
from popcorn_ml.imagery.secrets import Secrets

BLOB_HOST = ".blob.core.windows.net"

TOKEN_RETRIES, TOKEN_TIMEOUT_S = 3, 20.0
"""Repetitions of a request for a token, and how long each may take."""

LEFT_ALONE_S = 120.0
"""How long a service that did not answer is not asked again."""

LEAST_LEFT_S = 60.0
"""A token that expires sooner is renewed."""

Sign = Callable[[str, str | None], str]
"""Takes a link and, after a refusal, the signed link that was refused; gives the one to ask for."""

_log = logging.getLogger(__name__)


def signer(
    profile: str, sign_url: str | None, secrets: Secrets, backoff: Backoff | None = None
) -> Sign:
    """How links of a catalogue are signed.

    Args:
        profile: only "planetary-computer" signs; others' links are used as they are.
        sign_url: address of the token service; None = the provider's. With one given, links of
            every host are signed by it, otherwise those of Azure's blob storage.
        secrets: its subscription key is used, if there is one.
        backoff: between repetitions; None = a few.
    """
    if profile != "planetary-computer":
        return lambda href, refused: href
    service = TokenService(sign_url, secrets, backoff or Backoff(TOKEN_RETRIES))

    def sign(href: str, refused: str | None) -> str:
        parts = urlsplit(href)
        if sign_url is None and not parts.netloc.endswith(BLOB_HOST):
            return href
        account = parts.netloc.split(".")[0].split(":")[0]
        container = parts.path.lstrip("/").split("/", 1)[0]
        return f"{href}?{service.token(account, container, refused)}"

    return sign


class TokenService:
    """Tokens of containers, kept by the provider's library until they expire. Threads share it."""

    def __init__(self, url: str | None, secrets: Secrets, backoff: Backoff) -> None:
        from planetary_computer.settings import Settings

        settings = Settings.get()
        self._url = (url or settings.sas_url).rstrip("/")
        self._key = secrets.planetary_computer_key or settings.subscription_key
        self._backoff, self._lock = backoff, threading.Lock()
        self._failed: tuple[float, ImageryError] | None = None

    def token(self, account: str, container: str, refused: str | None) -> str:
        """A token for a container.

        Args:
            refused: the signed link that was refused, if one was: its token is renewed.

        Raises:
            ImageryError: the service refuses to give one, or answers something else.
            ProviderDown: it does not answer, or did not a moment ago.
        """
        from planetary_computer import sas

        name = f"{self._url}/{account}/{container}"
        with self._lock:
            held = sas.TOKEN_CACHE.get(name)
            if refused and held is not None and refused.endswith(held.token):
                sas.TOKEN_CACHE.pop(name)  # unless another thread has a new one already
                held = None
            if held is None or held.ttl() < LEAST_LEFT_S:
                held = sas.TOKEN_CACHE[name] = self._asked(account, container)
            return held.token

    def _asked(self, account: str, container: str) -> Any:
        if self._failed is not None and time.monotonic() < self._failed[0]:
            raise self._failed[1]
        self._failed = None
        reason = ""
        for attempt in self._backoff.attempts():
            if attempt:
                _log.warning(
                    "%s does not sign links of %s/%s (%s): try %d of %d",
                    self._url, account, container, reason, attempt + 1, self._backoff.retries + 1,
                )  # fmt: skip
            try:
                return self._ask(account, container)
            except _Unanswered as failure:
                reason = str(failure)
        error = ProviderDown(
            f"links of {account}/{container} could not be signed",
            where=self._url,
            expected="a token",
            found=f"{reason}, {self._backoff.retries + 1} times",
            remedy="run again later: finished tiles are kept; a subscription key raises the limits",
        )
        self._failed = time.monotonic() + LEFT_ALONE_S, error
        raise error

    def _ask(self, account: str, container: str) -> Any:
        """One request.

        Raises:
            _Unanswered: it may succeed when it is sent again.
            ImageryError: it will not.
        """
        import requests
        from planetary_computer import sas

        headers = {"Ocp-Apim-Subscription-Key": self._key} if self._key else {}
        name = f"{self._url}/{account}/{container}"
        try:
            answer = requests.get(name, headers=headers, timeout=TOKEN_TIMEOUT_S)
            status = answer.status_code
            if status in RETRY_STATUS:
                raise _Unanswered(f"HTTP {status}")
            if status == 200:
                return sas.SASToken(**answer.json())
            found = f"HTTP {status}"
        except requests.JSONDecodeError:
            status, found = 200, "an answer that is not JSON"
        except requests.RequestException as error:
            raise _Unanswered(f"the connection failed ({type(error).__name__})") from None
        except (ValueError, TypeError):  # its text would hold the answer
            status, found = 200, "an answer that is no token"
        remedy = "try again later; a subscription key raises the limits"
        if status in (401, 403):
            remedy = (
                "this collection asks for a subscription key (Sentinel-1 RTC does): set "
                "POPCORN_PLANETARY_COMPUTER_KEY"
            )
        raise ImageryError(
            f"links of {account}/{container} could not be signed",
            where=self._url,
            expected="a token",
            found=found,
            remedy=remedy,
        )


class _Unanswered(Exception):
    """A request for a token that was not answered, and why."""
