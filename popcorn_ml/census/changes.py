"""What a country says became of its units: a table of old identifier, new identifier and share.

A row says that, at a change of boundaries, this share of the people of the old unit came to the new
one. A unit that kept its identifier and its ground needs no row; one that is named with itself and
share 1 is said to be unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from popcorn_ml.census.files import Files, Source
from popcorn_ml.census.findings import Finding, rows_text
from popcorn_ml.census.settings import ChangeSettings, LevelSettings
from popcorn_ml.census.tables import ROW, TABLE_SUFFIXES, find_column, read_table
from popcorn_ml.census.text import clean_id, parse_number
from popcorn_ml.census.transfer import spread_rows
from popcorn_ml.errors import CensusError

if TYPE_CHECKING:
    import pandas as pd

SHARES_OFF = 0.005
"""By which the shares of an old unit may miss 1: offices round."""


@dataclass(frozen=True)
class Change:
    """One row: a share of an old unit's people that came to a new unit.

    Attributes:
        year: the first whose counts are of the new units.
        old, new: identifiers.
        share: of the old unit's people; None where the file leaves it to the counts.
        file, row: where it is stated.
    """

    year: int
    old: str
    new: str
    share: float | None
    file: str
    row: int


def read_changes(level: LevelSettings, files: Files) -> tuple[list[Change], list[Source]]:
    """All changes that a level's settings name.

    Raises:
        CensusError: a file that cannot be read, a column that is missing, a row without
            identifiers or year, or a share that is no share.
    """
    found: list[Change] = []
    sources: list[Source] = []
    for settings in level.changes:
        found += _read(settings, files)
        sources += files.sources(settings)
    return found, sources


def _read(settings: ChangeSettings, files: Files) -> list[Change]:
    path = files.open(settings, TABLE_SUFFIXES)
    table = read_table(
        path, sheet=settings.sheet, encoding=settings.encoding, delimiter=settings.delimiter
    )
    columns = settings.columns

    def cells(name: str, purpose: str) -> list[str]:
        column = find_column(table, name, purpose, f"changes.columns.{purpose}")
        return [str(v) for v in table.frame[column]]

    old, new = cells(columns.old, "old"), cells(columns.new, "new")
    stated = columns.share if columns.share in table.columns or columns.share != "share" else None
    share = cells(stated, "share") if stated else [""] * len(old)
    year = cells(columns.year, "year") if columns.year else [str(settings.year or "")] * len(old)
    out = []
    for a, b, s, y, row in zip(old, new, share, year, table.frame[ROW], strict=True):
        number = parse_number(s).value if s.strip() else None
        good = clean_id(a) and clean_id(b) and clean_id(y).isdigit()
        if not good or (s.strip() and (number is None or not 0 < number <= 1)):
            raise CensusError(
                "a row of the changes cannot be used",
                where=f"{path}, row {row}",
                expected="an old and a new identifier, a share above 0 up to 1 or none, and the "
                "year from which the new units are counted",
                found=f"{a!r}, {b!r}, {s!r}, {y!r}",
                remedy="correct the row; the year may also be `changes.year` in the country's file",
            )
        out.append(Change(int(clean_id(y)), clean_id(a), clean_id(b), number, path.name, int(row)))
    return out


def apply_changes(
    counts: pd.DataFrame,
    changes: Sequence[Change],
    units: Sequence[str],
    reference: Mapping[str, Mapping[int, float]],
) -> tuple[pd.DataFrame, list[Finding]]:
    """Counts brought across the stated changes, to the units that the level has.

    Counts from before a change go forward to the new units; where the level's units are the old
    ones, counts from after it go back. A share that is not stated is that of the people whom the
    nearest table counts on the other side.

    Args:
        counts: joined rows of all tables; rows without a unit keep their own identifier.
        changes: those stated.
        units: the level's.
        reference: identifier -> year -> people as the tables have them.
    """
    if not changes:
        return counts, []
    known = set(units)
    counts = counts.assign(
        unit=[
            u or i or n
            for u, i, n in zip(*(counts[c] for c in ("unit", "id", "name")), strict=True)
        ]
    )
    seen = set(counts["unit"])
    findings: list[Finding] = []
    years = sorted({c.year for c in changes})
    forward = {year: _forward([c for c in changes if c.year == year], known) for year in years}
    for year in [y for y in years if forward[y]] + [y for y in reversed(years) if not forward[y]]:
        here = [c for c in changes if c.year == year]
        findings += _misstated(here, seen | known | {c.old for c in changes}, seen)
        links = _links(here, forward[year], reference, findings)
        concerned = counts["year"] < year if forward[year] else counts["year"] >= year
        shares = {}
        for unit, y in set(zip(counts["unit"], counts["year"], strict=True)):
            moves = (int(y) < year) == forward[year]
            shares[unit, int(y)] = links.get(unit, {unit: 1.0}) if moves else {unit: 1.0}
        if concerned.any():
            counts = spread_rows(counts, shares)
    return counts.assign(unit=[u if u in known else "" for u in counts["unit"]]), findings


def _forward(changes: Sequence[Change], units: set[str]) -> bool:
    """Whether the level has the units from after a change."""
    old, new = {c.old for c in changes}, {c.new for c in changes}
    if new - old:
        return bool((new - old) & units)
    return not (old - new) & units


def _links(
    changes: Sequence[Change],
    forward: bool,
    reference: Mapping[str, Mapping[int, float]],
    findings: list[Finding],
) -> dict[str, dict[str, float]]:
    """Identifier that a count has -> identifiers it goes to, with shares that add up to 1."""
    year = changes[0].year
    weights: dict[str, dict[str, float]] = {}
    unknown = []
    by_old: dict[str, list[Change]] = {}
    for change in changes:
        by_old.setdefault(change.old, []).append(change)
    for old, own in by_old.items():
        for change in own:
            share = 1.0 if len(own) == 1 and change.share is None else change.share
            if share is None:
                share = _people(reference.get(change.new, {}), year, after=True)
            if share is not None and not forward:
                people = _people(reference.get(old, {}), year, after=False)
                share = share if people is None else share * people
            if share is None:
                unknown.append(change)
                continue
            start, end = (old, change.new) if forward else (change.new, old)
            weights.setdefault(start, {})[end] = weights.get(start, {}).get(end, 0.0) + share
    if unknown:
        rows = tuple({"file": c.file, "row": c.row, "old": c.old, "new": c.new} for c in unknown)
        findings.append(
            Finding(
                "same_ground",
                "error",
                f"{unknown[0].file}: changes without a share whose new units no table counts: "
                f"{rows_text(rows)}. State their shares",
                rows,
            )
        )
    out = {}
    for start, to in weights.items():
        total = sum(to.values())
        if total > 0:
            out[start] = (
                {end: w / total for end, w in to.items()} if len(to) > 1 else dict.fromkeys(to, 1.0)
            )
    return out


def _people(series: Mapping[int, float], year: int, after: bool) -> float | None:
    """People in the nearest count after (or before) a change."""
    side = [y for y in series if (y >= year) == after]
    return series[min(side) if after else max(side)] if side else None


def _misstated(changes: Sequence[Change], targets: set[str], counted: set[str]) -> list[Finding]:
    """Shares that do not add up, and identifiers that nobody has."""
    wrong: list[dict] = []
    total: dict[str, float] = {}
    for change in changes:
        if change.share is not None:
            total[change.old] = total.get(change.old, 0.0) + change.share
    for old, share in total.items():
        own = [c for c in changes if c.old == old]
        partly = any(c.share is None for c in own)
        if partly or abs(share - 1) > SHARES_OFF:
            problem = "some shares are missing" if partly else f"shares add up to {share:g}"
            wrong.append({"file": own[0].file, "row": own[0].row, "old": old, "problem": problem})
    for change in changes:
        for unit, allowed, what in (
            (change.old, counted, "no table counts the old unit"),
            (change.new, targets, "there is no such new unit"),
        ):
            if unit not in allowed:
                wrong.append({"file": change.file, "row": change.row, "id": unit, "problem": what})
    if not wrong:
        return []
    return [
        Finding(
            "same_ground",
            "error",
            f"{wrong[0]['file']}: changes that cannot be: {rows_text(wrong)}. Correct the rows; "
            "the shares of each old unit add up to 1",
            tuple(wrong),
        )
    ]
