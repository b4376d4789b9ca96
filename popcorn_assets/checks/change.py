"""Checks over time: the map against last year's and the census, and whether it is current."""

import json
from dataclasses import dataclass
from typing import Any

import dagster as dg

from popcorn_assets.assets.census import COUNTS, UNITS
from popcorn_assets.assets.deployed_model import DEPLOYED, DEPLOYED_FILE
from popcorn_assets.assets.maps import POPULATION, hectare_map, population_map
from popcorn_assets.checks.verdict import newest, not_judged, verdict
from popcorn_assets.country import load_country
from popcorn_assets.partitions import COUNTRY_YEAR, country_and_year
from popcorn_assets.promotion.entries import named
from popcorn_assets.resources import NOTHING, StoreResource
from popcorn_assets.store.newer import newer_inputs
from popcorn_assets.store.versions import Address, Store

MAX_TOTAL_CHANGE = 0.15
"""Largest change of the country's total in a year, as a share of last year's."""

MAX_UNIT_CHANGE = 0.5
MAX_SHARE_OF_UNITS = 0.1
"""At most this share of the units may change by more than that in a year."""

MAX_DISAGREEMENT = 0.1
"""Largest difference between the map's change and the census', as a share of last year's people:
of the country. A unit may differ by three times as much."""

SMALLEST_UNIT_PEOPLE = 100.0
"""A unit that had fewer, on the map and in the census, says nothing by its relative change."""


@dataclass(frozen=True)
class Change:
    """A unit's people last year and this year, on the map and as counted.

    Counts are None unless both years have one, with those of the same units merged into it.
    """

    unit: str
    before: float
    now: float
    counted_before: float | None
    counted: float | None

    @property
    def tells(self) -> bool:
        """Whether it had enough people for its relative change to say something."""
        return max(self.before, self.counted_before or 0.0) >= SMALLEST_UNIT_PEOPLE

    @property
    def mapped(self) -> float:
        """Change on the map as a share of what it was."""
        return self.now / max(self.before, 1.0) - 1

    @property
    def census(self) -> float | None:
        """Change in the census."""
        if self.counted_before is None or self.counted is None:
            return None
        return self.counted / max(self.counted_before, 1.0) - 1

    @property
    def disagreement(self) -> float:
        """How far the two changes are apart; 0 where the census says nothing."""
        return 0.0 if self.census is None else abs(self.mapped - self.census)

    def row(self) -> dict[str, Any]:
        """For a table."""
        return {
            "unit": self.unit,
            "last year": self.before,
            "this year": self.now,
            "change": f"{self.mapped:+.0%}",
            "census": "" if self.census is None else f"{self.census:+.0%}",
        }


@dg.asset_check(
    asset=population_map,
    partitions_def=COUNTRY_YEAR,
    additional_deps=[UNITS, COUNTS],
    config_schema=NOTHING,
)
def change_since_last_year(
    context: dg.AssetCheckExecutionContext, store: StoreResource
) -> dg.AssetCheckResult:
    """The unadjusted map changes since last year within bounds, and as the census does."""
    code, year = country_and_year(context)
    files = store.open()
    if (problem := _incomparable(files, code, year)) is not None:
        remedy = f"look at the map of {year} beside the census; {year + 1} is compared with it"
        return not_judged(problem, remedy=remedy)
    everywhere = changes(files, code, year)
    country = together(code, everywhere)
    counted = together(code, [u for u in everywhere if u.census is not None])
    uncounted = [u.unit for u in everywhere if u.census is None]
    units = [u for u in everywhere if u.tells]
    compared = [u for u in units if u.census is not None]

    large = [u for u in units if abs(u.mapped) > MAX_UNIT_CHANGE]
    apart = [u for u in compared if u.disagreement > 3 * MAX_DISAGREEMENT]
    problems = []
    if abs(country.mapped) > MAX_TOTAL_CHANGE:
        problems.append(
            f"the country's total changed by {country.mapped:+.1%} (at most "
            f"{MAX_TOTAL_CHANGE:.0%} is expected)"
        )
    if len(large) > MAX_SHARE_OF_UNITS * len(units):
        problems.append(f"{len(large)} of {len(units)} units changed by over {MAX_UNIT_CHANGE:.0%}")
    if counted.disagreement > MAX_DISAGREEMENT:
        problems.append(f"the census says {counted.census:+.1%}, the map {counted.mapped:+.1%}")
    if len(apart) > MAX_SHARE_OF_UNITS * len(compared):
        problems.append(f"in {len(apart)} of {len(compared)} units map and census disagree")
    found = "; ".join(problems) or f"{country.mapped:+.1%} people on the map since {year - 1}"
    if uncounted:
        found += (
            f"; map and census are not compared in {len(uncounted)} of {len(everywhere)} units, "
            f"which are not counted alike in both years: {', '.join(uncounted[:5])}"
        )
    other = _other_model(files, code, year)
    worst = sorted(units, key=lambda u: max(abs(u.mapped), u.disagreement), reverse=True)
    return verdict(
        not problems,
        found,
        remedy="look at both years' composites (a gap or another product looks like change), at "
        "the units below, and at the census of both years"
        + (f"; the years were mapped by different models ({other})" if other else ""),
        warns=True,
        rows=[unit.row() for unit in (worst if problems else worst[:5])],
        people=country.now,
        people_last_year=country.before,
        change=country.mapped,
        census_change=counted.census,
        units_not_compared_with_the_census=len(uncounted),
        units=len(units),
        units_over_the_bound=len(large),
        units_against_the_census=len(apart),
        other_model=other,
    )


@dg.asset_check(asset=hectare_map, partitions_def=COUNTRY_YEAR, config_schema=NOTHING)
def inputs_are_current(
    context: dg.AssetCheckExecutionContext, store: StoreResource
) -> dg.AssetCheckResult:
    """Nothing that the published map was made from, near or far, has a newer version."""
    newer = newer_inputs(store.open(), newest(context, store, "hectare_map"))
    return verdict(
        not newer,
        f"{len(newer)} inputs have newer versions: {'; '.join(newer[:5])}"
        if newer
        else "the map was made from what is current",
        remedy="start the job refresh for this country-year",
        warns=True,
        newer=len(newer),
    )


def changes(store: Store, code: str, year: int) -> list[Change]:
    """People of each unit of the training level that has pixels, last year and this year.

    Both maps are summed over this year's units.
    """
    import pyarrow.parquet as pq

    from popcorn_ml.zones import raster_zone_sums

    country = load_country(code)
    level = country.census.train_level
    units = store.latest(Address(UNITS, code, year))
    table = pq.read_table(units.file(f"units_{level}.parquet"), columns=["number", "id"])
    maps = [
        store.latest(Address("population_map", code, y)).file(POPULATION) for y in (year - 1, year)
    ]
    grid = country.pixel_grid()
    sums = raster_zone_sums(units.file(f"units_{level}.tif"), maps, grid, table.num_rows)
    before, now = (_counts(store, code, y, level) for y in (year - 1, year))
    # A host with and one without a merged unit's people are not the same people.
    counted = {
        unit: (float(before[unit]["people"]), float(row["people"]))
        for unit, row in now.items()
        if unit in before and before[unit].get("members") == row.get("members")
    }
    return [
        Change(
            unit["id"],
            float(sums.sums[0, unit["number"]]),
            float(sums.sums[1, unit["number"]]),
            *counted.get(unit["id"], (None, None)),
        )
        for unit in table.to_pylist()
        if sums.pixels[unit["number"]] > 0
    ]


def together(name: str, units: list[Change]) -> Change:
    """Some units as one; its counts are not known where those of one of them are not."""
    before = [u.counted_before for u in units if u.counted_before is not None]
    now = [u.counted for u in units if u.counted is not None]
    known = len(units) > 0 and len(before) == len(now) == len(units)
    return Change(
        name,
        sum(u.before for u in units),
        sum(u.now for u in units),
        sum(before) if known else None,
        sum(now) if known else None,
    )


def _counts(store: Store, code: str, year: int, level: str) -> dict[str, dict[str, Any]]:
    """Rows of counts by unit id; none where nobody prepared that year's census."""
    version = store.find(Address(COUNTS, code, year))
    if version is None or not (version.path / f"counts_{level}.json").is_file():
        return {}
    rows = json.loads(version.file(f"counts_{level}.json").read_text("utf-8"))
    return {row["id"]: row for row in rows}


def _incomparable(store: Store, code: str, year: int) -> str | None:
    """Why two years' maps cannot be laid over one another."""
    from popcorn_ml import raster

    if store.find(Address("population_map", code, year - 1)) is None:
        return f"there is no map of {year - 1} to compare with"
    if store.rejected(Address("population_map", code, year)) is not None:
        return f"the new map of {year} did not pass its checks"
    before, now = (
        raster.grid_of(store.latest(Address("population_map", code, y)).file(POPULATION))
        for y in (year - 1, year)
    )
    return None if before == now else f"the map of {year - 1} lies on another grid"


def _other_model(store: Store, code: str, year: int) -> str | None:
    """The two years' models, if they are not the same."""
    models = []
    for y in (year - 1, year):
        version = store.find(Address(DEPLOYED, code, y))
        if version is None:
            return None
        chosen = json.loads(version.file(DEPLOYED_FILE).read_text("utf-8"))
        kind = named(chosen.get("kind", "bag"))
        models.append(f"{kind}{chosen['country']}|{chosen['year']} {chosen['version']}")
    return None if models[0] == models[1] else " and ".join(models)


checks = [change_since_last_year, inputs_are_current]
