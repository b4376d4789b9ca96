"""Evaluation: the maps and the baselines they must beat, against what is known to be true."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from popcorn_assets.assets.census import counts_by_number, units_raster
from popcorn_assets.assets.maps import BUILTUP, MEMBERS, POPULATION, adjusted_map, population_map
from popcorn_assets.country import load_country
from popcorn_assets.partitions import COUNTRY_YEAR
from popcorn_assets.paths import given_path
from popcorn_assets.resources import (
    ComputeResource,
    StoreResource,
)
from popcorn_assets.show import PICTURE
from popcorn_assets.store.code import code_digest
from popcorn_assets.store.making import Making, Outcome
from popcorn_assets.store.versions import Version
from popcorn_ml.files import write_json
from popcorn_ml.grid import HECTARE_M2, Grid

if TYPE_CHECKING:
    from popcorn_ml.evaluation.report import Evaluation

GROUP = "evaluation"
CODE = code_digest("evaluation", "mapping", "census")
METRICS = "metrics.json"


@dg.asset(
    deps=[population_map, adjusted_map, "census_units", "census_counts"],
    partitions_def=COUNTRY_YEAR,
    group_name=GROUP,
    pool="duckdb",
    kinds={"duckdb"},
    code_version=CODE,
)
def evaluation(
    context: dg.AssetExecutionContext,
    store: StoreResource,
    compute: ComputeResource,
) -> dg.MaterializeResult:
    """R2, MAE and RMSE of uniform and built-up disaggregation, the map and the adjusted map.

    Per hectare where the true population of every pixel is known (a simulated country), per unit
    of the last evaluation level in the country's file; a country without one is scored on the
    training level, which the adjusted map and the baselines match by construction.
    """
    from popcorn_ml.evaluation.report import evaluate, scatter_png

    making = Making(context, store.open(), "evaluation", code_version=CODE)
    country = load_country(making.country)
    adjusted = making.input("adjusted_map")
    predicted = making.input_of(adjusted, "population_map")
    units, people = counts_by_number(making, country.census.train_level)
    finest, fine_units, fine_people = country.census.train_level, None, None
    if country.census.evaluation_levels:
        finest = country.census.evaluation_levels[-1]
        fine_units, fine_people = counts_by_number(making, finest)
        making.parameter(unit_level=finest)
    truth = None
    if country.evaluation.truth:
        truth = given_path(country.evaluation.truth.replace("{year}", str(making.year)))
        truth = making.source(truth)

    rasters = {level: units_raster(making, level) for level in country.census.levels}
    making.parameter(levels=list(rasters))

    def make(folder: Path) -> Outcome:
        found = evaluate(
            grid=country.pixel_grid(),
            population=predicted.file(POPULATION),
            adjusted=adjusted.file(POPULATION),
            builtup=predicted.file(BUILTUP),
            units=units,
            people=people,
            truth=truth,
            fine_units=fine_units,
            fine_people=fine_people,
            threads=compute.thread_count(),
            progress=making.progress("blocks"),
        )
        write_json(folder / METRICS, found.as_dict())
        if found.histograms:
            (folder / PICTURE).write_bytes(scatter_png(found))
        rows = [
            {"approach": approach, "per": found.cell_name if per == "hectare" else per, **scores}
            for approach, by_unit in found.metrics.items()
            for per, scores in by_unit.items()
        ]
        sums = [
            row
            for level, raster in rasters.items()
            for row in _unit_sums(raster, level, predicted, adjusted, country.pixel_grid())
        ]
        return Outcome(
            {
                "metrics": rows,
                "people on the grid": found.totals,
                "people in census units": found.totals_in_units,
            },
            tables={
                "evaluation": _metric_rows(found, finest, country.pixel_grid()),
                "map_sums": sums,
            },
        )

    return making.publish(make)


def _metric_rows(found: "Evaluation", unit_level: str, grid: Grid) -> list[dict[str, Any]]:
    """One row a metric, as the warehouse keeps them; of cells with their true area."""
    area_ha = grid.hectares().pixel_area_m2 / HECTARE_M2
    return [
        {
            "product": approach,
            "level": unit_level if per == "unit" else per,
            "metric": metric,
            "value": value,
            "n": scores["n"],
            "area_ha": area_ha if per == "hectare" else None,
        }
        for approach, by_unit in found.metrics.items()
        for per, scores in by_unit.items()
        for metric, value in scores.items()
        if metric != "n"
    ]


def _unit_sums(
    units: Path, level: str, predicted: Version, adjusted: Version, grid: Grid
) -> list[dict[str, Any]]:
    """People of both maps in each unit of a level; the spread across members of the map's.

    A unit where a map has no value at all has no row of it: nothing is known there, which is not
    nobody. `valid_share` says of how many of the unit's pixels the sum is.
    """
    import numpy as np
    import pyarrow.parquet as pq

    from popcorn_ml import raster
    from popcorn_ml.mapping.ensemble import spread_of
    from popcorn_ml.zones import raster_zone_sums

    table = pq.read_table(units.with_suffix(".parquet"), columns=["number", "id"])
    with raster.opened(predicted.file(MEMBERS)) as members:
        bands = [(predicted.file(MEMBERS), band) for band in members.indexes]
    maps = [predicted.file(POPULATION), adjusted.file(POPULATION)]
    sums = raster_zone_sums(units, [*maps, *bands], grid, table.num_rows)
    spread = spread_of(np.asarray(sums.sums[2:]))
    rows: list[dict[str, Any]] = []
    for unit in table.to_pylist():
        number = unit["number"]
        for k, product in enumerate(("map", "adjusted")):
            valid = int(sums.valid[k, number])
            if valid == 0:
                continue
            rows.append(
                {
                    "level": level,
                    "unit_id": unit["id"],
                    "product": product,
                    "people": float(sums.sums[k, number]),
                    "people_std": float(spread[number]) if product == "map" else None,
                    "valid_share": valid / int(sums.pixels[number]),
                }
            )
    return rows


assets: list[dg.AssetsDefinition] = [evaluation]
