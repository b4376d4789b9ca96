"""Checks of the maps: finite, whole, in keeping with the census and with one another."""

import json
from typing import Any

import dagster as dg

from popcorn_assets.assets.census import UNITS
from popcorn_assets.assets.maps import (
    MEMBERS,
    POPULATION,
    POPULATION_STD,
    adjusted_map,
    hectare_map,
    population_map,
)
from popcorn_assets.checks.verdict import latest, verdict
from popcorn_assets.country import load_country
from popcorn_assets.partitions import COUNTRY_YEAR, country_and_year
from popcorn_assets.resources import StoreResource
from popcorn_assets.store.versions import Address, Version

CENSUS_TOLERANCE = 1e-6
"""Largest relative difference between an adjusted unit's sum and its count (float32 rasters)."""

MIN_COVERAGE = 0.8
"""Share of the units' pixels that must have a value."""

MAX_TOTAL_SPREAD = 0.15
"""Standard deviation across members of the people on the grid, as a share of their mean."""

MAX_UNSURE_SHARE = 0.5
"""Share of the people in pixels where the members' standard deviation exceeds their mean."""


@dg.asset_check(asset=population_map, blocking=True, partitions_def=COUNTRY_YEAR)
def finite_and_not_negative(
    context: dg.AssetCheckExecutionContext, store: StoreResource
) -> dg.AssetCheckResult:
    """People and their spread are finite and not negative wherever the map has a value."""
    import numpy as np

    from popcorn_ml import raster

    version = latest(context, store, "population_map")
    bad: dict[str, Any] = {POPULATION: 0, POPULATION_STD: 0}
    for name in bad:
        path = version.file(name)
        for tile in raster.grid_of(path).tiles(1024):
            values = raster.read_float(path, tile.core, 1)
            bad[name] += int((np.isinf(values) | (values < 0)).sum())
    return verdict(
        not any(bad.values()),
        f"pixels infinite or below zero: {bad}",
        remedy="look at the composites there and at the model's finite_training, then map again",
        **bad,
    )


@dg.asset_check(asset=population_map, partitions_def=COUNTRY_YEAR)
def members_agree(
    context: dg.AssetCheckExecutionContext, store: StoreResource
) -> dg.AssetCheckResult:
    """The ensemble's members agree about the people on the grid, and about most people's pixels."""
    import numpy as np

    from popcorn_ml import raster

    version = latest(context, store, "population_map")
    path = version.file(MEMBERS)
    with raster.opened(path) as dataset:
        bands = list(dataset.indexes)
    totals, unsure, people = np.zeros(len(bands)), 0.0, 0.0
    for tile in raster.grid_of(path).tiles(1024):
        members = raster.read_float(path, tile.core, bands).reshape(len(bands), -1)
        totals += np.nansum(members, axis=1, dtype=np.float64)
        mean = raster.read_float(version.file(POPULATION), tile.core, 1)
        spread = raster.read_float(version.file(POPULATION_STD), tile.core, 1)
        people += float(np.nansum(mean, dtype=np.float64))
        unsure += float(np.nansum(mean[spread > mean], dtype=np.float64))
    if len(bands) == 1:
        return verdict(True, "one member only: it says nothing of how sure it is", warns=True)
    relative = float(totals.std(ddof=1) / max(totals.mean(), 1e-9))
    share = unsure / max(people, 1e-9)
    return verdict(
        relative <= MAX_TOTAL_SPREAD and share <= MAX_UNSURE_SHARE,
        f"the people on the grid vary by {relative:.1%} across members (at most "
        f"{MAX_TOTAL_SPREAD:.0%}), and {share:.1%} of the people are in pixels where members vary "
        f"by more than their mean (at most {MAX_UNSURE_SHARE:.0%})",
        remedy="compare the members' totals, look at the loss curves of the outlying ones, and "
        "train longer or with more members",
        warns=True,
        rows=[{"member": i, "people": float(t)} for i, t in enumerate(totals, 1)],
        spread_of_the_total=relative,
        share_of_people_unsure=share,
    )


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
    units = latest(context, store, UNITS)
    level = country.census.train_level
    sums = raster_zone_sums(
        units.file(f"units_{level}.tif"),
        [latest(context, store, "population_map").file(POPULATION)],
        country.pixel_grid(),
        _unit_count(units, level),
    )
    pixels, valid = int(sums.pixels[1:].sum()), int(sums.valid[0, 1:].sum())
    share = valid / max(pixels, 1)
    return verdict(
        share >= MIN_COVERAGE,
        f"{share:.2%} of the units' pixels have a value; at least {MIN_COVERAGE:.0%} are needed",
        remedy="look for gaps in the composites, and whether the country's grid holds its units",
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
    """Every counted unit's pixels add up to its count."""
    import numpy as np

    from popcorn_ml.zones import raster_zone_sums

    country = load_country(country_and_year(context)[0])
    level = country.census.train_level
    adjusted = latest(context, store, "adjusted_map")
    counted = np.array(
        [u["people"] for u in json.loads(adjusted.file("adjustment.json").read_text())["units"]],
        dtype=np.float64,  # NaN for a unit without a count of its own
    )
    # Those it was made from: newer units are no fault of the map's.
    (entry,) = (e for e in adjusted.manifest()["inputs"] if e["asset"] == UNITS)
    address = Address(UNITS, entry["country"], entry["year"])
    units = store.open().version(address, entry["version"])
    sums = raster_zone_sums(
        units.file(f"units_{level}.tif"),
        [adjusted.file(POPULATION)],
        country.pixel_grid(),
        len(counted),
    )
    known = ~np.isnan(counted)
    difference = np.abs(sums.sums[0, 1:] - counted)[known] / np.maximum(counted[known], 1.0)
    worst = float(difference.max(initial=0.0))
    return verdict(
        worst <= CENSUS_TOLERANCE,
        f"largest relative difference {worst:.2e}, at most {CENSUS_TOLERANCE:g} is allowed",
        remedy="see adjustment.json for units without a pixel, then materialise census_units, "
        "census_counts and adjusted_map again",
        worst=worst,
        units=int(known.sum()),
    )


@dg.asset_check(asset=hectare_map, blocking=True, partitions_def=COUNTRY_YEAR)
def hectares_keep_every_person(
    context: dg.AssetCheckExecutionContext, store: StoreResource
) -> dg.AssetCheckResult:
    """The hectares hold as many people as the pixels they were summed from."""
    version = latest(context, store, "hectare_map")
    (entry,) = (e for e in version.manifest()["inputs"] if e["asset"] == "adjusted_map")
    adjusted = Address("adjusted_map", entry["country"], entry["year"])
    pixels = _people(store.open().version(adjusted, entry["version"]))
    hectares = _people(version)
    difference = abs(hectares - pixels) / max(pixels, 1.0)
    return verdict(
        difference <= CENSUS_TOLERANCE,
        f"{hectares:,.1f} people in hectares, {pixels:,.1f} in pixels",
        remedy="materialise hectare_map again; if it stays, the grid does not nest in hectares",
        hectares=hectares,
        pixels=pixels,
    )


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
    members_agree,
    covers_the_units,
    units_sum_to_the_census,
    hectares_keep_every_person,
]
