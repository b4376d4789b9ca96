"""Borders and counts from the agencies that publish them: fetched, checked, recorded.

`BOUNDARIES` and `COUNTS` name the public interfaces, one small class each (in `geoboundaries`,
`hdx`, `us_census`, `worldpop`) behind the protocol in `agency`, which also fetches and keeps; `web`
asks, `addresses` says where. `polygons` and `counted` read what came as `popcorn_ml.census` will;
`own` reads a table of the operator's beside them; `section` says what a country's file has to say
of them, and who joins whom. A file lies under its name only when it is whole and can be read, with
its record beside it (`fetched`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from popcorn_ml.agencies.addresses import Addresses, addresses
from popcorn_ml.agencies.agency import Agency, fetch
from popcorn_ml.agencies.fetched import Fetched, Wanted
from popcorn_ml.agencies.geoboundaries import GeoBoundaries
from popcorn_ml.agencies.hdx import CodBoundaries, CodCounts
from popcorn_ml.agencies.us_census import TigerBoundaries, UsCensusCounts, key_from
from popcorn_ml.agencies.web import Progress, Web
from popcorn_ml.agencies.worldpop import WorldPopCounts, WorldPopUnits
from popcorn_ml.errors import ConfigError
from popcorn_ml.imagery.backoff import Backoff

BOUNDARIES: Mapping[str, Callable[[Addresses], Agency]] = {
    "geoboundaries": GeoBoundaries,
    "cod": CodBoundaries,
    "tiger": TigerBoundaries,
    "worldpop": WorldPopUnits,
}
"""Where boundaries can be fetched from, by name."""

COUNTS: Mapping[str, Callable[[Addresses], Agency]] = {
    "cod": CodCounts,
    "worldpop": WorldPopCounts,
    "us_census": UsCensusCounts,
}
"""Where counts can be fetched from, by name."""


def fetch_boundaries(
    source: str,
    iso3: str,
    *,
    level: int,
    year: int,
    folder: Path,
    again: bool = False,
    progress: Progress | None = None,
    backoff: Backoff | None = None,
) -> Fetched:
    """Boundaries of a country, fetched unless they are there.

    Args:
        source: a key of `BOUNDARIES`.
        iso3: ISO 3166-1 alpha-3 code of the country.
        level: administrative level below the country, which is 0.
        year: that they are to represent, where the agency has several vintages.
        folder: where the file is kept, with its record; such as the store's `census/CODE`.
        again: fetch it whatever is there.
        progress: told bytes done and, where it is known, in all.
        backoff: between tries; None = a few within half a minute.

    Raises:
        AgencyDown: the service does not answer; says what a person can put where.
        CensusError: the agency has no such file, or what came is not what it should be.
        ConfigError: no such source, or no country's code.
    """
    return _fetch(BOUNDARIES, source, iso3, level, year, folder, again, progress, backoff)


def fetch_counts(
    source: str,
    iso3: str,
    *,
    level: int,
    year: int,
    folder: Path,
    again: bool = False,
    progress: Progress | None = None,
    backoff: Backoff | None = None,
) -> Fetched:
    """Counts of a country's units, fetched unless they are there.

    Args:
        source: a key of `COUNTS`.
        year: the latest counts not after it are taken, else the earliest.

    The others, and what is raised, are as of `fetch_boundaries`.
    """
    return _fetch(COUNTS, source, iso3, level, year, folder, again, progress, backoff)


def _fetch(
    sources: Mapping[str, Callable[[Addresses], Agency]],
    source: str,
    iso3: str,
    level: int,
    year: int,
    folder: Path,
    again: bool,
    progress: Progress | None,
    backoff: Backoff | None,
) -> Fetched:
    if source not in sources:
        raise ConfigError("there is no such source", expected=", ".join(sources), found=source)
    if not (len(iso3) == 3 and iso3.isascii() and iso3.isalpha()):
        raise ConfigError(
            "this is no ISO 3166-1 alpha-3 code of a country",
            expected="three letters, such as RWA",
            found=iso3,
        )
    if not 0 <= level <= 5:
        raise ConfigError("there is no such level", expected="0 to 5", found=level)
    agency = sources[source](addresses())
    web = Web(backoff, key_from() if source == "us_census" else None)
    wanted = Wanted(iso3.upper(), level, year)
    return fetch(agency, wanted, Path(folder), web, again=again, progress=progress)
