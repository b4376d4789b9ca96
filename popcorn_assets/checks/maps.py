"""Checks of the maps: finite, whole, in keeping with the census and with one another."""

import json

import dagster as dg

from popcorn_assets.assets.census import UNITS
from popcorn_assets.assets.maps import (
    MEMBERS,
    POPULATION,
    POPULATION_STD,
    adjusted_map,
    coverage,
    hectare_map,
    population_map,
)
from popcorn_assets.checks.verdict import kept, latest, newest, not_judged, said, verdict
from popcorn_assets.country import load_country
from popcorn_assets.partitions import COUNTRY_YEAR
from popcorn_assets.resources import NOTHING, StoreResource
from popcorn_ml.mapping import checks as judged

MAX_TOTAL_SPREAD = 0.15
"""Standard deviation across members of the people on the grid, as a share of their mean."""

MAX_UNSURE_SHARE = 0.5
"""Share of the people in pixels where the members' standard deviation exceeds their mean."""


@dg.asset_check(
    asset=population_map, blocking=True, partitions_def=COUNTRY_YEAR, config_schema=NOTHING
)
def finite_and_not_negative(
    context: dg.AssetCheckExecutionContext, store: StoreResource
) -> dg.AssetCheckResult:
    """People and their spread are finite and not negative wherever the map has a value."""
    version = newest(context, store, "population_map")
    return kept(context, version, "finite_and_not_negative") or said(
        judged.finite_and_not_negative(version.file(POPULATION), version.file(POPULATION_STD))
    )


@dg.asset_check(asset=population_map, partitions_def=COUNTRY_YEAR, config_schema=NOTHING)
def members_agree(
    context: dg.AssetCheckExecutionContext, store: StoreResource
) -> dg.AssetCheckResult:
    """The ensemble's members agree about the people on the grid, and about most people's pixels."""
    import numpy as np

    from popcorn_ml import raster

    version = newest(context, store, "population_map")
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
    if version.manifest()["parameters"].get("kind") == "student":
        return not_judged(
            "a student is one network, and says nothing of how sure it is by itself",
            remedy="see the intervals of hectare_map, and the units that neither it nor its "
            "teachers saw, on the page of the student",
        )
    if len(bands) == 1:
        return not_judged(
            "one member only: it says nothing of how sure it is",
            remedy="train with more members (training.members)",
        )
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
    config_schema=NOTHING,
    asset=population_map,
    blocking=True,
    partitions_def=COUNTRY_YEAR,
    additional_deps=[UNITS],
)
def covers_the_units(
    context: dg.AssetCheckExecutionContext, store: StoreResource
) -> dg.AssetCheckResult:
    """Nearly all pixels of the census units have a value."""
    made, units = newest(context, store, "population_map"), latest(context, store, UNITS)
    found = kept(context, made, "covers_the_units", {"units": units.version})
    return found or said(coverage(made.path, load_country(made.address.country or ""), units))


@dg.asset_check(
    config_schema=NOTHING,
    asset=adjusted_map,
    blocking=True,
    partitions_def=COUNTRY_YEAR,
    additional_deps=[UNITS],
)
def units_sum_to_the_census(
    context: dg.AssetCheckExecutionContext, store: StoreResource
) -> dg.AssetCheckResult:
    """Every counted unit's pixels add up to its count."""
    from popcorn_ml import raster
    from popcorn_ml.mapping.dasymetric import ADJUSTMENT_FILE

    made = newest(context, store, "adjusted_map")
    found = kept(context, made, "units_sum_to_the_census")
    if found is not None:
        return found
    level = made.manifest()["parameters"]["level"]
    # Those it was made from: newer units are no fault of the map's.
    units = store.open().made_from(made, UNITS).file(f"units_{level}.tif")
    counted = json.loads(made.file(ADJUSTMENT_FILE).read_text("utf-8"))["units"]
    return said(
        judged.units_sum_to_the_census(
            made.file(POPULATION),
            units,
            [unit["people"] for unit in counted],
            raster.grid_of(units),
        )
    )


@dg.asset_check(
    asset=hectare_map, blocking=True, partitions_def=COUNTRY_YEAR, config_schema=NOTHING
)
def hectares_keep_every_person(
    context: dg.AssetCheckExecutionContext, store: StoreResource
) -> dg.AssetCheckResult:
    """The hectares hold as many people as the pixels they were summed from."""
    made = newest(context, store, "hectare_map")
    found = kept(context, made, "hectares_keep_every_person")
    return found or said(
        judged.hectares_keep_every_person(
            made.file(POPULATION), store.open().made_from(made, "adjusted_map").file(POPULATION)
        )
    )


checks = [
    finite_and_not_negative,
    members_agree,
    covers_the_units,
    units_sum_to_the_census,
    hectares_keep_every_person,
]
