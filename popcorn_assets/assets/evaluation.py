"""Evaluation: the maps and the baselines they must beat, against what is known to be true."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from popcorn_assets.assets.census import counts_by_number, levels_of, units_raster
from popcorn_assets.assets.comparison import (
    brought_products,
    product_files,
    product_sums,
    write_compared,
)
from popcorn_assets.assets.maps import (
    BUILTUP,
    MEMBERS,
    POPULATION,
    adjusted_map,
    adjusted_members,
    population_map,
)
from popcorn_assets.assets.unseen import Honest, without_truth
from popcorn_assets.country import load_country
from popcorn_assets.partitions import COUNTRY_YEAR
from popcorn_assets.paths import given_path
from popcorn_assets.promotion.ledger import DEPLOYED, DEPLOYED_FILE
from popcorn_assets.resources import (
    NOTHING,
    ComputeResource,
    StoreResource,
)
from popcorn_assets.show import PICTURE
from popcorn_assets.store.code import code_digest
from popcorn_assets.store.making import Making, Outcome
from popcorn_assets.store.versions import Store, Version
from popcorn_assets.wording import heading
from popcorn_ml.errors import StoreError
from popcorn_ml.files import write_json
from popcorn_ml.grid import HECTARE_M2, Grid, Window
from popcorn_ml.mapping.checks import CENSUS_TOLERANCE, MapCheck

if TYPE_CHECKING:
    from popcorn_ml.evaluation.report import Evaluation
    from popcorn_ml.mapping.dasymetric import AdjustedMembers

GROUP = "evaluation"
CODE = code_digest("evaluation", "mapping", "census")
METRICS = "metrics.json"


@dg.asset(
    config_schema=NOTHING,
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
    the one that the adjusted map was made from, whatever has come in since. Rasters of people by
    others that the country's file names are scored beside them.

    Of every country, without any truth: its census units as predicted by what was not trained on
    them, and people within joined units by maps that knew only their sums.
    """
    from popcorn_ml.evaluation.report import evaluate

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
    truth: Path | None = None
    if country.evaluation.truth:
        truth = making.source(given_path(country.evaluation.truth.format(year=making.year)))
    products = product_files(making, country)
    rasters = {name: units_raster(making, name, of=adjusted) for name in known}
    making.parameter(levels=list(rasters))
    verdict = levels_kept_out(making.store, adjusted)
    making.parameter(**verdict.metadata)
    members = adjusted_members(adjusted, predicted, units, grid)
    threads = compute.thread_count()

    def make(folder: Path) -> Outcome:
        brought = brought_products(making, products, grid, units, people)
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
            others={name: product.path for name, product in brought.items()},
            threads=threads,
            progress=making.progress("blocks"),
        )
        honest = without_truth(making.store, grid, predicted, level, units, people, threads)
        honest.beside(found, fine_people)
        _write(folder, found, honest)
        ours = {"adjusted map": adjusted, "map": predicted}
        compared = write_compared(making, brought, ours, grid, folder)
        sums = [
            row
            for name, raster in rasters.items()
            for row in _unit_sums(raster, name, predicted, members, adjusted)
        ]
        scored = [*metric_rows(found, finest, grid), *honest.rows(level)]
        return Outcome(
            {**plotted(found), **_shown(found), **compared, **honest.shown()},
            checks=[verdict],
            tables={
                "evaluation": scored,
                "map_sums": [*sums, *product_sums(brought, rasters, grid)],
            },
        )

    return making.publish(make)


PLOTTED = ("r2", "rmse", "bias")


def plotted(found: "Evaluation") -> dict[str, float]:
    """Figures of the maps by themselves: Dagster plots numbers, not tables, over the partitions."""
    cells = {"hectare": found.cell_name}
    scores = {
        f"{heading(metric)}, {approach}, per {cells.get(per, per)}": of.get(metric)
        for approach in ("map", "adjusted")
        for per, of in found.metrics.get(approach, {}).items()
        for metric in PLOTTED
    }
    people = {f"people, {name}": found.totals.get(name) for name in ("map", "adjusted", "true")}
    numbers = {**people, **scores}
    return {title: float(n) for title, n in numbers.items() if n is not None and math.isfinite(n)}


def shown_metrics(found: "Evaluation") -> list[dict[str, Any]]:
    """The metrics as a person reads them, a row an approach and kind of cell."""
    return [
        {"approach": approach, "per": found.cell_name if per == "hectare" else per, **scores}
        for approach, by_unit in found.metrics.items()
        for per, scores in by_unit.items()
    ]


def levels_kept_out(store: Store, made: Version) -> MapCheck:
    """Whether a map was trained on none of the levels that it is evaluated on.

    Args:
        made: an adjusted map, or an evaluation of one.
    """
    from popcorn_ml.census.validate import evaluation_kept_out

    code = made.address.country or ""
    mapped = store.made_from(made, "population_map")
    name, remedy = "evaluation_levels_kept_out", "deploy another model, or map and evaluate again"
    try:
        chosen = store.made_from(mapped, DEPLOYED).file(DEPLOYED_FILE)
    except StoreError as error:
        found = f"not judged: what the model was trained on is not known ({error.what})"
        return MapCheck(name, False, found, remedy, {"trained_on": []}, "warn")
    decision = json.loads(chosen.read_text("utf-8"))
    trained_on = [decision["level"]] if decision["country"] == code else []
    kept_out = evaluation_kept_out(load_country(code).census, trained_on)
    remedy = "give the level another role in the country's file, or deploy another model"
    return MapCheck(name, kept_out.passed, kept_out.message, remedy, {"trained_on": trained_on})


def _write(folder: Path, found: "Evaluation", honest: Honest) -> None:
    """The metrics and the picture of an evaluation."""
    write_json(folder / METRICS, {**found.as_dict(), "without_truth": honest.as_dict()})
    if picture := honest.picture(found):
        (folder / PICTURE).write_bytes(picture)


def _shown(found: "Evaluation") -> dict[str, Any]:
    """What the UI shows of a comparison with what is known."""
    return {
        "metrics": shown_metrics(found),
        "people on the grid": found.totals,
        "people in census units": found.totals_in_units,
    }


def metric_rows(found: "Evaluation", unit_level: str, grid: Grid) -> list[dict[str, Any]]:
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
    units: Path, level: str, predicted: Version, members: "AdjustedMembers", adjusted: Version
) -> list[dict[str, Any]]:
    """People of both maps in each unit of a level, and their spread across members.

    A unit where a map has no value at all has no row of it: nothing is known there, which is not
    nobody. `valid_share` says of how many of the unit's pixels the sum is. The spread of adjusted
    people, of members that are each adjusted, is 0 in the units they are adjusted to, and not
    known where a fallback placed people of the unit.

    Args:
        members: of the map, each adjusted to the census.
    """
    import numpy as np
    import pyarrow.parquet as pq

    from popcorn_ml import raster
    from popcorn_ml.mapping.ensemble import spread_of
    from popcorn_ml.zones import BLOCK_PX, blockwise_zone_sums

    table = pq.read_table(units.with_suffix(".parquet"), columns=["number", "id"])
    maps, grid = [predicted.file(POPULATION), adjusted.file(POPULATION)], members.layers.grid
    for path in (units, *maps):
        raster.check(path, grid)
    members.layers.check()
    with raster.opened(predicted.file(MEMBERS)) as dataset:
        count = dataset.count

    def read(window: Window) -> tuple[np.ndarray, list[np.ndarray]]:
        values = [raster.read_float(path, window, 1) for path in maps]
        plain = raster.read_float(predicted.file(MEMBERS), window)
        return raster.read(units, window, 1), [*values, *plain, *members.read(window)]

    windows = [tile.core for tile in grid.tiles(BLOCK_PX)]
    sums = blockwise_zone_sums(read, windows, 2 + 2 * count, table.num_rows)
    spread = [spread_of(sums.sums[2 : 2 + count]), spread_of(sums.sums[2 + count :])]
    placed_by_members = (sums.valid[2 + count :] == sums.valid[1]).all(axis=0)
    spread[1] = np.where(placed_by_members, spread[1], np.nan)
    rows: list[dict[str, Any]] = []
    for unit in table.to_pylist():
        number = unit["number"]
        for k, product in enumerate(("map", "adjusted")):
            valid = int(sums.valid[k, number])
            if valid == 0:
                continue
            people, std = float(sums.sums[k, number]), float(spread[k][number])
            settled = std <= CENSUS_TOLERANCE * max(people, 1.0)  # what is left is rounding
            rows.append(
                {
                    "level": level,
                    "unit_id": unit["id"],
                    "product": product,
                    "people": people,
                    "people_std": 0.0 if settled else std,  # NaN is kept as null
                    "valid_share": valid / int(sums.pixels[number]),
                }
            )
    return rows


assets: list[dg.AssetsDefinition] = [evaluation]
