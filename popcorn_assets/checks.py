"""Asset checks of the maps: what must hold before anything is made from them.

A blocking check stops what follows in the same run. Checks of imagery and census come with their
assets, whose reports already know the verdicts; these read back what was written.
"""

import json
from typing import Any

import dagster as dg

from popcorn_assets.census import UNITS
from popcorn_assets.country import load_country
from popcorn_assets.deployment import DEPLOYED, DEPLOYED_FILE
from popcorn_assets.evaluation import evaluation
from popcorn_assets.maps import (
    POPULATION,
    POPULATION_STD,
    adjusted_map,
    hectare_map,
    population_map,
)
from popcorn_assets.partitions import COUNTRY_YEAR, country_and_year
from popcorn_assets.resources import StoreResource
from popcorn_assets.store import Address, Version

CENSUS_TOLERANCE = 1e-6
"""Largest relative difference between an adjusted unit's sum and its count (float32 rasters)."""

MIN_COVERAGE = 0.8
"""Share of the units' pixels that must have a value."""


def _latest(context: dg.AssetCheckExecutionContext, store: StoreResource, asset: str) -> Version:
    return store.open().latest(Address(asset, *country_and_year(context)))


def _verdict(passed: bool, description: str, **metadata: Any) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=bool(passed), description=description, metadata=metadata)


@dg.asset_check(asset=population_map, blocking=True, partitions_def=COUNTRY_YEAR)
def finite_and_not_negative(
    context: dg.AssetCheckExecutionContext, store: StoreResource
) -> dg.AssetCheckResult:
    """People and their spread are finite and not negative wherever the map has a value."""
    import numpy as np

    from popcorn_ml import raster

    version = _latest(context, store, "population_map")
    bad = {POPULATION: 0, POPULATION_STD: 0}
    for name in bad:
        path = version.file(name)
        for tile in raster.grid_of(path).tiles(1024):
            values = raster.read_float(path, tile.core, 1)
            bad[name] += int((np.isinf(values) | (values < 0)).sum())
    return _verdict(not any(bad.values()), f"pixels infinite or below zero: {bad}", **bad)


@dg.asset_check(
    asset=population_map,
    blocking=True,
    partitions_def=COUNTRY_YEAR,
    additional_deps=[UNITS],
)
def covers_the_units(
    context: dg.AssetCheckExecutionContext, store: StoreResource
) -> dg.AssetCheckResult:
    """Nearly all pixels of the census units have a value."""
    from popcorn_ml.zones import raster_zone_sums

    country = load_country(country_and_year(context)[0])
    units = _latest(context, store, UNITS)
    level = country.census.train_level
    sums = raster_zone_sums(
        units.file(f"units_{level}.tif"),
        [_latest(context, store, "population_map").file(POPULATION)],
        country.pixel_grid(),
        _unit_count(units, level),
    )
    pixels, valid = int(sums.pixels[1:].sum()), int(sums.valid[0, 1:].sum())
    share = valid / max(pixels, 1)
    return _verdict(
        share >= MIN_COVERAGE,
        f"{share:.2%} of the units' pixels have a value; at least {MIN_COVERAGE:.0%} are needed",
        share=share,
    )


@dg.asset_check(
    asset=adjusted_map,
    blocking=True,
    partitions_def=COUNTRY_YEAR,
    additional_deps=[UNITS],
)
def units_sum_to_the_census(
    context: dg.AssetCheckExecutionContext, store: StoreResource
) -> dg.AssetCheckResult:
    """Every unit's pixels add up to its count."""
    import numpy as np

    from popcorn_ml.zones import raster_zone_sums

    country = load_country(country_and_year(context)[0])
    level = country.census.train_level
    adjusted = _latest(context, store, "adjusted_map")
    counted = np.array(
        [u["people"] for u in json.loads(adjusted.file("adjustment.json").read_text())["units"]]
    )
    sums = raster_zone_sums(
        _latest(context, store, UNITS).file(f"units_{level}.tif"),
        [adjusted.file(POPULATION)],
        country.pixel_grid(),
        len(counted),
    )
    difference = np.abs(sums.sums[0, 1:] - counted) / np.maximum(counted, 1.0)
    worst = float(difference.max(initial=0.0))
    return _verdict(
        worst <= CENSUS_TOLERANCE,
        f"largest relative difference {worst:.2e}, at most {CENSUS_TOLERANCE:g} is allowed",
        worst=worst,
        units=len(counted),
    )


@dg.asset_check(asset=hectare_map, blocking=True, partitions_def=COUNTRY_YEAR)
def hectares_keep_every_person(
    context: dg.AssetCheckExecutionContext, store: StoreResource
) -> dg.AssetCheckResult:
    """The hectares hold as many people as the pixels they were summed from."""
    pixels = _people(_latest(context, store, "adjusted_map"))
    hectares = _people(_latest(context, store, "hectare_map"))
    difference = abs(hectares - pixels) / max(pixels, 1.0)
    return _verdict(
        difference <= CENSUS_TOLERANCE,
        f"{hectares:,.1f} people in hectares, {pixels:,.1f} in pixels",
        hectares=hectares,
        pixels=pixels,
    )


@dg.asset_check(asset=evaluation, blocking=True, partitions_def=COUNTRY_YEAR)
def evaluation_levels_kept_out(
    context: dg.AssetCheckExecutionContext, store: StoreResource
) -> dg.AssetCheckResult:
    """No level that the map is evaluated on was trained on."""
    from popcorn_ml.census.validate import evaluation_kept_out

    code, _ = country_and_year(context)
    decision = json.loads(_latest(context, store, DEPLOYED).file(DEPLOYED_FILE).read_text("utf-8"))
    trained_on = [decision["level"]] if decision["country"] == code else []
    found = evaluation_kept_out(load_country(code).census, trained_on)
    return _verdict(found.passed, found.message, trained_on=trained_on)


def _people(version: Version) -> float:
    import numpy as np

    from popcorn_ml import raster

    path = version.file(POPULATION)
    tiles = raster.grid_of(path).tiles(1024)
    return sum(
        float(np.nansum(raster.read_float(path, tile.core, 1), dtype=np.float64)) for tile in tiles
    )


def _unit_count(units: Version, level: str) -> int:
    import pyarrow.parquet as pq

    return pq.read_metadata(units.file(f"units_{level}.parquet")).num_rows


checks = [
    finite_and_not_negative,
    covers_the_units,
    units_sum_to_the_census,
    hectares_keep_every_person,
    evaluation_levels_kept_out,
]
