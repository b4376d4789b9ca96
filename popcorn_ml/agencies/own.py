"""A table of counts that the operator has, taken in beside an agency's boundaries."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from popcorn_ml.agencies.counted import read_people
from popcorn_ml.agencies.fetched import OWN, Fetched, date_of
from popcorn_ml.census.columns import PEOPLE
from popcorn_ml.census.settings import CountColumns, ReaderName
from popcorn_ml.census.tables import TABLE_SUFFIXES, sha256
from popcorn_ml.errors import CensusError
from popcorn_ml.files import replacing


def own_counts(
    path: Path,
    folder: Path,
    reader: ReaderName,
    columns: CountColumns,
    year: int | None = None,
) -> Fetched:
    """Take in a table: a copy of it lies in the folder, unless it is there already.

    Args:
        reader: that of the boundaries, whose names of columns hold where none are given.
        columns: its columns, as far as they are given.
        year: of its counts, where no column says.

    Raises:
        CensusError: it cannot be read, or has not the columns.
    """
    if path.suffix.lower() not in TABLE_SUFFIXES:
        raise CensusError(
            "this kind of table is not read",
            where=path,
            expected="one of " + ", ".join(TABLE_SUFFIXES),
            found=path.suffix or "no suffix",
            remedy="save it as CSV in UTF-8, or as xlsx",
        )
    documented = "a column of identifiers or names, and one of people"
    if columns.people is None and reader in PEOPLE:
        documented += f" ({', '.join(PEOPLE[reader])}); or name them with --people-column and "
        documented += "--id-column or --name-column"
    reading = read_people(path, reader, year, documented, columns=columns)
    kept = folder / path.name
    if kept.resolve() != path.resolve():
        _refuse_another(path, kept)
        with replacing(kept) as draft:
            shutil.copyfile(path, draft)
    stated: dict[str, Any] = dict(reading.stated)
    return Fetched(
        path=kept,
        source=OWN,
        licence="",
        address="",
        retrieved=date_of(path),
        sha256=sha256(kept),
        size_bytes=kept.stat().st_size,
        year=reading.year,
        reader=reading.reader,
        settings=reading.settings,
        number=reading.number,
        by_hand=True,
        stated=stated,
    )


def _refuse_another(path: Path, kept: Path) -> None:
    """Refuse to put a file into the place of another."""
    if kept.exists() and sha256(kept) != sha256(path):
        raise CensusError(
            "another file of this name is there already",
            where=kept,
            found=f"sha256 {sha256(kept)}",
            remedy=f"remove it, or give {path} another name",
        )
