"""Where the agencies' services are, and the one place to say that they are elsewhere.

A mirror, or a server on this machine, takes a service's place by the environment variable
POPCORN_MIRRORS: `hdx=https://mirror.example.org/hdx worldpop=https://mirror.example.org/wp`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from urllib.parse import urlsplit

from popcorn_ml.edges import check_address
from popcorn_ml.errors import ConfigError

MIRRORS_VARIABLE = "POPCORN_MIRRORS"
"""Services that are asked elsewhere: `service=address`, separated by blanks."""

LOOPBACK = ("127.0.0.1", "::1", "localhost")
"""This machine, the only one that is asked without https."""


@dataclass(frozen=True)
class Addresses:
    """Base addresses of the services, without a slash at the end.

    Attributes:
        geoboundaries: the API of geoBoundaries.
        lfs: where GitHub serves the large files that geoBoundaries' links may only point to.
        hdx: the Humanitarian Data Exchange, a CKAN catalogue.
        us_census_files: the United States Census Bureau's cartographic boundary files.
        us_census_data: its data API.
        worldpop: WorldPop's hub of files.
    """

    geoboundaries: str = "https://www.geoboundaries.org"
    lfs: str = "https://media.githubusercontent.com/media"
    hdx: str = "https://data.humdata.org"
    us_census_files: str = "https://www2.census.gov/geo/tiger"
    us_census_data: str = "https://api.census.gov/data"
    worldpop: str = "https://data.worldpop.org"


def addresses(environment: Mapping[str, str] | None = None) -> Addresses:
    """The services' addresses, with what POPCORN_MIRRORS says.

    Args:
        environment: None takes the process's own.

    Raises:
        ConfigError: a service that there is none of, or an address that is not https.
    """
    given = (os.environ if environment is None else environment).get(MIRRORS_VARIABLE, "")
    known = [field.name for field in fields(Addresses)]
    changed: dict[str, str] = {}
    for item in given.split():
        name, _, address = item.partition("=")
        if name not in known:
            raise ConfigError(
                "there is no such service",
                where=MIRRORS_VARIABLE,
                expected=", ".join(f"{name}=ADDRESS" for name in known),
                found=item,
            )
        try:
            changed[name] = check_address(address).rstrip("/")
        except ValueError as error:
            raise ConfigError(str(error), where=f"{MIRRORS_VARIABLE}: {name}") from None
        if not is_safe(address):
            raise ConfigError(
                "a service is asked by https only",
                where=f"{MIRRORS_VARIABLE}: {name}",
                expected="an address that begins with https://",
                found=address,
                remedy="plain http is for this machine alone (127.0.0.1)",
            )
    return replace(Addresses(), **changed)


def is_safe(address: str, *, from_here: bool = True) -> bool:
    """Whether an address may be asked: by https, or on this machine.

    Args:
        from_here: whether this machine may be; an answer from elsewhere must not send us to it.
    """
    parts = urlsplit(address)
    if parts.scheme == "https" and parts.hostname:
        return from_here or parts.hostname not in LOOPBACK
    return from_here and parts.scheme == "http" and parts.hostname in LOOPBACK


def is_here(address: str) -> bool:
    """Whether an address is on this machine."""
    return urlsplit(address).hostname in LOOPBACK
