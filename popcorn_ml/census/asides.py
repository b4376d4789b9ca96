"""Lines of a table that count nobody's unit: labels, notes, headings, totals; and bad numbers.

A line without a number that belongs to no unit is no row of people; which line belongs to a unit is
known only once people and polygons are joined. All are listed, none is dropped in silence.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from popcorn_ml.census.count_rows import states_something
from popcorn_ml.census.findings import Finding, Severity, rows_text
from popcorn_ml.census.text import name_key

if TYPE_CHECKING:
    import pandas as pd

TOTAL_NAMES = frozenset(
    {"total", "totals", "grand total", "sum", "national", "national total", "country total"}
    | {"whole country", "all", "ensemble", "total general", "total pays", "totaux", "gesamt"}
    | {"jumlah", "jumlah total", "somme", "suma", "totale", "country", "ukupno", "razem", "toplam"}
)
TOTAL = "a total"
COINCIDENCE = 1e-3
"""Share by which a row may differ from a sum and be taken for it where its name does not say so."""
MISSING_SHARE_ERROR = 0.05
"""Share of a table's rows without a count above which training would be wrong."""

PROBLEMS: Mapping[str, tuple[str, Severity, str]] = {
    "missing": ("counts_present", "warn", "have no count"),
    "suppressed": ("counts_present", "warn", "have a count that the office keeps secret"),
    "grouped": ("counts_numeric", "warn", "were read without their thousands separators"),
    "merged": (
        "counts_numeric",
        "error",
        "share one cell merged over several rows: whose people are they? Unmerge it, and write a "
        "count into each row",
    ),
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
SILENT = ("missing", "text")
"""Problems of a line that may be no row at all."""


@dataclass(frozen=True)
class Sorted:
    """Rows that count people, and lines that do not.

    Attributes:
        counts: the rows to go on with.
        asides: the others: file, row, why, text.
        findings: what to say of them.
    """

    counts: pd.DataFrame
    asides: tuple[dict[str, Any], ...]
    findings: tuple[Finding, ...]


def sorted_out(units: pd.DataFrame, counts: pd.DataFrame, changed: Collection[str]) -> Sorted:
    """A table's rows of people, joined to units, without the lines that are none.

    Args:
        units: id, name, parent.
        counts: rows as `count_rows.ORDER`, and `unit`.
        changed: identifiers of units that are no more or not yet, but have rows all the same.
    """
    own = [
        unit or next((w for w in (id_, name) if w in changed), "")
        for unit, id_, name in zip(counts["unit"], counts["id"], counts["name"], strict=True)
    ]
    numbered = _without_number(counts.assign(unit=own))
    summed = _without_totals(units, numbered.counts)
    kept = summed.counts
    findings = (*summed.findings, *number_findings(kept))
    kept = kept.assign(unit=counts.loc[kept.index, "unit"])
    return Sorted(kept, (*numbered.asides, *summed.asides), findings)


def _without_number(counts: pd.DataFrame) -> Sorted:
    """Lines set aside that state no number and belong to no unit, or to one counted elsewhere."""
    says = [states_something(p, c) for p, c in zip(counts["problem"], counts["cell"], strict=True)]
    counts = counts.assign(_says=says)
    lines = counts.groupby(["file", "row"], sort=False)["_says"].transform("any")
    counted = set(
        zip(counts["unit"][counts["_says"]], counts["year"][counts["_says"]], strict=True)
    )
    out = [
        not line if unit == "" else not said and (unit, year) in counted
        for unit, year, said, line in zip(counts["unit"], counts["year"], says, lines, strict=True)
    ]
    chosen = counts[out].drop_duplicates(["file", "row"])
    kept = counts[[not o for o in out]].drop(columns="_says")
    asides = tuple(
        {"file": file, "row": int(row), "why": "no number" if unit else "no number and no unit",
         "text": " | ".join(str(w) for w in dict.fromkeys((id_, parent, name, cell)) if w)[:120]}
        for file, row, unit, id_, parent, name, cell in zip(
            *(chosen[c] for c in ("file", "row", "unit", "id", "parent", "name", "cell")),
            strict=True,
        )
    )  # fmt: skip
    return Sorted(kept, asides, ())


def line_findings(read: Sequence[dict[str, Any]], told: Sorted) -> list[Finding]:
    """What to say of lines that were set aside, but for totals, of which it is said elsewhere.

    Args:
        read: those set aside while the table was read.
        told: those set aside since.
    """
    lines = [*read, *(line for line in told.asides if line["why"] != TOTAL)]
    if not lines:
        return []
    text = f"lines that are no rows of the table were set aside: {rows_text(lines)}"
    file = lines[0]["file"]
    return [Finding("counts_readable", "warn", f"{file}: {text}", tuple(lines[:500]), len(lines))]


def number_findings(counts: pd.DataFrame) -> list[Finding]:
    """What is wrong with the numbers of rows, by table, column and kind of problem.

    Args:
        counts: rows as `count_rows.ORDER`; with `unit`, missing counts are those of units.
    """
    findings = []
    for file, column in dict.fromkeys(zip(counts["file"], counts["column"], strict=True)):
        of_column = counts[(counts["file"] == file) & (counts["column"] == column)]
        for problem in dict.fromkeys(of_column["problem"]):
            if problem in PROBLEMS:
                wrong = of_column[of_column["problem"] == problem]
                findings.append(_finding(problem, wrong, "cell", file, column, len(of_column)))
    growth = counts[counts["growth_problem"] != ""].drop_duplicates(["file", "row"])
    for file, problem in dict.fromkeys(zip(growth["file"], growth["growth_problem"], strict=True)):
        if problem in PROBLEMS and problem not in ("missing", "suppressed"):
            wrong = growth[(growth["file"] == file) & (growth["growth_problem"] == problem)]
            findings.append(
                _finding(problem, wrong, "growth_cell", file, "annual_growth", len(wrong))
            )
    return findings


def _finding(
    problem: str, wrong: pd.DataFrame, cells: str, file: str, column: str, of: int
) -> Finding:
    check, severity, text = PROBLEMS[problem]
    if problem in ("missing", "suppressed"):
        text += "; fill them in, or leave the units out of both files"
        if len(wrong) > MISSING_SHARE_ERROR * of:
            severity = "error"
    shown = wrong.head(500)
    rows = tuple(
        {"file": file, "row": int(row), "id": i, "name": name, "column": column, "value": cell,
         "problem": problem}
        for row, i, name, cell in zip(
            *(shown[c] for c in ("row", "id", "name", cells)), strict=True
        )
    )  # fmt: skip
    message = f"{file}, column {column!r}: rows that {text}: {rows_text(rows, of=len(wrong))}"
    return Finding(check, severity, message, rows, len(wrong))


def _without_totals(units: pd.DataFrame, counts: pd.DataFrame) -> Sorted:
    """Set rows aside that are the sum of others: of the country's, or of a parent's units.

    A row is a total that has no unit, or shares one with another row (a country or a province may
    have a unit of its own name), and states the sum of the rest, to what rounding explains.

    Args:
        units: id, name, parent.
        counts: rows with `unit`.
    """
    parent_of = dict(zip(units["id"], units["parent"], strict=True))
    found: list[int] = []
    for _, year in counts[counts["people"].notna()].groupby("year"):
        found += _of_year(year, parent_of)
    if not found:
        return Sorted(counts, (), ())
    # What is a total in one year is one in the others, though not all may add up to it.
    lines = set(zip(counts.loc[found, "file"], counts.loc[found, "row"], strict=True))
    here = [line in lines for line in zip(counts["file"], counts["row"], strict=True)]
    chosen = counts[here]
    rows = tuple(_row(row) for _, row in chosen[chosen.index.isin(found)].iterrows())
    text = f"totals of the others and were set aside: {rows_text(rows)}"
    off = chosen[~chosen.index.isin(found) & chosen["people"].notna()]
    if not off.empty:
        wrong = [{**_row(row), "year": int(row["year"])} for _, row in off.iterrows()]
        text += f". In other years the rows do not add up to them: {rows_text(wrong)}"
        rows += tuple(wrong)
    finding = Finding(
        "people_have_polygon", "warn", f"{rows[0]['file']}: rows that are {text}", rows
    )
    asides = tuple(
        {"file": r["file"], "row": r["row"], "why": TOTAL,
         "text": " | ".join(str(r[k]) for k in ("id", "name", "people") if r.get(k))}
        for r in {(r["file"], r["row"]): r for r in reversed(rows)}.values()
    )  # fmt: skip
    return Sorted(counts[[not h for h in here]], asides, (finding,))


def _of_year(year: pd.DataFrame, parent_of: Mapping[str, str]) -> list[int]:
    """Index of the rows of one year that are totals."""
    twice = (year["unit"] != "") & year.duplicated("unit", keep=False)
    candidates = year[(year["unit"] == "") | twice]
    if candidates.empty:
        return []
    sure = year[(year["unit"] != "") & ~twice]
    step = _step(list(sure["people"]))
    groups = _groups(sure, parent_of)
    below = _Below(sure)
    whole, everybody = float(sure["people"].sum()), float(year["people"].sum())
    shared = year[twice].groupby("unit")["people"].sum().to_dict()
    found = []
    columns = ["id", "name", "unit", "people"]
    for index, row in zip(candidates.index, candidates[columns].to_dict("records"), strict=True):
        people, n = float(row["people"]), len(sure)
        keys = {name_key(row["name"]), name_key(row["id"])} - {""}
        named = bool(keys & TOTAL_NAMES)
        # Two rows of one unit, of which one is the total: the other is the unit's own.
        partner = shared.get(row["unit"], people) - people if row["unit"] else 0.0
        rest = everybody - people
        sums = [(whole + partner, n), (rest, len(year) - 1)]
        sums += [(whole + partner, n)] if named else []
        own = [groups[k] for k in keys if k in groups]
        own += [] if row["unit"] or not row["id"] else [below.sum(row["id"])]
        if any(_is_sum(people, total, of, step, named) for total, of in sums) or any(
            _is_sum(people, total, of, step, True) for total, of in own
        ):
            found.append(int(index))
    return found


class _Below:
    """People of the rows whose identifiers begin with another one, as districts of a province."""

    def __init__(self, rows: pd.DataFrame) -> None:
        pairs = sorted(zip(rows["id"], rows["people"], strict=True))
        self.ids = [i for i, _ in pairs]
        self.sums = list(accumulate((p for _, p in pairs), initial=0.0))

    def sum(self, start: str) -> tuple[float, int]:
        """People and rows below an identifier."""
        first, last = bisect_right(self.ids, start), bisect_left(self.ids, start + chr(0x10FFFF))
        return self.sums[last] - self.sums[first], last - first


def _groups(sure: pd.DataFrame, parent_of: Mapping[str, str]) -> dict[str, tuple[float, int]]:
    """People and rows of each parent, by its name or identifier on either side."""
    out: dict[str, tuple[float, int]] = {}
    for unit, parent, people in zip(sure["unit"], sure["parent"], sure["people"], strict=True):
        for key in {name_key(parent), name_key(parent_of.get(unit, ""))} - {""}:
            total, n = out.get(key, (0.0, 0))
            out[key] = total + people, n + 1
    return out


def _is_sum(people: float, total: float, of: int, step: float, named: bool) -> bool:
    """Whether a number is a sum of others, each rounded to a step, and rounded itself."""
    if of < (1 if named else 2) or people <= 0:
        return False
    slack = 0.5 * step * (of + 1) if of > 1 else 0.5
    if not named:
        slack = min(slack, max(COINCIDENCE * total, 0.5))
    return abs(people - total) <= slack


def _step(values: list[float]) -> float:
    """What an office rounded its counts to: their greatest common divisor; 1 at least."""
    whole = [round(v) for v in values if v == round(v)]
    return float(max(math.gcd(*whole), 1)) if len(whole) == len(values) and whole else 1.0


def _row(row: pd.Series) -> dict[str, Any]:
    out = {"file": row["file"], "row": int(row["row"]), "id": row["id"], "name": row["name"]}
    if row.get("parent"):
        out["parent"] = row["parent"]
    if row["people"] == row["people"]:
        out["people"] = float(row["people"])
    return out
