"""Windows of pixels, in any order and from any thread, gathered into blocks of every level.

A block is encoded by the thread that brings its last pixel, and at once halved into the block above
it, so that the coarser levels never read what was written. What waits in memory is the blocks that
have begun: for windows of 512 pixels that come row by row, a row of the third level's and fewer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from popcorn_ml.cog.blocks import coarser, encoded
from popcorn_ml.cog.profile import BLOCK_PX, Place, Profile


@dataclass
class _Begun:
    """A block that lacks pixels, and the windows of it that are there: row, column, height, width,
    within the block."""

    values: np.ndarray
    lacking: int
    there: list[tuple[int, int, int, int]] = field(default_factory=list)


class Pyramid:
    """Gathers a raster's windows.

    Args:
        profile: of the raster.
        keep: called with each finished block's place and bytes, in any thread.
    """

    def __init__(self, profile: Profile, keep: Callable[[Place, bytes], None]) -> None:
        self.profile, self._keep = profile, keep
        self._begun: dict[Place, _Begun] = {}
        self._lock = threading.Lock()

    def add(self, level: int, row: int, col: int, values: np.ndarray) -> None:
        """Take a window of a level.

        Args:
            level: 0 is the raster itself.
            row, col: of the window's first pixel.
            values: (bands, rows, columns) of the stored type. Not kept.

        Raises:
            ValueError: pixels that were there already.
        """
        height, width = values.shape[1:]
        for block_row in range(row // BLOCK_PX, (row + height - 1) // BLOCK_PX + 1):
            for block_col in range(col // BLOCK_PX, (col + width - 1) // BLOCK_PX + 1):
                place = Place(level, block_row, block_col)
                top, left = block_row * BLOCK_PX, block_col * BLOCK_PX
                rows, cols = self.profile.size(place)
                first = max(row, top), max(col, left)
                last = min(row + height, top + rows), min(col + width, left + cols)
                part = values[:, first[0] - row : last[0] - row, first[1] - col : last[1] - col]
                if part.shape[1:] != (rows, cols):
                    whole = self._gather(place, first[0] - top, first[1] - left, part)
                else:
                    whole = part
                if whole is not None:
                    self._finish(place, whole)

    def _gather(self, place: Place, row: int, col: int, part: np.ndarray) -> np.ndarray | None:
        """Put pixels into a block that has begun; the block, if it is whole now."""
        height, width = part.shape[1:]
        with self._lock:
            begun = self._begun.get(place)
            if begun is None:
                rows, cols = self.profile.size(place)
                begun = self._begun[place] = _Begun(self.profile.empty(rows, cols), rows * cols)
            begun.values[:, row : row + height, col : col + width] = part
            begun.there.append((row, col, height, width))
            begun.lacking -= height * width
            if begun.lacking < 0:
                raise ValueError(f"pixels of block {tuple(place)} were written twice")
            if begun.lacking:
                return None
            return self._begun.pop(place).values

    def _finish(self, place: Place, whole: np.ndarray) -> None:
        self._keep(place, encoded(whole, self.profile))
        if place.level + 1 < len(self.profile.shapes):
            half = BLOCK_PX // 2
            above = coarser(whole, self.profile)
            self.add(place.level + 1, place.row * half, place.col * half, above)

    def begun(self) -> Iterator[tuple[int, int, int, np.ndarray]]:
        """Windows that wait for others, as `add` takes them: level, row, column, pixels."""
        for place, block in sorted(self._begun.items()):
            for row, col, height, width in block.there:
                values = block.values[:, row : row + height, col : col + width]
                yield place.level, place.row * BLOCK_PX + row, place.col * BLOCK_PX + col, values

    def complete(self, known: Callable[[Place], bool]) -> None:
        """Fill up with nodata what nobody wrote.

        Args:
            known: whether a block is kept already.
        """
        rows, cols = self.profile.blocks[0]
        for row in range(rows):
            for col in range(cols):
                place = Place(0, row, col)
                if not known(place):
                    begun = self._begun.pop(place, None)
                    size = self.profile.size(place)
                    whole = self.profile.empty(*size) if begun is None else begun.values
                    self._finish(place, whole)
