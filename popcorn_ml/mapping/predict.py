"""From members, composites and built-up score to the population map, tile by tile.

Each member predicts every season; seasons are averaged within the member, then the members' mean
is the map and their standard deviation its uncertainty. A student predicts all seasons at once and
is its own only member. Every pixel is predicted, the outermost
included, and a tile gives exactly what the whole raster would (`model.canvas`). Adjusting to the
census and summing to hectares come after, in modules of their own.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from popcorn_ml.compute.devices import cpus
from popcorn_ml.errors import ConfigError
from popcorn_ml.grid import Tile, Window
from popcorn_ml.mapping.engine.api import Bag, Engine, check_precision
from popcorn_ml.mapping.engine.choice import open_engine
from popcorn_ml.mapping.engine.students import StudentEngine, open_student_engine
from popcorn_ml.mapping.members import extractor_tags, trained_pixel_m2
from popcorn_ml.mapping.precision import STEP
from popcorn_ml.mapping.sparing import (
    SPARE_BELOW,
    Occupancies,
    TileScores,
    pilot_cells,
    score_to_spare,
)
from popcorn_ml.mapping.spec import Kind, MappingSpec, check_composites, in_season_order
from popcorn_ml.mapping.student import check_student, student_sensors, used
from popcorn_ml.mapping.tile_people import (
    MEMBERS,
    occupancies_of,
    scores_of_tile,
    season_bands,
    tile_people,
)
from popcorn_ml.mapping.tiles import Computed, Layer, Written, each_tile, regular_core, write_tiles
from popcorn_ml.model.stored import OCCUPANCY_FILE, STUDENT_FILE, read_occupancy, read_student
from popcorn_ml.parallel import Pool

BANDS = {
    "population": "people per pixel",
    "population_std": "standard deviation across members, people per pixel",
    "occupancy": "people per fully built-up pixel",
    "builtup_score": "built-up score, mean of the seasons",
}
"""Rasters that a map consists of, beside `population_members`, and what their values are."""


def map_population(
    spec: MappingSpec,
    progress: Callable[[int, int], None] | None = None,
    *,
    pool: Pool | None = None,
) -> Written:
    """Predict every pixel of a country, but those that `spec.leave_out` spares, and write the map.

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
        What ran the networks, and what tiles counted: see `sparing.COMPUTED` and following.

    Raises:
        ConfigError: a specification that cannot be used.
        WeightsError: weights missing, altered or of another architecture.
        GridMismatch: a raster lies elsewhere.
        RasterError: a raster is missing, unreadable or truncated; nothing is written then.
    """
    _check(spec)
    spec = replace(
        spec,
        sensors=student_sensors(spec.members[0]) if spec.kind == "student" else spec.sensors,
        trained_pixel_m2=spec.trained_pixel_m2 or trained_pixel_m2(spec.members),
        tags={**spec.tags, **extractor_tags(spec.members, spec.builtup)},
    )
    on_gpu = False
    if pool is None:
        engine = _opened(*_how(spec, spec.threads))
        on_gpu = engine.on_gpu
        loaded = engine, _load(engine, spec.members, spec.kind)
        learn = functools.partial(_learn, spec, *loaded)
    else:  # a device that the workers have, and perhaps not this machine
        learn = functools.partial(learn_elsewhere, spec)
    if spec.leave_out > 0:
        at_work = functools.partial(each_tile, threads=spec.threads, pool=pool, on_gpu=on_gpu)
        spec = replace(spec, spare_below=_score_to_spare(spec, learn, at_work))
    if pool is None:
        work = functools.partial(_predict, spec, *loaded)
    else:
        work = functools.partial(predict_elsewhere, spec)
    written = write_tiles(
        work,
        _layers(spec),
        spec.grid,
        spec.tile_px,
        threads=spec.threads,
        pool=pool,
        on_gpu=on_gpu,
        progress=progress,
    )
    return replace(written, largest={**written.largest, SPARE_BELOW: spec.spare_below})


def _score_to_spare(
    spec: MappingSpec, learn: Callable[[Window], Occupancies], at_work: Callable[..., Any]
) -> float:
    """The score below which pixels are left out; see `sparing`."""
    look = functools.partial(look_elsewhere, spec)
    tiles = list(at_work(look, list(spec.grid.tiles(spec.tile_px))))
    learnt = list(at_work(learn, pilot_cells(tiles)))
    return score_to_spare(tiles, learnt, spec.leave_out)


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
            step=STEP if name == MEMBERS else None,
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
    if spec.kind not in get_args(Kind):
        wrong = ("kind", " or ".join(get_args(Kind)), str(spec.kind))
    elif not resolved:
        wrong = ("members", "one or more weights", "none")
    elif len(set(resolved)) < len(resolved):
        wrong = ("members", "each member once", "one given twice")
    elif spec.tile_px < 1:
        wrong = ("tile_px", "a positive number of pixels", str(spec.tile_px))
    elif not 0 <= spec.leave_out < 1:
        wrong = ("leave_out", "a share of the people, 0 or more and below 1", str(spec.leave_out))
    for name in ("pixel_area_ratio", "trained_pixel_m2"):
        value = getattr(spec, name)
        if value is not None and not 0 < value < float("inf"):
            wrong = (name, "a positive number", str(value))
    if wrong is not None:
        where, expected, found = wrong
        raise ConfigError("the map cannot be made so", where=where, expected=expected, found=found)
    if spec.kind == "student":
        check_student(spec)
        sensors = student_sensors(spec.members[0])
        seasons = {season: used(pair, sensors) for season, pair in seasons.items()}
    check_composites(seasons, spec.grid)
    raster.check(spec.builtup, spec.grid)
    season_bands(spec.builtup, tuple(seasons))


def _opened(kind: Kind, *how: Any) -> Engine | StudentEngine:
    return open_student_engine(*how) if kind == "student" else open_engine(*how)


def _load(engine: Engine | StudentEngine, members: Sequence[Path], kind: Kind) -> Bag:
    read = read_student if kind == "student" else read_occupancy
    return engine.bag([read(path) for path in members])


def _predict(spec: MappingSpec, engine: Engine | StudentEngine, bag: Bag, tile: Tile) -> Computed:
    """One tile, each of its pixels as the whole raster would give it.

    See `tile_people`.
    """
    with engine.at_work():
        found = tile_people(spec, bag, tile.core)
    return Computed(found.values, engine.ran, found.counts, found.largest)


def predict_elsewhere(spec: MappingSpec, tile: Tile) -> Computed:
    """One tile in a worker process, which keeps the members between its tiles."""
    from popcorn_ml.raster import bounded_cache

    with bounded_cache():
        return _predict(spec, *_loaded_for(spec), tile)


def look_elsewhere(spec: MappingSpec, tile: Tile) -> TileScores:
    """What a tile's score says, before any of it is mapped; here or in a worker process."""
    from popcorn_ml.raster import bounded_cache

    with bounded_cache():
        return scores_of_tile(spec, tile.core)


def learn_elsewhere(spec: MappingSpec, cell: Window) -> Occupancies:
    """What the networks say of a square, in a worker process."""
    from popcorn_ml.raster import bounded_cache

    with bounded_cache():
        return _learn(spec, *_loaded_for(spec), cell)


def _learn(
    spec: MappingSpec, engine: Engine | StudentEngine, bag: Bag, cell: Window
) -> Occupancies:
    with engine.at_work():
        return occupancies_of(spec, bag, cell)


def _stamp(path: Path, kind: Kind) -> int:
    file = path / (STUDENT_FILE if kind == "student" else OCCUPANCY_FILE) if path.is_dir() else path
    return os.stat(file).st_mtime_ns


def _loaded_for(spec: MappingSpec) -> tuple[Engine | StudentEngine, Bag]:
    versions = tuple((str(path), _stamp(Path(path), spec.kind)) for path in spec.members)
    return _loaded(versions, *_how(spec, cpus()))


def _how(spec: MappingSpec, threads: int) -> tuple[Kind, str, str, str, int, int]:
    """What is to run, and what `open_engine` is to be told."""
    regular = regular_core(spec.grid, spec.tile_px, len(spec.composites))
    return spec.kind, spec.engine, spec.device, spec.precision, threads, regular


@functools.lru_cache(maxsize=1)
def _loaded(
    versions: tuple[tuple[str, int], ...], kind: Kind, *how: Any
) -> tuple[Engine | StudentEngine, Bag]:
    engine = _opened(kind, *how)
    return engine, _load(engine, [Path(path) for path, _ in versions], kind)
