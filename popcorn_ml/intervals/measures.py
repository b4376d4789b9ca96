"""What the law needs of zones: people and crowding (see `law`), summed over pixels in blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from popcorn_ml.grid import HECTARE_M2, PIXELS_PER_HECTARE_SIDE, Grid, Window
from popcorn_ml.mapping.aggregate import cell_sums
from popcorn_ml.zones import BLOCK_PX, ZoneSums, blockwise_zone_sums


@dataclass(frozen=True)
class Measured:
    """Zones 0..n of one map; item 0 is what lies in none.

    Attributes:
        people: P, float64.
        crowding: Q.
        pixels, valid: of the zone, and those with a value.
    """

    people: np.ndarray
    crowding: np.ndarray
    pixels: np.ndarray
    valid: np.ndarray

    @classmethod
    def of(cls, sums: ZoneSums, first: int) -> Measured:
        """From sums whose rasters `first` and the one after it are P and Q."""
        return cls(sums.sums[first], sums.sums[first + 1], sums.pixels, sums.valid[first])


def cell_areas(grid: Grid, window: Window) -> np.ndarray:
    """Hectares of the cells of a window that begins with whole cells, (cell rows, 1)."""
    side = PIXELS_PER_HECTARE_SIDE
    rows = np.arange(window.row // side, -(-(window.row + window.height) // side))
    if not grid.is_geographic:
        return np.full((len(rows), 1), side * side * grid.pixel_area_m2 / HECTARE_M2)
    return grid.hectares().row_area_m2()[rows, None] / HECTARE_M2


def crowding(people: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """Every pixel's people times the people per hectare of their cell; NaN where there is none.

    Args:
        people: per pixel (rows, columns), from the first row and column of a cell on.
        areas: of the rows of cells, hectares.
    """
    density = cell_sums(people) / areas
    side = PIXELS_PER_HECTARE_SIDE
    each = np.repeat(np.repeat(density, side, axis=0), side, axis=1)
    return people * each[: people.shape[0], : people.shape[1]]


def measure(
    zones: Path,
    maps: Sequence[Path],
    grid: Grid,
    count: int,
    *,
    members: Path | None = None,
    threads: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Measured], np.ndarray]:
    """Zones of a raster in maps, in one pass over the pixels.

    Args:
        zones: numbers 0..count (uint32).
        maps: people per pixel (float32, NaN nodata).
        grid: on which they lie.
        count: of zones.
        members: `population_members.tif`, whose people are summed too.
        threads: blocks at once. The result does not depend on it.
        progress: called with (blocks done, blocks).

    Returns:
        A `Measured` for each map; people by each member, (members, count + 1).

    Raises:
        GridMismatch, RasterError: a raster lies elsewhere or is unreadable.
        ZoneNumberError: a zone number above `count`.
    """
    from popcorn_ml import raster
    from popcorn_ml.raster import bounded_cache

    bands = 0
    for path in (zones, *maps, *([members] if members else [])):
        raster.check(path, grid)
    if members is not None:
        with raster.opened(members) as dataset:
            bands = dataset.count

    def read(window: Window) -> tuple[np.ndarray, list[np.ndarray]]:
        areas, values = cell_areas(grid, window), []
        for path in maps:
            people = raster.read_float(path, window, 1)
            values += [people, crowding(people, areas)]
        plain = [] if members is None else list(raster.read_float(members, window))
        return raster.read(zones, window, 1), [*values, *plain]

    with bounded_cache():
        sums = blockwise_zone_sums(
            read,
            [tile.core for tile in grid.tiles(BLOCK_PX)],
            2 * len(maps) + bands,
            count,
            threads=threads,
            progress=progress,
        )
    measured = [Measured.of(sums, 2 * k) for k in range(len(maps))]
    return measured, sums.sums[2 * len(maps) :]
