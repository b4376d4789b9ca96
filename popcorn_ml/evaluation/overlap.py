"""Counting the cells of a raster on one grid into the pixels of another, by area, losing nobody.

A cell is cut into parts no larger than a pixel. A part's people go to the two by two pixels that it
may touch, by how much of it lies in each. Where the two grids are not turned against each other
that is the overlap itself; where they are, a part is taken for the upright box of its size, which
moves its people by less than a pixel. Cells without people cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from popcorn_ml.errors import RasterError
from popcorn_ml.grid import Grid, Window

if TYPE_CHECKING:
    import rasterio
    from pyproj import Transformer

CHUNK_PARTS = 1 << 20
"""Parts of cells worked on at once."""

EDGE_POINTS = 33
"""Along each side of a block, where its outline is followed into the other CRS."""

WHOLE = 1e-9
"""Share of a cell below which what is missing of it is rounding."""


class Source:
    """A raster of people as it is found: one band, any grid, values decoded.

    Attributes:
        path: the file.
        shape: rows, columns, counted from the north where rows run north to south.
        unit, description: of the band, as the file has them; may be empty.
    """

    def __init__(self, path: Path, dataset: rasterio.DatasetReader) -> None:
        from rasterio.transform import Affine

        from popcorn_ml.raster_values import value_bands

        self.path, self._dataset = path, dataset
        if dataset.crs is None or dataset.transform.is_identity:
            raise RasterError(
                "the raster does not say where it lies",
                where=path,
                expected="a CRS, a corner and a cell side",
                found="no CRS" if dataset.crs is None else "rows and columns alone",
                remedy="write them into the file, for instance with gdal_edit.py",
            )
        bands = value_bands(dataset)
        if len(bands) != 1:
            raise RasterError(
                "the raster has several bands, and which is people is not known",
                where=path,
                expected="one band of people per cell",
                found=f"{len(bands)} bands: {', '.join(d or '?' for d in dataset.descriptions)}",
                remedy="take one out, for instance with gdal_translate -b 1",
            )
        self.band = bands[0]
        self.shape = (dataset.height, dataset.width)
        t, height = dataset.transform, dataset.height
        northward = t.e > 0  # values are then read with their rows turned round
        self.transform = (
            Affine(t.a, -t.b, t.c + t.b * height, t.d, -t.e, t.f + t.e * height) if northward else t
        )
        self.crs = dataset.crs
        self.unit = dataset.units[self.band - 1] or ""
        self.description = dataset.descriptions[self.band - 1] or ""
        self._negative: set[float] = set()

    @classmethod
    @contextmanager
    def opened(cls, path: Path) -> Iterator[Source]:
        """The raster for reading.

        Raises:
            RasterError: unreadable, without a place, or with several bands.
        """
        from popcorn_ml import raster

        with raster.opened(path) as dataset:
            yield cls(path, dataset)

    def read(self, window: Window) -> np.ndarray:
        """People per cell, float64, NaN where there is no value.

        Raises:
            RasterError: infinite values, or negative ones that are not all the same.
        """
        from popcorn_ml.raster_values import decoded

        values = decoded(self._dataset, [self.band], window, "float64")[0]
        with np.errstate(invalid="ignore"):
            negative = values < 0
        self._negative.update(np.unique(values[negative])[:3].tolist())
        if np.isinf(values).any() or len(self._negative) > 1:
            listed = ", ".join(f"{value:g}" for value in sorted(self._negative)[:3])
            raise RasterError(
                "the raster holds values that no number of people has",
                where=self.path,
                expected="people per cell, not negative",
                found=listed or "infinity",
                remedy="declare what stands for no value (gdal_edit.py -a_nodata), or take another "
                "file",
            )
        values[negative] = np.nan
        return values

    def assumed(self) -> tuple[str, ...]:
        """What was taken for granted while reading."""
        return tuple(
            f"{value:g} stands for no value, though the file does not say so"
            for value in self._negative
        )

    def position(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Fractional columns and rows of points in the raster's CRS."""
        t = ~self.transform
        return t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f

    def place(self, col: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The raster's CRS at fractional columns and rows."""
        t = self.transform
        return t.a * col + t.b * row + t.c, t.d * col + t.e * row + t.f


@dataclass(frozen=True)
class Totals:
    """What all blocks together found.

    Attributes:
        people: in cells that touch the grid; `on_grid` of them on its pixels.
        lost: people of cells wholly on the grid that are on no pixel: rounding, or a fault.
        inside: on pixels of units; at_edge, at_edge_inside: of cells partly in units, and of
            those what is inside.
        cells, empty: that touch the grid, and without a value.
        area_m2: of the cells that have a value.
        as_density: sum over the units of value x area in m2.
    """

    people: float
    on_grid: float
    lost: float
    inside: float
    at_edge: float
    at_edge_inside: float
    cells: int
    empty: int
    area_m2: float
    as_density: float


@dataclass
class _Tally:
    """What is known of the cells that are whole within a block, and a line for each other one."""

    people: float = 0.0
    on_grid: float = 0.0
    lost: float = 0.0
    inside: float = 0.0
    at_edge: float = 0.0
    at_edge_inside: float = 0.0
    cells: int = 0
    empty: int = 0
    area_m2: float = 0.0
    as_density: float = 0.0
    cut: list[np.ndarray] = field(default_factory=list)


class Cells:
    """The cells of a raster over a country's grid, counted into its pixels block by block."""

    def __init__(self, source: Source, grid: Grid) -> None:
        from pyproj import CRS, Transformer

        self.source, self.grid = source, grid
        theirs, ours = CRS.from_user_input(source.crs.to_wkt()), CRS.from_user_input(grid.crs)
        self._there: Transformer = Transformer.from_crs(ours, theirs, always_xy=True)
        self._here: Transformer = Transformer.from_crs(theirs, ours, always_xy=True)
        self._tally = _Tally()

    def block(self, window: Window, inside: np.ndarray) -> np.ndarray:
        """People per pixel of a window, float64; NaN where the raster has no cell and nobody.

        Args:
            window: of the grid; all windows together cover it once.
            inside: which of its pixels are in a census unit.
        """
        covered, part = self._covered(window)
        people = np.zeros((window.height, window.width))
        if part is not None:
            self._count(window, part, inside, people)
        people[~covered & (people == 0)] = np.nan
        return people

    def total(self) -> Totals:
        """What all blocks found, cells that blocks share put together."""
        t = self._tally
        lines = np.concatenate([*t.cut, np.zeros((0, 7))])
        ids, first, which = np.unique(lines[:, 0], return_index=True, return_inverse=True)
        people, area = lines[first, 1], lines[first, 4]
        placed, inside = (np.bincount(which, lines[:, k], len(ids)) for k in (2, 3))
        has_value, on_grid = lines[first, 5] > 0, lines[first, 6] > 0
        lost = people - placed
        edge = _at_edge(people, inside)
        return Totals(
            people=t.people + float(people.sum()),
            on_grid=t.on_grid + float(placed.sum()),
            lost=t.lost + float(lost[on_grid].sum()),
            inside=t.inside + float(inside.sum()),
            at_edge=t.at_edge + float(people[edge].sum()),
            at_edge_inside=t.at_edge_inside + float(inside[edge].sum()),
            cells=t.cells + int(has_value.sum()),
            empty=t.empty + int((~has_value).sum()),
            area_m2=t.area_m2 + float(area[has_value].sum()),
            as_density=t.as_density + float((inside * area).sum()),
        )

    def _covered(self, window: Window) -> tuple[np.ndarray, Window | None]:
        """Which pixels have a cell under their middle, and the cells that may touch the window."""
        shape = (window.height, window.width)
        rows, cols = _outline(window)
        col, row = self._cell_of(cols, rows)
        height, width = self.source.shape
        seen = np.isfinite(col) & np.isfinite(row)
        if not seen.any():
            return np.zeros(shape, bool), None
        left, right = int(np.floor(col[seen].min())) - 2, int(np.ceil(col[seen].max())) + 2
        top, bottom = int(np.floor(row[seen].min())) - 2, int(np.ceil(row[seen].max())) + 2
        whole = seen.all() and left >= 0 and top >= 0 and right <= width and bottom <= height
        left, right = max(left, 0), min(right, width)
        top, bottom = max(top, 0), min(bottom, height)
        if left >= right or top >= bottom:
            return np.zeros(shape, bool), None
        covered = np.ones(shape, bool)
        if not whole:
            r, c = np.indices(shape)
            col, row = self._cell_of(c + window.col + 0.5, r + window.row + 0.5)
            covered = (col >= 0) & (col < width) & (row >= 0) & (row < height)
        return covered, Window(top, left, bottom - top, right - left)

    def _cell_of(self, cols: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Fractional columns and rows in the source of points of the grid, in its pixels."""
        x = self.grid.west + cols * self.grid.step
        y = self.grid.north - rows * self.grid.step
        return self.source.position(*self._there.transform(x, y))

    def _corners(self, part: Window) -> tuple[np.ndarray, np.ndarray]:
        """Corners of the source's cells in pixels of the grid: columns and rows, one more each."""
        rows, cols = np.indices((part.height + 1, part.width + 1))
        x, y = self.source.place(cols + part.col, rows + part.row)
        x, y = self._here.transform(x, y)
        return (x - self.grid.west) / self.grid.step, (self.grid.north - y) / self.grid.step

    def _count(self, window: Window, part: Window, inside: np.ndarray, people: np.ndarray) -> None:
        values = self.source.read(part)
        x, y = self._corners(part)
        quads = np.stack(
            [
                np.stack([c[:-1, :-1], c[:-1, 1:], c[1:, :-1], c[1:, 1:]], axis=-1)
                for c in (x - window.col, y - window.row)
            ]
        )  # (2, rows, columns, 4)
        low, high = quads.min(axis=-1), quads.max(axis=-1)
        size = (window.width, window.height)
        known = np.isfinite(low).all(axis=0) & np.isfinite(high).all(axis=0)
        touches, within = known.copy(), known.copy()
        on_grid = known.copy()
        for k, (start, end) in enumerate(
            zip((window.col, window.row), (self.grid.width, self.grid.height), strict=True)
        ):
            touches &= (high[k] > 0) & (low[k] < size[k])
            within &= (low[k] >= 0) & (high[k] <= size[k])
            on_grid &= (low[k] + start >= 0) & (high[k] + start <= end)
        rows, cols = np.nonzero(touches)
        if rows.size == 0:
            return
        found = np.nan_to_num(values[rows, cols])
        corners = quads[:, rows, cols]  # (2, cells, 4)
        area = _areas(corners) * self._pixel_areas(corners[1].mean(axis=-1) + window.row)
        placed, inner = _spread(corners, found, inside, people)
        lines = np.stack(
            [
                (rows + part.row) * float(self.source.shape[1]) + cols + part.col,
                found,
                placed,
                inner,
                area,
                ~np.isnan(values[rows, cols]),
                on_grid[rows, cols],
            ],
            axis=1,
        )
        self._note(lines, within[rows, cols])

    def _pixel_areas(self, rows: np.ndarray) -> np.ndarray:
        """True area in m2 of the grid's pixels in these rows; beyond it, of its last ones."""
        areas = self.grid.row_area_m2()
        return areas[np.clip(rows.astype(int), 0, len(areas) - 1)]

    def _note(self, lines: np.ndarray, whole: np.ndarray) -> None:
        t = self._tally
        t.cut.append(lines[~whole])
        _, people, placed, inside, area, has_value, _ = lines[whole].T
        edge = _at_edge(people, inside)
        t.people += float(people.sum())
        t.on_grid += float(placed.sum())
        t.lost += float((people - placed).sum())
        t.inside += float(inside.sum())
        t.at_edge += float(people[edge].sum())
        t.at_edge_inside += float(inside[edge].sum())
        t.cells += int((has_value > 0).sum())
        t.empty += int((has_value == 0).sum())
        t.area_m2 += float(area[has_value > 0].sum())
        t.as_density += float((inside * area).sum())


def _at_edge(people: np.ndarray, inside: np.ndarray) -> np.ndarray:
    return (inside > WHOLE * people) & (inside < (1 - WHOLE) * people)


def _outline(window: Window) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of points along a window's edges, in pixels of the grid."""
    t = np.linspace(0, 1, EDGE_POINTS)
    zero, one = np.zeros_like(t), np.ones_like(t)
    rows = np.concatenate([zero, one, t, t]) * window.height + window.row
    cols = np.concatenate([t, t, zero, one]) * window.width + window.col
    return rows, cols


def _areas(corners: np.ndarray) -> np.ndarray:
    """Areas of quadrilaterals in square pixels; corners (2, cells, 4) row by row."""
    x, y = corners
    return 0.5 * np.abs(
        (x[:, 3] - x[:, 0]) * (y[:, 2] - y[:, 1]) - (x[:, 2] - x[:, 1]) * (y[:, 3] - y[:, 0])
    )


def _spread(
    corners: np.ndarray, people: np.ndarray, inside: np.ndarray, out: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Add cells' people to the pixels that they cover.

    Args:
        corners: (2, cells, 4) of columns and rows in pixels of `out`: north-west, north-east,
            south-west, south-east.
        people: of each cell.
        inside: which pixels count as inside.
        out: people per pixel, added to.

    Returns:
        People of each cell that came to lie on a pixel, and of those the ones inside.
    """
    placed, inner = np.zeros(len(people)), np.zeros(len(people))
    some = np.flatnonzero(people > 0)
    if some.size == 0:
        return placed, inner
    along, down = (
        corners[:, some, 1] - corners[:, some, 0],
        corners[:, some, 2] - corners[:, some, 0],
    )
    widths = np.maximum(np.abs(along), np.abs(down))  # (2, cells): across columns, across rows
    side = max(int(np.ceil(widths.max())), 1)
    at = (np.arange(side) + 0.5) / side
    v, u = (grid.ravel() for grid in np.meshgrid(at, at, indexing="ij"))
    step = max(CHUNK_PARTS // side**2, 1)
    for start in range(0, some.size, step):
        cells = slice(start, start + step)
        which = some[cells]
        nw, ne, sw, se = np.moveaxis(corners[:, which], 2, 0)[..., None]  # (2, cells, 1) each
        middle = nw + u * (ne - nw) + v * (sw - nw) + u * v * (se - ne - sw + nw)
        box = np.maximum(widths[:, cells, None] / side, 1e-9)
        low = middle - box / 2
        first = np.floor(low)
        beyond = np.clip((low + box - first - 1) / box, 0.0, 1.0)  # share in the next pixel
        share = people[which, None] / side**2
        owner = np.broadcast_to(np.arange(len(which))[:, None], middle.shape[1:])
        for dy in (0, 1):
            for dx in (0, 1):
                amount = (
                    share
                    * (beyond[0] if dx else 1 - beyond[0])
                    * (beyond[1] if dy else 1 - beyond[1])
                )
                col, row = first[0] + dx, first[1] + dy
                there = (col >= 0) & (col < out.shape[1]) & (row >= 0) & (row < out.shape[0])
                flat = (row[there] * out.shape[1] + col[there]).astype(np.int64)
                given, cell = amount[there], owner[there]
                out += np.bincount(flat, given, out.size).reshape(out.shape)
                placed[which] += np.bincount(cell, given, len(which))
                inner[which] += np.bincount(cell, given * inside.ravel()[flat], len(which))
    return placed, inner
