"""Agencies' files in one shape: units with polygons, and counts, each row with its place in a file.

One reader for each way in which offices publish; they differ in the columns they expect and in
how identifiers are written, and share everything else. Joining and judging come later.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from popcorn_ml.census import boundaries, geometry, unit_rasters
from popcorn_ml.census.columns import PEOPLE, boundary_columns, count_columns, us_codes
from popcorn_ml.census.count_rows import long_rows, name_of, year_pattern
from popcorn_ml.census.files import Files
from popcorn_ml.census.files import files_of as files_of
from popcorn_ml.census.findings import Finding
from popcorn_ml.census.inputs import CountInput, UnitInput
from popcorn_ml.census.layout import Fits, Header
from popcorn_ml.census.settings import BoundarySettings, CountSettings, LevelSettings, ReaderName
from popcorn_ml.census.tables import (
    ROW,
    TABLE_SUFFIXES,
    Table,
    find_column,
    named,
    read_table,
)
from popcorn_ml.census.text import clean_id, name_key
from popcorn_ml.errors import CensusError

# Units ------------------------------------------------------------------------------------------


def read_units(level: LevelSettings, files: Files, year: int | None = None) -> UnitInput:
    """The units of a level.

    Args:
        level: its settings.
        files: where its files are.
        year: the partition's, for boundary files of several vintages.

    Raises:
        CensusError: as `boundaries.read_boundaries`, or a raster that holds no identifiers.
    """
    if level.reader == "gridded":
        return unit_rasters.cells(level.counts[0], files)
    assert level.boundaries is not None
    return _units_of(level.boundaries, level.reader, files, year)


def _units_of(
    settings: BoundarySettings, reader: ReaderName, files: Files, year: int | None
) -> UnitInput:
    path = files.open(settings, boundaries.VECTOR_SUFFIXES + boundaries.RASTER_SUFFIXES)
    if path.suffix.lower() in boundaries.RASTER_SUFFIXES:
        if reader not in ("published", "worldpop"):
            raise CensusError(
                f"the reader {reader!r} does not read rasters of unit numbers",
                where=path,
                expected="polygons",
                found="a GeoTIFF",
                remedy="use `reader: published`, or hand in polygons",
            )
        return unit_rasters.numbered(path, settings, files)
    settled = settings.model_copy(update={"columns": boundary_columns(settings, reader, path)})
    read = boundaries.read_boundaries(path, settled, year)
    frame = read.frame
    if reader == "us_census":
        frame = frame.assign(id=us_codes(list(frame["id"])))
        frame, found = geometry.unite(frame, path)
        read = replace(read, findings=read.findings + tuple(found))
    return UnitInput(frame, path.name, None, None, read.findings, files.sources(settings))


# Counts -----------------------------------------------------------------------------------------


def read_counts(level: LevelSettings, files: Files) -> list[CountInput]:
    """The counts of a level, one item a table.

    Raises:
        CensusError: as `tables.read_table`, or a column is missing, or no year is stated.
    """
    if level.reader == "gridded":
        return [unit_rasters.cell_counts(level, files)]
    tables = [table for settings in level.counts for table in files.expand(settings)]
    return [_read_counts(level, table, files) for table in tables]


def count_units(
    counts: CountInput, level: LevelSettings, files: Files, year: int | None
) -> UnitInput | None:
    """The boundary set that a table's counts belong to, where it is not the level's own."""
    if counts.settings.boundaries is None:
        return None
    return _units_of(counts.settings.boundaries, level.reader, files, year)


def _read_counts(level: LevelSettings, settings: CountSettings, files: Files) -> CountInput:
    path = files.open(settings, TABLE_SUFFIXES)
    file = name_of(path, settings.file)
    table = _table_of(path, level, settings)
    findings = [Finding("counts_readable", "warn", f"{file}: {note}") for note in table.notes]
    table = _kept(table, settings)
    names = _names(table.header)
    columns = count_columns(level.reader, settings.columns, names, table.path)
    _refuse_choice(level, settings, table)
    frame, found = long_rows(table, columns, level, settings, file)
    asides = tuple({"file": file, **vars(line)} for line in table.asides)
    sources = files.sources(settings)
    return CountInput(frame, settings, tuple(findings + found), sources, asides)


def written_ids(
    level: LevelSettings, settings: CountSettings, files: Files
) -> tuple[str, dict[int, str]]:
    """Of one table, the column that identifies its rows, and what is written there by row number.

    Raises:
        CensusError: as `read_counts`, or the identifier is made of several columns.
    """
    path = files.open(settings, TABLE_SUFFIXES)
    table = _table_of(path, level, settings)
    columns = count_columns(level.reader, settings.columns, _names(table.header), table.path)
    by = columns.id or ((columns.name,) if columns.name else ())
    if len(by) != 1:
        raise CensusError(
            "the units' identifier is made of several columns",
            where=path,
            expected="one column",
            found=", ".join(by),
            remedy="keep the rows by hand, with `counts.where` in the country's file",
        )
    cells = table.frame[find_column(table, by[0], "id", "counts.columns.id")]
    return by[0], {int(n): clean_id(cell) for n, cell in zip(table.frame[ROW], cells, strict=True)}


def _table_of(path: Path, level: LevelSettings, settings: CountSettings) -> Table:
    return read_table(
        path,
        sheet=settings.sheet,
        encoding=settings.encoding,
        delimiter=settings.delimiter,
        header_row=settings.header_row,
        fits=_fits(level, settings, path),
    )


def _names(header: Header) -> list[str]:
    """Names of a table's columns, those that several bear as they are written."""
    return [*header.names, *header.twice.values()]


def _fits(level: LevelSettings, settings: CountSettings, path: Path) -> Fits:
    """Recognises the header of a table: it has every column that the level needs of it."""

    def there(header: Header, name: str) -> bool:
        if "{year}" in name:
            return any(year_pattern(name).fullmatch(n) for n in header.names)
        return named(header, name) is not None or name_key(name) in header.twice

    def fits(header: Header) -> bool:
        try:
            columns = count_columns(level.reader, settings.columns, _names(header), path)
        except CensusError:
            return False
        people = columns.people
        wanted = [*columns.id, *columns.ages, *settings.where]
        wanted += people.values() if isinstance(people, dict) else [people or ""]
        wanted += [n for n in (columns.name, columns.parent, columns.year) if n]
        wanted += [columns.annual_growth] if columns.annual_growth else []
        return all(there(header, name) for name in wanted)

    return fits


def _refuse_choice(level: LevelSettings, settings: CountSettings, table: Table) -> None:
    """Where the settings do not name the column of people, there must be but one that it can be.

    Raises:
        CensusError: several columns might hold the people, and differ.
    """
    if settings.columns.people is None:
        known = {n.casefold() for n in PEOPLE.get(level.reader, ())}
        could = [n for n in table.columns if n.casefold() in known]
        if any(list(table.frame[n]) != list(table.frame[could[0]]) for n in could[1:]):
            raise CensusError(
                "several columns could be the one of people, and they differ",
                where=table.path,
                expected="counts.columns.people",
                found=", ".join(map(repr, could)),
                remedy="name one in the country's file",
            )


def _kept(table: Table, settings: CountSettings) -> Table:
    frame = table.frame
    for name, values in settings.where.items():
        column = find_column(table, name, "the filter", "counts.where")
        frame = frame[frame[column].map(clean_id).isin([clean_id(v) for v in values])]
    if frame.empty:
        raise CensusError(
            "no row of the table passes the filter",
            where=table.path,
            expected=", ".join(f"{k} = {' or '.join(v)}" for k, v in settings.where.items()),
            found=f"{len(table.frame)} rows, none of them such",
            remedy="correct `counts.where` in the country's file",
        )
    return replace(table, frame=frame.reset_index(drop=True))
