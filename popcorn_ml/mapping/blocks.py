"""Which squares of a tile the networks are run on, where only some of its pixels are wanted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from popcorn_ml.grid import Window
from popcorn_ml.model.canvas import HALO_PX

SMALLEST_PX = 64
"""Below this a square is more halo than core."""


def blocks_of(wanted: np.ndarray, core: Window) -> list[Window]:
    """Squares that hold every pixel wanted, as few pixels with their halos as quartering finds.

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


def _halves(length: int) -> list[range]:
    """Two parts of a side, the first a multiple of four: windows then need no more than a halo."""
    if length <= SMALLEST_PX:
        return [range(length)]
    middle = -(-length // 2 // 4) * 4
    return [range(middle), range(middle, length)]


def around(blocks: Sequence[Window]) -> Window:
    """The smallest window that holds all of some."""
    top, left = min(b.row for b in blocks), min(b.col for b in blocks)
    bottom = max(b.row + b.height for b in blocks)
    right = max(b.col + b.width for b in blocks)
    return Window(top, left, bottom - top, right - left)
