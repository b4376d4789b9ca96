"""The United States Census Bureau: cartographic boundary files, and counts from its data API.

The boundary files lie at fixed addresses, one a vintage. The API answers with a list of lists, the
first of which names the columns; the parts of the identifier are columns of their own. It asks for
a key, which is free: without one it sends a web page.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from popcorn_ml.agencies.addresses import Addresses
from popcorn_ml.agencies.agency import Agency, Offer, Reading, nearest_year
from popcorn_ml.agencies.counted import read_people
from popcorn_ml.agencies.fetched import Wanted
from popcorn_ml.agencies.polygons import read_polygons
from popcorn_ml.agencies.web import Web, web_page
from popcorn_ml.errors import CensusError, ConfigError

KEY_VARIABLE = "POPCORN_US_CENSUS_KEY"
"""Environment variable that holds the key."""
KEY_VARIABLES = (KEY_VARIABLE, "CENSUS_API_KEY")
"""The second is what other programs use."""
SIGN_UP = "https://api.census.gov/data/key_signup.html"

LEVELS = {1: "state", 2: "county", 3: "tract", 4: "block group"}
"""What the Bureau calls a level here."""
FILES = {1: "state", 2: "county", 3: "tract", 4: "bg"}
TERRITORIES = {"PRI": "72", "VIR": "78", "GUM": "66", "MNP": "69", "ASM": "60"}
"""Codes of the areas that have an ISO code of their own."""
STATES = [f"{n:02d}" for n in range(1, 57) if n not in (3, 7, 14, 43, 52)]
"""Codes of the states and the District of Columbia."""
COUNTED = {2000: ("dec/sf1", "P001001"), 2010: ("dec/sf1", "P001001"), 2020: ("dec/pl", "P1_001N")}
"""Decennial censuses: the API's dataset, and its variable of all people."""
FIRST_VINTAGE = 2014
"""Earlier boundary files lie elsewhere and are named otherwise."""
LICENCE = "public domain (United States Census Bureau)"


def key_from(environment: Mapping[str, str] | None = None) -> str | None:
    """The key of the data API, which nothing but the environment holds."""
    given = os.environ if environment is None else environment
    return next((given[name] for name in KEY_VARIABLES if given.get(name)), None)


def _area(wanted: Wanted) -> str | None:
    """The code of a territory; None for the states.

    Raises:
        ConfigError: the Bureau counts no such country, or no such level of it.
    """
    if wanted.iso3 != "USA" and wanted.iso3 not in TERRITORIES:
        raise ConfigError(
            "the United States Census Bureau has no such country",
            expected=", ".join(["USA", *TERRITORIES]),
            found=wanted.iso3,
            remedy="take another source, or state --iso",
        )
    if wanted.level not in LEVELS or (wanted.iso3 == "USA" and wanted.level > 2):
        many = "; its smaller units come a state at a time" if wanted.iso3 == "USA" else ""
        raise ConfigError(
            f"the United States Census Bureau's files are not fetched at this level{many}",
            expected=", ".join(f"{n} ({name})" for n, name in LEVELS.items()),
            found=wanted.level,
            remedy="give another --level",
        )
    return TERRITORIES.get(wanted.iso3)


class TigerBoundaries(Agency):
    """Cartographic boundary files at 1:500,000, of the vintage that is nearest the year."""

    key, title = "tiger", "United States Census Bureau, cartographic boundaries 1:500,000"
    licence = LICENCE

    def __init__(self, addresses: Addresses) -> None:
        self._base = addresses.us_census_files

    def _file(self, wanted: Wanted) -> tuple[int, str]:
        """Vintage and name; counties and states come for the whole country."""
        area = _area(wanted)
        vintage = max(wanted.year, FIRST_VINTAGE)
        part = "us" if wanted.level <= 2 or area is None else area
        return vintage, f"cb_{vintage}_{part}_{FILES[wanted.level]}_500k.zip"

    def _address(self, wanted: Wanted) -> str:
        vintage, name = self._file(wanted)
        return f"{self._base}/GENZ{vintage}/shp/{name}"

    def names(self, wanted: Wanted) -> re.Pattern[str]:
        name = re.escape(self._file(wanted)[1])
        return re.compile(name.replace(f"cb_{self._file(wanted)[0]}", r"cb_(?P<year>\d{4})"))

    def by_hand(self, wanted: Wanted) -> tuple[str, str, str]:
        return self._address(wanted), "the file", self._file(wanted)[1]

    def offer(self, wanted: Wanted, web: Web) -> Offer:
        vintage, name = self._file(wanted)
        return Offer(self._address(wanted), name, LICENCE, vintage)

    def reading(self, path: Path, wanted: Wanted, year: int | None) -> Reading:
        area = _area(wanted)
        settings = {"where": {"STATEFP": [area] if area else STATES}}
        documented = "GEOID, STATEFP and NAME"
        return read_polygons(path, "us_census", documented, settings, only_id="GEOID")


class UsCensusCounts(Agency):
    """The decennial census: everybody, by unit."""

    key, title = "us_census", "United States Census Bureau, decennial census (data API)"
    licence = LICENCE
    limit_bytes = 256 * 1024**2
    comes_as = ".json"

    def __init__(self, addresses: Addresses) -> None:
        self._base = addresses.us_census_data

    def _stem(self, wanted: Wanted) -> str:
        _area(wanted)
        return f"us_census-{wanted.iso3}-{LEVELS[wanted.level].replace(' ', '_')}"

    def _address(self, wanted: Wanted) -> tuple[int, str]:
        """Year, and the request without a key."""
        area = _area(wanted)
        year = nearest_year(COUNTED, wanted.year)
        dataset, people = COUNTED[year]
        unit = quote(LEVELS[wanted.level])
        if wanted.level == 1:
            place = f"for=state:{area or '*'}"
        else:
            place = f"for={unit}:*&in=state:{area or '*'}"
            place += "&in=county:*" if wanted.level > 2 else ""
        return year, f"{self._base}/{year}/{dataset}?get=NAME,{people}&{place}"

    def names(self, wanted: Wanted) -> re.Pattern[str]:
        return re.compile(rf"{self._stem(wanted)}-(?P<year>\d{{4}})\.(csv|json)")

    def by_hand(self, wanted: Wanted) -> tuple[str, str, str]:
        year, address = self._address(wanted)
        what = f"what it answers (with &key=YOUR_KEY at its end; keys are free: {SIGN_UP})"
        return address, what, f"{self._stem(wanted)}-{year}.json"

    def offer(self, wanted: Wanted, web: Web) -> Offer:
        year, address = self._address(wanted)
        return Offer(address, f"{self._stem(wanted)}-{year}.csv", LICENCE, year)

    def convert(self, came: Path, kept: Path) -> None:
        header, *rows = _rows(came)
        parts = [name for name in ("state", "county", "tract", "block group") if name in header]
        places = [header.index(name) for name in parts]
        with kept.open("w", encoding="utf-8", newline="") as out:
            writer = csv.writer(out, lineterminator="\n")
            writer.writerow(["GEOID", *header])
            writer.writerows(["".join(row[k] for k in places), *row] for row in rows)

    def reading(self, path: Path, wanted: Wanted, year: int | None) -> Reading:
        people = COUNTED[year][1] if year in COUNTED else "P1_001N"
        # The states' answer has Puerto Rico too, whose boundaries are another country's.
        settings = {} if _area(wanted) else {"where": {"state": STATES}}
        return read_people(path, "us_census", year, f"GEOID, NAME and {people}", settings)


def _rows(path: Path) -> list[list[str]]:
    """The lists of an answer, the first of which names the columns.

    Raises:
        CensusError: it is something else; a web page where the key is missing or wrong.
    """
    body = path.read_bytes()
    try:
        answer: Any = json.loads(body)
    except (ValueError, RecursionError):
        page = web_page(body)
        key = page is not None and "key" in page.lower()
        raise CensusError(
            "the data API asks for a key" if key else "the data API's answer is not JSON",
            where=path,
            expected="a list of lists",
            found=page or f"{len(body)} bytes that begin with {body[:60]!r}",
            remedy=f"get a key at {SIGN_UP} (it is free), and set {KEY_VARIABLE}"
            if key
            else "try again later",
        ) from None
    lists = isinstance(answer, list) and all(isinstance(row, list) for row in answer)
    if not lists or len(answer) < 2 or any(len(row) != len(answer[0]) for row in answer):
        raise CensusError(
            "the data API's answer is not the table that it documents",
            where=path,
            expected="a list of lists of one length, the first of which names the columns",
            found=str(answer)[:200],
            remedy="fetch the counts by hand, and see whether there is a newer version of this "
            "package",
        )
    return [["" if cell is None else str(cell) for cell in row] for row in answer]
