"""A table of counts as one row a unit and year, and what is wrong with its numbers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popcorn_ml.census.columns import US_PARTS, us_codes
from popcorn_ml.census.findings import Finding, Severity, rows_text
from popcorn_ml.census.inputs import KIND_OF
from popcorn_ml.census.settings import CountColumns, CountSettings, LevelSettings
from popcorn_ml.census.tables import ROW, Table, find_column, pick_column
from popcorn_ml.census.text import clean_id, clean_name, parse_number
from popcorn_ml.errors import CensusError

if TYPE_CHECKING:
    import pandas as pd

US_DEFAULT_YEARS = {"P1_001N": 2020}

YEARS = range(1800, 2200)


def long_rows(
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
