"""What a raster to be written is: its shape, its type, and the coarser levels that it gets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

BLOCK_PX = 256
"""Side of a block, of every level."""


class Place(NamedTuple):
    """One block: its level, and its row and column among that level's blocks."""

    level: int
    row: int
    col: int


@dataclass(frozen=True)
class Profile:
    """Shape, type and levels of a raster; plain values, so that it travels between machines.

    Attributes:
        height, width: pixels.
        bands: how many.
        dtype: numpy name of the stored type.
        nodata: stored value that means "no value"; NaN for floats.
        resampling: of the coarser levels: "average" of what has a value, or "nearest" for
            identifiers.
    """

    height: int
    width: int
    bands: int
    dtype: str
    nodata: float
    resampling: str = "average"

    @cached_property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns of each level: halved, a half up, until one block holds all."""
        shapes = [(self.height, self.width)]
        while max(shapes[-1]) > BLOCK_PX:
            shapes.append((math.ceil(shapes[-1][0] / 2), math.ceil(shapes[-1][1] / 2)))
        return tuple(shapes)

    @cached_property
    def blocks(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns of blocks of each level."""
        return tuple((math.ceil(h / BLOCK_PX), math.ceil(w / BLOCK_PX)) for h, w in self.shapes)

    @property
    def numpy_dtype(self) -> np.dtype:
        """The stored type, in the file's byte order."""
        return np.dtype(self.dtype).newbyteorder("<")

    @property
    def predictor(self) -> int:
        """TIFF's predictor: 3 for floats, 2 for integers."""
        return 3 if self.numpy_dtype.kind == "f" else 2

    def size(self, place: Place) -> tuple[int, int]:
        """Rows and columns of a block that lie in the raster."""
        height, width = self.shapes[place.level]
        return (
            min(BLOCK_PX, height - place.row * BLOCK_PX),
            min(BLOCK_PX, width - place.col * BLOCK_PX),
        )

    def empty(self, height: int, width: int) -> np.ndarray:
        """Pixels without a value, (bands, rows, columns)."""
        return np.full((self.bands, height, width), self.nodata, self.numpy_dtype)
