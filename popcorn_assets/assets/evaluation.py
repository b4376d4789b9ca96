"""Evaluation: the maps and the baselines they must beat, against what is known to be true."""

import json
from pathlib import Path
from typing import Any

import dagster as dg

from popcorn_assets.assets.census import counts_by_number, levels_of, units_raster
from popcorn_assets.assets.maps import BUILTUP, MEMBERS, POPULATION, adjusted_map, population_map
from popcorn_assets.country import load_country
from popcorn_assets.partitions import COUNTRY_YEAR
from popcorn_assets.paths import given_path
from popcorn_assets.promotion.ledger import DEPLOYED, DEPLOYED_FILE
from popcorn_assets.resources import (
    ComputeResource,
    StoreResource,
)
from popcorn_assets.show import PICTURE
from popcorn_assets.store.code import code_digest
from popcorn_assets.store.making import Making, Outcome
from popcorn_assets.store.versions import Store, Version
from popcorn_ml.files import write_json
from popcorn_ml.grid import Grid
from popcorn_ml.mapping.checks import MapCheck

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
    of the last evaluation level in the country's file. Of a country without one only the map
    itself is scored, on the training level: the others match that by construction. The census is
    the one that the adjusted map was made from, whatever has come in since.
    """
    from popcorn_ml.evaluation.report import evaluate, scatter_png

    making = Making(context, store.open(), "evaluation", code_version=CODE)
    country = load_country(making.country)
    grid = making.grid(country)
    adjusted = making.input("adjusted_map")
    predicted = making.input_of(adjusted, "population_map")
    finest = level = adjusted.manifest()["parameters"]["level"]
    units, people = counts_by_number(making, level, of=adjusted)
    known = [name for name in country.census.levels if name in levels_of(making, adjusted)]
    fine_units, fine_people = None, None
    kept_out = [name for name in country.census.evaluation_levels if name in known]
    if kept_out:
        finest = kept_out[-1]
        fine_units, fine_people = counts_by_number(making, finest, of=adjusted)
        making.parameter(unit_level=finest)
    truth = None
    if country.evaluation.truth:
        truth = given_path(country.evaluation.truth.replace("{year}", str(making.year)))
        truth = making.source(truth)

    rasters = {name: units_raster(making, name, of=adjusted) for name in known}
    making.parameter(levels=list(rasters))
    verdict = levels_kept_out(making.store, adjusted)
    making.parameter(**verdict.metadata)

    def make(folder: Path) -> Outcome:
        found = evaluate(
            grid=grid,
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
            {"approach": approach, "per": unit, **scores}
            for approach, by_unit in found.metrics.items()
            for unit, scores in by_unit.items()
        ]
        sums = [
            row
            for name, raster in rasters.items()
            for row in _unit_sums(raster, name, predicted, adjusted, grid)
        ]
        return Outcome(
            {
                "metrics": rows,
                "people on the grid": found.totals,
                "people in census units": found.totals_in_units,
            },
            checks=[verdict],
            tables={"evaluation": _metric_rows(rows, finest), "map_sums": sums},
        )

    return making.publish(make)


def levels_kept_out(store: Store, made: Version) -> MapCheck:
    """Whether a map was trained on none of the levels that it is evaluated on.

    Args:
        made: an adjusted map, or an evaluation of one.
    """
    from popcorn_ml.census.validate import evaluation_kept_out

    code = made.address.country or ""
    mapped = store.made_from(made, "population_map")
    chosen = store.made_from(mapped, DEPLOYED).file(DEPLOYED_FILE)
    decision = json.loads(chosen.read_text("utf-8"))
    trained_on = [decision["level"]] if decision["country"] == code else []
    found = evaluation_kept_out(load_country(code).census, trained_on)
    return MapCheck(
        "evaluation_levels_kept_out",
        found.passed,
        found.message,
        "give the level another role in the country's file, or deploy another model",
        {"trained_on": trained_on},
    )


def _metric_rows(rows: list[dict[str, Any]], unit_level: str) -> list[dict[str, Any]]:
    """One row a metric, as the warehouse keeps them."""
    return [
        {
            "product": row["approach"],
            "level": unit_level if row["per"] == "unit" else row["per"],
            "metric": metric,
            "value": value,
            "n": row["n"],
        }
        for row in rows
        for metric, value in row.items()
        if metric not in ("approach", "per", "n")
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
