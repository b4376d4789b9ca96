"""Map assets: population and its spread, adjusted to the census, per hectare.

The networks and the arithmetic are popcorn_ml.mapping's business.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from popcorn_assets.assets.builtup import (
    BUILTUP,
    GPU_POOL,
    RAN,
    builtup_area,
    builtup_of_composites,
    extractor_file,
    named_engine,
    place_tags,
    score_seen,
    tile_work,
)
from popcorn_assets.assets.census import (
    POOL as DUCKDB,
)
from popcorn_assets.assets.census import (
    UNITS,
    counts_by_number,
    levels_of,
    unit_ids,
    units_raster,
)
from popcorn_assets.assets.deployed_model import (
    DEPLOYED,
    deployed_members,
    model_names,
    model_tags,
    same_quantities,
)
from popcorn_assets.assets.extractors import SAME_EXTRACTOR, SameExtractor, extractor_of
from popcorn_assets.assets.imagery import (
    FILLED,
    SENSOR_NAMES,
    composites_seen,
    looks_at_text,
)
from popcorn_assets.country import Country, load_country
from popcorn_assets.partitions import COUNTRY_YEAR
from popcorn_assets.resources import NOTHING, ComputeResource, StoreResource
from popcorn_assets.runs import launch
from popcorn_assets.show import as_check_result, check_specs, raster_summary, save_picture
from popcorn_assets.store.code import code_digest
from popcorn_assets.store.making import Making, Outcome
from popcorn_assets.store.manifests import plain_check
from popcorn_assets.store.versions import Address, Version
from popcorn_ml.errors import GridMismatch, StoreError, WeightsError
from popcorn_ml.grid import HECTARE_M2, Grid
from popcorn_ml.mapping.checks import (
    MapCheck,
    covers_the_units,
    few_people_left_out,
    finite_and_not_negative,
    hectares_keep_every_person,
    units_sum_to_the_census,
)

if TYPE_CHECKING:
    from popcorn_ml.mapping.dasymetric import AdjustedMembers

GROUP = "maps"
CODE = code_digest("model", "mapping")
HECTARES_CODE = code_digest("model", "mapping", "intervals")

POPULATION = "population.tif"
POPULATION_STD = "population_std.tif"
MEMBERS = "population_members.tif"

LEFT_OUT = "left out"
"""Among a map's facts: how many pixels were not computed, and how many people they hold at most."""

IN_UNITS = "people in census units"
"""Title of the total of a map that has no one outside the units."""

SAME_AREA = 0.02
"""Relative difference in pixel area below which nothing is said of it."""

MODEL_CHECKS = {
    **{
        f"same_quantity_{sensor}": f"The model meets the {name} product that it was trained on."
        for sensor, name in SENSOR_NAMES.items()
    },
    SAME_EXTRACTOR: "The model meets the built-up score of the extractor that it was trained on.",
    "few_people_left_out": "Pixels that are hardly built up and were left out hold few people.",
}


@dg.asset(
    config_schema=NOTHING,
    check_specs=check_specs("population_map", MODEL_CHECKS),
    deps=[DEPLOYED, "s1_composites", "s2_composites", builtup_area],
    partitions_def=COUNTRY_YEAR,
    group_name=GROUP,
    pool=GPU_POOL,
    kinds={"cog", "pytorch"},
    code_version=CODE,
)
def population_map(
    context: dg.AssetExecutionContext, store: StoreResource, compute: ComputeResource
) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
    """People per pixel by the deployed model: the mean of its members and their spread, or what
    the one network of a student says."""
    from popcorn_ml.mapping.predict import MappingSpec

    making = Making(context, store.open(), "population_map", code_version=CODE)
    country = load_country(making.country)
    grid = making.grid(country)
    for name in FILLED:
        making.input(name)
    score = builtup_of_composites(making)
    deployed = deployed_members(making)
    same = SameExtractor(extractor_of(making.store, score), deployed.extractor)
    if not same.passed:
        # Told before hours of mapping, and nothing takes the place of the map there is.
        yield as_check_result(plain_check(same))
        raise WeightsError(same.message, where=str(making.address))
    area_ratio = grid.pixel_area_m2 / deployed.pixel_area_m2
    scaled = scale_of_people(grid, deployed.pixel_area_m2)
    if scaled:
        context.log.warning(
            f"the model was trained on pixels of {deployed.pixel_area_m2:.1f} m2; its people per "
            f"pixel are scaled by {scaled} to this grid's"
        )
    making.parameter(
        grid=grid.as_dict(),
        tile_px=country.mapping.tile_px,
        pixel_area_ratio=area_ratio,
        precision=compute.precision,
        leave_out=country.mapping.leave_out,
        **named_engine(compute),
        **deployed.as_parameters(),
    )
    quantities = same_quantities(making, deployed)
    seen = composites_seen(making, deployed.sensors)
    extractor = extractor_file(making, country) if deployed.sensors != "both" else None

    def make(folder: Path) -> Outcome:
        written = launch.map_population(
            context,
            compute,
            MappingSpec(
                composites=seen,
                builtup=score_seen(making, compute, country, score, seen, extractor),
                members=deployed.files,
                **deployed.as_mapped(),
                grid=grid,
                out=folder,
                precision=compute.precision,
                **tile_work(country, compute),
                trained_pixel_m2=deployed.pixel_area_m2,
                leave_out=country.mapping.leave_out,
                tags={**place_tags(making), **model_tags(deployed.names())},
            ),
            progress=making.progress("tiles"),
        )
        save_picture(
            folder, folder / POPULATION, "population", f"People by the model, {making.place()}"
        )
        left_out = few_people_left_out(written["counts"], country.mapping.leave_out)
        return Outcome(
            {
                **raster_summary(folder / POPULATION),
                **deployed.names(),
                **({"people per pixel scaled by": scaled} if scaled else {}),
                "extractor of the built-up score": str(same.score),
                **({"looks at": looks_at_text(deployed.sensors)} if deployed.kind != "bag" else {}),
                "members": len(deployed.files),
            },
            {
                RAN: written["ran"],
                LEFT_OUT: left_out.metadata,
                **(same.score.as_fact() if same.score else {}),
            },
            checks=[*quantities, same, left_out, *_soundness(making, country, folder)],
        )

    yield making.publish(make)


def scale_of_people(grid: Grid, trained_m2: float) -> str:
    """What people per pixel are scaled by from the trained pixels to this grid's; empty for 1."""
    area = grid.row_area_m2() / trained_m2
    low, high = float(area.min()), float(area.max())
    if max(abs(low - 1), abs(high - 1)) <= SAME_AREA:
        return ""
    ends = f"{low:.3f}", f"{high:.3f}"
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}, by latitude"


def _soundness(making: Making, country: Country, folder: Path) -> list[MapCheck]:
    """What must hold of a population map before anything is made from it.

    The census units need not be there yet, or be of an earlier grid; whether the map covers them is
    then asked when they are there.
    """
    found = [finite_and_not_negative(folder / POPULATION, folder / POPULATION_STD)]
    units = making.store.find(Address(UNITS, making.country, making.year))
    try:
        return found if units is None else [*found, coverage(folder, country, units)]
    except (GridMismatch, StoreError):
        return found


def _require_coverage(predicted: Version, country: Country, units: Version) -> None:
    """Refuse a map that does not cover its units, where that could not be judged when it was made.

    Raises:
        StoreError: so.
    """
    name, checks = "covers_the_units", predicted.manifest()["checks"]
    held = [c["metadata"].get("units") for c in checks if c["name"] == name]
    found = None if units.version in held else coverage(predicted.path, country, units)
    if found is not None and not found.passed:
        raise StoreError(
            f"{predicted.address} does not cover the census units",
            where=predicted.path,
            found=found.found,
            remedy=f"{found.remedy}; then materialise {predicted.address} again",
        )


def coverage(folder: Path, country: Country, units: Version) -> MapCheck:
    """Whether a folder's population map has a value in nearly all pixels of census units."""
    import pyarrow.parquet as pq

    from popcorn_ml.raster import grid_of

    raster = units.file(f"units_{country.census.train_level}.tif")
    count = pq.read_metadata(raster.with_suffix(".parquet")).num_rows
    found = covers_the_units(folder / POPULATION, raster, grid_of(raster), count)
    return replace(found, metadata={**found.metadata, "units": units.version})


@dg.asset(
    config_schema=NOTHING,
    deps=[population_map, "census_units", "census_counts"],
    partitions_def=COUNTRY_YEAR,
    group_name=GROUP,
    kinds={"cog"},
    code_version=CODE,
)
def adjusted_map(
    context: dg.AssetExecutionContext, store: StoreResource, compute: ComputeResource
) -> dg.MaterializeResult:
    """People per pixel, scaled so that every census unit's sum is its count.

    A unit that nobody counted keeps what the model says of it.
    """
    import numpy as np

    from popcorn_ml.mapping.dasymetric import adjust_map

    making = Making(context, store.open(), "adjusted_map", code_version=CODE)
    country = load_country(making.country)
    level = country.census.train_level
    predicted = making.input("population_map")
    units, people = counts_by_number(making, level)
    _require_coverage(predicted, country, making.input(UNITS))
    grid = making.grid(country)
    making.parameter(level=level)
    tags = {**place_tags(making), **model_tags(model_names(predicted))}

    def make(folder: Path) -> Outcome:
        adjustment = adjust_map(
            predicted.file(POPULATION),
            predicted.file(MEMBERS),
            predicted.file(BUILTUP),
            units,
            people,
            grid,
            folder,
            spread=predicted.file(POPULATION_STD),
            threads=compute.thread_count(),
            tags={"census_level": level, **tags},
            progress=making.progress("blocks"),
        )
        save_picture(
            folder,
            folder / POPULATION,
            "population",
            f"People, adjusted to the census, {making.place()}",
            units,
        )
        ids = unit_ids(units) if adjustment.uncounted else {}
        return Outcome(
            {
                **raster_summary(folder / POPULATION, IN_UNITS),
                **model_names(predicted),
                "census people": float(np.nansum(people)),
                "predicted before adjustment": float(adjustment.predicted[1:].sum()),
                "predicted outside all units": float(adjustment.predicted[0]),
                "units that fell back": [
                    {"unit": unit, "people": count, "placed by": method}
                    for unit, count, method in adjustment.fallbacks
                ],
                "units without a count": len(adjustment.uncounted),
                "people estimated in them": float(sum(p for _, p in adjustment.uncounted)),
            },
            checks=[units_sum_to_the_census(folder / POPULATION, units, people, grid)],
            facts={
                "units without a count": [
                    {"unit": unit, "id": ids[unit], "people estimated": estimated}
                    for unit, estimated in adjustment.uncounted
                ]
            },
        )

    return making.publish(make)


@dg.asset(
    config_schema=NOTHING,
    deps=[population_map, adjusted_map],
    partitions_def=COUNTRY_YEAR,
    group_name=GROUP,
    kinds={"cog", "duckdb"},
    pool=DUCKDB,
    code_version=HECTARES_CODE,
)
def hectare_map(
    context: dg.AssetExecutionContext, store: StoreResource, compute: ComputeResource
) -> dg.MaterializeResult:
    """People per hectare and how far they may be off: the product. Unadjusted sums lie beside it.

    Intervals rest on census units that were predicted by members, or students of the folds, which
    never saw them; where there are too few of those, there are none, and it is said why.
    """
    from popcorn_assets.assets.intervals import Sources, give_intervals, model_behind
    from popcorn_ml.mapping.aggregate import aggregate_map

    making = Making(context, store.open(), "hectare_map", code_version=HECTARES_CODE)
    country = load_country(making.country)
    grid = making.grid(country)
    adjusted = making.input("adjusted_map")
    predicted = making.input_of(adjusted, "population_map")
    level = adjusted.manifest()["parameters"]["level"]
    units, people = counts_by_number(making, level, of=adjusted)
    known = [name for name in country.census.levels if name in levels_of(making, adjusted)]
    tags = {**place_tags(making), **model_tags(model_names(predicted))}
    sources = Sources(
        predicted=predicted,
        adjusted=adjusted,
        levels={level: units, **{n: units_raster(making, n, of=adjusted) for n in known}},
        level=level,
        people=people,
        trained=model_behind(making, predicted),
        grid=grid,
    )

    def make(folder: Path) -> Outcome:
        aggregate_map(
            adjusted.file(POPULATION),
            adjusted_members(adjusted, predicted, units, grid),
            grid,
            folder,
            tags={"adjusted_to_census": "yes", **tags},
            progress=making.progress("blocks"),
        )
        aggregate_map(
            predicted.file(POPULATION),
            predicted.file(MEMBERS),
            grid,
            folder / "unadjusted",
            tags={"adjusted_to_census": "no", **tags},
        )
        save_picture(
            folder,
            folder / POPULATION,
            "population",
            f"People per {grid.cell_name}, adjusted, {making.place()}",
            units,
        )
        unadjusted = raster_summary(folder / "unadjusted" / POPULATION, "unadjusted")
        told = give_intervals(making, sources, folder, threads=compute.thread_count(), tags=tags)
        return Outcome(
            {
                **raster_summary(folder / POPULATION, IN_UNITS),
                "people on the grid, unadjusted": unadjusted["unadjusted"],
                **told.shown,
                **model_names(predicted),
                **cell_area(grid),
            },
            facts=told.facts,
            tables={"map_intervals": told.rows},
            checks=[
                hectares_keep_every_person(folder / POPULATION, adjusted.file(POPULATION)),
            ],
        )

    return making.publish(make)


def adjusted_members(
    adjusted: Version, predicted: Version, units: Path, grid: Grid
) -> "AdjustedMembers":
    """The map's members, each adjusted to the census as the adjusted map says.

    Maps adjusted before each member had factors of its own do not say it: it is worked out.
    """
    from popcorn_ml.mapping.dasymetric import (
        ADJUSTMENT_FILE,
        AdjustedMembers,
        Layers,
        plan_of_map,
        read_adjustment,
    )

    layers = Layers(
        predicted.file(POPULATION),
        predicted.file(MEMBERS),
        predicted.file(BUILTUP),
        units,
        grid,
    )
    adjustment = read_adjustment(adjusted.file(ADJUSTMENT_FILE))
    if not adjustment.members:
        adjustment = plan_of_map(layers, adjustment.people[1:])
    return AdjustedMembers(adjustment, layers)


def cell_area(grid: Grid) -> dict[str, float]:
    """True area of a cell of 10 x 10 pixels, which in degrees is no hectare."""
    smallest, largest = (round(area, 4) for area in grid.cell_area_ha)
    mean = {"mean cell area, ha": round(grid.hectares().pixel_area_m2 / HECTARE_M2, 4)}
    if smallest == largest:
        return mean
    return {**mean, "smallest cell area, ha": smallest, "largest cell area, ha": largest}


assets: list[dg.AssetsDefinition] = [population_map, adjusted_map, hectare_map]
