"""From pixels to hectares: sums over 10 x 10 cells, and how uncertain those sums are.

The hectare is what is published. Its uncertainty is the spread of the members' own hectare sums:
members disagree over whole neighbourhoods rather than pixel by pixel, so that neither adding the
pixels' standard deviations nor adding their squares gives it. Of an adjusted map each member is
adjusted first, as `dasymetric` does it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from popcorn_ml.compute.devices import cpus
from popcorn_ml.grid import PIXELS_PER_HECTARE_SIDE, Grid, Window
from popcorn_ml.mapping.dasymetric import AdjustedMembers
from popcorn_ml.mapping.ensemble import SpreadAcross
from popcorn_ml.parallel import in_threads
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


def hectare_spread(members: Iterable[np.ndarray], population: np.ndarray) -> np.ndarray:
    """Standard deviation across members of the people in each hectare.

    Args:
        members: people per pixel by each member, (rows, columns) each; of an adjusted map those
            of `adjusted_members`, which say nothing where a fallback placed the people.
        population: the published people per pixel, (rows, columns); its NaN pixels are left out.

    Returns:
        float64, (hectare rows, hectare columns), people; NaN where the hectare has no pixel with
        a value, or one whose people the members did not place.
    """
    valid = ~np.isnan(population)
    unknown = np.zeros(population.shape, bool)
    across = SpreadAcross()
    for people in members:
        unknown |= valid & np.isnan(people)
        across.add(cell_sums(np.where(valid, people, np.nan)))
    spread = across.result()
    spread[_reduce(unknown.astype(np.int32), PIXELS_PER_HECTARE_SIDE) > 0] = np.nan
    return spread


def aggregate_map(
    population: Path,
    members: Path | AdjustedMembers,
    grid: Grid,
    out: Path,
    *,
    threads: int = 0,
    tags: dict[str, object] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Sum a map to hectares, block by block.

    Args:
        population: people per pixel (float32, NaN nodata): of the map, or of the adjusted map.
        members: `population_members.tif` of the map, one band a member; for an adjusted map the
            same and how it was adjusted.
        grid: on which they lie.
        out: folder for `population.tif` and `population_std.tif`, people per hectare, on
            `grid.hectares()`. Where cells of 10 x 10 pixels are no hectares (on a geographic grid,
            or of other pixels than 10 m) they are called what they are, and the tags
            `smallest_cell_ha` and `largest_cell_ha` say how large those are.
        threads: blocks at once; 0 takes all cores. The result does not depend on it.
        tags: what the rasters say about themselves.
        progress: called with (blocks done, blocks).

    Raises:
        GridMismatch: a raster lies elsewhere.
        RasterError: a raster is unreadable.
    """
    from popcorn_ml import raster
    from popcorn_ml.raster import bounded_cache

    raster.check(population, grid)
    if isinstance(members, AdjustedMembers):
        members.layers.check()
    else:
        raster.check(members, grid)
    hectares = grid.hectares()
    windows = [tile.core for tile in grid.tiles(BLOCK_PX)]
    quantity = f"people per {grid.cell_name}"
    if grid.cell_name != "hectare":
        cells_ha = zip(("smallest_cell_ha", "largest_cell_ha"), grid.cell_area_ha, strict=True)
        tags = {**(tags or {}), **{name: f"{ha:.4f}" for name, ha in cells_ha}}

    def writer(name: str, band: str) -> raster.CogWriter:
        return raster.CogWriter(out / f"{name}.tif", hectares, [band], "float32", np.nan, tags=tags)

    sums = writer("population", quantity)
    stds = writer("population_std", f"standard deviation across members, {quantity}")

    def work(window: Window) -> None:
        people = raster.read_float(population, window, 1)
        cells = cell_sums(people)
        by_member = (
            members.read(window)
            if isinstance(members, AdjustedMembers)
            else raster.read_float(members, window)
        )
        target = Window(
            window.row // PIXELS_PER_HECTARE_SIDE,
            window.col // PIXELS_PER_HECTARE_SIDE,
            *cells.shape,
        )
        sums.write(cells, target)
        stds.write(hectare_spread(by_member, people), target)

    with bounded_cache(), raster.together(sums, stds):
        for done, _ in enumerate(in_threads(work, windows, threads or cpus()), start=1):
            if progress is not None:
                progress(done, len(windows))
