"""Census assets: units with their geometry and place on the grid, and people per unit and year.

Files go to the store, tables to the warehouse; what a row must be is popcorn_ml.census's business.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from popcorn_assets.country import Country, load_country
from popcorn_assets.partitions import COUNTRY_YEAR
from popcorn_assets.paths import PACKAGED_FILES, data_root
from popcorn_assets.resources import NOTHING, StoreResource
from popcorn_assets.show import check_specs, save_picture
from popcorn_assets.store.code import code_digest
from popcorn_assets.store.making import Making, Outcome
from popcorn_assets.store.versions import Version
from popcorn_ml.census.findings import COUNT_CHECKS, UNIT_CHECKS
from popcorn_ml.errors import StoreError

GROUP = "census"
CODE = code_digest("census")
POOL = "duckdb"
UNITS = "census_units"
COUNTS = "census_counts"


def census_folders(country: str) -> list[Path]:
    """Where the files that a country's file names are looked for, in this order."""
    return [data_root() / "census" / country, data_root(), PACKAGED_FILES]


def census_files(country: Country) -> list[Path]:
    """Every census file of a country.

    Raises:
        CensusError: one of them is in none of the folders.
    """
    from popcorn_ml.census.readers import files_of

    return files_of(country.census, census_folders(country.code))


def level_rows(coverage: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a coverage report says of each level, a row a level."""
    return [{"level": level, **numbers} for level, numbers in coverage["levels"].items()]


@dg.asset(
    config_schema=NOTHING,
    name=UNITS,
    partitions_def=COUNTRY_YEAR,
    group_name=GROUP,
    pool=POOL,
    kinds={"duckdb", "cog"},
    code_version=CODE,
    check_specs=check_specs(UNITS, UNIT_CHECKS),
)
def census_units(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
    """Census units of every level: geometry in the warehouse, unit numbers on the grid."""
    from popcorn_ml.census.build import prepare_units

    making = Making(context, store.open(), UNITS, code_version=CODE)
    country = load_country(making.country)
    grid = making.grid(country)
    for path in census_files(country):
        making.source(path)
    making.parameter(grid=grid.as_dict(), census=country.census.model_dump(mode="json"))

    def make(folder: Path) -> Outcome:
        report = prepare_units(
            making.country,
            making.year,
            country.census,
            grid,
            folder,
            census_folders(country.code),
            progress=making.progress("strips"),
        )
        train = report.rasters[country.census.train_level]
        level = country.census.train_level
        save_picture(folder, train, "units", f"Census units, {level}, {making.place()}")
        return Outcome(
            shown={"levels": level_rows(report.coverage)},
            checks=report.checks,
            tables={"units": report.units, "sources": [vars(s) for s in report.sources]},
        )

    return making.publish(make)


@dg.asset(
    config_schema=NOTHING,
    name=COUNTS,
    deps=[census_units],
    partitions_def=COUNTRY_YEAR,
    group_name=GROUP,
    pool=POOL,
    kinds={"duckdb"},
    code_version=CODE,
    check_specs=check_specs(COUNTS, COUNT_CHECKS),
)
def census_counts(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
    """People per census unit in the partition's year: counted, or projected by a stated rule."""
    from popcorn_ml.census.build import prepare_counts

    making = Making(context, store.open(), COUNTS, code_version=CODE)
    country = load_country(making.country)
    units = making.input(UNITS)
    for path in census_files(country):
        making.source(path)
    making.parameter(census=country.census.model_dump(mode="json"))

    def make(folder: Path) -> Outcome:
        report = prepare_counts(
            making.country,
            making.year,
            country.census,
            units.path,
            folder,
            census_folders(country.code),
        )
        return Outcome(
            shown={
                "people": report.totals[country.census.train_level],
                "levels": level_rows(report.coverage),
            },
            checks=report.checks,
            tables={"counts": report.counts, "sources": [vars(s) for s in report.sources]},
        )

    return making.publish(make)


def units_raster(making: Making, level: str, of: Version | None = None) -> Path:
    """The raster of a level's unit numbers, noted as an input.

    Args:
        of: those that this version was made from; None for the current ones.
    """
    return _census(making, UNITS, of).file(f"units_{level}.tif")


def levels_of(making: Making, of: Version) -> list[str]:
    """The levels of the census that a version was made from."""
    files = making.input_of(of, UNITS).manifest()["files"]
    found = (re.fullmatch(r"units_(.+)\.tif", name) for name in files)
    return [match[1] for match in found if match]


def _census(making: Making, asset: str, of: Version | None) -> Version:
    return making.input(asset) if of is None else making.input_of(of, asset)


def counts_file(making: Making, level: str, of: Version | None = None) -> Path:
    """The JSON list of a level's counts, noted as an input with the units they number.

    Args:
        of: those that this version was made from; None for the current ones.

    Raises:
        StoreError: the counts were joined to other units.
    """
    units, counts = _census(making, UNITS, of), _census(making, COUNTS, of)
    joined = [e["version"] for e in counts.manifest()["inputs"] if e["asset"] == UNITS]
    if joined != [units.version]:
        raise StoreError(
            "the counts were joined to other units than the current ones",
            where=counts.path,
            expected=f"{UNITS} version {units.version}",
            found=", ".join(joined),
            remedy=f"materialise {counts.address} again",
        )
    return counts.file(f"counts_{level}.json")


def counts_by_number(
    making: Making, level: str, of: Version | None = None
) -> tuple[Path, list[float]]:
    """The raster of a level's units, and the people of units 1..n; both noted as inputs.

    NaN where a unit has no count of its own: none is known, or its people are counted with the
    neighbour that it was merged into.

    Args:
        of: of the census that this version was made from; None for the current one.
    """
    import pyarrow.parquet as pq

    raster, counts = units_raster(making, level, of), counts_file(making, level, of)
    entries = json.loads(counts.read_text("utf-8"))
    known = {entry["number"]: float(entry["people"]) for entry in entries}
    units = pq.read_metadata(raster.with_suffix(".parquet")).num_rows
    return raster, [known.get(number, math.nan) for number in range(1, units + 1)]


def unit_ids(raster: Path) -> dict[int, str]:
    """The identifiers of the units of a raster, by number."""
    import pyarrow.parquet as pq

    table = pq.read_table(raster.with_suffix(".parquet"), columns=["number", "id"])
    return {unit["number"]: unit["id"] for unit in table.to_pylist()}


assets: list[dg.AssetsDefinition] = [census_units, census_counts]
