"""What must hold of maps before anything is made from them: plain functions of files.

Verdicts are worked out where a map is made, before it is published, and again whenever somebody
asks; Dagster's checks of the same names are in popcorn_assets.checks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from popcorn_ml.grid import Grid
from popcorn_ml.mapping.sparing import (
    COMPUTED,
    OCCUPANCY,
    PEOPLE,
    SPARE_BELOW,
    SPARED,
    SPARED_WEIGHT,
)

CENSUS_TOLERANCE = 1e-6
"""Largest relative difference between an adjusted unit's sum and its count (float32 rasters)."""

MIN_COVERAGE = 0.8
"""Share of the units' pixels that must have a value."""


@dataclass(frozen=True)
class MapCheck:
    """One verdict.

    Attributes:
        found: what was found, with the bound it was held against.
        remedy: what to do about it, in the imperative.
        metadata: the numbers behind it.
    """

    name: str
    passed: bool
    found: str
    remedy: str
    metadata: dict[str, Any] = field(default_factory=dict)
    severity: Literal["error", "warn"] = "error"

    @property
    def message(self) -> str:
        """What was found and, of a failure, what to do."""
        return self.found if self.passed else f"{self.found}. To do: {self.remedy}"


def finite_and_not_negative(*rasters: Path) -> MapCheck:
    """Whether values are finite and not negative wherever there is one."""
    from popcorn_ml import raster

    bad = {path.name: 0 for path in rasters}
    for path in rasters:
        for tile in raster.grid_of(path).tiles(1024):
            values = raster.read_float(path, tile.core, 1)
            bad[path.name] += int((np.isinf(values) | (values < 0)).sum())
    return MapCheck(
        "finite_and_not_negative",
        not any(bad.values()),
        f"pixels infinite or below zero: {bad}",
        "look at the composites there and at the model's finite_training, then map again",
        dict(bad),
    )


def few_people_left_out(counts: Mapping[str, float], allowed: float) -> MapCheck:
    """Whether the pixels that the networks were not run on can hold the stated share at the most.

    Args:
        counts: what the tiles counted (`sparing.COMPUTED` and following).
        allowed: share of the map's people.

    Bounded by the largest occupancy of any pixel that was computed: what the networks would have
    said of the others is not known.
    """
    people = counts[PEOPLE]
    at_most = counts[SPARED_WEIGHT] * counts[OCCUPANCY]
    share = at_most / people if at_most else 0.0
    return MapCheck(
        "few_people_left_out",
        share <= allowed,
        f"{counts[SPARED]:,.0f} pixels with a built-up score below {counts[SPARE_BELOW]:.3g} were "
        f"left out, with at most {at_most:,.1f} people, {share:.2g} of the map's "
        f"{people:,.0f} (allowed {allowed:g})",
        "set mapping.leave_out to 0 in the country's file, then map again",
        {
            "pixels left out": counts[SPARED],
            "pixels computed": counts[COMPUTED],
            "score left out below": counts[SPARE_BELOW],
            "people left out at most": at_most,
            "share left out at most": share,
            "share allowed": allowed,
        },
    )


def covers_the_units(population: Path, units: Path, grid: Grid, count: int) -> MapCheck:
    """Whether nearly all pixels of the census units have a value.

    Args:
        population: people per pixel.
        units: numbers 0..count.
    """
    from popcorn_ml.zones import raster_zone_sums

    sums = raster_zone_sums(units, [population], grid, count)
    pixels, valid = int(sums.pixels[1:].sum()), int(sums.valid[0, 1:].sum())
    share = valid / max(pixels, 1)
    return MapCheck(
        "covers_the_units",
        share >= MIN_COVERAGE,
        f"{share:.2%} of the units' pixels have a value; at least {MIN_COVERAGE:.0%} are needed",
        "look for gaps in the composites, and whether the country's grid holds its units",
        {"share": share},
    )


def units_sum_to_the_census(
    adjusted: Path, units: Path, people: Sequence[float | None], grid: Grid
) -> MapCheck:
    """Whether every counted unit's pixels add up to its count.

    Args:
        adjusted: people per pixel, adjusted.
        units: numbers 0..n.
        people: counted in units 1..n; None or NaN for a unit without a count of its own.
    """
    from popcorn_ml.zones import raster_zone_sums

    counted = np.array(people, dtype=np.float64)
    sums = raster_zone_sums(units, [adjusted], grid, len(counted))
    known = ~np.isnan(counted)
    difference = np.abs(sums.sums[0, 1:] - counted)[known] / np.maximum(counted[known], 1.0)
    worst = float(difference.max(initial=0.0))
    return MapCheck(
        "units_sum_to_the_census",
        worst <= CENSUS_TOLERANCE,
        f"largest relative difference {worst:.2e}, at most {CENSUS_TOLERANCE:g} is allowed",
        "see adjustment.json for units without a pixel, then materialise census_units, "
        "census_counts and adjusted_map again",
        {"worst": worst, "units": int(known.sum())},
    )


def hectares_keep_every_person(hectares: Path, pixels: Path) -> MapCheck:
    """Whether the hectares hold as many people as the pixels they were summed from."""
    there, before = people_on(hectares), people_on(pixels)
    difference = abs(there - before) / max(before, 1.0)
    return MapCheck(
        "hectares_keep_every_person",
        difference <= CENSUS_TOLERANCE,
        f"{there:,.1f} people in hectares, {before:,.1f} in pixels",
        "materialise hectare_map again; if it stays, the grid does not nest in hectares",
        {"hectares": there, "pixels": before},
    )


def people_on(path: Path) -> float:
    """All people of a map."""
    from popcorn_ml import raster

    return sum(
        float(np.nansum(raster.read_float(path, tile.core, 1), dtype=np.float64))
        for tile in raster.grid_of(path).tiles(1024)
    )
