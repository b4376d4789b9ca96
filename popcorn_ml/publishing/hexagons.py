"""People by H3 hexagon: each pixel's people are in the hexagon that its centre lies in.

The finest resolution is the one whose hexagons are nearest to a hectare; each coarser hexagon holds
what the finer ones below it hold, so that the totals of all resolutions are equal. A hexagon holds
people of whole pixels only, never samples of the map.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from popcorn_ml import raster
from popcorn_ml.files import replacing
from popcorn_ml.grid import Grid, Window
from popcorn_ml.zones import BLOCK_PX

if TYPE_CHECKING:
    import pyarrow as pa

RESOLUTIONS = (10, 9, 8)
"""Mean areas 1.50, 10.5 and 73.7 ha; those of resolution 11 have 0.21 ha."""

COLUMNS = {
    "h3": "the hexagon's index",
    "resolution": "of the hexagon: 10 (1.5 ha on average), 9 (10.5 ha) or 8 (74 ha)",
    "people": "people in it, adjusted to the census",
    "people_unadjusted": "the same as the model estimates it",
    "pixels": "pixels with a value whose centres lie in it",
}


def write_hexagons(population: Path, unadjusted: Path, grid: Grid, out: Path) -> dict[int, float]:
    """Count people into hexagons.

    Args:
        population, unadjusted: people per pixel.
        grid: on which both lie.
        out: Parquet of `COLUMNS`, the finest resolution first, in the order of the index.

    Returns:
        Resolution -> people.

    Raises:
        GridMismatch, RasterError: a raster lies elsewhere or is unreadable.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from h3ronpy import change_resolution
    from pyproj import Transformer

    for path in (population, unadjusted):
        raster.check(path, grid)
    to_degrees = Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
    gathered = _Sums()
    with raster.bounded_cache():
        for tile in grid.tiles(BLOCK_PX):
            values = [raster.read_float(path, tile.core, 1) for path in (population, unadjusted)]
            known = ~np.isnan(values[0]) | ~np.isnan(values[1])
            if known.any():
                cells = _cells(grid, tile.core, known, to_degrees)
                gathered.add(cells, *(np.nan_to_num(v[known].astype(np.float64)) for v in values))
    cells, sums = gathered.result()
    tables, totals = [], {}
    for resolution in RESOLUTIONS:
        if resolution != RESOLUTIONS[0]:
            parents = np.asarray(change_resolution(pa.array(cells), resolution))
            cells, sums = _summed(parents, sums)
        totals[resolution] = float(sums[0].sum())
        tables.append(_table(cells, resolution, sums))
    with replacing(out) as draft:
        pq.write_table(pa.concat_tables(tables), draft, compression="zstd")
    return totals


class _Sums:
    """People by hexagon, put together now and then so that memory stays at the hexagons."""

    def __init__(self) -> None:
        self.cells: list[np.ndarray] = []
        self.sums: list[np.ndarray] = []
        self.waiting = 0

    def add(self, cells: np.ndarray, *people: np.ndarray) -> None:
        one, sums = _summed(cells, np.stack([*people, np.ones(len(cells))]))
        self.cells.append(one)
        self.sums.append(sums)
        self.waiting += len(one)
        if self.waiting > 5_000_000:
            self._settle()

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        self._settle()
        return self.cells[0], self.sums[0]

    def _settle(self) -> None:
        cells = np.concatenate([np.empty(0, np.uint64), *self.cells])
        cells, sums = _summed(cells, np.concatenate([np.empty((3, 0)), *self.sums], axis=1))
        self.cells, self.sums, self.waiting = [cells], [sums], 0


def _summed(cells: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct cells in order, and the rows of values summed over each."""
    distinct, place = np.unique(cells, return_inverse=True)
    sums = [np.bincount(place, weights=row, minlength=len(distinct)) for row in values]
    return distinct, np.stack(sums)


def _cells(grid: Grid, window: Window, known: np.ndarray, to_degrees) -> np.ndarray:
    """Hexagons of the finest resolution that the centres of known pixels lie in, uint64."""
    from h3ronpy.vector import coordinates_to_cells

    rows, cols = np.nonzero(known)
    x = grid.west + (window.col + cols + 0.5) * grid.step
    y = grid.north - (window.row + rows + 0.5) * grid.step
    if not grid.is_geographic:
        x, y = to_degrees.transform(x, y)
    return np.asarray(coordinates_to_cells(y, x, RESOLUTIONS[0])).astype(np.uint64)


def _table(cells: np.ndarray, resolution: int, sums: np.ndarray) -> pa.Table:
    import pyarrow as pa

    columns = {
        "h3": pa.array([f"{cell:x}" for cell in cells.tolist()]),
        "resolution": pa.array(np.full(len(cells), resolution, np.int8)),
        "people": pa.array(sums[0]),
        "people_unadjusted": pa.array(sums[1]),
        "pixels": pa.array(sums[2].astype(np.int64)),
    }
    fields = [
        pa.field(name, column.type, metadata={"description": COLUMNS[name]})
        for name, column in columns.items()
    ]
    return pa.table(columns, schema=pa.schema(fields))
