"""Agencies' files in one shape: units with polygons, and counts, each row with its place in a file.

One reader for each way in which offices publish; they differ in the columns they expect and in
how identifiers are written, and share everything else. Joining and judging come later.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popcorn_ml.census import boundaries, geometry
from popcorn_ml.census.files import Files, Source
from popcorn_ml.census.files import files_of as files_of
from popcorn_ml.census.findings import Finding, Severity, rows_text
from popcorn_ml.census.settings import (
    BoundaryColumns,
    BoundarySettings,
    CountColumns,
    CountSettings,
    LevelSettings,
    ReaderName,
)
from popcorn_ml.census.tables import (
    ROW,
    TABLE_SUFFIXES,
    Table,
    find_column,
    pick_column,
    read_table,
)
from popcorn_ml.census.text import clean_id, clean_name, parse_number
from popcorn_ml.errors import CensusError

if TYPE_CHECKING:
    import geopandas as gpd
    import numpy as np
    import pandas as pd

KIND_OF: dict[ReaderName, str] = {
    "table": "census",
    "cod": "projection",
    "worldpop": "estimate",
    "geoboundaries": "census",
    "us_census": "census",
    "gridded": "census",
    "published": "estimate",
}
"""What a reader's counts are, where the settings do not say."""

US_WIDTHS = (2, 5, 10, 11, 12, 15)
"""Digits of a FIPS code: state, county, county subdivision, tract, block group, block."""
US_PARTS = {
    "state": 2, "statefp": 2, "county": 3, "countyfp": 3, "tract": 6, "tractce": 6,
    "block group": 1, "blkgrpce": 1, "block": 4, "blockce": 4,
}  # fmt: skip
"""Columns that together make a FIPS code, and their digits (a suffix such as 20 is a vintage)."""
US_DEFAULT_YEARS = {"P1_001N": 2020}
YEARS = range(1800, 2200)


@dataclass(frozen=True)
class UnitInput:
    """Units of one level as read.

    Attributes:
        frame: GeoDataFrame: id, name, parent, row, vintage, geometry; sorted by id.
        file: name of the boundary file.
        raster: raster of identifiers, where the units came as one.
        raw: the identifier in the raster of each row of `frame`.
        findings: what was wrong or mended.
        sources: the files read.
    """

    frame: gpd.GeoDataFrame
    file: str
    raster: Path | None
    raw: np.ndarray | None
    findings: tuple[Finding, ...]
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class CountInput:
    """Counts of one table as read.

    Attributes:
        frame: id, name, parent (text), year (int), people (float), kind, annual_growth (float,
            NaN where unknown), file, row.
        settings: the table's.
        findings: what was wrong or mended.
        sources: the files read.
    """

    frame: pd.DataFrame
    settings: CountSettings
    findings: tuple[Finding, ...]
    sources: tuple[Source, ...]


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
    from popcorn_ml.census import unit_rasters

    if level.reader == "gridded":
        return unit_rasters.cells(level.counts[0], files)
    assert level.boundaries is not None
    return _units_of(level.boundaries, level.reader, files, year)


def _units_of(
    settings: BoundarySettings, reader: ReaderName, files: Files, year: int | None
) -> UnitInput:
    from popcorn_ml.census import unit_rasters

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
    settled = settings.model_copy(update={"columns": _boundary_columns(settings, reader, path)})
    read = boundaries.read_boundaries(path, settled, year)
    frame = read.frame
    if reader == "us_census":
        frame = frame.assign(id=us_codes(list(frame["id"])))
        frame, found = geometry.unite(frame, path)
        read = replace(read, findings=read.findings + tuple(found))
    return UnitInput(frame, path.name, None, None, read.findings, files.sources(settings))


def _boundary_columns(
    settings: BoundarySettings, reader: ReaderName, path: Path
) -> BoundaryColumns:
    given = settings.columns
    if reader == "table":
        return given
    names = boundaries.attribute_names(path, settings)
    defaults = _default_boundary_columns(reader, names)
    return BoundaryColumns(
        id=given.id or defaults.id,
        name=given.name or defaults.name,
        parent=given.parent or defaults.parent,
    )


def _default_boundary_columns(reader: ReaderName, names: Sequence[str]) -> BoundaryColumns:
    if reader == "cod":
        return _cod_columns(names)
    if reader == "worldpop":
        return BoundaryColumns(
            id=_first(names, "GID", "adm_id", "ADMINID", "GID_0"), name=_one(names, "NAME", "name")
        )
    if reader == "geoboundaries":
        return BoundaryColumns(id=_first(names, "shapeID"), name=_one(names, "shapeName"))
    if reader == "us_census":
        return BoundaryColumns(id=_us_id(names), name=_one(names, "NAME", "name", "NAME20"))
    return BoundaryColumns()


def _first(names: Sequence[str], *wanted: str) -> tuple[str, ...]:
    found = _one(names, *wanted)
    return (found,) if found else ()


def _one(names: Sequence[str], *wanted: str) -> str | None:
    lower = {n.casefold(): n for n in reversed(names)}
    return next((lower[w.casefold()] for w in wanted if w.casefold() in lower), None)


def _cod_columns(names: Sequence[str]) -> BoundaryColumns:
    """The deepest level of a table of common operational data: `ADM2_PCODE`, `adm2_name`."""
    levels = {
        int(m.group(1)): n for n in names if (m := re.fullmatch(r"adm(\d)_pcode", n.casefold()))
    }
    if not levels:
        return BoundaryColumns()
    depth = max(levels)
    name = _one(names, f"ADM{depth}_EN", f"adm{depth}_name", f"ADM{depth}_FR", f"ADM{depth}_PT")
    name = name or _one(names, f"ADM{depth}_ES", f"ADM{depth}_AR")
    return BoundaryColumns(id=(levels[depth],), name=name, parent=levels.get(depth - 1))


def _us_id(names: Sequence[str]) -> tuple[str, ...]:
    whole = _first(names, "GEOID", "GEOID20", "GEOID10", "GEO_ID", "fips", "GEOIDFQ")
    if whole:
        return whole
    found = {re.sub(r"(?<=[a-z])\d\d$", "", n.casefold()): n for n in names}
    state = found.get("statefp") or found.get("state")
    if state is None:
        return ()
    parts = [state]
    for pair in (("countyfp", "county"), ("tractce", "tract")):
        part = next((found[p] for p in pair if p in found), None)
        if part is None:
            return tuple(parts)
        parts.append(part)
    block = next((found[p] for p in ("blockce", "block") if p in found), None)
    group = next((found[p] for p in ("blkgrpce", "block group") if p in found), None)
    return (*parts, *([block] if block else [group] if group else []))


def us_codes(ids: Sequence[str]) -> list[str]:
    """FIPS codes: the part behind `US` of a long GEO_ID, zeros that a spreadsheet ate put back.

    The width is the longest code's, or the next standard one where that is one digit short.
    """
    bare = [re.sub(r"^\d{7}(?:[A-Z0-9]{2})?US", "", i) for i in ids]
    digits = [i for i in bare if i.isdigit()]
    if not digits:
        return bare
    longest = max(map(len, digits))
    width = longest if longest in US_WIDTHS else longest + 1
    if width not in US_WIDTHS:
        return bare
    return [i.zfill(width) if i.isdigit() else i for i in bare]


# Counts -----------------------------------------------------------------------------------------


def read_counts(level: LevelSettings, files: Files) -> list[CountInput]:
    """The counts of a level, one item a table.

    Raises:
        CensusError: as `tables.read_table`, or a column is missing, or no year is stated.
    """
    from popcorn_ml.census import unit_rasters

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
    table = read_table(
        path,
        sheet=settings.sheet,
        encoding=settings.encoding,
        delimiter=settings.delimiter,
        header_row=settings.header_row,
    )
    findings = [Finding("counts_readable", "warn", note) for note in table.notes]
    table = _kept(table, settings)
    columns = _count_columns(level.reader, settings.columns, table, settings)
    frame, found = _long(table, columns, level, settings)
    return CountInput(frame, settings, tuple(findings + found), files.sources(settings))


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


def _count_columns(
    reader: ReaderName, given: CountColumns, table: Table, settings: CountSettings
) -> CountColumns:
    names = table.columns
    update: dict[str, Any] = {}
    if reader == "cod":
        cod = _cod_columns(names)
        update = {"id": cod.id, "name": cod.name, "parent": cod.parent}
        update["people"] = _one(names, "T_TL", "T_TOTAL", "Population")
        update["year"] = _one(names, "year", "reference_year", "Reference year")
        update["ages"] = tuple(
            n for n in names if re.fullmatch(r"t_\d\d_\d\d|t_\d\d ?plus", n.casefold())
        )
    elif reader == "worldpop":
        update = {"id": _first(names, "GID", "adm_id"), "name": _one(names, "NAME")}
        update["people"] = "P_{year}"
    elif reader == "geoboundaries":
        update = {"id": _first(names, "shapeID"), "name": _one(names, "shapeName")}
        update["people"] = _one(names, "population", "people", "pop")
    elif reader == "us_census":
        update = {"id": _us_id(names), "name": _one(names, "NAME")}
        update["people"] = _one(names, "P1_001N", "P001001", "POP100")
    elif reader == "published":
        update = {"id": _first(names, "idx")}
        years = {
            2000 + int(m.group(1)): n
            for n in names
            if (m := re.fullmatch(r"pop(\d\d)", n.casefold()))
        }
        update["people"] = years or None
    merged: dict[str, Any] = {
        k: getattr(given, k) or update.get(k) for k in CountColumns.model_fields
    }
    merged["id"], merged["ages"] = merged["id"] or (), merged["ages"] or ()
    columns = CountColumns(**merged)
    if not columns.people:
        raise CensusError(
            "the settings do not say which column counts people",
            where=table.path,
            expected="counts.columns.people",
            found=", ".join(names),
            remedy="add it to the country's file",
        )
    if not columns.id and not columns.name:
        raise CensusError(
            "the settings name neither an id nor a name column of the counts",
            where=table.path,
            expected="counts.columns.id or .name",
            found=", ".join(names),
            remedy="add it to the country's file",
        )
    return columns


def _long(
    table: Table, columns: CountColumns, level: LevelSettings, settings: CountSettings
) -> tuple[pd.DataFrame, list[Finding]]:
    """One row a unit and year."""
    import pandas as pd

    source = table.frame

    def column(name: str, purpose: str) -> list[str]:
        found = find_column(table, name, purpose, f"counts.columns.{purpose}")
        return list(source[found])

    ids = [""] * len(source)
    for name in columns.id:
        part = [clean_id(v) for v in column(name, "id")]
        if level.reader == "us_census" and len(columns.id) > 1:
            digits = US_PARTS.get(re.sub(r"(?<=[a-z])\d\d$", "", name.casefold()), 0)
            part = [p.zfill(digits) if p.isdigit() else p for p in part]
        ids = [a + b for a, b in zip(ids, part, strict=True)]
    if level.reader == "us_census":
        ids = us_codes(ids)
    if settings.id_width:
        ids = [i.zfill(settings.id_width) if i.isdigit() else i for i in ids]
    base = pd.DataFrame(
        {
            "id": ids,
            "name": [clean_name(v) for v in column(columns.name, "name")] if columns.name else "",
            "parent": [clean_name(v) for v in column(columns.parent, "parent")]
            if columns.parent
            else "",
            "file": table.path.name,
            "row": list(source[ROW]),
        }
    )
    base["kind"] = settings.kind or level.kind or KIND_OF[level.reader]
    findings: list[Finding] = []
    where = table.path
    growth, found = _numbers(
        column(columns.annual_growth, "annual_growth") if columns.annual_growth else None,
        base, where, settings, "annual_growth",
    )  # fmt: skip
    findings += found
    base["annual_growth"] = growth
    by_year = _people_columns(columns, table, settings)
    years_of_rows: list[int] | None = None
    if columns.year is not None and not isinstance(columns.people, dict):
        years_of_rows, keep, found = _years(column(columns.year, "year"), base, where)
        findings += found
    years_frames = []
    for year, name in by_year.items():
        people, found = _numbers(list(source[name]), base, where, settings, name)
        findings += found
        of_year = base.copy()
        of_year["people"] = people
        of_year["year"] = years_of_rows if year is None else year
        years_frames.append(of_year if years_of_rows is None else of_year[keep])
    frame = pd.concat(years_frames, ignore_index=True)
    frame["year"] = frame["year"].astype(int)
    findings += _age_bands(columns, table, base, by_year, settings)
    order = ["id", "name", "parent", "year", "people", "kind", "annual_growth", "file", "row"]
    return frame[order], findings


def _people_columns(
    columns: CountColumns, table: Table, settings: CountSettings
) -> dict[int | None, str]:
    """Column of counts by year; the year None is that of the row."""
    people = columns.people
    if isinstance(people, dict):
        return {
            year: find_column(table, name, f"people of {year}", "counts.columns.people")
            for year, name in sorted(people.items())
        }
    assert people is not None
    if "{year}" in people:
        head, tail = people.split("{year}", 1)
        pattern = re.compile(re.escape(head) + r"(\d{4})" + re.escape(tail), re.IGNORECASE)
        found: dict[int | None, str] = {
            int(m.group(1)): n for n in table.columns if (m := pattern.fullmatch(n))
        }
        if not found:
            raise CensusError(
                "no column of people fits the pattern",
                where=table.path,
                expected=people.replace("{year}", "2020") + " or another year",
                found=", ".join(table.columns),
                remedy="correct `counts.columns.people` in the country's file",
            )
        return dict(sorted(found.items(), key=lambda item: item[0] or 0))
    name = find_column(table, people, "people", "counts.columns.people")
    if columns.year is not None:
        return {None: name}
    year = settings.year or US_DEFAULT_YEARS.get(name)
    if year is None:
        in_name = re.search(r"(?<!\d)(19|20)\d\d(?!\d)", table.path.stem)
        raise CensusError(
            "the settings do not say of which year the counts are",
            where=table.path,
            expected="counts.year, or counts.columns.year",
            found=f"{in_name.group(0)} in the file's name" if in_name else "none",
            remedy="add `year` to the table's settings in the country's file",
        )
    return {year: name}


def _years(
    cells: list[str], base: pd.DataFrame, path: Path
) -> tuple[list[int], list[bool], list[Finding]]:
    years, bad = [], []
    for place, cell in enumerate(cells):
        text = clean_id(cell)[:4] if re.match(r"^\d{4}-\d\d", clean_id(cell)) else clean_id(cell)
        good = text.isascii() and text.isdigit() and int(text) in YEARS
        years.append(int(text) if good else 0)
        if not good:
            bad.append(_described(base, place, value=cell, problem="no year"))
    findings = []
    if bad:
        findings.append(
            Finding(
                "counts_numeric",
                "error",
                f"{path}: rows that have no year: {rows_text(bad)}. They were left out; "
                "write the year as four digits",
                tuple(bad),
            )
        )
    if len(bad) == len(cells):
        raise CensusError(
            "no row has a year",
            where=f"{path}, row {base['row'].iloc[0]}",
            expected="a year such as 2020",
            found=repr(cells[0]),
            remedy="correct `counts.columns.year` in the country's file",
        )
    return years, [y > 0 for y in years], findings


def _described(base: pd.DataFrame, place: int, **extra: object) -> dict[str, Any]:
    row = base.iloc[place]
    return {
        "file": row["file"], "row": int(row["row"]), "id": row["id"], "name": row["name"], **extra
    }  # fmt: skip


PROBLEMS: dict[str, tuple[str, Severity, str]] = {
    "missing": ("counts_present", "warn", "have no count"),
    "suppressed": ("counts_present", "warn", "have a count that the office keeps secret"),
    "grouped": ("counts_numeric", "warn", "were read without their thousands separators"),
    "exponent": (
        "counts_numeric",
        "error",
        "are written with an exponent, which loses digits; export whole numbers",
    ),
    "text": (
        "counts_numeric",
        "error",
        "are no numbers; correct them, or state `decimal` and `thousands` in the country's file",
    ),
}
MISSING_SHARE_ERROR = 0.05
"""Share of a table's rows without a count above which training would be wrong."""


def _numbers(
    cells: list[str] | None,
    base: pd.DataFrame,
    path: Path,
    settings: CountSettings,
    name: str,
) -> tuple[list[float], list[Finding]]:
    """Numbers of a column, NaN where there is none, and what was wrong with the others."""
    nan = float("nan")
    if cells is None:
        return [nan] * len(base), []
    values: list[float] = []
    wrong: dict[str, list[dict[str, Any]]] = {}
    for place, cell in enumerate(cells):
        number = parse_number(cell, settings.decimal, settings.thousands)
        values.append(nan if number.value is None else number.value)
        if number.problem:
            wrong.setdefault(number.problem, []).append(
                _described(base, place, column=name, value=cell, problem=number.problem)
            )
    findings = []
    for problem, rows in wrong.items():
        check, severity, text = PROBLEMS[problem]
        if problem in ("missing", "suppressed"):
            if name == "annual_growth":
                continue
            text += "; fill them in, or leave the units out of both files"
            if len(rows) > MISSING_SHARE_ERROR * len(cells):
                severity = "error"
        findings.append(
            Finding(
                check,
                severity,
                f"{path}, column {name!r}: rows that {text}: {rows_text(rows)}",
                tuple(rows[:500]),
                len(rows),
            )
        )
    return values, findings


def _age_bands(
    columns: CountColumns,
    table: Table,
    base: pd.DataFrame,
    by_year: dict[int | None, str],
    settings: CountSettings,
) -> list[Finding]:
    """Whether the bands of each row add up to its total, to a person for each two bands."""
    if not columns.ages or len(by_year) != 1:
        return []
    import numpy as np

    bands = np.zeros(len(base))
    for name in columns.ages:
        found = pick_column(table.columns, name, "an age band", "counts.columns.ages", table.path)
        cells = [parse_number(c, settings.decimal, settings.thousands) for c in table.frame[found]]
        bands += [np.nan if c.value is None else c.value for c in cells]
    total = np.array(
        [
            np.nan if (n := parse_number(c, settings.decimal, settings.thousands)).value is None
            else n.value
            for c in table.frame[next(iter(by_year.values()))]
        ],
        float,
    )  # fmt: skip
    off = np.abs(bands - total) > max(
        0.5 * len(columns.ages), 1e-4 * np.nanmax(np.append(total, 0))
    )
    off &= np.abs(bands - total) > 0.001 * total
    if not off.any():
        return []
    rows = tuple(
        _described(base, int(k), total=float(total[k]), bands=float(bands[k]))
        for k in np.flatnonzero(off)
    )
    worst = float(np.nanmax(np.abs(bands - total)[off] / np.maximum(total[off], 1)))
    return [
        Finding(
            "age_bands",
            "error" if worst > 0.01 else "warn",
            f"{table.path}: rows whose age bands do not add up to the total: "
            f"{rows_text(rows)}. Correct the rows, or the list `counts.columns.ages`",
            rows,
        )
    ]
