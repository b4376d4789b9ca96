"""Change: a year's map against an earlier one of the same model, per hectare and census unit.

What differs by more than maps of one model usually do is `popcorn_ml.evaluation.change`'s business;
here is which year is compared with which, and what is known of both.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from popcorn_assets.assets.census import COUNTS, UNITS, unit_ids
from popcorn_assets.assets.evaluation import GROUP
from popcorn_assets.assets.intervals import MEMBERS, model_behind
from popcorn_assets.assets.maps import POPULATION, adjusted_map, hectare_map
from popcorn_assets.assets.trained import Trained, unseen_by
from popcorn_assets.country import Country, load_country
from popcorn_assets.partitions import COUNTRY_YEAR
from popcorn_assets.promotion.entries import named
from popcorn_assets.promotion.ledger import DEPLOYED, DEPLOYED_FILE
from popcorn_assets.resources import NOTHING, ComputeResource, StoreResource
from popcorn_assets.show import PICTURE
from popcorn_assets.store.code import code_digest
from popcorn_assets.store.making import Making, Outcome
from popcorn_assets.store.manifests import finite
from popcorn_assets.store.versions import Address, Version
from popcorn_ml.errors import StoreError
from popcorn_ml.files import write_json
from popcorn_ml.grid import Grid
from popcorn_ml.sentinel import SEASONS, SENSORS

if TYPE_CHECKING:
    from popcorn_ml.evaluation.change import Found
    from popcorn_ml.evaluation.change_units import Together

CODE = code_digest("evaluation", "mapping", "intervals")
CHANGE = "change"
CHANGE_FILE = "change.tif"
FILLED_FILE = "filled.tif"
SUMMARY = "change.json"
INTERVALS = "intervals.tif"

THIS_YEAR_AND_THE_ONE_BEFORE = dg.MultiPartitionMapping(
    {
        "country": dg.DimensionPartitionMapping("country", dg.IdentityPartitionMapping()),
        "year": dg.DimensionPartitionMapping(
            "year",
            dg.TimeWindowPartitionMapping(
                start_offset=-1, allow_nonexistent_upstream_partitions=True
            ),
        ),
    }
)
"""Of hectare maps. A country's file may name another earlier year; the manifest says which."""


@dataclass(frozen=True)
class Year:
    """One of the two years: its maps, all of them noted as inputs, and their census.

    Attributes:
        level: that the map is adjusted to.
        levels: census level -> raster of its units.
        counts: unit id -> people and what was merged into it, of `level`.
    """

    year: int
    hectares: Version
    adjusted: Version
    predicted: Version
    level: str
    levels: dict[str, Path]
    counts: dict[str, dict[str, Any]]

    @property
    def units(self) -> Path:
        """The raster of the units that the map is adjusted to."""
        return self.levels[self.level]

    def intervals(self) -> Path | None:
        """Quantiles per hectare, if they could be given."""
        path = self.hectares.path / INTERVALS
        return path if path.is_file() else None

    def kinds(self) -> list[str]:
        """What its counts are, such as census or projection."""
        return sorted({f"{row['kind']}: {row['method']}" for row in self.counts.values()})


@dg.asset(
    config_schema=NOTHING,
    name=CHANGE,
    deps=[
        dg.AssetDep(adjusted_map),
        dg.AssetDep(hectare_map, partition_mapping=THIS_YEAR_AND_THE_ONE_BEFORE),
    ],
    partitions_def=COUNTRY_YEAR,
    group_name=GROUP,
    pool="duckdb",
    kinds={"cog", "duckdb"},
    code_version=CODE,
)
def change(
    context: dg.AssetExecutionContext, store: StoreResource, compute: ComputeResource
) -> dg.MaterializeResult:
    """People gained and lost since an earlier year of the same model, and which are significant.

    Compared is the adjusted map with the one of the year before, or of the year that the country's
    file names. Where there is none that can be compared, this says so and holds no raster.
    """
    making = Making(context, store.open(), CHANGE, code_version=CODE)
    country = load_country(making.country)
    making.grid(country)
    from_year = country.change.from_year or making.year - 1
    hectares = making.input("hectare_map")
    why = incomparable(making, hectares, from_year)
    making.parameter(from_year=from_year, incomparable=why)
    if why is not None:
        context.log.info(f"no change is told: {why}")
        return making.publish(lambda folder: _nothing(folder, from_year, why))
    now = year_of(making, hectares, country)
    before = year_of(making, _map_of(making, from_year), country)
    for one in (before, now):
        making.input("hectare_map", year=one.year, version=one.hectares.version)
    trained = model_behind(making, now.predicted)
    imagery = Imagery.of(making, before, now)
    threads = compute.thread_count()
    return making.publish(
        lambda folder: _told(making, folder, before, now, trained, imagery, threads)
    )


def _nothing(folder: Path, from_year: int, why: str) -> Outcome:
    write_json(folder / SUMMARY, {"from_year": None, "asked": from_year, "why": why})
    return Outcome(
        {"not compared": why}, {"compared": False, "why": why}, tables={"map_change": []}
    )


def _map_of(making: Making, year: int) -> Version:
    return making.store.latest(Address("hectare_map", making.country, year))


def incomparable(making: Making, hectares: Version, from_year: int) -> str | None:
    """Why a map cannot be compared with an earlier year's; None where it can.

    Args:
        hectares: the year's `hectare_map`.
    """
    from popcorn_ml import raster
    from popcorn_ml.raster import grid_of, same_grid

    store = making.store
    if from_year >= making.year:
        return f"the country's file compares with {from_year}, which is not before {making.year}"
    earlier = store.find(Address("hectare_map", making.country, from_year))
    if earlier is None:
        return f"there is no map of {from_year} to compare with"
    if not same_grid(*(grid_of(v.file(POPULATION)) for v in (earlier, hectares))):
        return f"the map of {from_year} lies on another grid"
    try:
        one, two = (_model_of(making, version) for version in (earlier, hectares))
    except StoreError as error:
        return f"which models made the two maps is not known ({error.what})"
    if one != two:
        return f"the years are mapped by different models: {from_year} by {one}, this one by {two}"
    try:
        before = store.made_from(earlier, "adjusted_map")
        raster.check(before.file(POPULATION), readable=False)
        for asset in ("population_map", UNITS, COUNTS):
            store.made_from(before, asset)
    except StoreError as error:
        return f"what the map of {from_year} was made from is no longer there ({error.what})"
    return None


def _model_of(making: Making, hectares: Version) -> str:
    """The name of the model behind a hectare map.

    Raises:
        StoreError: it is not known any more.
    """
    store = making.store
    adjusted = store.made_from(hectares, "adjusted_map")
    chosen = store.made_from(store.made_from(adjusted, "population_map"), DEPLOYED)
    told = json.loads(chosen.file(DEPLOYED_FILE).read_text("utf-8"))
    return f"{named(told.get('kind', 'bag'))}{told['country']}|{told['year']} {told['version']}"


def year_of(making: Making, hectares: Version, country: Country) -> Year:
    """A year's maps and census, as its hectare map was made from them, noted as inputs."""
    store, year = making.store, hectares.address.year or making.year

    def behind(made: Version, asset: str) -> Version:
        return making.input(asset, year=year, version=store.made_from(made, asset).version)

    adjusted = behind(hectares, "adjusted_map")
    predicted, units, counts = (
        behind(adjusted, asset) for asset in ("population_map", UNITS, COUNTS)
    )
    level = adjusted.manifest()["parameters"]["level"]
    rasters = {name: units.path / f"units_{name}.tif" for name in {*country.census.levels, level}}
    rows = json.loads(counts.file(f"counts_{level}.json").read_text("utf-8"))
    return Year(
        year,
        hectares,
        adjusted,
        predicted,
        level,
        {name: path for name, path in sorted(rasters.items()) if path.is_file()},
        {row["id"]: row for row in rows},
    )


@dataclass(frozen=True)
class Imagery:
    """What the composites of two years say of themselves.

    Attributes:
        clear: band of `filled.tif` -> `clear_count.tif` of four seasons.
        shares: the same -> share of pixels and seasons that was observed, of the country.
        other: what of their provenance is not the same in both years.
    """

    clear: dict[str, list[Path]] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    other: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, making: Making, before: Year, now: Year) -> "Imagery":
        """From the manifests of both years; what is no longer in the store is left out."""
        from popcorn_ml.evaluation.change_imagery import other_sources

        clear: dict[str, list[Path]] = {}
        shares: dict[str, float] = {}
        sources: dict[tuple[int, str], Mapping[str, Any]] = {}
        for year in (before, now):
            for sensor in SENSORS:
                band = f"{sensor} {year.year}"
                clear[band] = []
                try:
                    made = making.store.made_from(year.predicted, f"{sensor}_composites")
                    facts = made.manifest()["facts"]
                    sources[(year.year, sensor)] = facts["provenance"]
                    shares[band] = _observed(facts["shares"])
                    for season in SEASONS:
                        name = f"{sensor}_{season}"
                        version = making.store.made_from(made, name).version
                        found = making.input(name, year=year.year, version=version)
                        clear[band].append(found.file("clear_count.tif"))
                except (StoreError, KeyError):
                    clear[band] = []
        one, two = (
            {str(sensor): sources.get((year.year, sensor), {}) for sensor in SENSORS}
            for year in (before, now)
        )
        return cls(clear, shares, other_sources(one, two))


def _observed(shares: Mapping[str, Mapping[str, Mapping[str, float]]]) -> float:
    """Mean share over seasons and bands of what was observed, from a composite's facts."""
    found = [band["observed"] for season in shares.values() for band in season.values()]
    return sum(found) / len(found)


def _told(
    making: Making,
    folder: Path,
    before: Year,
    now: Year,
    trained: Trained,
    imagery: Imagery,
    threads: int,
) -> Outcome:
    """Write rasters, picture and summary; what is shown, and the rows of units."""
    from popcorn_ml.evaluation.change import write_change
    from popcorn_ml.evaluation.change_imagery import explained, write_filled
    from popcorn_ml.evaluation.change_picture import change_png
    from popcorn_ml.raster import grid_of

    cells = grid_of(now.hectares.file(POPULATION))
    one, two = before.intervals(), now.intervals()
    found = write_change(
        before.hectares.file(POPULATION),
        now.hectares.file(POPULATION),
        (one, two) if one and two else None,
        cells,
        folder / CHANGE_FILE,
        tags={"country": making.country, "year": now.year, "from_year": before.year},
        progress=making.progress("blocks"),
    )
    grid = grid_of(now.adjusted.file(POPULATION))
    unknown = write_filled(imagery.clear, grid, folder / FILLED_FILE)
    together = measured_together(making, before, now, trained, grid, threads)
    rows = unit_rows(before, now, grid, found)
    shown = {
        **_shown(found, before, now, grid.cell_name),
        "errors of two years": together.told(),
        "people counted": {str(year.year): ", ".join(year.kinds()) for year in (before, now)},
        "imagery observed, share": imagery.shares,
        "imagery that is not the same": imagery.other or "nothing that the sources say",
        "where imagery is filled": explained(folder / CHANGE_FILE, folder / FILLED_FILE),
    }
    facts = {
        "compared": True,
        "from_year": before.year,
        "usual difference": found.usual.as_dict() if found.usual else None,
        "neighbours differ together, times": found.outward,
        "errors together": together.as_dict(),
        "imagery that is not known": unknown,
    }
    write_json(folder / SUMMARY, finite({"from_year": before.year, **shown, **facts}))
    note = f"significant at a false discovery rate of 10 %: {shown['significant']}"
    title = f"change {before.year} to {now.year}"
    (folder / PICTURE).write_bytes(change_png(folder / CHANGE_FILE, title, note))
    return Outcome(shown, facts, tables={"map_change": rows})


def _shown(found: "Found", before: Year, now: Year, cell: str) -> dict[str, Any]:
    """What an operator reads of the hectares."""
    significant = (
        f"{found.gaining:,} {cell}s gained {found.gained:,.0f} people, {found.losing:,} lost "
        f"{abs(found.lost):,.0f}, of {found.cells:,} inhabited"
    )
    if found.usual is None:
        significant = f"not judged: too few inhabited {cell}s to tell what they usually differ by"
    lacking = [str(y.year) for y in (before, now) if y.intervals() is None]
    given = "yes"
    if lacking:
        given = f"none: there are none of {' and '.join(lacking)}"
    elif found.known is None or found.usual is None:
        given = f"none: too few inhabited {cell}s"
    return {
        "compared with": before.year,
        "people gained in all": round(found.total, 1),
        "significant": significant,
        "intervals": given,
    }


def unit_rows(before: Year, now: Year, grid: Grid, found: "Found") -> list[dict[str, Any]]:
    """`map_change`: this year's units of every level, both maps summed over them."""
    from popcorn_ml.evaluation.change_units import rows, sum_units
    from popcorn_ml.mapping.dasymetric import ADJUSTMENT_FILE, read_adjustment

    ids = unit_ids(now.units)
    uncounted = {
        number
        for year in (before, now)
        for number, _ in read_adjustment(year.adjusted.file(ADJUSTMENT_FILE)).uncounted
    }
    # Both maps hold exactly the counts only of units that are the same pixels in both.
    same = before.level == now.level and _same_pixels(before.units, now.units)
    counted = [same and number not in uncounted for number in range(1, max(ids) + 1)]
    maps = before.adjusted.file(POPULATION), now.adjusted.file(POPULATION)
    made = []
    for level, raster in now.levels.items():
        names = unit_ids(raster)
        units = sum_units(raster, max(names), maps, now.units, counted, grid, found)
        made += rows(units, names, level, before.year, found)
    return made


def _same_pixels(one: Path, two: Path) -> bool:
    """Whether two rasters of units are the same."""
    import numpy as np

    from popcorn_ml import raster
    from popcorn_ml.zones import BLOCK_PX

    return all(
        np.array_equal(raster.read(one, tile.core, 1), raster.read(two, tile.core, 1))
        for tile in raster.grid_of(two).tiles(BLOCK_PX)
    )


def measured_together(
    making: Making, before: Year, now: Year, trained: Trained, grid: Grid, threads: int
) -> "Together":
    """How the errors of both years go together, from units counted alike in both.

    Of each unit the members are asked that never saw it. Of a student there are none where it was
    trained: the students of the folds told units of one year only.
    """
    import numpy as np

    from popcorn_ml.evaluation.change_units import errors_together
    from popcorn_ml.intervals.measures import measure

    shared = [
        key
        for key, row in now.counts.items()
        if key in before.counts and before.counts[key].get("members") == row.get("members")
    ]
    told = []
    for year in (before, now):
        numbers = {key: number for number, key in unit_ids(year.units).items()}
        unseen = unseen_by(trained, making.country, year.level, year.units)
        members = year.predicted.file(MEMBERS)
        _, by_member = measure(year.units, [], grid, len(numbers), members=members, threads=threads)
        predicted = np.full(len(shared), np.nan)
        for k, key in enumerate(shared):
            seen = None if unseen is None else unseen.get(numbers.get(key, 0))
            bands = list(seen.members) if seen else [] if unseen is not None else slice(None)
            if key in numbers and bands != []:
                predicted[k] = by_member[bands, numbers[key]].mean()
        told.append((predicted, np.array([float(year.counts[k]["people"]) for k in shared])))
    return errors_together(*told)


assets: list[dg.AssetsDefinition] = [change]
