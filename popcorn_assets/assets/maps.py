"""Map assets: population and its spread, adjusted to the census, per hectare.

The networks and the arithmetic are popcorn_ml.mapping's business.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg

from popcorn_assets.assets.builtup import (
    BUILTUP,
    GPU_POOL,
    builtup_area,
    builtup_of_composites,
    place_tags,
)
from popcorn_assets.assets.census import counts_by_number, unit_ids
from popcorn_assets.assets.deployed_model import DEPLOYED, deployed_members, model_names, model_tags
from popcorn_assets.assets.imagery import SENSOR_NAMES, composites_by_season, provenance
from popcorn_assets.country import load_country
from popcorn_assets.partitions import COUNTRY_YEAR
from popcorn_assets.resources import ComputeResource, StoreResource
from popcorn_assets.runs import launch
from popcorn_assets.show import check_specs, raster_summary, save_picture
from popcorn_assets.store.code import code_digest
from popcorn_assets.store.making import Making, Outcome
from popcorn_ml.sentinel import SENSORS

GROUP = "maps"
CODE = code_digest("model", "mapping")

POPULATION = "population.tif"
POPULATION_STD = "population_std.tif"
MEMBERS = "population_members.tif"
FACTOR = "factor.tif"

IN_UNITS = "people in census units"
"""Title of the total of a map that has no one outside the units."""

SAME_AREA = 0.02
"""Relative difference in pixel area below which nothing is said of it."""


QUANTITY_CHECKS = {
    f"same_quantity_{sensor}": f"The model meets the {name} product that it was trained on."
    for sensor, name in SENSOR_NAMES.items()
}


@dg.asset(
    check_specs=check_specs("population_map", QUANTITY_CHECKS),
    deps=[DEPLOYED, "s1_composites", "s2_composites", builtup_area],
    partitions_def=COUNTRY_YEAR,
    group_name=GROUP,
    pool=GPU_POOL,
    kinds={"cog", "pytorch"},
    code_version=CODE,
)
def population_map(
    context: dg.AssetExecutionContext, store: StoreResource, compute: ComputeResource
) -> dg.MaterializeResult:
    """People per pixel by the deployed model, mean of the members, and the members' spread."""
    from popcorn_ml.imagery.checks import backscatter_check
    from popcorn_ml.mapping.predict import MappingSpec

    making = Making(context, store.open(), "population_map", code_version=CODE)
    country = load_country(making.country)
    grid = country.pixel_grid()
    composites = composites_by_season(making)
    builtup = builtup_of_composites(making).file(BUILTUP)
    deployed = deployed_members(making)
    trained_on, here = deployed.provenance, provenance(making)
    area_ratio = float(grid.row_area_m2().mean()) / deployed.pixel_area_m2
    if abs(area_ratio - 1) > SAME_AREA:
        context.log.warning(
            f"the model was trained on pixels of {deployed.pixel_area_m2:.1f} m2; its people per "
            f"pixel are scaled by {area_ratio:.3f} to this grid's"
        )
    making.parameter(
        grid=grid.as_dict(),
        tile_px=country.mapping.tile_px,
        pixel_area_ratio=area_ratio,
        precision=compute.precision,
    )

    def make(folder: Path) -> Outcome:
        launch.map_population(
            context,
            compute,
            MappingSpec(
                composites=composites,
                builtup=builtup,
                members=deployed.files,
                grid=grid,
                out=folder,
                tile_px=country.mapping.tile_px,
                device=compute.device,
                precision=compute.precision,
                threads=compute.thread_count(),
                pixel_area_ratio=area_ratio,
                tags={**place_tags(making), **model_tags(deployed.names())},
            ),
            progress=making.progress("tiles"),
        )
        save_picture(folder, folder / POPULATION, "population")
        return Outcome(
            {
                **raster_summary(folder / POPULATION),
                **deployed.names(),
                "people per pixel scaled by": area_ratio,
                "members": len(deployed.files),
            },
            checks=[
                replace(backscatter_check(trained_on[s], here[s]), name=f"same_quantity_{s}")
                for s in SENSORS
            ],
        )

    return making.publish(make)


@dg.asset(
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
    making.parameter(level=level)
    tags = {**place_tags(making), **model_tags(model_names(predicted))}

    def make(folder: Path) -> Outcome:
        adjustment = adjust_map(
            predicted.file(POPULATION),
            predicted.file(POPULATION_STD),
            predicted.file(BUILTUP),
            units,
            people,
            country.pixel_grid(),
            folder,
            threads=compute.thread_count(),
            tags={"census_level": level, **tags},
            progress=making.progress("blocks"),
        )
        save_picture(folder, folder / POPULATION, "population")
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
            facts={
                "units without a count": [
                    {"unit": unit, "id": ids[unit], "people estimated": estimated}
                    for unit, estimated in adjustment.uncounted
                ]
            },
        )

    return making.publish(make)


@dg.asset(
    deps=[population_map, adjusted_map],
    partitions_def=COUNTRY_YEAR,
    group_name=GROUP,
    kinds={"cog"},
    code_version=CODE,
)
def hectare_map(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
    """People per hectare and the members' spread: the product. Unadjusted sums lie beside it."""
    from popcorn_ml.mapping.aggregate import aggregate_map

    making = Making(context, store.open(), "hectare_map", code_version=CODE)
    country = load_country(making.country)
    grid = country.pixel_grid()
    adjusted = making.input("adjusted_map")
    predicted = making.input_of(adjusted, "population_map")
    members = predicted.file(MEMBERS)
    tags = {**place_tags(making), **model_tags(model_names(predicted))}

    def make(folder: Path) -> Outcome:
        aggregate_map(
            adjusted.file(POPULATION),
            members,
            grid,
            folder,
            factor=adjusted.file(FACTOR),
            tags={"adjusted_to_census": "yes", **tags},
            progress=making.progress("blocks"),
        )
        aggregate_map(
            predicted.file(POPULATION),
            members,
            grid,
            folder / "unadjusted",
            tags={"adjusted_to_census": "no", **tags},
        )
        save_picture(folder, folder / POPULATION, "population")
        unadjusted = raster_summary(folder / "unadjusted" / POPULATION, "unadjusted")
        return Outcome(
            {
                **raster_summary(folder / POPULATION, IN_UNITS),
                "people on the grid, unadjusted": unadjusted["unadjusted"],
                **model_names(predicted),
                **_hectare_area(grid),
            }
        )

    return making.publish(make)


def _hectare_area(grid: Any) -> dict[str, float]:
    """True area of a cell, which on a geographic grid is no hectare."""
    area = grid.row_area_m2()
    return {"mean cell area, ha": float(area.mean()) * 100 / 10_000}


assets: list[dg.AssetsDefinition] = [population_map, adjusted_map, hectare_map]
