"""Which part of a window each stage of the U-Net has to be computed on.

A unit's window reaches 24 pixels beyond the pixels wanted, but only the first stage needs all of
that. The last two convolutions need two pixels around what is wanted, those before them two more
of their own resolution, and so on. What lies outside is not computed; what is wanted comes out as
if it were, because nothing outside is looked at on the way to it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from popcorn_ml.model.canvas import ALIGN_PX

SHAPE_PX = 16
"""Sides of the last stage are multiples of this where there is room, so that windows of all sizes
come in few shapes: kernels are made ready for each of them anew."""

Span = tuple[int, int]
"""First row or column, and the one after the last."""


@dataclass(frozen=True)
class AxisRegions:
    """The stages along one axis; each span in pixels of its own resolution, from the window's edge.

    Attributes:
        enter: full resolution, down to the first pooling.
        down1: half.
        down2: quarter.
        up2: half; half of it, at a quarter, is raised.
        up1: full; half of it, at half, is raised.
    """

    enter: Span
    down1: Span
    down2: Span
    up2: Span
    up1: Span


@dataclass(frozen=True)
class Regions:
    """Rows and columns of every stage."""

    rows: AxisRegions
    cols: AxisRegions

    @property
    def width(self) -> int:
        """Columns of the last stage."""
        return self.cols.up1[1] - self.cols.up1[0]

    @property
    def pixels(self) -> int:
        """Pixels of the last stage."""
        return (self.rows.up1[1] - self.rows.up1[0]) * self.width


def regions_for(rows: Span, cols: Span, height: int, width: int) -> Regions:
    """Stages that give the pixels of `rows` and `cols` of a window; its sides multiples of four."""
    return Regions(_axis(*rows, height), _axis(*cols, width))


def span_of(places: Tensor) -> Span:
    """From the first row or column of some to the last."""
    first, last = torch.aminmax(places)
    return int(first), int(last) + 1


def _axis(first: int, last: int, size: int) -> AxisRegions:
    begin = max((first - 2) // ALIGN_PX * ALIGN_PX, 0)
    end = min(math.ceil((last + 2) / ALIGN_PX) * ALIGN_PX, size)
    end = min(begin + math.ceil((end - begin) / SHAPE_PX) * SHAPE_PX, size)
    begin -= min(-(end - begin) % SHAPE_PX, begin)
    up1 = begin, end
    up2 = _grown(up1[0] // 2, up1[1] // 2, size // 2)
    down2 = _grown(up2[0] // 2, up2[1] // 2, size // 4)
    down1 = _grown(2 * down2[0], 2 * down2[1], size // 2)
    enter = _grown(2 * down1[0], 2 * down1[1], size)
    return AxisRegions(enter, down1, down2, up2, up1)


def _grown(first: int, last: int, size: int) -> Span:
    """Two pixels more on either side, for two convolutions, where the window has them."""
    return max(first - 2, 0), min(last + 2, size)
