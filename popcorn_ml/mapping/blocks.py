"""Which squares of a tile the networks are run on, where only some of its pixels are wanted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from popcorn_ml.grid import Window
from popcorn_ml.model.canvas import ALIGN_PX, HALO_PX

SMALLEST_PX = 64
"""A square this small is not quartered: it is more halo than core as it is."""


def blocks_of(wanted: np.ndarray, core: Window) -> list[Window]:
    """Rectangles that hold every pixel wanted, of as few pixels, halos included, as quartering and
    trimming finds.

    Args:
        wanted: bool, of the core's shape.
        core: the tile, in raster coordinates.

    Returns:
        Windows in raster coordinates that do not overlap; none where nothing is wanted.
    """
    return _covered(wanted, core)[0]


def _covered(wanted: np.ndarray, block: Window) -> tuple[list[Window], int]:
    """The squares, and how many pixels they are with their halos."""
    if not wanted.any():
        return [], 0
    rows, cols = (_extent(np.any(wanted, axis=axis)) for axis in (1, 0))
    wanted = wanted[rows.start : rows.stop, cols.start : cols.stop]
    block = Window(block.row + rows.start, block.col + cols.start, len(rows), len(cols))
    whole = (block.height + 2 * HALO_PX) * (block.width + 2 * HALO_PX)
    if max(block.height, block.width) <= SMALLEST_PX:
        return [block], whole
    parts: list[Window] = []
    cost = 0
    for rows in _halves(block.height):
        for cols in _halves(block.width):
            part = Window(block.row + rows.start, block.col + cols.start, len(rows), len(cols))
            found, pixels = _covered(wanted[rows.start : rows.stop, cols.start : cols.stop], part)
            parts += found
            cost += pixels
    return (parts, cost) if cost < whole else ([block], whole)


def _extent(any_wanted: np.ndarray) -> range:
    """From the first to the last that is wanted, begun at a multiple of four."""
    places = np.flatnonzero(any_wanted)
    return range(int(places[0]) // ALIGN_PX * ALIGN_PX, int(places[-1]) + 1)


def _halves(length: int) -> list[range]:
    """Two parts of a side, the first a multiple of four as networks' windows are."""
    if length <= SMALLEST_PX:
        return [range(length)]
    middle = length // 2 // ALIGN_PX * ALIGN_PX
    return [range(middle), range(middle, length)]


def around(blocks: Sequence[Window]) -> Window:
    """The smallest window that holds all of some."""
    top, left = min(b.row for b in blocks), min(b.col for b in blocks)
    bottom = max(b.row + b.height for b in blocks)
    right = max(b.col + b.width for b in blocks)
    return Window(top, left, bottom - top, right - left)
