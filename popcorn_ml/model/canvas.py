"""Where a network's input lies beyond the raster, and how to cut it into tiles that change nothing.

Each network works on a *canvas*: the raster and a reflected border. A pixel's result depends on
where its 4 x 4 pooling cells begin, on what lies within 23 pixels, and at the canvas's edge on the
zeros that convolutions see there. So a tile gives exactly what the whole canvas would give when it
begins on a multiple of four of the canvas, reaches `HALO_PX` beyond the pixels wanted, and is cut
at the canvas's edge instead of being extended past it. This module is that geometry alone; it
reads no file and runs no network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from popcorn_ml.grid import Window

ALIGN_PX = 4
"""Pooling cells of the deepest level are 4 x 4 pixels: tiles begin on multiples of this."""

HALO_PX = 24
"""How far a tile reaches beyond its core: 23 pixels matter (see `receptive_reach`), rounded up."""

EXTRACTOR_BORDER_PX = 14
"""Reflected border that the published built-up area extractor always runs with."""

OCCUPANCY_MULTIPLE_PX = 32
OCCUPANCY_PADDED_MULTIPLE_PX = 64
"""A side that is no multiple of 32 is reflected to the next multiple of 64, as published."""


def receptive_reach() -> int:
    """Farthest pixel, along one axis, that one output pixel of the U-Net depends on.

    Followed from the output back through the layers, for each of the four places in a pooling
    cell: two 3 x 3 convolutions at full, half and quarter resolution, up and down.
    """
    reach = 0
    for place in range(ALIGN_PX):
        half = math.floor((place - 2) / 2) - 2
        quarter = math.floor(half / 2) - 2
        reach = max(reach, place - (2 * (2 * quarter - 2) - 2))
    return reach


def reflected(positions: np.ndarray, size: int) -> np.ndarray:
    """Indices 0..size-1 that `positions` fall on when a line of `size` pixels mirrors at its ends.

    The edge pixel is not repeated (torch's and numpy's "reflect"). Positions farther out than the
    line is long mirror again, so a raster smaller than its border works too.
    """
    if size == 1:
        return np.zeros_like(positions)
    period = 2 * (size - 1)
    folded = np.mod(positions, period)
    return np.minimum(folded, period - folded)


@dataclass(frozen=True)
class CanvasTile:
    """One piece of work on a canvas.

    Attributes:
        core: pixels wanted, in raster coordinates.
        window: what the network is given, in canvas coordinates.
        source: the smallest window of the raster that `window` is filled from.
        rows, cols: for each row and column of `window`, which one of `source` it shows.
    """

    core: Window
    window: Window
    source: Window
    rows: np.ndarray
    cols: np.ndarray
    core_in_window: Window

    def lay(self, values: Any) -> Any:
        """Array or tensor over `source`, (..., rows, columns), as the network is to see it."""
        if values.shape[-2:] != (self.source.height, self.source.width):
            raise ValueError(f"{tuple(values.shape)} does not cover {self.source}")
        for axis, places in ((-2, self.rows), (-1, self.cols)):
            if not _counts_up(places, values.shape[axis]):
                values = _taken(values, places, axis)
        return values

    def crop(self, values: Any) -> Any:
        """Array or tensor over `window`, (..., rows, columns), cut to `core`."""
        if values.shape[-2:] != (self.window.height, self.window.width):
            raise ValueError(f"{tuple(values.shape)} does not cover {self.window}")
        return values[(..., *self.core_in_window.slices)]


def _taken(values: Any, places: np.ndarray, axis: int) -> Any:
    """Rows or columns of an array or tensor. numpy's own indexing would lay an array out anew."""
    if isinstance(values, np.ndarray):
        return np.take(values, places, axis)
    return values[..., places, :] if axis == -2 else values[..., :, places]


def _counts_up(indices: np.ndarray, size: int) -> bool:
    return len(indices) == size and int(indices[0]) == 0 and bool((np.diff(indices) == 1).all())


@dataclass(frozen=True)
class Canvas:
    """A raster with its reflected border.

    Attributes:
        raster: rows, columns of the raster.
        top, left: border pixels before the raster's first row and column.
        height, width: of the canvas.
    """

    raster: tuple[int, int]
    top: int
    left: int
    height: int
    width: int

    def tile(self, core: Window, halo: int = HALO_PX, multiple: int = ALIGN_PX) -> CanvasTile:
        """The tile that gives the pixels of `core` exactly as the whole canvas would.

        Args:
            core: in raster coordinates, inside the raster.
            halo: pixels beyond the core; less than `HALO_PX` is no longer exact.
            multiple: sides of the window grow to a multiple of this, itself one of `ALIGN_PX`,
                where the canvas has room. More than needed is as exact, and the fewer different
                shapes there are, the less often kernels are made ready for a new one.
        """
        rows, cols = self.raster
        if (
            min(core.row, core.col) < 0
            or min(core.height, core.width) < 1
            or core.row + core.height > rows
            or core.col + core.width > cols
        ):
            raise ValueError(f"{core} is not inside a raster of {rows} x {cols} pixels")
        row, height = _span(core.row + self.top, core.height, self.height, halo, multiple)
        col, width = _span(core.col + self.left, core.width, self.width, halo, multiple)
        window = Window(row, col, height, width)
        return self._over(core, window)

    def whole(self) -> CanvasTile:
        """The canvas as one tile."""
        core = Window(0, 0, *self.raster)
        return self._over(core, Window(0, 0, self.height, self.width))

    def _over(self, core: Window, window: Window) -> CanvasTile:
        rows = reflected(np.arange(window.height) + window.row - self.top, self.raster[0])
        cols = reflected(np.arange(window.width) + window.col - self.left, self.raster[1])
        first_row, first_col = int(rows.min()), int(cols.min())
        source = Window(
            first_row, first_col, int(rows.max()) - first_row + 1, int(cols.max()) - first_col + 1
        )
        inside = Window(
            core.row + self.top - window.row,
            core.col + self.left - window.col,
            core.height,
            core.width,
        )
        return CanvasTile(core, window, source, rows - first_row, cols - first_col, inside)


def _span(start: int, length: int, limit: int, halo: int, multiple: int) -> tuple[int, int]:
    """First pixel and length of a tile along one axis: haloed, aligned outwards, cut to fit."""
    first = max((start - halo) // ALIGN_PX * ALIGN_PX, 0)
    last = min(math.ceil((start + length + halo) / ALIGN_PX) * ALIGN_PX, limit)
    if multiple > ALIGN_PX:
        last = min(first + math.ceil((last - first) / multiple) * multiple, limit)
        room = -(last - first) % multiple // ALIGN_PX * ALIGN_PX
        first -= min(room, first)
    return first, last - first


def extractor_canvas(height: int, width: int) -> Canvas:
    """Canvas of the built-up area extractor: 14 reflected pixels on every side."""
    border = EXTRACTOR_BORDER_PX
    return Canvas((height, width), border, border, height + 2 * border, width + 2 * border)


def occupancy_canvas(height: int, width: int) -> Canvas:
    """Canvas of the occupancy network: sides that are no multiple of 32 grow to one of 64.

    The raster lies in the middle; of an odd border the smaller half comes first. Both as in the
    published code (its numbers for a raster of 200 x 300 pixels agree only so).
    """
    top, full_height = _grown(height)
    left, full_width = _grown(width)
    return Canvas((height, width), top, left, full_height, full_width)


def _grown(side: int) -> tuple[int, int]:
    if side % OCCUPANCY_MULTIPLE_PX == 0:
        return 0, side
    full = math.ceil(side / OCCUPANCY_PADDED_MULTIPLE_PX) * OCCUPANCY_PADDED_MULTIPLE_PX
    return (full - side) // 2, full
