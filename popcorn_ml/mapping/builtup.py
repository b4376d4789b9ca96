"""The built-up score of a country: the frozen extractor over each season, once.

Training and mapping read the result; neither runs the extractor again.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from popcorn_ml.compute.devices import cpus
from popcorn_ml.grid import Grid, Tile, Window
from popcorn_ml.inputs import read_channels
from popcorn_ml.mapping.engine.api import Engine, Scores
from popcorn_ml.mapping.engine.choice import open_engine
from popcorn_ml.mapping.spec import (
    Composites,
    check_composites,
    composites_as_dict,
    composites_of_dict,
    in_season_order,
    read_spec,
)
from popcorn_ml.mapping.tiles import Computed, Layer, Written, regular_core, write_tiles
from popcorn_ml.model.canvas import extractor_canvas
from popcorn_ml.model.stored import Tensors, fingerprint_of, read_extractor
from popcorn_ml.parallel import Pool
from popcorn_ml.sentinel import Season

if TYPE_CHECKING:
    from popcorn_ml.model.popcorn import BuiltupExtractor, Sensors

SCORE = "builtup_score"
"""The layer that a built-up map consists of."""

EXTRACTOR_TAG = "extractor_fingerprint"
"""Of a built-up score, of a map made from it, and in a member's card: `weights.fingerprint` of the
extractor behind it. Occupancy is people per pixel of this extractor's score, and of no other's."""


SENSORS_TAG = "sensors"
"""Of a built-up score that is not by both sensors in every season: by which each is, such as
"spring: s2, summer: both"."""


@dataclass(frozen=True)
class BuiltupSpec:
    """Everything that a built-up score depends on, as paths and plain values.

    Attributes:
        composites: season -> Sentinel-1 and Sentinel-2 composite; see `map_builtup`.
        extractor: weights of the built-up area extractor.
        grid: on which the composites lie.
        out: the raster to write.
        tile_px, device, threads, engine, tags: as in `map_builtup`.
    """

    composites: Mapping[Season, Composites]
    extractor: Path
    grid: Grid
    out: Path
    tile_px: int = 512
    device: str = "auto"
    threads: int = 0
    engine: str = "auto"
    tags: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "composites": composites_as_dict(self.composites),
            "extractor": str(self.extractor),
            "grid": self.grid.as_dict(),
            "out": str(self.out),
            "tile_px": self.tile_px,
            "device": self.device,
            "threads": self.threads,
            "engine": self.engine,
            "tags": dict(self.tags),
        }

    def to_json(self) -> str:
        """The specification as `python -m popcorn_ml.mapping` reads it."""
        return json.dumps({"task": "builtup", **self.as_dict()}, indent=1)

    @classmethod
    def from_json(cls, text: str, where: str | Path | None = None) -> BuiltupSpec:
        """Read a specification; its task is known by now.

        Raises:
            ConfigError: not JSON, or a field missing, unknown or of another form.
        """
        return read_spec(
            cls,
            text,
            "the specification of a built-up score cannot be used",
            where,
            composites=composites_of_dict,
            extractor=Path,
            grid=lambda given: Grid(**given),
            out=Path,
        )


def run_builtup(
    spec: BuiltupSpec,
    progress: Callable[[int, int], None] | None = None,
    *,
    pool: Pool | None = None,
) -> Written:
    """`map_builtup` as a specification says.

    Args:
        pool: executor of other processes or machines that see the same files; None works in
            threads of this process. The raster is the same byte for byte.

    Raises:
        WeightsError: the extractor is missing, altered or of another architecture.
        And what `map_builtup` raises.
    """
    return _map(spec, _read(spec.extractor), progress, pool)


def map_builtup(
    extractor: BuiltupExtractor,
    composites: Mapping[Season, Composites],
    grid: Grid,
    out: Path,
    *,
    tile_px: int = 512,
    threads: int = 0,
    device: str = "auto",
    engine: str = "auto",
    tags: Mapping[str, object] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Written:
    """Write the built-up score of every season, equal to that of the untiled raster to 1e-5.

    Args:
        extractor: in eval mode.
        composites: Sentinel-1 and Sentinel-2 composite of each season; where one is None, the
            extractor's stream of the other alone is used.
        grid: on which the composites lie.
        out: the raster to write: float32, one band a season given, named by it, NaN where an
            input is missing.
        tile_px: side of a tile; memory grows with it.
        threads: tiles at once; 0 takes all cores. The result does not depend on it. With a GPU at
            most `tiles.TILES_ON_A_GPU`.
        device: see `compute.devices.pick_device`.
        engine: see `engine.choice.open_engine`.
        tags: what the raster says about itself.
        progress: called with (tiles done, tiles).

    Returns:
        What ran the network.

    Raises:
        ConfigError: no season, or one that there is not; no such device or engine.
        GridMismatch: a composite lies elsewhere.
        RasterError: a composite is missing, unreadable or truncated.
    """
    from popcorn_ml.model.weights import tensors_of

    told = {name: str(value) for name, value in (tags or {}).items()}
    spec = BuiltupSpec(composites, Path(), grid, out, tile_px, device, threads, engine, told)
    return _map(spec, tensors_of(extractor), progress, None)


def _map(
    spec: BuiltupSpec,
    extractor: Tensors,
    progress: Callable[[int, int], None] | None,
    pool: Pool | None,
) -> Written:
    seasons = in_season_order(spec.composites)
    check_composites(seasons, spec.grid)
    told = {"content": "built-up score", EXTRACTOR_TAG: fingerprint_of(extractor), **spec.tags}
    by = {season: sensors_used(pair) for season, pair in seasons.items()}
    if set(by.values()) != {"both"}:
        told[SENSORS_TAG] = ", ".join(f"{season}: {sensors}" for season, sensors in by.items())
    on_gpu = False
    if pool is None:
        engine = _engine(spec.engine, spec.device, spec.threads, _regular(spec))
        on_gpu = engine.on_gpu
        work = functools.partial(_scores, spec, engine, engine.extractor(extractor))
    else:
        work = functools.partial(score_elsewhere, spec)
    return write_tiles(
        work,
        [Layer(SCORE, spec.out, tuple(seasons), told)],
        spec.grid,
        spec.tile_px,
        threads=spec.threads,
        pool=pool,
        on_gpu=on_gpu,
        progress=progress,
    )


def extractor_of_score(builtup: str | Path) -> str | None:
    """Fingerprint of the extractor that made a built-up score; None where the raster is silent.

    Raises:
        RasterError: it is unreadable.
    """
    from popcorn_ml import raster

    return raster.tags(builtup).get(EXTRACTOR_TAG)


def sensors_used(pair: Composites) -> Sensors:
    """Whose streams give the score of a season with these composites."""
    return "s2" if pair[0] is None else "s1" if pair[1] is None else "both"


def sensors_of_score(builtup: str | Path) -> dict[str, str]:
    """Which sensors a built-up score is by, a season; empty where it is by both, or silent.

    Raises:
        RasterError: it is unreadable.
    """
    from popcorn_ml import raster

    told = raster.tags(builtup).get(SENSORS_TAG, "")
    pairs = (part.partition(": ") for part in told.split(", ") if part)
    return {season: sensors for season, _, sensors in pairs}


def score_elsewhere(spec: BuiltupSpec, tile: Tile) -> Computed:
    """One tile in a worker process, which keeps the extractor between its tiles."""
    from popcorn_ml.raster import bounded_cache

    with bounded_cache():
        stamp = os.stat(spec.extractor).st_mtime_ns
        how = spec.engine, spec.device, cpus(), _regular(spec)
        engine, network = _loaded(str(spec.extractor), stamp, *how)
        return _scores(spec, engine, network, tile)


@functools.lru_cache(maxsize=1)
def _loaded(path: str, _stamp: int, *how: Any) -> tuple[Engine, Scores]:
    engine = _engine(*how)
    return engine, engine.extractor(_read(Path(path)))


def _read(path: Path) -> Tensors:
    """Weights of an extractor; torch is loaded for published checkpoints only."""
    if path.suffix == ".safetensors":
        return read_extractor(path)
    from popcorn_ml.model.weights import load_extractor, tensors_of

    return tensors_of(load_extractor(path))


def _engine(name: str, device: str, threads: int, regular: int) -> Engine:
    return open_engine(name, device, threads=threads, regular=regular)


def _regular(spec: BuiltupSpec) -> int:
    return regular_core(spec.grid, spec.tile_px, len(spec.composites))


def _scores(spec: BuiltupSpec, engine: Engine, network: Scores, tile: Tile) -> Computed:
    """Scores of every season over a tile, (seasons, rows, columns)."""
    with engine.at_work():
        pairs = in_season_order(spec.composites).values()
        scores = [_score(network, pair, spec.grid, tile.core) for pair in pairs]
    return Computed({SCORE: np.stack(scores)}, engine.ran)


def _score(network: Scores, pair: Composites, grid: Grid, core: Window) -> np.ndarray:
    """Score of one season over a core, NaN where an input is missing."""
    tile = extractor_canvas(*grid.shape).tile(core)
    channels, valid = read_channels(*pair, tile.source)
    wanted = valid[core.inside(tile.source)]
    score = np.full((core.height, core.width), np.nan, np.float32)
    if not wanted.any():
        return score
    found = network.scores(tile.lay(channels), tile.core_in_window, sensors_used(pair))
    np.copyto(score, found, where=wanted)
    return score
