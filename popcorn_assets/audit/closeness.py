"""How far apart the values of two files are that are not the same to the last byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from popcorn_ml import raster
from popcorn_ml.errors import RasterError

TOLERANCE = 1e-5
"""Of the largest value of a band: what engines and processors may round differently."""

PICTURES = (".png",)
"""Drawn from the rasters beside them, and as equal as those are."""


def rasters_apart(path: Path, other: Path) -> float | None:
    """Largest difference of any pixel of two rasters, as a share of its band's largest value.

    Returns:
        None where they are not of one grid, with the same bands, and values in the same pixels.
    """
    try:
        if raster.grid_of(path) != raster.grid_of(other):
            return None
        grid = raster.grid_of(path)
        with raster.opened(path) as one, raster.opened(other) as two:
            if one.descriptions != two.descriptions or one.dtypes != two.dtypes:
                return None
            bands = len(one.descriptions)
        apart, largest = np.zeros(bands), np.zeros(bands)
        for tile in grid.tiles(1024):
            ours, theirs = (raster.read_float(p, tile.core, dtype="float64") for p in (path, other))
            if (np.isnan(ours) != np.isnan(theirs)).any():
                return None
            seen = ~np.isnan(ours)
            off = np.abs(np.where(seen, ours - theirs, 0))
            apart = np.maximum(apart, off.max(axis=(1, 2)))
            largest = np.maximum(largest, np.abs(np.where(seen, ours, 0)).max(axis=(1, 2)))
    except RasterError:
        return None
    return float((apart[apart > 0] / np.maximum(largest[apart > 0], 1e-300)).max(initial=0.0))
