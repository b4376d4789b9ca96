"""Storing people no finer than anybody knows them, so that rasters compress, with sums that stay.

The last bits of a network's float32 are noise, and noise does not compress. Values are rounded to
multiples of a step; what rounding takes from a pixel is passed on to the next one of its hectare
cell (error diffusion along a path that winds through the cell), and what is left at the cell's end
goes to its largest pixel, unrounded. So every hectare keeps its people, and with them whatever
consists of hectares; a zone whose border cuts through cells is off by about a step for each of
them, without bias. Nothing becomes negative, zero stays zero, NaN stays NaN.
"""

from __future__ import annotations

import numpy as np

from popcorn_ml.grid import PIXELS_PER_HECTARE_SIDE

STEP = 2.0**-18
"""People, for values of single pixels: 0.0000038, so that none is off by 1e-5 of a person. A power
of two, so that float32 holds multiples of it with zeros in its last bits. With twice as much, the
sums of all census units of the demo that have a hundred people or more keep to 1e-6; with 2**-10 a
file is a third instead of two thirds of what it was, but units are off by 1e-5 to 1e-4."""


def rounded(values: np.ndarray, step: float, row: int = 0, col: int = 0) -> np.ndarray:
    """Values rounded to multiples of a step, their sums over hectare cells kept.

    Args:
        values: people, not negative, (..., rows, columns); NaN where there is no value.
        step: of the result, but for one pixel a cell; a power of two.
        row, col: of the first pixel in the grid whose cells are meant. Cells that are cut by the
            window's edge are kept for themselves.

    Returns:
        float32 of the same shape; each value off by less than one and a half steps.
    """
    side = PIXELS_PER_HECTARE_SIDE
    shape = values.shape
    top, left = row % side, col % side
    height = -(-(top + shape[-2]) // side) * side
    width = -(-(left + shape[-1]) // side) * side
    out = np.empty(shape, np.float32)
    many = values.reshape(-1, *shape[-2:])
    for one, target in zip(many, out.reshape(many.shape), strict=True):
        if not (one > 0).any():  # as where nothing is computed
            target[...] = one
            continue
        laid = np.zeros((height, width))
        inside = laid[top : top + shape[-2], left : left + shape[-1]]
        holes = np.isnan(one)
        np.copyto(inside, one, where=~holes)
        cells = laid.reshape(height // side, side, width // side, side).swapaxes(1, 2)
        path = cells.copy()
        path[..., 1::2, :] = path[..., 1::2, ::-1]
        back = _diffused(path.reshape(-1, side * side), step).reshape(path.shape)
        back[..., 1::2, :] = back[..., 1::2, ::-1].copy()
        cells[...] = back
        target[...] = inside
        target[holes] = np.nan
    return out


def _diffused(paths: np.ndarray, step: float) -> np.ndarray:
    """Each row of values rounded along its way, the rest of the row's sum on its largest value."""
    sums = np.cumsum(paths, axis=1)
    steps = np.rint(sums * (1 / step))
    rest = sums[:, -1] - steps[:, -1] * step
    steps[:, 1:] -= steps[:, :-1].copy()
    steps *= step
    # Where no value makes a step, the largest one itself: a pixel without people stays without.
    largest = np.where(steps.max(axis=1) > 0, steps.argmax(axis=1), paths.argmax(axis=1))
    steps[np.arange(len(steps)), largest] += rest
    return steps
