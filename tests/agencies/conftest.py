"""A server that is all agencies, in place of the real ones."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from popcorn_ml.agencies.addresses import MIRRORS_VARIABLE
from popcorn_ml.agencies.us_census import KEY_VARIABLES

from .services import Services


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    """The services, which the product asks."""
    server = Services()
    monkeypatch.setenv(MIRRORS_VARIABLE, server.mirrors)
    for name in KEY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    yield server
    server.close()
