"""What the imagery of two years has to do with a difference: gaps that were filled, other sources.

A composite's pixel is observed in its season or filled by a rule (`imagery.gaps`). Where a good
part of a hectare's seasons is filled in one of the years, a difference may come from that.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from popcorn_ml.errors import RasterError
from popcorn_ml.grid import PIXELS_PER_HECTARE_SIDE, Grid, Window
from popcorn_ml.zones import BLOCK_PX

FILLED_FROM = 0.25
"""Share of a hectare's pixels and seasons filled in, by one sensor in one year, that is said: one
season of four."""


def write_filled(clear: Mapping[str, list[Path]], grid: Grid, out: Path) -> dict[str, str]:
    """Write which share of each cell's pixels and seasons was filled and not observed.

    Args:
        clear: band -> `clear_count.tif` of the seasons that it is the mean of (0: not observed).
        grid: of the pixels.
        out: the raster, float32 on `grid.hectares()`, a band an item of `clear`.

    Returns:
        Band -> why it is not known, where a raster of it cannot be read; the band is nodata.
    """
    from popcorn_ml import raster
    from popcorn_ml.mapping.aggregate import cell_sums

    unknown: dict[str, str] = {}
    for band, paths in clear.items():
        try:
            for path in paths:
                raster.check(path, grid)
            if not paths:
                unknown[band] = "its seasons are no longer in the store"
        except RasterError as error:
            unknown[band] = error.what
    side = PIXELS_PER_HECTARE_SIDE
    with (
        raster.CogWriter(out, grid.hectares(), list(clear), "float32", np.nan) as writer,
        raster.bounded_cache(),
    ):
        for tile in grid.tiles(BLOCK_PX):
            window = tile.core
            shape = -(-window.height // side), -(-window.width // side)
            bands = np.full((len(clear), *shape), np.nan)
            ones = cell_sums(np.ones((window.height, window.width), np.float32))
            for k, (band, paths) in enumerate(clear.items()):
                if band in unknown:
                    continue
                empty = sum((raster.read(p, window, 1) == 0).astype(np.float32) for p in paths)
                bands[k] = cell_sums(np.asarray(empty)) / (ones * len(paths))
            writer.write(bands, Window(window.row // side, window.col // side, *shape))
    return unknown


def explained(change: Path, filled: Path) -> dict[str, Any]:
    """How many significant changes lie where imagery was filled, beside how many cells do.

    Args:
        change, filled: rasters on one grid of cells.
    """
    from popcorn_ml import raster

    grid = raster.grid_of(change)
    significant = marked = both = inhabited = 0
    for tile in grid.tiles(BLOCK_PX):
        flag = raster.read_float(change, tile.core, 6)
        share = raster.read_float(filled, tile.core)
        with np.errstate(invalid="ignore"):
            there = np.nan_to_num(share).max(axis=0) >= FILLED_FROM
        known, real = np.isfinite(flag), np.nan_to_num(flag) != 0
        inhabited += int(known.sum())
        marked += int((there & known).sum())
        significant += int(real.sum())
        both += int((real & there).sum())
    return {
        "significant": significant,
        "of them where imagery is filled": both,
        "share of all cells where imagery is filled": marked / max(inhabited, 1),
    }


def other_sources(
    before: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """What of the imagery's provenance is not the same in both years, in words.

    Args:
        before, now: sensor -> provenance of its composites.
    """
    told = []
    for sensor in sorted({*before, *now}):
        one, two = before.get(sensor, {}), now.get(sensor, {})
        told += [
            f"{sensor}: {key} was {one.get(key, 'not said')}, is {two.get(key, 'not said')}"
            for key in sorted({*one, *two})
            if one.get(key) != two.get(key)
        ]
    return told
