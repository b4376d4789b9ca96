"""The built-up score of a country: the frozen extractor over each season, once.

Training and mapping read the result; neither runs the extractor again.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from popcorn_ml.compute.devices import pick_device
from popcorn_ml.errors import ConfigError
from popcorn_ml.grid import Grid, Tile, Window
from popcorn_ml.inputs import read_channels
from popcorn_ml.mapping.engine import (
    arithmetic,
    each_tile,
    one_thread_a_tile,
    to_device,
    to_numpy,
)
from popcorn_ml.model.canvas import extractor_canvas
from popcorn_ml.model.popcorn import BuiltupExtractor, Sensors
from popcorn_ml.parallel import Pool
from popcorn_ml.sentinel import SEASONS, Season

Spec = TypeVar("Spec")

EXTRACTOR_TAG = "extractor_fingerprint"
"""Of a built-up score, of a map made from it, and in a member's card: `weights.fingerprint` of the
extractor behind it. Occupancy is people per pixel of this extractor's score, and of no other's."""

Composites = tuple[Path | None, Path | None]
"""Sentinel-1 and Sentinel-2 composite of a season; None where that sensor is not used."""


@dataclass(frozen=True)
class BuiltupSpec:
    """Everything that a built-up score depends on, as paths and plain values.

    Attributes:
        composites: season -> Sentinel-1 and Sentinel-2 composite; see `map_builtup`.
        extractor: weights of the built-up area extractor.
        grid: on which the composites lie.
        out: the raster to write.
        tile_px, device, threads, tags: as in `map_builtup`.
    """

    composites: Mapping[Season, Composites]
    extractor: Path
    grid: Grid
    out: Path
    tile_px: int = 512
    device: str = "auto"
    threads: int = 0
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


def read_spec(
    cls: type[Spec],
    text: str,
    what: str,
    where: str | Path | None,
    **readers: Callable[[Any], Any],
) -> Spec:
    """A specification from a JSON object.

    Args:
        cls: a dataclass; the object has its fields, and perhaps the task it is for.
        what: the error, should it be one.
        readers: field -> what makes its value of a plain one; such fields have no default.

    Raises:
        ConfigError: `what`: not JSON, a field unknown, missing, or of a value that cannot be.
    """
    names = [item.name for item in fields(cls)]  # type: ignore[arg-type]
    try:
        given = json.loads(text)
        given.pop("task", None)
        unknown = sorted(set(given) - set(names))
        if unknown:
            raise ValueError(f"unknown: {', '.join(unknown)}")
        return cls(**{**given, **{name: read(given[name]) for name, read in readers.items()}})
    except KeyError as error:
        found = f"no {error}"
    except (ValueError, TypeError, AttributeError) as error:
        found = str(error)
    raise ConfigError(
        what, where=where, expected=f"a JSON object with {', '.join(names)}", found=found
    )


def composites_as_dict(composites: Mapping[Season, Composites]) -> dict[str, Any]:
    """Composites as plain values."""
    return {
        season: {
            sensor: None if path is None else str(path)
            for sensor, path in zip(("s1", "s2"), pair, strict=True)
        }
        for season, pair in composites.items()
    }


def composites_of_dict(given: Mapping[str, Any]) -> dict[Season, Composites]:
    """The composites that `composites_as_dict` gave; errors are those of a wrong form."""
    return {
        season: tuple(None if pair.get(s) is None else Path(pair[s]) for s in ("s1", "s2"))  # type: ignore[misc]
        for season, pair in given.items()
    }


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


def run_builtup(
    spec: BuiltupSpec,
    progress: Callable[[int, int], None] | None = None,
    *,
    pool: Pool | None = None,
) -> None:
    """`map_builtup` as a specification says.

    Args:
        pool: executor of other processes or machines that see the same files; None works in
            threads of this process. The raster is the same byte for byte.

    Raises:
        WeightsError: the extractor is missing, altered or of another architecture.
        And what `map_builtup` raises.
    """
    from popcorn_ml.model.weights import load_extractor

    seasons = in_season_order(spec.composites)
    extractor = load_extractor(spec.extractor)
    if pool is None:
        map_builtup(
            extractor,
            seasons,
            spec.grid,
            spec.out,
            tile_px=spec.tile_px,
            threads=spec.threads,
            device=spec.device,
            tags=dict(spec.tags),
            progress=progress,
        )
        return
    _check(seasons, spec.grid)
    told = _with_extractor(spec, extractor)
    _write(told, functools.partial(score_elsewhere, spec), progress, pool)


def _with_extractor(spec: BuiltupSpec, extractor: BuiltupExtractor) -> BuiltupSpec:
    """The same, its raster to say which extractor made it."""
    from popcorn_ml.model.weights import fingerprint

    return replace(spec, tags={**spec.tags, EXTRACTOR_TAG: fingerprint(extractor)})


def extractor_of_score(builtup: str | Path) -> str | None:
    """Fingerprint of the extractor that made a built-up score; None where the raster is silent.

    Raises:
        RasterError: it is unreadable.
    """
    from popcorn_ml import raster

    return raster.tags(builtup).get(EXTRACTOR_TAG)


def score_elsewhere(spec: BuiltupSpec, tile: Tile) -> np.ndarray:
    """One tile in a worker process, which keeps the extractor between its tiles."""
    from popcorn_ml.raster import bounded_cache

    target = pick_device(spec.device)
    with one_thread_a_tile(), bounded_cache():
        stamp = os.stat(spec.extractor).st_mtime_ns
        model = _loaded(str(spec.extractor), stamp, spec.device)
        return _scores(model, in_season_order(spec.composites), spec.grid, tile, target)


@functools.lru_cache(maxsize=1)
def _loaded(path: str, _stamp: int, device: str) -> BuiltupExtractor:
    from popcorn_ml.model.weights import load_extractor

    return load_extractor(path).to(pick_device(device))


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
        threads: tiles at once; 0 takes all cores. The result does not depend on it. With a GPU at
            most `engine.TILES_ON_A_GPU`.
        device: see `compute.devices.pick_device`.
        pool: executor in this process to use instead of threads of our own.
        tags: what the raster says about itself.
        progress: called with (tiles done, tiles).

    Raises:
        ConfigError: no season, or one that there is not.
        GridMismatch: a composite lies elsewhere.
        RasterError: a composite is missing, unreadable or truncated.
    """
    seasons = in_season_order(composites)
    _check(seasons, grid)
    target = pick_device(device)
    model = extractor.to(target)
    told = {name: str(value) for name, value in (tags or {}).items()}
    spec = BuiltupSpec(seasons, Path(), grid, out, tile_px, device, threads, told)
    spec = _with_extractor(spec, extractor)
    _write(spec, lambda tile: _scores(model, seasons, grid, tile, target), progress, pool, target)


def _check(seasons: Mapping[Season, Composites], grid: Grid) -> None:
    """Refuse composites that cannot be read or lie elsewhere, before any work."""
    from popcorn_ml import raster

    for pair in seasons.values():
        for path in pair:
            if path is not None:
                raster.check(path, grid)


def _write(
    spec: BuiltupSpec,
    work: Callable[[Tile], np.ndarray],
    progress: Callable[[int, int], None] | None,
    pool: Pool | None,
    device: torch.device | None = None,
) -> None:
    """Every tile's scores into the raster, in the tiles' order."""
    from popcorn_ml import raster

    tiles = list(spec.grid.tiles(spec.tile_px))
    told = {"content": "built-up score", **spec.tags}
    bands = list(in_season_order(spec.composites))
    with (
        raster.CogWriter(spec.out, spec.grid, bands, "float32", np.nan, tags=told) as sink,
        closing(each_tile(work, tiles, spec.threads, pool, device)) as results,
    ):
        for tile, scores in zip(tiles, results, strict=True):
            sink.write(scores, tile.core)
            if progress is not None:
                progress(tile.index + 1, len(tiles))


def _scores(
    extractor: BuiltupExtractor,
    seasons: Mapping[Season, Composites],
    grid: Grid,
    tile: Tile,
    device: torch.device,
) -> np.ndarray:
    """Scores of every season over a tile, (seasons, rows, columns)."""
    return np.stack([_score(extractor, pair, grid, tile.core, device) for pair in seasons.values()])


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
    laid = tile.lay(channels)
    with arithmetic(device, "float32"):
        found = to_numpy(extractor.score_unpadded(to_device(laid, device), sensors)[0])
    score[wanted] = tile.crop(found)[wanted]
    return score
