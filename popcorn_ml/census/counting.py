"""The people of one level's units: its tables joined to them and taken to the partition's year."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from popcorn_ml.census import asides, changes, join, projection, readers, series, transfer, validate
from popcorn_ml.census.files import Files, Source
from popcorn_ml.census.findings import UNIT_CHECKS, Finding, rows_text
from popcorn_ml.census.inputs import CountInput, UnitInput
from popcorn_ml.census.pixels import rows_of
from popcorn_ml.census.settings import CensusSettings, LevelSettings
from popcorn_ml.errors import CensusError

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd


@dataclass(frozen=True)
class LevelCounts:
    """All rows of a level's tables.

    Attributes:
        rows: with their unit's id.
        findings: what was found on the way.
        sources: the files read.
        asides: lines of the tables that count nobody's unit: file, row, why, text.
        relaxed: names that joined, but not letter by letter, as `join.Joined.relaxed`.
    """

    rows: pd.DataFrame
    findings: list[Finding]
    sources: list[Source]
    asides: list[dict[str, Any]]
    relaxed: list[dict[str, Any]]


def joined_counts(
    name: str,
    level: LevelSettings,
    files: Files,
    units: gpd.GeoDataFrame,
    year: int,
    names: Mapping[str, set[str]],
) -> LevelCounts:
    """All rows of a level's tables with their unit's id, and what was found on the way."""
    import pandas as pd

    findings: list[Finding] = []
    sources: list[Source] = []
    lines: list[dict[str, Any]] = []
    relaxed: list[dict[str, Any]] = []
    stated, changes_sources = changes.read_changes(level, files)
    sources += changes_sources
    changed = {unit for change in stated for unit in (change.old, change.new)}
    parts: list[pd.DataFrame] = []
    elsewhere: list[tuple[int, CountInput, UnitInput]] = []
    for table in readers.read_counts(level, files):
        findings += table.findings
        sources += table.sources
        own = readers.count_units(table, level, files, year)
        joined = join.join(
            units if own is None else own.frame, table.frame, table.settings.file, level.join
        )
        findings += joined.findings
        if own is not None:
            sources += own.sources
            findings += [f for f in own.findings if f.check in UNIT_CHECKS]
            elsewhere.append((len(parts), table, own))
        told = asides.sorted_out(units if own is None else own.frame, joined.counts, changed)
        findings += [*asides.line_findings(table.asides, told), *told.findings]
        lines += [*table.asides, *told.asides]
        relaxed += joined.relaxed
        parts.append(told.counts)
    counted = [p for k, p in enumerate(parts) if k not in {k for k, _, _ in elsewhere}]
    for k, table, own in elsewhere:
        parts[k], found = _on_our_ground(parts[k], table, own, units, counted, level)
        findings += found
    counts = pd.concat(parts, ignore_index=True)
    counts, found = changes.apply_changes(
        counts, stated, list(units["id"]), transfer.reference_of([_by_own_id(counts)])
    )
    findings += found
    found = join.unmatched(units, counts, level.role == "train")
    findings += [_hinted(f, names, name) for f in found]
    findings += join.swapped(units, counts)
    counts, found = validate.rows(counts.reset_index(drop=True))
    findings += found
    findings += validate.unit_growth(counts)
    findings += validate.growth_between(counts)
    counts.attrs["changed"] = [(c.year, unit) for c in stated for unit in (c.old, c.new)]
    return LevelCounts(counts, findings, sources, lines, relaxed)


def _by_own_id(counts: pd.DataFrame) -> pd.DataFrame:
    """Rows with their own identifier where they have no unit, as changes may name it."""
    own = counts["id"].where(counts["id"] != "", counts["name"])
    return counts.assign(unit=counts["unit"].where(counts["unit"] != "", own))


def _on_our_ground(
    counts: pd.DataFrame,
    table: CountInput,
    own: UnitInput,
    units: gpd.GeoDataFrame,
    counted: Sequence[pd.DataFrame],
    level: LevelSettings,
) -> tuple[pd.DataFrame, list[Finding]]:
    """Counts of another boundary set brought to the level's units."""
    least = table.settings.min_overlap
    match = transfer.by_ground(units, own.frame, least)
    findings = _overlap_findings(match.left_over, own.file, least, level)
    areas = dict(zip(units["id"], units["area_ha"], strict=True))
    reference = transfer.reference_of(counted)
    counts, found = transfer.spread_by_ground(counts, match, reference, areas, table.settings.file)
    return counts, findings + found


def _hinted(finding: Finding, names: Mapping[str, set[str]], level: str) -> Finding:
    """Say so where the names without a unit are those of another level."""
    if finding.check != "people_have_polygon":
        return finding
    lost = [str(row.get("name", "")) for row in finding.rows]
    other = join.other_levels(lost, dict(names), level)
    if other is None:
        return finding
    hint = f" Most of them are names of level {other}: the column of another level was named"
    return replace(finding, message=finding.message + "." + hint)


def _overlap_findings(
    left_over: list[tuple[str, str, float]], file: str, least: float, level: LevelSettings
) -> list[Finding]:
    if not left_over:
        return []
    rows = tuple(
        {"file": file, "id": i, "best_unit": u, "overlap": round(s, 3)} for i, u, s in left_over
    )
    return [
        Finding(
            "people_have_polygon",
            "error" if level.role == "train" else "warn",
            f"{file}: polygons of the counts that match no unit by at least {least:g} of "
            f"their common area: {rows_text(rows)}. Lower `min_overlap`, or use boundaries of the "
            "same edition",
            rows,
        )
    ]


def counts_for_year(
    counts: pd.DataFrame,
    units: gpd.GeoDataFrame,
    year: int,
    settings: CensusSettings,
    level: str,
    findings: Iterable[Finding] = (),
) -> tuple[pd.DataFrame, list[Finding]]:
    """One row a unit with a count, taken to the year; columns as `CountsReport.counts`.

    Raises:
        CensusError: there is none; it says what was found wrong until then.
    """
    import pandas as pd

    rule = settings.levels[level]
    counts = series.used_counts(counts, rule.breaks, year)
    usable = counts[(counts["unit"] != "") & counts["people"].notna()]
    if usable.empty:
        raise CensusError(
            f"no row of level {level} has both a unit and a count",
            where=settings.levels[level].counts[0].file,
            expected="at least one",
            found=f"{len(counts)} rows",
            remedy="; ".join(f.message for f in findings if f.severity == "error")[:2000]
            or "see whether the columns of people and of identifiers are the right ones",
        )
    known: dict[str, dict[int, tuple[float, str]]] = {}
    rates: dict[str, float] = {}
    place: dict[tuple[str, int], tuple[str, int]] = {}
    columns = ("unit", "year", "people", "kind", "annual_growth", "file", "row")
    for unit, y, people, kind, rate, file, row in zip(*(usable[c] for c in columns), strict=True):
        known.setdefault(unit, {})[int(y)] = (float(people), kind)
        place[unit, int(y)] = (file, int(row))
        if rate == rate:
            rates[unit] = float(rate)
    ids = list(units["id"])
    names = dict(zip(ids, units["name"], strict=True))
    numbers = dict(zip(ids, units["number"].tolist(), strict=True))
    areas = dict(zip(ids, units["area_ha"].tolist(), strict=True))
    rows = []
    for unit in sorted(known):
        out = projection.project(known[unit], year, rates.get(unit), settings.annual_growth)
        file, row = place[unit, out.base_year]
        rows.append(
            {
                "id": unit,
                "name": names[unit],
                "number": numbers[unit],
                "people": out.people,
                "kind": out.kind,
                "method": out.method,
                "base_year": out.base_year,
                "file": file,
                "row": row,
                "area_ha": areas[unit],
            }
        )
    projected = pd.DataFrame(rows)
    findings = validate.density(projected, settings)
    findings += validate.years(level, list(projected["base_year"]), year, rows[0]["file"])
    return projected, findings + _series_findings(counts, projected, units, year, settings, level)


def _series_findings(
    counts: pd.DataFrame,
    projected: pd.DataFrame,
    units: gpd.GeoDataFrame,
    year: int,
    settings: CensusSettings,
    level: str,
) -> list[Finding]:
    """Whether the counts that a year rests on are of one ground and one measure."""
    rule = settings.levels[level]
    file = rule.counts[0].file
    years = series.years_of(counts, year)
    known = set(counts.attrs.get("changed", ()))
    findings = series.same_ground(counts, projected, years, file)
    findings += series.redrawn(counts, units, years, known, file)
    findings += series.steps(counts, years, rule.breaks, settings.annual_growth, file)
    return findings + series.total_of_year(counts, projected, years, file)


def entries_of(
    projected: pd.DataFrame, units: gpd.GeoDataFrame, level: LevelSettings
) -> tuple[list[dict[str, Any]], list[Finding], dict[str, Any]]:
    """The list for training and evaluation: an item for each counted unit with pixels."""
    people = dict(zip(projected["id"], projected["people"], strict=True))
    facts = {
        unit: (kind, method)
        for unit, kind, method in zip(
            projected["id"], projected["kind"], projected["method"], strict=True
        )
    }
    members: dict[str, list[str]] = {}
    for unit, host in zip(units["id"], units["merged_into"], strict=True):
        if host and unit in people:
            members.setdefault(host, []).append(unit)
    entries, placed = [], set()
    for number, unit, name, pixels in zip(
        units["number"], units["id"], units["name"], units["pixels"], strict=True
    ):
        # The people merged into an uncounted unit say nothing of its own.
        if pixels == 0 or unit not in people:
            continue
        own = [unit, *members.get(unit, [])]
        entry: dict[str, Any] = {
            "number": int(number),
            "id": unit,
            "name": name,
            "people": float(sum(people[m] for m in own)),
            "kind": facts[unit][0],
            "method": facts[unit][1],
        }
        if len(own) > 1:
            entry["members"] = own
        entries.append(entry)
        placed.update(own)
    lost = projected[~projected["id"].isin(placed)]
    inhabited = lost[lost["people"] > 0]
    findings = []
    if not inhabited.empty:
        rows = tuple(
            {
                "file": r["file"], "row": int(r["row"]), "id": r["id"], "name": r["name"],
                "people": float(r["people"]),
            }
            for _, r in inhabited.iterrows()
        )  # fmt: skip
        findings.append(
            Finding(
                "people_in_pixels",
                "error" if level.role == "train" else "warn",
                f"{rows[0]['file']}: units with {inhabited['people'].sum():,.0f} "
                "people that have no pixel of their own or with a neighbour: "
                f"{rows_text(rows)}. Widen the grid if they lie off it; else complete the count of "
                "the unit they are merged into, or set `small_units: best_pixel`",
                rows,
            )
        )
    unknown = units[(units["merged_into"] != "") & ~units["id"].isin(list(people))]
    if not unknown.empty:
        rows = rows_of(unknown, "merged_into")
        findings.append(
            Finding(
                "people_in_pixels",
                "warn",
                f"{rows[0]['file']}: units that have neither a count nor a pixel of their own: "
                f"{rows_text(rows)}. The units they are merged into keep to their own counts; add "
                "the missing ones where they are known, 0 where nobody lives",
                rows,
            )
        )
    covered = {
        "people_in_pixels": float(sum(e["people"] for e in entries)),
        "people_without_pixel": float(lost["people"].sum()),
        "units_in_training_list": len(entries),
    }
    return entries, findings, covered


def count_coverage(
    counts: pd.DataFrame, units: gpd.GeoDataFrame, projected: pd.DataFrame, year: int
) -> dict[str, Any]:
    """How many units and people found each other, and how many did not."""
    matched = counts["unit"] != ""
    by_year = {}
    for y, group in counts.groupby("year"):
        has = group["unit"] != ""
        by_year[str(y)] = {
            "rows": len(group),
            "rows_matched": int(has.sum()),
            "people": float(group["people"].sum()),
            "people_matched": float(group["people"][has].sum()),
            "people_unmatched": float(group["people"][~has].sum()),
        }
    with_row = set(counts["unit"]) - {""}
    return {
        "units": len(units),
        "units_matched": int(units["id"].isin(with_row).sum()),
        "units_without_people_row": int((~units["id"].isin(with_row)).sum()),
        "units_without_count": len(units) - len(projected),
        "units_empty": int((projected["people"] == 0).sum()),
        "rows_unmatched": int((~matched).sum()),
        "years": by_year,
        "people": float(projected["people"].sum()),
        "methods": {str(k): int(v) for k, v in sorted(projected["method"].value_counts().items())},
        "year": year,
    }
