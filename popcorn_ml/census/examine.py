"""Judging census files as they are, before anything is made of them: no grid, nothing written.

The inbox asks this of a file that has just come in; the steps of the assets are in `build`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from popcorn_ml.census import asides, geometry, readers, validate
from popcorn_ml.census.counting import counts_for_year, joined_counts
from popcorn_ml.census.files import Files
from popcorn_ml.census.findings import CHECKS, CheckResult, Finding, of_level, results
from popcorn_ml.census.placing import box_degrees, judged_units
from popcorn_ml.census.settings import CensusSettings
from popcorn_ml.census.text import name_key
from popcorn_ml.grid import Grid

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd


LATER = frozenset(
    {"unit_pixels", "unit_areas", "people_in_pixels", "levels_agree", "levels_separate", "years"}
)
"""Checks that need the grid's pixels, all levels or the partition's year: not judged here."""


@dataclass(frozen=True)
class LevelJoin:
    """How the units and the counts of a level came together.

    Attributes:
        units, joined: how many units there are, and how many of them have a count.
        without_count: units that no row counts: their ids, with their names where they have one.
        without_unit: rows that count nobody's unit, likewise.
        people: those of all units, by the years that the tables count.
    """

    units: int
    joined: int
    without_count: tuple[str, ...]
    without_unit: tuple[str, ...]
    people: dict[int, float]


@dataclass(frozen=True)
class Examination:
    """What `examine` found.

    Attributes:
        checks: one result for each of `findings.CHECKS`.
        years: years in which the tables count people.
        missing: what could not be judged, because a file that belongs to it is not there.
        levels: how each level whose files are there came together.
    """

    checks: tuple[CheckResult, ...]
    years: tuple[int, ...]
    missing: tuple[str, ...]
    levels: dict[str, LevelJoin] = field(default_factory=dict)

    @property
    def judged(self) -> tuple[CheckResult, ...]:
        """The checks that were judged; the others pass here whatever the files hold."""
        return tuple(c for c in self.checks if c.name not in LATER or not c.passed)

    @property
    def usable(self) -> bool:
        """Whether nothing found blocks training."""
        return not any(check.blocks for check in self.checks)


def examine(
    settings: CensusSettings,
    grid: Grid,
    base_dir: Path | Sequence[Path],
    levels: Sequence[str] | None = None,
) -> Examination:
    """Read and judge census files without writing anything, for a file that has just come in.

    Args:
        settings: the census section of the country's file.
        grid: the country's; only its place counts.
        base_dir: as for `prepare_units`.
        levels: those to judge; None takes all.

    Raises:
        CensusError: as `prepare_units` and `prepare_counts`.
    """
    box = settings.box or box_degrees(grid)
    findings: list[Finding] = []
    years: set[int] = set()
    missing: list[str] = []
    joins: dict[str, LevelJoin] = {}
    with Files(base_dir) as files:
        units: dict[str, gpd.GeoDataFrame] = {}
        for name in settings.levels:
            level = settings.levels[name]
            absent = level.boundaries is not None and not files.has(level.boundaries)
            if absent and level.boundaries is not None:
                missing.append(f"level {name}: {level.boundaries.file} is not there yet")
                continue
            given, found = judged_units(level, files, box, None)
            frame = given.frame.assign(
                number=range(1, len(given.frame) + 1), file=given.file, merged_into="", pixels=1,
                area_ha=geometry.area_ha(given.frame),
            )  # fmt: skip
            units[name] = frame.to_crs(geometry.LON_LAT)
            if levels is None or name in levels:
                findings += of_level(found, name)
        names = {name: {name_key(n) for n in frame["name"]} for name, frame in units.items()}
        for name in levels or settings.levels:
            level = settings.levels[name]
            present = [c for c in level.counts if files.has(c)]
            known = [c for c in level.changes if files.has(c)]
            missing += [
                f"level {name}: {c.file} is not there yet"
                for c in (*level.counts, *level.changes)
                if c not in present and c not in known
            ]
            if not present:
                continue
            if name not in units:
                for table in readers.read_counts(
                    level.model_copy(update={"counts": tuple(present)}), files
                ):
                    findings += of_level(table.findings, name)
                    findings += of_level(asides.number_findings(table.frame), name)
                    years |= {int(y) for y in table.frame["year"]}
                continue
            here = level.model_copy(update={"counts": tuple(present), "changes": tuple(known)})
            read = joined_counts(name, here, files, units[name], 0, names)
            joined, found = read.rows, read.findings
            people: dict[int, float] = {}
            for year in sorted(set(joined["year"])):
                projected, more = counts_for_year(
                    joined, units[name], int(year), settings, name, found
                )
                found += [_for_now(f) for f in more if f.check != "years"]
                total = people[int(year)] = float(projected["people"].sum())
                if level.role == "train":
                    file = ", ".join(sorted(set(projected["file"])))
                    found += validate.national_total(name, total, int(year), settings, file)
                years.add(int(year))
            findings += of_level(found, name)
            joins[name] = _join_of(units[name], joined, people)
    return Examination(results(CHECKS, findings), tuple(sorted(years)), tuple(missing), joins)


def _join_of(units: gpd.GeoDataFrame, counts: pd.DataFrame, people: dict[int, float]) -> LevelJoin:
    counted = set(counts["unit"][counts["people"].notna()])
    alone = units[~units["id"].isin(counted)]
    homeless = counts[counts["unit"] == ""]
    return LevelJoin(
        len(units),
        len(units) - len(alone),
        tuple(_called(i, n) for i, n in zip(alone["id"], alone["name"], strict=True)),
        tuple(dict.fromkeys(
            _called(i, n) for i, n in zip(homeless["id"], homeless["name"], strict=True)
        )),
        people,
    )  # fmt: skip


def _called(identifier: str, name: str) -> str:
    return f"{identifier} ({name})" if identifier and name else identifier or name


def _for_now(finding: Finding) -> Finding:
    """Not yet an error: the table that says what became of the units may come next."""
    return replace(finding, severity="warn") if finding.check == "same_ground" else finding
