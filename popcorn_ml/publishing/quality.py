"""How good the input was, pixel by pixel: observations, fills, and what is not to be used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from popcorn_ml import raster
from popcorn_ml.grid import PIXELS_PER_HECTARE_SIDE, Grid, Window
from popcorn_ml.imagery.gaps import OUTSIDE

if TYPE_CHECKING:
    from popcorn_ml.publishing.products import Source

BANDS = (
    "clear Sentinel-1 observations",
    "clear Sentinel-2 observations",
    "seasonal composites filled from elsewhere, of 8",
    "not to be used",
)
NODATA = OUTSIDE
"""Outside the country's boundary, where nothing was asked for."""
RULE = (
    "A pixel is not to be used where the map has no value, where the whole year has no clear "
    "Sentinel-2 observation of it, or where its cell is not reliable at this scale."
)


def quality(
    seasons: Mapping[str, Mapping[str, Path]],
    population: Path,
    grid: Grid,
    reliability: Path | None = None,
) -> Source:
    """What reads the quality of a window: uint16, (4, rows, columns), as `BANDS`.

    Args:
        seasons: sensor -> season -> folder of its composite before gaps were filled.
        population: people per pixel.
        grid: on which they lie.
        reliability: per cell of 10 x 10 pixels, 0 where it is not to be used; None: not known.
    """
    cells = grid.hectares()
    for folders in seasons.values():
        for folder in folders.values():
            raster.check(folder / "clear_count.tif", grid, count=1)
    raster.check(population, grid)
    if reliability is not None:
        raster.check(reliability, cells)

    def read(window: Window) -> np.ndarray:
        out = np.zeros((len(BANDS), window.height, window.width), np.uint16)
        asked = np.zeros(out.shape[1:], bool)
        for band, sensor in enumerate(("s1", "s2")):
            for folder in seasons[sensor].values():
                count = raster.read(folder / "clear_count.tif", window, 1)
                inside = count != OUTSIDE
                asked |= inside
                out[band] += np.where(inside, count, 0).astype(np.uint16)
                out[2] += inside & (count == 0)
        unusable = np.isnan(raster.read_float(population, window, 1)) | (out[1] == 0)
        if reliability is not None:
            unusable |= _of_pixels(raster.read, reliability, window) == 0
        out[3] = unusable
        out[:, ~asked] = NODATA
        return out

    return read


def _of_pixels(read, path: Path, window: Window) -> np.ndarray:
    """Values of the cells of 10 x 10 pixels that a window's pixels lie in."""
    side = PIXELS_PER_HECTARE_SIDE
    rows = np.arange(window.row, window.row + window.height) // side
    cols = np.arange(window.col, window.col + window.width) // side
    cells = Window(rows[0], cols[0], int(rows[-1] - rows[0]) + 1, int(cols[-1] - cols[0]) + 1)
    values = read(path, cells, 1)
    return values[rows - rows[0]][:, cols - cols[0]]
