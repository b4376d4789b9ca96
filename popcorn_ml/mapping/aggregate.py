"""From pixels to hectares: sums over 10 x 10 cells, and how uncertain those sums are.

The hectare is what is published. Its uncertainty is the spread of the members' own hectare sums:
members disagree over whole neighbourhoods rather than pixel by pixel, so that neither adding the
pixels' standard deviations nor adding their squares gives it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from popcorn_ml.grid import PIXELS_PER_HECTARE_SIDE, Grid, Window
from popcorn_ml.mapping.ensemble import spread_of
from popcorn_ml.zones import BLOCK_PX


def cell_sums(values: np.ndarray, side: int = PIXELS_PER_HECTARE_SIDE) -> np.ndarray:
    """Sums over cells of `side` x `side` pixels, counted from the first row and column.

    Args:
        values: (..., rows, columns); NaN counts as nothing beside a pixel that has a value.
        side: pixels.

    Returns:
        float64 of shape (..., ceil(rows / side), ceil(columns / side)); NaN where no pixel of the
        cell has a value. A last cell that is cut by the edge is the sum of what there is of it.
    """
    holes = np.isnan(values)
    filled = np.where(holes, 0.0, values.astype(np.float64))
    sums = _reduce(filled, side)
    sums[_reduce((~holes).astype(np.int32), side) == 0] = np.nan
    return sums


def _reduce(values: np.ndarray, side: int) -> np.ndarray:
    rows = np.arange(0, values.shape[-2], side)
    cols = np.arange(0, values.shape[-1], side)
    return np.add.reduceat(np.add.reduceat(values, rows, axis=-2), cols, axis=-1)


def hectare_spread(members: np.ndarray, population: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Standard deviation across members of the people in each hectare.

    Args:
        members: people per pixel by each member, (members, rows, columns).
        population: the published people per pixel, (rows, columns); its NaN pixels are left out.
        factor: what the members are multiplied with, (rows, columns): 1 for a map that is not
            adjusted, the unit's factor for one that is, NaN where a fallback placed the people.

    Returns:
        float64, (hectare rows, hectare columns), people; NaN where the hectare has no pixel with
        a value, or one whose people the members did not place.
    """
    valid = ~np.isnan(population)
    scaled = members * np.where(valid, factor, np.nan)
    spread = spread_of(cell_sums(scaled))
    unknown = valid & np.isnan(scaled).any(axis=0)
    spread[_reduce(unknown.astype(np.int32), PIXELS_PER_HECTARE_SIDE) > 0] = np.nan
    return spread


def aggregate_map(
    population: Path,
    members: Path,
    grid: Grid,
    out: Path,
    *,
    factor: Path | None = None,
    tags: dict[str, object] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Sum a map to hectares, block by block.

    Args:
        population: people per pixel (float32, NaN nodata): of the map, or of the adjusted map.
        members: `population_members.tif` of the map, one band a member.
        grid: on which they lie.
        out: folder for `population.tif` and `population_std.tif`, people per hectare, on
            `grid.hectares()`. On a geographic grid they are people per cell of 10 x 10 pixels, and
            the tags `smallest_cell_ha` and `largest_cell_ha` say how large those are.
        factor: `factor.tif` of the adjusted map where `population` is that; None where it is the
            map itself.
        tags: what the rasters say about themselves.
        progress: called with (blocks done, blocks).

    Raises:
        GridMismatch: a raster lies elsewhere.
        RasterError: a raster is unreadable.
    """
    from popcorn_ml import raster
    from popcorn_ml.raster import bounded_cache

    for path in (population, members, *([] if factor is None else [factor])):
        raster.check(path, grid)
    hectares = grid.hectares()
    windows = [tile.core for tile in grid.tiles(BLOCK_PX)]
    quantity = "people per hectare"
    if grid.is_geographic:
        side = PIXELS_PER_HECTARE_SIDE
        quantity = f"people per {side} x {side} pixel cell"
        area = hectares.row_area_m2() / 10_000
        cells_ha = {"smallest_cell_ha": area.min(), "largest_cell_ha": area.max()}
        tags = {**(tags or {}), **{name: f"{ha:.4f}" for name, ha in cells_ha.items()}}

    def writer(name: str, band: str) -> raster.CogWriter:
        return raster.CogWriter(out / f"{name}.tif", hectares, [band], "float32", np.nan, tags=tags)

    with (
        bounded_cache(),
        writer("population", quantity) as sums,
        writer("population_std", f"standard deviation across members, {quantity}") as stds,
    ):
        for done, window in enumerate(windows, start=1):
            people = raster.read_float(population, window, 1)
            cells = cell_sums(people)
            by_member = raster.read_float(members, window)
            scale = (
                np.ones(people.shape) if factor is None else raster.read_float(factor, window, 1)
            )
            target = Window(
                window.row // PIXELS_PER_HECTARE_SIDE,
                window.col // PIXELS_PER_HECTARE_SIDE,
                *cells.shape,
            )
            sums.write(cells, target)
            stds.write(hectare_spread(by_member, people, scale), target)
            if progress is not None:
                progress(done, len(windows))
