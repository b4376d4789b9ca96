"""Small places to map: composites, members and an extractor with weights of their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from popcorn_ml import raster
from popcorn_ml.grid import Grid
from popcorn_ml.mapping.builtup import map_builtup
from popcorn_ml.mapping.predict import MappingSpec
from popcorn_ml.model.popcorn import BuiltupExtractor, OccupancyModel, from_extractor
from popcorn_ml.model.weights import save_occupancy
from popcorn_ml.sentinel import S1_BANDS, S1_NODATA, S1_SCALE, S2_BANDS, SEASONS

SHIFT = {"spring": 0, "summer": 3, "autumn": 5, "winter": 9}


def an_extractor(seed: int = 5) -> BuiltupExtractor:
    """An extractor whose batch norms have something to normalise with, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BuiltupExtractor()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0.0, 0.1)
                module.running_var.uniform_(0.3, 1.5)
    return model.requires_grad_(False).eval()


def a_member(seed: int) -> OccupancyModel:
    """A member that sees people nearly everywhere, unlike its siblings.

    Its convolutions are stronger than they begin: fresh ones hardly let a pixel depend on another
    twenty pixels away, and a tile cut too small would go unnoticed.
    """
    model = from_extractor(an_extractor(seed), initial_bias=1.0, seed=seed)
    with torch.no_grad():
        for module in model.unet.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
                module.weight *= 2.5
    return model.eval()


def write_members(folder: Path, seeds: tuple[int, ...]) -> list[Path]:
    """Weights of members on disk."""
    return [
        save_occupancy(a_member(seed), folder / str(seed) / "occupancy.safetensors", {"seed": seed})
        for seed in seeds
    ]


def write_composites(folder: Path, grid: Grid, *, holes: bool = True, seed: int = 0):
    """Composites of four seasons; with holes, some of which all seasons share."""
    composites = {}
    for season in SEASONS:
        rng = np.random.default_rng([seed, SHIFT[season]])
        s2 = rng.integers(200, 4000, (4, *grid.shape)).astype(np.uint16)
        s1 = rng.integers(-2500, -300, (2, *grid.shape)).astype(np.int16)
        if holes:
            rows, cols = grid.shape
            s2[:, : rows // 4, : cols // 3] = 0
            s1[:, -(rows // 5 + 1) :, SHIFT[season] :: 11] = S1_NODATA
            s2[2, rows // 2, SHIFT[season] % cols] = 0
        paths = folder / f"s1_{season}.tif", folder / f"s2_{season}.tif"
        raster.write(paths[0], s1, grid, S1_BANDS, S1_NODATA, scale=S1_SCALE)
        raster.write(paths[1], s2, grid, S2_BANDS, 0)
        composites[season] = paths
    return composites


def a_grid(rows: int, cols: int) -> Grid:
    """A grid in UTM 36 south."""
    return Grid("EPSG:32736", 500_000.0, 9_800_000.0, 10.0, cols, rows)


def a_spec(folder: Path, shape: tuple[int, int], seeds: tuple[int, ...] = (1, 2), **changes):
    """Everything on disk that `map_population` needs."""
    grid = a_grid(*shape)
    composites = write_composites(folder, grid)
    map_builtup(an_extractor(), composites, grid, folder / "builtup.tif", threads=1)
    spec = MappingSpec(
        composites=composites,
        builtup=folder / "builtup.tif",
        members=write_members(folder / "members", seeds),
        grid=grid,
        out=folder / "map",
        device="cpu",
        threads=1,
    )
    return replace(spec, **changes)
