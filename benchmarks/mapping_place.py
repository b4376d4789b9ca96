"""A place to map for `benchmarks.mapping`: of any size, from the demo country's composites.

The demo's pixels are laid beside their own mirror images, so that no seam shows, and members are
drawn beside its extractor: how fast a network runs does not depend on what it has learnt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.accuracy import Place, prepare
from popcorn_assets.assets.builtup import DEMO_EXTRACTOR
from popcorn_assets.country import load_country
from popcorn_ml import raster
from popcorn_ml.grid import Grid, Window
from popcorn_ml.model.canvas import reflected
from popcorn_ml.model.popcorn import from_extractor
from popcorn_ml.model.weights import load_extractor, save_extractor, save_occupancy
from popcorn_ml.sentinel import (
    S1_BANDS,
    S1_NODATA,
    S1_SCALE,
    S2_BANDS,
    SEASONS,
    Season,
)

SEED = 20
STRIP_PX = 512
STEEP = 4.0
"""What the extractor's logits are multiplied with where a score is to be nil off built-up area."""
PERIOD_PX, TOWN_BEGIN_PX, TOWN_END_PX = 2000, 664, 1336
"""Of a sparse place: a town in the middle of every square of 20 km, a ninth of it."""
TOWN_CROP_PX, EMPTY_CROP_PX = 256, 128
"""Squares of the demo that towns, nearly half built up, and what lies between them are made of."""


@dataclass(frozen=True)
class BenchPlace:
    """Files of a place, all of which a map is made from but the score."""

    composites: dict[Season, tuple[Path, Path]]
    extractor: Path
    members: list[Path]
    grid: Grid


def write_place(
    work: Path, rows: int, cols: int, members: int, *, sparse: bool, threads: int = 2
) -> BenchPlace:
    """A place of a size; its files are kept, and taken again.

    Args:
        work: folder.
        rows, cols: pixels.
        members: how many.
        sparse: 5 % built up, and an extractor that is sure of what is not.
        threads: to make the demo's composites with.
    """
    demo = Place(SEED, work / "demo" / str(SEED), load_country("demo"), threads)
    prepare(demo)
    size = raster.grid_of(demo.builtup)
    crops = [size.whole()]
    if sparse:
        score = np.nanmean(raster.read_float(demo.builtup), axis=0)
        crops = [_crop(-score, EMPTY_CROP_PX, np.min), _crop(score > 0.5, TOWN_CROP_PX, np.mean)]
    folder = work / f"{'sparse' if sparse else 'whole'}_{rows}x{cols}"
    grid = Grid(size.crs, size.west, size.north, size.step, cols, rows)
    composites: dict[Season, tuple[Path, Path]] = {}
    for season in SEASONS:
        pair = folder / f"s1_{season}.tif", folder / f"s2_{season}.tif"
        for source, target in zip(demo.composites()[season], pair, strict=True):
            if not target.exists():
                _laid_out(source, crops, target, grid)
        composites[season] = pair
    return BenchPlace(composites, *_networks(work, members, sparse), grid)


def _crop(values: np.ndarray, side: int, of: Callable[[np.ndarray], float]) -> Window:
    """The square of the demo in which something is largest."""
    rows, cols = values.shape
    found = {
        Window(row, col, side, side): of(values[row : row + side, col : col + side])
        for row in range(0, rows - side, 16)
        for col in range(0, cols - side, 16)
    }
    return max(found, key=lambda window: found[window])


def _laid_out(source: Path, crops: list[Window], target: Path, grid: Grid) -> None:
    """The first crop everywhere, mirrored; the second, if any, where towns are."""
    values = [raster.read(source, crop) for crop in crops]
    bands, nodata, options = (
        (S1_BANDS, S1_NODATA, {"scale": S1_SCALE})
        if values[0].dtype == np.int16
        else (S2_BANDS, 0, {})
    )
    cols = np.arange(grid.width)
    with raster.CogWriter(target, grid, bands, str(values[0].dtype), nodata, **options) as out:
        for row in range(0, grid.height, STRIP_PX):
            rows = np.arange(row, min(row + STRIP_PX, grid.height))
            strip = _mirrored(values[0], rows, cols)
            for town in values[1:]:
                there = np.ix_(_in_town(rows), _in_town(cols))
                strip[:, *there] = _mirrored(town, rows, cols)[:, *there]
            out.write(strip, Window(row, 0, len(rows), grid.width))


def _mirrored(values: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    height, width = values.shape[1:]
    return values[:, reflected(rows, height)][:, :, reflected(cols, width)]


def _in_town(positions: np.ndarray) -> np.ndarray:
    place = positions % PERIOD_PX
    return (place >= TOWN_BEGIN_PX) & (place < TOWN_END_PX)


def _networks(work: Path, count: int, sparse: bool) -> tuple[Path, list[Path]]:
    extractor = load_extractor(DEMO_EXTRACTOR)
    members = []
    for seed in range(1, count + 1):
        model = from_extractor(extractor, initial_bias=1.0, seed=seed)
        with torch.no_grad():
            noise = torch.Generator().manual_seed(seed)
            for value in model.unet.parameters():
                value *= 1 + 0.05 * torch.randn(value.shape, generator=noise)
        path = work / "members" / str(seed) / "occupancy.safetensors"
        members.append(save_occupancy(model, path, {"seed": seed}))
    if sparse:
        with torch.no_grad():
            extractor.score_both.weight *= STEEP
            extractor.score_both.bias *= STEEP
    name = "sure" if sparse else "demo"
    path = work / f"{name}.safetensors"
    return save_extractor(extractor, path, {"name": name}), members
