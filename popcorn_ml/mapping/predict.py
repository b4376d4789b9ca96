"""From members, composites and built-up score to the population map, tile by tile.

Each member predicts every season; seasons are averaged within the member, then the members' mean
is the map and their standard deviation its uncertainty. Every pixel is predicted, the outermost
included, and a tile gives exactly what the whole raster would (`model.canvas`). Adjusting to the
census and summing to hectares come after, in modules of their own.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from popcorn_ml.compute.devices import cpus
from popcorn_ml.errors import ConfigError, RasterError
from popcorn_ml.grid import Grid, Tile, Window
from popcorn_ml.inputs import read_channels
from popcorn_ml.mapping.engine.api import Bag, Engine, check_precision
from popcorn_ml.mapping.engine.choice import open_engine
from popcorn_ml.mapping.ensemble import SeasonMean, spread_of
from popcorn_ml.mapping.members import extractor_tags, trained_pixel_m2
from popcorn_ml.mapping.spec import (
    Composites,
    check_composites,
    composites_as_dict,
    composites_of_dict,
    in_season_order,
    read_spec,
)
from popcorn_ml.mapping.tiles import Computed, Layer, Written, write_tiles
from popcorn_ml.model.canvas import occupancy_canvas
from popcorn_ml.model.popcorn import population
from popcorn_ml.parallel import Pool
from popcorn_ml.sentinel import Season

BANDS = {
    "population": "people per pixel",
    "population_std": "standard deviation across members, people per pixel",
    "occupancy": "people per fully built-up pixel",
    "builtup_score": "built-up score, mean of the seasons",
}
"""Rasters that a map consists of, beside `population_members`, and what their values are."""


@dataclass(frozen=True)
class MappingSpec:
    """Everything that a map depends on, as paths and plain values.

    Attributes:
        composites: season -> Sentinel-1 and Sentinel-2 composite.
        builtup: the built-up score of those seasons, bands named by season.
        members: weights of the ensemble's members.
        grid: on which all rasters lie.
        out: folder that the map is written into.
        tile_px: side of a tile; memory grows with it. 512 suits a CPU, 2048 a GPU.
        device: auto (CUDA where there is one), cpu, cuda or cuda:N.
        precision: float32, or bfloat16 for speed on a GPU.
        threads: tiles at once; 0 takes all cores. The result does not depend on it. With a GPU at
            most `tiles.TILES_ON_A_GPU`.
        engine: openvino, torch or auto; see `engine.choice.open_engine`.
        trained_pixel_m2: area of the pixels that the members were trained on. Occupancy counts
            people in a pixel, so that of each row is multiplied with its own pixels' area over
            this. None: what the members' cards say of it; where they say nothing, as in published
            weights, people per pixel are taken as predicted.
        pixel_area_ratio: what occupancy is multiplied with besides, the same everywhere.
        tags: what the rasters say about themselves.
    """

    composites: Mapping[Season, Composites]
    builtup: Path
    members: Sequence[Path]
    grid: Grid
    out: Path
    tile_px: int = 512
    device: str = "auto"
    precision: str = "float32"
    threads: int = 0
    engine: str = "auto"
    trained_pixel_m2: float | None = None
    pixel_area_ratio: float = 1.0
    tags: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "composites": composites_as_dict(self.composites),
            "builtup": str(self.builtup),
            "members": [str(path) for path in self.members],
            "grid": self.grid.as_dict(),
            "out": str(self.out),
            "tile_px": self.tile_px,
            "device": self.device,
            "precision": self.precision,
            "threads": self.threads,
            "engine": self.engine,
            "trained_pixel_m2": self.trained_pixel_m2,
            "pixel_area_ratio": self.pixel_area_ratio,
            "tags": dict(self.tags),
        }

    def to_json(self) -> str:
        """The specification as `python -m popcorn_ml.mapping` reads it."""
        return json.dumps(self.as_dict(), indent=1)

    @classmethod
    def from_json(cls, text: str, where: str | Path | None = None) -> MappingSpec:
        """Read a specification.

        Args:
            text: what `to_json` gives; fields with a default may be left out.
            where: the file it came from, for messages.

        Raises:
            ConfigError: not JSON, or a field missing, unknown or of another form.
        """
        return read_spec(
            cls,
            text,
            "the mapping specification cannot be used",
            where,
            composites=composites_of_dict,
            builtup=Path,
            members=lambda given: tuple(Path(path) for path in given),
            grid=lambda given: Grid(**given),
            out=Path,
        )


MEMBERS = "population_members"


def season_bands(builtup: Path, seasons: Sequence[Season]) -> list[int]:
    """1-based bands of a built-up raster that hold the seasons, found by their names.

    Raises:
        RasterError: a season has no band of its name.
    """
    from popcorn_ml import raster

    with raster.opened(builtup) as dataset:
        names = list(dataset.descriptions)
    missing = [season for season in seasons if season not in names]
    if missing:
        raise RasterError(
            "the built-up score lacks a season",
            where=builtup,
            expected=f"bands named {', '.join(seasons)}",
            found=", ".join(str(name) for name in names),
            remedy="materialise the built-up area from the same composites",
        )
    return [names.index(season) + 1 for season in seasons]


def map_population(
    spec: MappingSpec,
    progress: Callable[[int, int], None] | None = None,
    *,
    pool: Pool | None = None,
) -> Written:
    """Predict every pixel of a country and write the map.

    Args:
        spec: what to map. Into its `out` go `population.tif`, `population_std.tif`,
            `occupancy.tif`, `builtup_score.tif` (one band each) and `population_members.tif` (one
            band a member, from which the uncertainty of sums follows); float32, NaN nodata.
        progress: called with (tiles done, tiles).
        pool: executor of other processes or machines that see the same files; None works in
            threads of this process. Tiles are written in their order, so that the files are the
            same byte for byte whichever does the work.

    Memory: the tiles at work, whatever the country's size.

    Returns:
        What ran the networks.

    Raises:
        ConfigError: a specification that cannot be used.
        WeightsError: weights missing, altered or of another architecture.
        GridMismatch: a raster lies elsewhere.
        RasterError: a raster is missing, unreadable or truncated; nothing is written then.
    """

    _check(spec)
    spec = replace(
        spec,
        trained_pixel_m2=spec.trained_pixel_m2 or trained_pixel_m2(spec.members),
        tags={**spec.tags, **extractor_tags(spec.members, spec.builtup)},
    )
    on_gpu = False
    if pool is None:
        engine = open_engine(spec.engine, spec.device, spec.precision, spec.threads)
        on_gpu = engine.on_gpu
        work = functools.partial(_predict, spec, engine, _load(engine, spec.members))
    else:  # a device that the workers have, and perhaps not this machine
        work = functools.partial(predict_elsewhere, spec)
    return write_tiles(
        work,
        _layers(spec),
        spec.grid,
        spec.tile_px,
        threads=spec.threads,
        pool=pool,
        on_gpu=on_gpu,
        progress=progress,
    )


def _layers(spec: MappingSpec) -> list[Layer]:
    """The rasters of a map."""
    members = [f"member {i}" for i in range(1, len(spec.members) + 1)]
    bands = {**{name: [band] for name, band in BANDS.items()}, MEMBERS: members}
    return [
        Layer(
            name,
            spec.out / f"{name}.tif",
            tuple(described),
            {"content": BANDS.get(name, "people per pixel by each member"), **spec.tags},
        )
        for name, described in bands.items()
    ]


def _check(spec: MappingSpec) -> None:
    """Refuse what cannot be mapped, before any work."""
    from popcorn_ml import raster

    seasons = in_season_order(spec.composites)
    check_precision(spec.precision)
    resolved = [Path(path).resolve() for path in spec.members]
    wrong = None
    if not resolved:
        wrong = ("members", "one or more weights", "none")
    elif len(set(resolved)) < len(resolved):
        wrong = ("members", "each member once", "one given twice")
    elif spec.tile_px < 1:
        wrong = ("tile_px", "a positive number of pixels", str(spec.tile_px))
    for name in ("pixel_area_ratio", "trained_pixel_m2"):
        value = getattr(spec, name)
        if value is not None and not 0 < value < float("inf"):
            wrong = (name, "a positive number", str(value))
    if wrong is not None:
        where, expected, found = wrong
        raise ConfigError("the map cannot be made so", where=where, expected=expected, found=found)
    check_composites(seasons, spec.grid)
    raster.check(spec.builtup, spec.grid)
    season_bands(spec.builtup, tuple(seasons))


def _load(engine: Engine, members: Sequence[Path]) -> Bag:
    from popcorn_ml.model.weights import load_occupancy

    return engine.bag([load_occupancy(path) for path in members])


def _predict(spec: MappingSpec, engine: Engine, bag: Bag, tile: Tile) -> Computed:
    """One tile, each of its pixels as the whole raster would give it.

    A season without input or built-up score at a pixel is left out of that pixel's mean. A season
    without any in the tile is not computed. Values are NaN where no season has one.
    """
    with engine.at_work():
        values = _tile_values(spec, bag, tile.core)
    return Computed(values, engine.ran)


def _tile_values(spec: MappingSpec, bag: Bag, core: Window) -> dict[str, np.ndarray]:
    from popcorn_ml import raster

    tile = occupancy_canvas(*spec.grid.shape).tile(core)
    seasons = in_season_order(spec.composites)
    area_ratio = _area_ratio(spec, core).astype(np.float32)
    shape = (core.height, core.width)
    people = SeasonMean((len(spec.members), *shape))
    occupancy_mean, score_mean = SeasonMean(shape), SeasonMean(shape)
    bands = season_bands(spec.builtup, tuple(seasons))
    for pair, band in zip(seasons.values(), bands, strict=True):
        score = raster.read_float(spec.builtup, core, band)
        if np.isnan(score).all():
            continue
        channels, observed = read_channels(*pair, tile.source)
        score[~observed[core.inside(tile.source)]] = np.nan
        valid = ~np.isnan(score)
        if not valid.any():
            continue
        score_mean.add(score)
        occupancy = bag.occupancy(tile.lay(channels), tile.core_in_window, valid)
        occupancy *= area_ratio
        occupancy_mean.add(occupancy.mean(axis=0, dtype=np.float64))
        people.add(population(occupancy, score))
    by_member = people.mean()
    found = {
        "population": by_member.mean(axis=0),
        "population_std": spread_of(by_member),
        "occupancy": occupancy_mean.mean(),
        "builtup_score": score_mean.mean(),
        MEMBERS: by_member,
    }
    return {name: values.astype(np.float32) for name, values in found.items()}


def _area_ratio(spec: MappingSpec, core: Window) -> np.ndarray:
    """What the occupancy of each row of a tile is multiplied with, (rows, 1)."""
    if spec.trained_pixel_m2 is None:
        return np.full((core.height, 1), spec.pixel_area_ratio)
    mean = spec.grid.pixel_area_m2 / spec.trained_pixel_m2
    return spec.grid.relative_area(core) * (mean * spec.pixel_area_ratio)


def predict_elsewhere(spec: MappingSpec, tile: Tile) -> Computed:
    """One tile in a worker process, which keeps the members between its tiles."""
    from popcorn_ml.raster import bounded_cache

    versions = tuple((str(path), _stamp(Path(path))) for path in spec.members)
    with bounded_cache():
        loaded = _loaded(versions, spec.engine, spec.device, spec.precision)
        return _predict(spec, *loaded, tile)


def _stamp(path: Path) -> int:
    file = path / "occupancy.safetensors" if path.is_dir() else path
    return os.stat(file).st_mtime_ns


@functools.lru_cache(maxsize=1)
def _loaded(
    versions: tuple[tuple[str, int], ...], name: str, device: str, precision: str
) -> tuple[Engine, Bag]:
    engine = open_engine(name, device, precision, cpus())
    return engine, _load(engine, [Path(path) for path, _ in versions])
