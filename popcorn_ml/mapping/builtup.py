"""The built-up score of a country: the frozen extractor over each season, once.

Training and mapping read the result; neither runs the extractor again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
import torch

from popcorn_ml.errors import ConfigError
from popcorn_ml.grid import Grid, Tile, Window
from popcorn_ml.inputs import read_channels
from popcorn_ml.mapping.engine import arithmetic, each_tile, pick_device, to_device, to_numpy
from popcorn_ml.model.canvas import extractor_canvas
from popcorn_ml.model.popcorn import BuiltupExtractor, Sensors
from popcorn_ml.parallel import Pool
from popcorn_ml.sentinel import SEASONS, Season

Composites = tuple[Path | None, Path | None]
"""Sentinel-1 and Sentinel-2 composite of a season; None where that sensor is not used."""


def in_season_order(composites: Mapping[Season, Composites]) -> dict[Season, Composites]:
    """The seasons given, in the order of `SEASONS`.

    Raises:
        ConfigError: none, a season that there is not, or one without any composite.
    """
    unknown = sorted(set(composites) - set(SEASONS))
    empty = [season for season, pair in composites.items() if pair[0] is None and pair[1] is None]
    if unknown or empty or not composites:
        raise ConfigError(
            "the composites are not given by season",
            where="composites",
            expected=f"one or more of {', '.join(SEASONS)}, each with a composite",
            found=", ".join(unknown or empty) or "nothing",
        )
    return {season: composites[season] for season in SEASONS if season in composites}


def map_builtup(
    extractor: BuiltupExtractor,
    composites: Mapping[Season, Composites],
    grid: Grid,
    out: Path,
    *,
    tile_px: int = 512,
    threads: int = 0,
    device: str = "auto",
    pool: Pool | None = None,
    tags: dict[str, object] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the built-up score of every season, equal to that of the untiled raster to 1e-5.

    Args:
        extractor: in eval mode.
        composites: Sentinel-1 and Sentinel-2 composite of each season; where one is None, the
            extractor's stream of the other alone is used.
        grid: on which the composites lie.
        out: the raster to write: float32, one band a season given, named by it, NaN where an
            input is missing.
        tile_px: side of a tile; memory grows with it.
        threads: tiles at once; 0 takes all cores. The result does not depend on it.
        device: see `engine.pick_device`.
        pool: executor in this process to use instead of threads of our own.
        tags: what the raster says about itself.
        progress: called with (tiles done, tiles).

    Raises:
        ConfigError: no season, or one that there is not.
        GridMismatch: a composite lies elsewhere.
        RasterError: a composite is missing, unreadable or truncated.
    """
    from popcorn_ml import raster

    seasons = in_season_order(composites)
    for pair in seasons.values():
        for path in pair:
            if path is not None:
                raster.check(path, grid)
    target = pick_device(device)
    model = extractor.to(target)

    def work(tile: Tile) -> np.ndarray:
        return np.stack([_score(model, pair, grid, tile.core, target) for pair in seasons.values()])

    tiles = list(grid.tiles(tile_px))
    told = {"content": "built-up score", **(tags or {})}
    with (
        raster.CogWriter(out, grid, list(seasons), "float32", np.nan, tags=told) as sink,
        closing(each_tile(work, tiles, threads, pool)) as results,
    ):
        for tile, scores in zip(tiles, results, strict=True):
            sink.write(scores, tile.core)
            if progress is not None:
                progress(tile.index + 1, len(tiles))


def _score(
    extractor: BuiltupExtractor, pair: Composites, grid: Grid, core: Window, device: torch.device
) -> np.ndarray:
    """Score of one season over a core, NaN where an input is missing."""
    tile = extractor_canvas(*grid.shape).tile(core)
    channels, valid = read_channels(*pair, tile.source)
    wanted = valid[core.inside(tile.source)]
    score = np.full((core.height, core.width), np.nan, np.float32)
    if not wanted.any():
        return score
    sensors: Sensors = "s2" if pair[0] is None else "s1" if pair[1] is None else "both"
    with arithmetic(device, "float32"):
        found = extractor.score_unpadded(to_device(tile.lay(channels), device), sensors)[0]
        score[wanted] = to_numpy(tile.crop(found))[wanted]
    return score
