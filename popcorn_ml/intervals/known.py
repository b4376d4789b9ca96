"""Intervals held against people that are known and that nothing was fitted on.

Units of finer census levels that were kept out, and hectares of a country whose true people are
known. The truth of hectares is opened here, block by block.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from popcorn_ml.intervals.coverage import Coverage, of_known
from popcorn_ml.intervals.hectares import adjusted_variances, map_variances
from popcorn_ml.intervals.measures import cell_areas
from popcorn_ml.intervals.zones import Ready, with_variances
from popcorn_ml.mapping.aggregate import cell_sums
from popcorn_ml.zones import BLOCK_PX

MIN_UNIT_SHARE = 0.95
"""Share of a unit's pixels that must have a value for it to be held against its count."""


def of_units(ready: Ready, units: Path, counted: dict[int, float], of: str) -> list[Coverage]:
    """Units of a level whose counts nothing was fitted on.

    Args:
        units: the raster of their numbers.
        counted: people by number; units without a count are left out.
        of: what they are called.
    """
    found = with_variances(units, ready)
    whole = (found["valid_share"] >= MIN_UNIT_SHARE).to_numpy()
    true = np.array([counted.get(int(number), np.nan) for number in found.index], np.float64)
    pixel_ha = ready.grid.pixel_area_m2 / 1e4
    return of_known(
        ready.model,
        of,
        found["people"].to_numpy(),
        found["variance"].to_numpy(),
        np.where(whole, true, np.nan),
        area_ha=found["pixels"].to_numpy() * pixel_ha,
    )


def of_hectares(ready: Ready, truth: Path, of: str) -> list[Coverage]:
    """Inhabited hectares (more than one person, true or mapped) whose true people are known.

    Hectares with a pixel without a value, or of which the truth is not known, are left out.

    Args:
        truth: true people per pixel, on the map's grid.

    Raises:
        GridMismatch, RasterError: it lies elsewhere or cannot be read.
    """
    from popcorn_ml import raster

    raster.check(truth, ready.grid)
    columns: list[list[np.ndarray]] = [[], [], []]
    for tile in ready.grid.tiles(BLOCK_PX):
        window = tile.core
        areas = cell_areas(ready.grid, window)
        placed = raster.read_float(ready.path, window, 1)
        if ready.units is None or ready.measured is None or ready.method is None:
            people = cell_sums(placed)
            spread = map_variances(ready.model, people, areas)
        else:
            numbers = raster.read(ready.units, window, 1)
            people, spread = adjusted_variances(
                ready.model, placed, numbers, areas, ready.measured, ready.method
            )
        known = raster.read_float(truth, window, 1)
        gaps = cell_sums(np.where(np.isnan(placed) | np.isnan(known), 1.0, 0.0)) > 0
        true = np.where(gaps, np.nan, cell_sums(known))
        for column, values in zip(columns, (people, spread, true), strict=True):
            column.append(values.ravel())
    people, spread, true = (np.concatenate(column) for column in columns)
    return of_known(ready.model, of, people, spread, true, inhabited=True)
