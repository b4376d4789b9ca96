"""What was found wrong in census input, and the checks that findings are gathered into.

A `Finding` belongs to one check and carries the offending rows. `results` turns findings into one
`CheckResult` a check, which the assets show. What counts as wrong is decided in `validate` and the
readers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Severity = Literal["error", "warn"]

MAX_ROWS = 200
"""Offending rows a check carries at most; the message says how many there are."""

UNIT_CHECKS: Mapping[str, str] = {
    "unit_ids": "Each unit has an identifier of its own.",
    "geometry": "Polygons are valid, or were mended without changing their area.",
    "geometry_overlap": "No two units claim the same ground.",
    "geometry_place": "Boundaries lie in the country's box, in the CRS that they state.",
    "unit_pixels": "Each unit has at least one pixel, by its own or by an explicit rule.",
    "unit_areas": "The pixels of each unit have the area of its polygon.",
    "units_readable": "Boundary files were read as they are, without guessing.",
}
"""Checks of the units asset, by name, with what passes."""

COUNT_CHECKS: Mapping[str, str] = {
    "counts_readable": "Tables of counts were read as they are, without guessing.",
    "counts_present": "Each row has a count.",
    "counts_numeric": "Counts are plain numbers.",
    "counts_nonnegative": "No count is negative.",
    "counts_whole": "A census counts whole people.",
    "counts_unique": "One count a unit and year.",
    "people_have_polygon": "Each row of people belongs to a unit with a polygon.",
    "polygon_has_people": "Each unit has people stated, be it none.",
    "names_agree": "Where rows and units join by identifier, their names agree.",
    "join_exact": "Identifiers or names join as they are written, without repair.",
    "age_bands": "Age bands add up to the total.",
    "density": "No unit is more densely settled than any known place.",
    "national_total": "The units add up to the stated national figure.",
    "people_in_pixels": "Every person is in a unit that has a pixel.",
    "growth": "Growth between two censuses, or stated, is believable.",
    "same_ground": "An identifier means the same ground in every year that is used.",
    "total_of_year": "The year's total is its table's own, or lies between those around it.",
    "years": "The counts are of a year near the partition's.",
    "levels_agree": "Levels that cover the same ground hold the same people.",
    "levels_separate": "No evaluation level is the training level under another name.",
}
"""Checks of the counts asset, by name, with what passes."""

CHECKS: Mapping[str, str] = {**UNIT_CHECKS, **COUNT_CHECKS}


@dataclass(frozen=True)
class Finding:
    """Something wrong, or mended, in census input.

    Attributes:
        check: name in `CHECKS`.
        severity: "error" where training on the counts would be wrong, "warn" otherwise.
        message: what is wrong, in which file, and what to do.
        rows: the offending rows, each with at least `file` and `row` where there is one.
        count: number of offending rows, where more than `rows` were found.
    """

    check: str
    severity: Severity
    message: str
    rows: tuple[dict[str, Any], ...] = field(default=())
    count: int | None = None

    def __post_init__(self) -> None:
        if self.check not in CHECKS:
            raise ValueError(f"{self.check!r} is no check")


@dataclass(frozen=True)
class CheckResult:
    """One check's outcome.

    Attributes:
        name: in `CHECKS`.
        passed: whether nothing was found.
        severity: "error" blocks training, "warn" does not.
        message: for a reader.
        rows: offending rows, at most `MAX_ROWS`, as plain dictionaries.
    """

    name: str
    passed: bool
    severity: Severity
    message: str
    rows: tuple[dict[str, Any], ...] = field(default=())

    @property
    def blocks(self) -> bool:
        """Whether what follows must not run."""
        return not self.passed and self.severity == "error"


def results(checks: Mapping[str, str], findings: Iterable[Finding]) -> tuple[CheckResult, ...]:
    """One result for each of `checks`, in their order."""
    by_check: dict[str, list[Finding]] = {name: [] for name in checks}
    for finding in findings:
        by_check.setdefault(finding.check, []).append(finding)
    out = []
    for name, found in by_check.items():
        if not found:
            out.append(CheckResult(name, True, "error", CHECKS[name]))
            continue
        found = sorted(found, key=lambda f: f.severity != "error")
        rows = tuple(row for f in found for row in f.rows)[:MAX_ROWS]
        message = "\n".join(f.message for f in found)
        out.append(CheckResult(name, False, found[0].severity, message, rows))
    return tuple(out)


def rows_text(rows: Iterable[Mapping[str, Any]], shown: int = 5, of: int | None = None) -> str:
    """A few offending rows in one line, for a message; `of` is how many there are in all."""
    rows = list(rows)
    total = len(rows) if of is None else of
    parts = []
    for row in rows[:shown]:
        at = f"row {row['row']}" if row.get("row") not in (None, "") else ""
        rest = ", ".join(
            f"{k} {v!r}" for k, v in row.items() if k not in ("file", "row", "level") and v != ""
        )
        parts.append(f"{at} ({rest})" if at and rest else at or rest)
    more = f" and {total - shown} more" if total > shown else ""
    return "; ".join(parts) + more


def of_level(findings: Iterable[Finding], level: str) -> list[Finding]:
    """The same findings, each row with the level that it is of."""
    return [replace(f, rows=tuple({"level": level, **row} for row in f.rows)) for f in findings]
