"""A place to map for `benchmarks.mapping`: of any size, from the demo country's composites.

The demo's pixels are laid beside their own mirror images, so that no seam shows, and members are
drawn beside its extractor: how fast a network runs does not depend on what it has learnt.
"""

from __future__ import annotations

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
CROP_PX = 256
STRIP_PX = 512
STEEP = 4.0
"""What the extractor's logits are multiplied with where a score is to be nil off built-up area."""


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
    crop = _crop_of(demo.builtup, 0.05) if sparse else size.whole()
    folder = work / f"{'sparse' if sparse else 'whole'}_{rows}x{cols}"
    grid = Grid(size.crs, size.west, size.north, size.step, cols, rows)
    composites: dict[Season, tuple[Path, Path]] = {}
    for season in SEASONS:
        pair = folder / f"s1_{season}.tif", folder / f"s2_{season}.tif"
        for source, target in zip(demo.composites()[season], pair, strict=True):
            if not target.exists():
                _mirrored(source, crop, target, grid)
        composites[season] = pair
    return BenchPlace(composites, *_networks(work, members, sparse), grid)


def _crop_of(builtup: Path, share: float) -> Window:
    """The square of the demo whose built-up share is nearest to one."""
    built = np.nanmean(raster.read_float(builtup), axis=0) > 0.5
    rows, cols = built.shape
    found = {
        Window(row, col, CROP_PX, CROP_PX): built[row : row + CROP_PX, col : col + CROP_PX].mean()
        for row in range(0, rows - CROP_PX, 32)
        for col in range(0, cols - CROP_PX, 32)
    }
    return min(found, key=lambda window: abs(found[window] - share))


def _mirrored(source: Path, crop: Window, target: Path, grid: Grid) -> None:
    values = raster.read(source, crop)
    bands, nodata, options = (
        (S1_BANDS, S1_NODATA, {"scale": S1_SCALE})
        if values.dtype == np.int16
        else (S2_BANDS, 0, {})
    )
    cols = reflected(np.arange(grid.width), crop.width)
    with raster.CogWriter(target, grid, bands, str(values.dtype), nodata, **options) as out:
        for row in range(0, grid.height, STRIP_PX):
            height = min(STRIP_PX, grid.height - row)
            rows = reflected(np.arange(row, row + height), crop.height)
            out.write(values[:, rows][:, :, cols], Window(row, 0, height, grid.width))


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
