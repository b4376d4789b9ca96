"""What a country's file has to say of fetched files, and who joins whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from popcorn_ml.agencies.fetched import Fetched
from popcorn_ml.census.counting import joined_counts
from popcorn_ml.census.files import Files
from popcorn_ml.census.findings import Finding
from popcorn_ml.census.inputs import KIND_OF
from popcorn_ml.census.placing import judged_units
from popcorn_ml.census.settings import CensusSettings
from popcorn_ml.errors import ConfigError

WORLD = (-180.0, -90.0, 180.0, 90.0)


@dataclass(frozen=True)
class Joining:
    """How counts and boundaries join.

    Attributes:
        units: of the boundaries.
        counted: those that have a count.
        rows: of the table, of its year.
        people: of all rows.
        lost: people of rows that belong to no unit.
        findings: what is wrong, in the census's words; an error stops training on it.
    """

    units: int
    counted: int
    rows: int
    people: float
    lost: float
    findings: tuple[Finding, ...]

    @property
    def usable(self) -> bool:
        """Whether nothing found would stop training."""
        return not any(finding.severity == "error" for finding in self.findings)

    def lines(self) -> list[str]:
        """What a person wants to know of it."""
        said = [
            f"joined      {self.counted} of {self.units} units have a count, "
            f"{self.people - self.lost:,.0f} people",
        ]
        if self.counted < self.units or self.lost:
            said.append(
                f"not joined  {self.units - self.counted} units without a count, "
                f"{self.lost:,.0f} people without a unit"
            )
        return said + [f"{f.severity:<11} {f.message}" for f in self.findings]


def require_pair(boundaries: str, counts: str) -> None:
    """Refuse two sources that can never join, before anything is fetched.

    Args:
        boundaries, counts: their names, keys of `BOUNDARIES` and `COUNTS`; or a file of one's own.

    Raises:
        ConfigError: WorldPop's numbers, and anything else.
    """
    if boundaries != counts and "worldpop" in (boundaries, counts):
        raise ConfigError(
            "WorldPop's units and counts have numbers and no names: they join each other alone",
            expected="--boundaries worldpop --counts worldpop",
            found=f"--boundaries {boundaries} --counts {counts}",
            remedy="take both from WorldPop, or neither",
        )


def census_section(boundaries: Fetched, counts: Fetched, level: str) -> dict[str, Any]:
    """The `census` section of a country's file, with one level, which is trained on.

    Args:
        level: its name.

    Raises:
        ConfigError: the two can never join.
    """
    require_pair(boundaries.source, counts.source)
    same = boundaries.reader == counts.reader
    entry = counts.entry()
    if not same:
        entry["kind"] = KIND_OF[counts.reader]
    return {
        "levels": {
            level: {
                "role": "train",
                "reader": boundaries.reader if same else "table",
                # Agencies number units each in a way of its own; names are what they share.
                **({} if same else {"join": "name"}),
                "boundaries": boundaries.entry(),
                "counts": entry,
            }
        }
    }


def joining(
    section: Mapping[str, Any],
    folders: Path | Sequence[Path],
    year: int | None = None,
    box: tuple[float, float, float, float] | None = None,
) -> Joining:
    """Join the counts of a section's level to its units, as the census will.

    Args:
        section: as `census_section` makes it.
        folders: where its files are.
        year: of a table of several years; None takes the last.
        box: west, south, east, north in degrees that the units should touch, where it is known.

    Raises:
        CensusError: a file cannot be read, or not one row belongs to a unit.
    """
    settings = CensusSettings.model_validate(section)
    name = settings.train_level
    level = settings.levels[name]
    with Files(folders) as files:
        units, placed = judged_units(level, files, box or WORLD, year)
        frame = units.frame.assign(file=units.file)
        joined = joined_counts(name, level, files, frame, year or 0, {})
    rows = joined.rows
    rows = rows[rows["year"] == (rows["year"].max() if year is None else year)]
    people = rows["people"].fillna(0)
    return Joining(
        units=len(frame),
        counted=len(set(rows.loc[rows["people"].notna(), "unit"]) - {""}),
        rows=len(rows),
        people=float(people.sum()),
        lost=float(people[rows["unit"] == ""].sum()),
        findings=(*placed, *joined.findings),
    )
