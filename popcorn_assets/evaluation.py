"""Evaluation: the maps and the baselines they must beat, against what is known to be true."""

from pathlib import Path

import dagster as dg

from popcorn_assets.census import counts_by_number
from popcorn_assets.country import load_country
from popcorn_assets.lineage import Making, Outcome
from popcorn_assets.maps import BUILTUP, POPULATION, adjusted_map, population_map
from popcorn_assets.partitions import COUNTRY_YEAR
from popcorn_assets.paths import data_root
from popcorn_assets.resources import (
    ComputeResource,
    StoreResource,
    WarehouseResource,
)
from popcorn_assets.show import PICTURE
from popcorn_assets.store import write_json

GROUP = "evaluation"
METRICS = "metrics.json"


@dg.asset(
    deps=[population_map, adjusted_map, "census_units", "census_counts"],
    partitions_def=COUNTRY_YEAR,
    group_name=GROUP,
    pool="duckdb",
    kinds={"duckdb"},
    code_version="1",
)
def evaluation(
    context: dg.AssetExecutionContext,
    store: StoreResource,
    warehouse: WarehouseResource,
    compute: ComputeResource,
) -> dg.MaterializeResult:
    """R2, MAE and RMSE of uniform and built-up disaggregation, the map and the adjusted map.

    Per hectare where the true population of every pixel is known (a simulated country), per unit
    of the finest census level that training never saw.
    """
    from popcorn_ml.evaluation.report import evaluate, scatter_png

    making = Making(context, store.open(), "evaluation", code_version="1")
    country = load_country(making.country)
    predicted, adjusted = making.input("population_map"), making.input("adjusted_map")
    units, people = counts_by_number(making, country.census.train_level)
    fine_units = fine_people = None
    if country.census.evaluation_levels:
        finest = country.census.evaluation_levels[-1]
        fine_units, fine_people = counts_by_number(making, finest, complete=False)
        making.parameter(unit_level=finest)
    truth = None
    if country.evaluation.truth:
        truth = data_root() / country.evaluation.truth.format(year=making.year)
        truth = making.source(truth)

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
            {"approach": approach, "per": unit, **scores}
            for approach, by_unit in found.metrics.items()
            for unit, scores in by_unit.items()
        ]
        return Outcome({"metrics": rows, "totals": found.totals})

    return making.publish(make)


assets: list[dg.AssetsDefinition] = [evaluation]
