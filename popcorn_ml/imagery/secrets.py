"""Credentials for imagery: carried apart from settings, never printed, logged or kept.

Settings end up in manifests; what is here must not. `scrub` takes signatures out of any text that
a provider's library may have put a link into.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_QUERY = re.compile(r"(https?://[^\s?#'\"<>]+)\?[^\s'\"<>]*")


@dataclass(frozen=True, repr=False)
class Secrets:
    """What the sources may need to be let in.

    Attributes:
        earthengine_project: Google Cloud project that Earth Engine's use is counted on.
        earthengine_key_file: service account key (JSON); None = application default credentials.
        planetary_computer_key: subscription key; None = anonymous, with lower limits.
    """

    earthengine_project: str | None = None
    earthengine_key_file: Path | None = None
    planetary_computer_key: str | None = None

    def __repr__(self) -> str:
        given = ", ".join(f"{k}={'given' if v else 'none'}" for k, v in vars(self).items())
        return f"Secrets({given})"

    __str__ = __repr__


def unsigned(href: str) -> str:
    """A link without its query, where signatures are."""
    return href.partition("?")[0]


def scrub(text: str) -> str:
    """A text with the query of every link in it removed."""
    return _QUERY.sub(r"\1", text)
