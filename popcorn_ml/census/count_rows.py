"""A table of counts as one row a unit and year, each with its number or why there is none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popcorn_ml.census import ages
from popcorn_ml.census.columns import US_PARTS, us_codes
from popcorn_ml.census.findings import Finding, rows_text
from popcorn_ml.census.inputs import KIND_OF
from popcorn_ml.census.numerals import Notation, notation
from popcorn_ml.census.settings import CountColumns, CountSettings, LevelSettings
from popcorn_ml.census.tables import ROW, Table, find_column
from popcorn_ml.census.text import Number, clean_id, clean_name, parse_number
from popcorn_ml.errors import CensusError

if TYPE_CHECKING:
    import pandas as pd

US_DEFAULT_YEARS = {"P1_001N": 2020}

YEARS = range(1800, 2200)

ORDER = [
    "id", "name", "parent", "year", "people", "kind", "annual_growth", "file", "row", "column",
    "cell", "problem", "growth_cell", "growth_problem",
]  # fmt: skip


def long_rows(
    table: Table, columns: CountColumns, level: LevelSettings, settings: CountSettings, file: str
) -> tuple[pd.DataFrame, list[Finding]]:
    """One row a unit and year: `ORDER`.

    Args:
        table: as read.
        columns: which of its columns mean what.
        level, settings: whose it is.
        file: the office's file, for messages and for the table of counts.

    Raises:
        CensusError: a column is missing, no year is stated, or no row has one.
    """
    import pandas as pd

    base, findings = _places(table, columns, level, settings, file)
    growth = _growth(table, columns, settings)
    base["annual_growth"] = [_value(n) for _, n in growth]
    base["growth_cell"] = [cell for cell, _ in growth]
    base["growth_problem"] = [n.problem for _, n in growth]
    by_year = _people_columns(columns, table, settings)
    frames = []
    for year, name in by_year.items():
        of_year = base.copy()
        numbers, how = _numbers(table, name, settings)
        findings += _notation_findings(how, list(table.frame[name]), base, file, name)
        of_year["people"] = [_value(n) for n in numbers]
        of_year["problem"] = [n.problem for n in numbers]
        of_year["cell"], of_year["column"] = list(table.frame[name]), name
        if year is None:
            assert columns.year is not None
            cells = _cells(table, columns.year, "year")
            of_year, found = _with_years(of_year, cells, file)
            findings += found
        else:
            of_year["year"] = year
        frames.append(of_year)
    frame = pd.concat(frames, ignore_index=True)
    frame["year"] = frame["year"].astype(int)
    if len(by_year) == 1:
        findings += _age_findings(columns, table, base, next(iter(by_year.values())), settings)
    return frame[ORDER], findings


def _cells(table: Table, name: str, purpose: str) -> list[str]:
    return list(table.frame[find_column(table, name, purpose, f"counts.columns.{purpose}")])


def _words(table: Table, name: str, purpose: str) -> list[str]:
    """Cells of a column; where several rows share a merged one, each has what it says."""
    column = find_column(table, name, purpose, f"counts.columns.{purpose}")
    merged = table.merged.get(column, {})
    cells = zip(table.frame[column], table.frame[ROW], strict=True)
    return [cell if cell.strip() else merged.get(int(row), cell) for cell, row in cells]


def _places(
    table: Table, columns: CountColumns, level: LevelSettings, settings: CountSettings, file: str
) -> tuple[pd.DataFrame, list[Finding]]:
    """Identifier, name and parent of each row, and where it stands."""
    import pandas as pd

    ids = [""] * len(table.frame)
    for name in columns.id:
        part = [clean_id(v) for v in _words(table, name, "id")]
        if level.reader == "us_census" and len(columns.id) > 1:
            digits = US_PARTS.get(re.sub(r"(?<=[a-z])\d\d$", "", name.casefold()), 0)
            part = [p.zfill(digits) if p.isdigit() else p for p in part]
        ids = [a + b for a, b in zip(ids, part, strict=True)]
    if level.reader == "us_census":
        ids = us_codes(ids)
    if settings.id_width:
        ids = [i.zfill(settings.id_width) if i.isdigit() else i for i in ids]
    names = [clean_name(v) for v in _words(table, columns.name, "name")] if columns.name else ""
    findings: list[Finding] = []
    parents: list[str] | str = ""
    if columns.parent:
        told = [clean_name(v) for v in _words(table, columns.parent, "parent")]
        own = [any(pair) for pair in zip(ids, names or ids, strict=True)]
        parents = _carried_down(told, own)
        if parents != told:
            findings.append(
                Finding(
                    "counts_readable",
                    "warn",
                    f"{file}, column {columns.parent!r}: empty cells were read as the last one "
                    "above them that is not empty",
                )
            )
    base = pd.DataFrame(
        {"id": ids, "name": names, "parent": parents, "file": file, "row": list(table.frame[ROW])}
    )
    base["kind"] = settings.kind or level.kind or KIND_OF[level.reader]
    return base, findings


def _carried_down(cells: list[str], own: Sequence[bool]) -> list[str]:
    """Parents that are written once, above the rows that they hold for.

    Args:
        cells: what is written.
        own: whether a row has an identifier or a name of its own; others have no parent.
    """
    if not cells or not cells[0]:
        return cells
    out, last = [], ""
    for cell, has in zip(cells, own, strict=True):
        last = cell or last
        out.append(last if has else cell)
    return out


def _growth(
    table: Table, columns: CountColumns, settings: CountSettings
) -> list[tuple[str, Number]]:
    """The stated growth of each row: a fraction, in which nothing stands between thousands."""
    if columns.annual_growth is None:
        return [("", Number(None, ""))] * len(table.frame)
    decimal = settings.decimal or ("," if settings.thousands == "." else ".")
    cells = _cells(table, columns.annual_growth, "annual_growth")
    return [(cell, parse_number(cell, decimal)) for cell in cells]


def _value(number: Number) -> float:
    return float("nan") if number.value is None else number.value


def _numbers(table: Table, name: str, settings: CountSettings) -> tuple[list[Number], Notation]:
    """Counts of a column, read as the whole column says."""
    cells = list(table.frame[name])
    how = notation(cells, settings.decimal, settings.thousands, settings.nil, name in table.typed)
    merged = table.merged.get(name, {})
    numbers = [
        Number(None, "merged") if int(row) in merged else how.read(cell)
        for cell, row in zip(cells, table.frame[ROW], strict=True)
    ]
    return numbers, how


def _notation_findings(
    how: Notation, cells: Sequence[str], base: pd.DataFrame, file: str, column: str
) -> list[Finding]:
    """What was found out about a column's marks, or could not be."""
    from popcorn_ml.census.numerals import ambiguous

    mark = how.mark or how.unclear
    if mark is None:
        return []
    chosen = [
        (k, cell)
        for k, cell in enumerate(cells)
        if (mark in cell and how.read(cell).value is not None)
        if how.mark or ambiguous(cell, mark)
    ]
    if how.unclear:
        chosen = [(k, cell) for k, cell in enumerate(cells) if ambiguous(cell, mark)]
    if not chosen:
        return []
    rows = tuple(described(base, k, column=column, value=cell) for k, cell in chosen[:500])
    example = chosen[0][1].strip()
    grouped = parse_number(example, "," if mark == "." else ".", mark).value or 0.0
    if how.mark:
        text = (
            f"numbers were read without their thousands separators: {example} as {grouped:,.0f}, "
            f"since every {mark!r} of the column stands before three digits: {rows_text(rows)}. "
            f"State `thousands: '{mark}'` in the country's file, or `decimal: '{mark}'` if that "
            "is wrong"
        )
        return [Finding("counts_numeric", "warn", f"{file}, column {column!r}: {text}", rows,
                        len(chosen))]  # fmt: skip
    fraction = example.replace(mark, ".")
    text = (
        f"rows that can be read in two ways, and are no numbers until that is settled: {example} "
        f"is {grouped:,.0f} if {mark!r} stands between thousands, {fraction} if it is the decimal "
        f"mark, and the column speaks for both ({', '.join(how.evidence)}): {rows_text(rows)}. "
        f"State `thousands: '{mark}'` or `decimal: '{mark}'` in the country's file"
    )
    return [Finding("counts_numeric", "error", f"{file}, column {column!r}: {text}", rows,
                    len(chosen))]  # fmt: skip


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
        return _columns_of_years(people, table)
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


def year_pattern(people: str) -> re.Pattern[str]:
    """What fits a name with `{year}`."""
    head, tail = people.split("{year}", 1)
    return re.compile(re.escape(head) + r"(\d{4})" + re.escape(tail), re.IGNORECASE)


def _columns_of_years(people: str, table: Table) -> dict[int | None, str]:
    pattern = year_pattern(people)
    found: dict[int, list[str]] = {}
    for name in table.columns:
        if m := pattern.fullmatch(name.partition(" (column ")[0]):
            found.setdefault(int(m.group(1)), []).append(name)
    if not found:
        raise CensusError(
            "no column of people fits the pattern",
            where=table.path,
            expected=people.replace("{year}", "2020") + " or another year",
            found=", ".join(table.columns),
            remedy="correct `counts.columns.people` in the country's file",
        )
    several = next((names for names in found.values() if len(names) > 1), None)
    if several:
        raise CensusError(
            "two columns have one name",
            where=table.path,
            expected="one column of people a year",
            found=", ".join(map(repr, several)),
            remedy="rename one of them, or name the columns year by year in "
            "`counts.columns.people`",
        )
    return {year: found[year][0] for year in sorted(found)}


def _with_years(
    frame: pd.DataFrame, cells: Sequence[str], file: str
) -> tuple[pd.DataFrame, list[Finding]]:
    """The rows of a long table with their years; those without one are left out, and told.

    A line that states neither a year nor a number (a label, a note) is kept for what becomes of
    such lines; its year is that of the first row that has one.
    """
    years = []
    for cell in cells:
        text = clean_id(cell)[:4] if re.match(r"^\d{4}-\d\d", clean_id(cell)) else clean_id(cell)
        years.append(int(text) if text.isascii() and text.isdigit() and int(text) in YEARS else 0)
    if not any(years):
        raise CensusError(
            "no row has a year",
            where=f"{file}, row {frame['row'].iloc[0]}",
            expected="a year such as 2020",
            found=repr(cells[0]),
            remedy="correct `counts.columns.year` in the country's file",
        )
    says = [states_something(p, c) for p, c in zip(frame["problem"], frame["cell"], strict=True)]
    bad = [
        described(frame, k, value=cells[k], problem="no year")
        for k, (year, said) in enumerate(zip(years, says, strict=True))
        if not year and said
    ]
    some = next(year for year in years if year)
    frame = frame.assign(year=[year or some for year in years])
    frame = frame[[bool(year) or not said for year, said in zip(years, says, strict=True)]]
    if not bad:
        return frame, []
    text = f"{file}: rows that have no year: {rows_text(bad)}. They were left out; write the year "
    return frame, [Finding("counts_numeric", "error", text + "as four digits", tuple(bad))]


def states_something(problem: str, cell: str) -> bool:
    """Whether a cell of counts holds a number, or what was meant as one, or says it is secret."""
    if problem == "missing":
        return False
    if problem != "text":
        return True
    bare = "".join(cell.split())
    digits = sum(c.isdigit() for c in bare)
    return bool(bare) and bare[0] in "+-0123456789" and 2 * digits > len(bare)


def described(base: pd.DataFrame, place: int, **extra: object) -> dict[str, Any]:
    """A row for a message: where it stands, whose it is, and what is wrong with it."""
    row = base.iloc[place]
    return {
        "file": row["file"], "row": int(row["row"]), "id": row["id"], "name": row["name"], **extra
    }  # fmt: skip


def _age_findings(
    columns: CountColumns, table: Table, base: pd.DataFrame, people: str, settings: CountSettings
) -> list[Finding]:
    import numpy as np

    def counted(name: str) -> np.ndarray:
        return np.array([_value(n) for n in _numbers(table, name, settings)[0]], float)

    names = [
        find_column(table, name, "an age band", "counts.columns.ages") for name in columns.ages
    ]
    whole = bool(settings.columns.ages) or ages.bands(table.columns).whole
    where = str(base["file"].iloc[0])
    return ages.judged([counted(n) for n in names], counted(people), base, where, whole)


def name_of(path: Path, file: str) -> str:
    """An office's file as messages and tables name it: an archive, not what lay in it."""
    return Path(file).name if Path(file).suffix.lower() == ".zip" else path.name
