"""What was fetched: the file, where it is from, under which terms, and how the census reads it.

Each file has a record beside it, `<file>.source.json`. A file that a person put there by hand gets
one too, when it is first seen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from popcorn_ml.census.settings import ReaderName
from popcorn_ml.census.tables import sha256
from popcorn_ml.errors import CensusError
from popcorn_ml.files import write_json

SUFFIX = ".source.json"
OWN = "file"
"""Source of a table that the operator has, of which nothing is known but itself."""


@dataclass(frozen=True)
class Wanted:
    """Which file of an agency is wanted.

    Attributes:
        iso3: the country, ISO 3166-1 alpha-3, upper case.
        level: administrative level below the country, which is 0.
        year: of the counts, or of the boundaries where there are several vintages.
    """

    iso3: str
    level: int
    year: int

    @property
    def low(self) -> str:
        """The country's code in lower case, as in most file names."""
        return self.iso3.lower()


@dataclass(frozen=True)
class Fetched:
    """A file of an agency, on disk.

    Attributes:
        path: the file.
        source: name of the agency's interface, a key of `BOUNDARIES` or `COUNTS`.
        licence: the agency's terms, in its own words.
        address: where it came from, without any key; a page where it was fetched by hand.
        retrieved: when.
        sha256: of the file.
        size_bytes: its size.
        year: of the counts, or that the boundaries represent; None where nothing says so.
        reader: how the census reads it.
        settings: what a level's `boundaries` or `counts` need to say of it besides `file`.
        number: of units or of rows.
        by_hand: a person put it there.
        anew: it was fetched, or taken in, just now.
        stated: what else the agency says of it.
    """

    path: Path
    source: str
    licence: str
    address: str
    retrieved: date
    sha256: str
    size_bytes: int
    year: int | None
    reader: ReaderName
    settings: Mapping[str, Any]
    number: int
    by_hand: bool = False
    anew: bool = True
    stated: Mapping[str, Any] = field(default_factory=dict)

    def entry(self) -> dict[str, Any]:
        """What a level's `boundaries` or `counts` say of it, in the country's file."""
        told = {"licence": self.licence, "url": self.address} if self.source != OWN else {}
        return {
            "file": self.path.name,
            **self.settings,
            **told,
            "retrieved": self.retrieved.isoformat(),
        }


def record_path(path: Path) -> Path:
    """Where the record of a file is."""
    return path.with_name(path.name + SUFFIX)


def write_record(fetched: Fetched, wanted: Wanted) -> None:
    """Write a file's record beside it."""
    kept = {
        "source": fetched.source,
        "asked": {"iso3": wanted.iso3, "level": wanted.level, "year": wanted.year},
        "address": fetched.address,
        "licence": fetched.licence,
        "retrieved": fetched.retrieved.isoformat(),
        "by_hand": fetched.by_hand,
        "sha256": fetched.sha256,
        "size_bytes": fetched.size_bytes,
        "year": fetched.year,
        "reader": fetched.reader,
        "settings": dict(fetched.settings),
        "number": fetched.number,
        "stated": dict(fetched.stated),
    }
    write_json(record_path(fetched.path), kept)


def read_record(path: Path) -> dict[str, Any] | None:
    """A file's record; None if it has none.

    Raises:
        CensusError: it cannot be read.
    """
    try:
        held = json.loads(record_path(path).read_text("utf-8"))
        return held if isinstance(held, dict) else {}
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise CensusError(
            "the record of a fetched file cannot be read",
            where=record_path(path),
            found=str(error),
            remedy="remove it: the file is then taken as one that was put there by hand",
        ) from error


def recorded(path: Path, wanted: Wanted) -> Fetched | None:
    """A file fetched earlier for the same wish; None if it has no record, or of another wish.

    Raises:
        CensusError: it has been changed since.
    """
    held = read_record(path)
    if held is None:
        return None
    if not _answers(held, wanted.year):
        return None
    digest = sha256(path)
    if held.get("sha256") != digest:
        raise CensusError(
            "the file has been changed since it was fetched",
            where=path,
            expected=f"sha256 {held.get('sha256')}, as in {record_path(path).name}",
            found=digest,
            remedy="fetch it again with --again; or, if it was changed on purpose, remove the "
            "record beside it",
        )
    return Fetched(
        path=path,
        source=held["source"],
        licence=held["licence"],
        address=held["address"],
        retrieved=date.fromisoformat(held["retrieved"]),
        sha256=digest,
        size_bytes=path.stat().st_size,
        year=held["year"],
        reader=held["reader"],
        settings=held["settings"],
        number=held["number"],
        by_hand=held.get("by_hand", False),
        anew=False,
        stated=held.get("stated", {}),
    )


def _answers(held: Mapping[str, Any], wanted: int) -> bool:
    """Whether a file that was fetched for one year is the one for another.

    For a year the latest counts not after it are taken. Those for an earlier year than was asked
    for are the same, down to the year of the counts itself; and for a later one, where the year
    asked for had not ended yet when they were fetched: newer ones are looked for with `again`.
    """
    asked, year = held["asked"]["year"], held["year"]
    if year is None or wanted in (asked, year):
        return True
    return year <= wanted and (wanted <= asked or asked >= int(held["retrieved"][:4]))


def today() -> date:
    """Today's date, UTC."""
    return datetime.now(UTC).date()


def date_of(path: Path) -> date:
    """When a file was written, UTC: what is known of one that came by hand."""
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).date()
