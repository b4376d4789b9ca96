"""People on other grids than the country's own: true 100 m cells, and 3 arc-seconds.

A pixel's people are split among the cells it lies in by the shares of its area (GDAL's `sum`), so
that they are conserved; a new grid reaches beyond the old one on every side, since people on its
edge would be lost without a word.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from popcorn_ml import raster
from popcorn_ml.errors import ConfigError, RasterError
from popcorn_ml.grid import Grid, check_grid

CONSERVED = 1e-6
"""People that may be lost or won on the way to another grid, relative to all of them."""

SIDE_M = 100.0
MARGIN = 2
"""Cells that a new grid reaches beyond the old one: with none, people on its edge are lost."""
EDGE_POINTS = 51
"""Along each edge of a grid, where it is looked at in another CRS: edges are not straight there."""

EQUAL_AREA = "EPSG:6933"
"""EASE-Grid 2.0, a cylinder of equal areas: for a country too wide for one UTM zone."""

ARC_STEP = 1 / 1200
"""3 arc-seconds in degrees."""
WORLDPOP_WEST, WORLDPOP_NORTH = -180.001249265, 84.0020831987
"""The upper left corner of WorldPop's 3 arc-second mosaics, which is no multiple of the step."""


def true_100m(grid: Grid) -> Grid:
    """A grid of real 100 m cells over a country's: of its UTM zone, or of equal areas.

    Its lines are at multiples of 100 m, the same for every year.
    """
    west, south, east, north = _lon_lat_bounds(grid)
    zone = int(((west + east) / 2 + 180) % 360 // 6) + 1
    crs = f"EPSG:{326 if south + north >= 0 else 327}{zone:02d}"
    found = _snapped(crs, _bounds_in(grid, crs), SIDE_M, 0.0, 0.0)
    try:
        check_grid(found)
    except ConfigError:
        found = _snapped(EQUAL_AREA, _bounds_in(grid, EQUAL_AREA), SIDE_M, 0.0, 0.0)
    return found


def worldpop_grid(grid: Grid) -> Grid:
    """The part of WorldPop's 3 arc-second lattice that covers a country's grid.

    Raises:
        RasterError: the grid crosses the antimeridian, at which the lattice ends.
    """
    bounds = _bounds_in(grid, "EPSG:4326")
    if bounds[0] > bounds[2] or bounds[0] < WORLDPOP_WEST or bounds[2] > WORLDPOP_WEST + 360:
        raise RasterError(
            "the country's grid crosses the antimeridian, where WorldPop's lattice ends",
            expected="west below east, between -180 and 180 degrees",
            found=f"{bounds[0]:.4f} to {bounds[2]:.4f}",
        )
    return _snapped("EPSG:4326", bounds, ARC_STEP, WORLDPOP_WEST, WORLDPOP_NORTH)


def moved(source: Path, target: Grid, threads: int = 2) -> tuple[np.ndarray, float]:
    """A map of people on another grid.

    Args:
        source: people per pixel; NaN where there are none known.
        target: a grid that covers the source's.
        threads: of the warp.

    Returns:
        People per cell, float32, NaN where no pixel with a value lies; and what they add up to.

    Raises:
        RasterError: the totals differ by more than `CONSERVED`.
    """
    from rasterio import band
    from rasterio.enums import Resampling
    from rasterio.transform import Affine
    from rasterio.warp import reproject

    out = np.full(target.shape, np.nan)
    with raster.bounded_cache(), raster.opened(source) as dataset:
        reproject(
            band(dataset, 1), out,
            src_nodata=np.nan, dst_transform=Affine(*target.transform), dst_crs=target.crs,
            dst_nodata=np.nan, resampling=Resampling.sum, num_threads=threads,
            warp_mem_limit=64, tolerance=0.0,
        )  # fmt: skip
    before = total(source)
    cells = out.astype(np.float32)
    after = float(np.nansum(cells, dtype=np.float64))
    if abs(after - before) > CONSERVED * max(before, 1.0):
        raise RasterError(
            "people were lost or won on the way to another grid",
            where=source,
            expected=f"{before:,.3f} people within {CONSERVED:g} of them, on {target.crs}",
            found=f"{after:,.3f}",
            remedy="this is a fault of the program: please report it with the country's grid",
        )
    return cells, after


def total(source: Path) -> float:
    """What a raster's first band adds up to."""
    grid = raster.grid_of(source)
    parts = (raster.read_float(source, tile.core, 1) for tile in grid.tiles(1024))
    return float(sum(np.nansum(part, dtype=np.float64) for part in parts))


def _snapped(
    crs: str, bounds: tuple[float, float, float, float], step: float, west: float, north: float
) -> Grid:
    """A grid on the lattice through (west, north) that reaches `MARGIN` cells beyond bounds."""
    left = math.floor((bounds[0] - west) / step) - MARGIN
    right = math.ceil((bounds[2] - west) / step) + MARGIN
    top = math.floor((north - bounds[3]) / step) - MARGIN
    bottom = math.ceil((north - bounds[1]) / step) + MARGIN
    return Grid(crs, west + left * step, north - top * step, step, right - left, bottom - top)


def _bounds_in(grid: Grid, crs: str) -> tuple[float, float, float, float]:
    """Bounds of a grid in another CRS, its edges looked at along their length."""
    from rasterio.warp import transform_bounds

    return transform_bounds(grid.crs, crs, *grid.bounds, densify_pts=EDGE_POINTS)


def _lon_lat_bounds(grid: Grid) -> tuple[float, float, float, float]:
    return grid.bounds if grid.is_geographic else _bounds_in(grid, "EPSG:4326")
