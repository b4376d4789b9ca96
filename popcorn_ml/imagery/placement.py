"""Which pixels of the country's grid a raster on disk holds."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from popcorn_ml.errors import GridMismatch
from popcorn_ml.grid import Grid, Window


def placed(path: Path, grid: Grid) -> Window | None:
    """Which pixels of the grid a file holds; None if none.

    Raises:
        GridMismatch: another CRS or step, or pixels that lie between those of the grid.
    """
    from pyproj import CRS

    from popcorn_ml.raster import GRID_TOLERANCE_PX, grid_of

    found = grid_of(path)
    row, col = (grid.north - found.north) / grid.step, (found.west - grid.west) / grid.step
    longest = max(found.width, found.height)
    aligned = (
        abs(found.step - grid.step) * longest <= GRID_TOLERANCE_PX * grid.step
        and abs(row - round(row)) <= GRID_TOLERANCE_PX
        and abs(col - round(col)) <= GRID_TOLERANCE_PX
        and CRS.from_user_input(found.crs) == CRS.from_user_input(grid.crs)
    )
    if not aligned:
        raise GridMismatch(
            "the raster is not on the country's grid",
            where=path,
            expected=f"{grid.crs}, pixels of {grid.step:.10g}, corner at "
            f"({grid.west:.10g}, {grid.north:.10g}) or whole pixels from it",
            found=f"{found.crs}, pixels of {found.step:.10g}, corner at "
            f"({found.west:.10g}, {found.north:.10g})",
            remedy="correct the grid in the country's file, or warp the raster to it",
        )
    top, left = max(round(row), 0), max(round(col), 0)
    bottom = min(round(row) + found.height, grid.height)
    right = min(round(col) + found.width, grid.width)
    return Window(top, left, bottom - top, right - left) if bottom > top and right > left else None


def covered_px(windows: Iterable[Window]) -> int:
    """How many pixels lie in at least one of the windows, each counted once."""
    held = list(windows)
    edges = sorted({row for w in held for row in (w.row, w.row + w.height)})
    total = 0
    for top, bottom in pairwise(edges):
        spans = sorted(
            (w.col, w.col + w.width) for w in held if w.row <= top and bottom <= w.row + w.height
        )
        reached = 0
        for left, right in spans:
            total += (bottom - top) * max(right - max(left, reached), 0)
            reached = max(reached, right)
    return total
