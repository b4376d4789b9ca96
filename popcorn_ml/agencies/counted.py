"""Reading an agency's table of counts as the census will: its columns, its rows, its people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from popcorn_ml.agencies.agency import Reading
from popcorn_ml.census import readers
from popcorn_ml.census.columns import count_columns
from popcorn_ml.census.count_rows import year_pattern
from popcorn_ml.census.files import Files
from popcorn_ml.census.layout import Header
from popcorn_ml.census.settings import (
    BoundarySettings,
    CountColumns,
    CountSettings,
    LevelSettings,
    ReaderName,
)
from popcorn_ml.census.tables import Table, read_table
from popcorn_ml.errors import CensusError


def read_people(
    path: Path,
    reader: ReaderName,
    year: int | None,
    documented: str,
    settings: Mapping[str, Any] | None = None,
    columns: CountColumns | None = None,
) -> Reading:
    """Read a table of counts.

    Args:
        reader: which has the agency's names of columns.
        year: of the counts, or that is wanted of a table of several.
        documented: the columns that the agency documents, for an error.
        settings: what is known of the table besides: its sheet.
        columns: where they are not the agency's.

    Raises:
        CensusError: as the census's own reading; or the columns are not the agency's.
    """
    settings = dict(settings or {})
    given = columns or CountColumns()
    table = _table(path, reader, documented, settings.get("sheet"), given)
    found = count_columns(reader, given, table.columns, path)
    several = isinstance(found.people, str) and "{year}" in found.people
    if not several and found.year is None:
        if year is None:
            raise CensusError(
                "nothing says of which year the counts are",
                where=path,
                expected="a year in the file's name, or a column of years",
                remedy="fetch it by hand, and state `year` of the counts in the country's file",
            )
        settings["year"] = year
    level = LevelSettings(
        role="train",
        reader=reader,
        boundaries=BoundarySettings(file="units.gpkg"),
        counts=(CountSettings.model_validate({"file": path.name, **settings, "columns": given}),),
    )
    with Files(path.parent) as files:
        rows = readers.read_counts(level, files)[0].frame
    years = sorted({int(y) for y in rows["year"]})
    last = max((y for y in years if year is None or y <= year), default=years[0])
    of_year = rows[rows["year"] == last]
    named = {
        **({"id": found.id[0] if len(found.id) == 1 else list(found.id)} if found.id else {}),
        **{k: v for k in ("name", "parent", "people", "year") if (v := getattr(found, k))},
    }
    return Reading(
        reader,
        {**settings, "columns": named},
        len(of_year),
        last,
        {"people": float(of_year["people"].fillna(0).sum())},
    )


def _table(
    path: Path, reader: ReaderName, documented: str, sheet: str | None, given: CountColumns
) -> Table:
    """The table, its header found by the columns that are needed."""

    def fits(header: Header) -> bool:
        return _fit(reader, given, header.names, path)

    table = read_table(path, sheet=sheet, fits=fits)
    if not _fit(reader, given, table.columns, path):
        raise CensusError(
            "the table has not the columns that the agency documents",
            where=path,
            expected=documented,
            found=", ".join(table.columns)[:400],
            remedy="the agency has changed its table: fetch it by hand, and hand it in as "
            "--counts FILE with --id-column and --people-column",
        )
    return table


def _fit(reader: ReaderName, given: CountColumns, names: Sequence[str], path: Path) -> bool:
    """Whether a table has the columns of its units and of their people."""
    try:
        found = count_columns(reader, given, list(names), path)
    except CensusError:
        return False
    if isinstance(found.people, str) and "{year}" in found.people:
        pattern = year_pattern(found.people)
        return bool(found.id) and any(pattern.fullmatch(name) for name in names)
    wanted = [*found.id, *([found.name] if found.name else []), str(found.people)]
    there = {name.casefold() for name in names}
    return all(name.casefold() in there for name in wanted)
