"""Season composites of a country: tile by tile, resumable, the same bytes every time.

    build_season(sensor, season, year, grid, settings, out_dir, scratch_dir, *,
                 boundary=None, workers=2, progress=None, secrets=None) -> SeasonReport
    fill_gaps(sensor, season_dirs, grid, settings, out_dir, progress=None) -> FillReport   (gaps.py)

`build_season` writes into `out_dir`:

    composite.tif    bands of `sentinel.BANDS[sensor]`, in the source's encoding
    clear_count.tif  clear observations a pixel, uint16; 65535 = not asked for (outside
                     the boundary)
    other_orbit.tif  Sentinel-1, only where the preferred orbit leaves gaps: the other direction's
                     values on the pixels the preferred one lacks, nodata elsewhere

Memory is bounded by the tile and the scenes of a season over it, never by the country.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popcorn_ml.errors import ConfigError
from popcorn_ml.grid import Grid, Tile
from popcorn_ml.imagery.assembling import assemble
from popcorn_ml.imagery.choice import open_source
from popcorn_ml.imagery.fetching import ELSEWHERE, TileJob, in_pool, in_threads_here
from popcorn_ml.imagery.gaps import FillReport, fill_gaps
from popcorn_ml.imagery.scene_lists import scene_lists
from popcorn_ml.imagery.scratch import Scratch
from popcorn_ml.imagery.season_report import (
    Losses,
    SeasonReport,
    lost_in,
    tell_choice,
    tell_losses,
    tell_scenes,
)
from popcorn_ml.imagery.source import SceneList, SeasonRequest, Source, opposite
from popcorn_ml.parallel import Pool
from popcorn_ml.sentinel import Season, Sensor

if TYPE_CHECKING:
    from popcorn_ml.imagery.boundary import Boundary
    from popcorn_ml.imagery.secrets import Secrets
    from popcorn_ml.imagery.settings import ImagerySettings

__all__ = ["FillReport", "SeasonReport", "build_season", "fill_gaps", "tiles_inside"]


Progress = Callable[[int, int], None]
Records = Callable[[Sequence[Tile]], Generator[dict[str, Any] | None, None, None]]


def build_season(
    sensor: Sensor,
    season: Season,
    year: int,
    grid: Grid,
    settings: ImagerySettings,
    out_dir: Path,
    scratch_dir: Path,
    *,
    boundary: Path | Boundary | None = None,
    workers: int = 2,
    progress: Progress | None = None,
    secrets: Secrets | None = None,
    keep_work: bool = False,
    pool: Pool | None = None,
) -> SeasonReport:
    """Make one season's composite of one sensor.

    Args:
        sensor, season, year: which; winter runs into the following year.
        grid: the country's.
        settings: source, orbit, which observations count.
        out_dir: where the files go.
        scratch_dir: where finished tiles wait; give the same one again to resume.
        boundary: vector file of the country; tiles outside it are not fetched and stay nodata.
        workers: processor cores to use; the result does not depend on it.
        progress: told (tiles done, tiles in all).
        secrets: credentials, for the sources that need them.
        keep_work: leave the finished tiles in `scratch_dir`: the files written may still come to
            grief, and doing the same again tries what was lost, and nothing else.
        pool: executor of other processes or machines that see the same folders, for the sources
            `ELSEWHERE`; `workers` then says how many tiles it is given at once. They fetch,
            composite and write; credentials are not sent to them. The files are the same.

    Returns:
        What was used, what was lost, what it cost.

    Raises:
        ConfigError: the boundary does not meet the grid, or a setting is missing.
        ImageryError: no scene at all, more scenes unusable or more of their assets lost than
            `max_lost_share`, or the source refuses.
        RasterError: a file of the `files` source is unreadable or on another grid.
    """
    from popcorn_ml.imagery.secrets import Secrets, guarded

    given = secrets or Secrets()
    with guarded(given):
        return _build_season(
            sensor, season, year, grid, settings, out_dir, scratch_dir, boundary, workers,
            progress, given, keep_work, pool if settings.source in ELSEWHERE else None,
        )  # fmt: skip


def _build_season(
    sensor: Sensor,
    season: Season,
    year: int,
    grid: Grid,
    settings: ImagerySettings,
    out_dir: Path,
    scratch_dir: Path,
    boundary: Path | Boundary | None,
    workers: int,
    progress: Progress | None,
    secrets: Secrets,
    keep_work: bool,
    pool: Pool | None,
) -> SeasonReport:
    from popcorn_ml.raster import bounded_cache

    began = time.monotonic()
    orbit = settings.s1_orbit if sensor == "s1" else None
    request = SeasonRequest(sensor, year, season, grid, orbit)
    tiles = list(grid.tiles(settings.tile_px))
    wanted = tiles_inside(grid, tiles, boundary)
    source = open_source(settings, secrets, workers)
    try:
        scratch = Scratch(scratch_dir, _identity(request, settings, source, wanted))
        main, other = scene_lists(source, request, settings, scratch, wanted)
        losses = Losses(f"{request}, {settings.source}", settings)
        with bounded_cache():
            if pool is None:
                records: Records = partial(in_threads_here, source, request, main, other, scratch)
            else:
                job = TileJob(request, settings, scratch.folder)
                records = partial(in_pool, job, pool, workers)
            resumed = _fetch(
                source, request, main, other, wanted, scratch, losses, progress, records
            )
            report = SeasonReport(
                sensor=sensor,
                season=season,
                year=year,
                source=settings.source,
                orbit=orbit,
                start=request.period.start.isoformat(),
                end=request.period.end.isoformat(),
                grid=grid.as_dict(),
                scenes_found=main.offered,
                duplicates=list(main.duplicates),
                provenance=source.provenance(request),
            )
            report.tiles = {
                "total": len(tiles),
                "outside": len(tiles) - len(wanted),
                "fetched": len(wanted) - resumed,
                "resumed": resumed,
            }
            tell_choice(report, main, other)
            tell_losses(report, losses, [main, *([other] if other else ())])
            assemble(
                report, source.encoding(request), grid, tiles, wanted, scratch, out_dir, workers,
                pool,
            )  # fmt: skip
            tell_scenes(report, main, other, wanted, scratch)
    finally:
        source.close()
    if not keep_work:
        scratch.discard()
    report.seconds = round(time.monotonic() - began, 3)
    return report


def tiles_inside(grid: Grid, tiles: Sequence[Tile], boundary: Path | Boundary | None) -> list[Tile]:
    """The tiles that a country's boundary touches; all of them without a boundary.

    Raises:
        ConfigError: the boundary cannot be read, has no CRS, or lies outside the grid.
    """
    if boundary is None:
        return list(tiles)
    from shapely import box, prepare

    from popcorn_ml.imagery.boundary import outline

    west, _, east, _ = grid.bounds
    shape = outline(boundary, grid.crs, (west + east) / 2)
    prepare(shape)
    kept = [tile for tile in tiles if shape.intersects(box(*grid.window_bounds(tile.core)))]
    if not kept:
        raise ConfigError(
            "the boundary lies outside the country's grid",
            where=boundary if isinstance(boundary, Path) else boundary.path,
            expected=f"something within {grid.bounds} ({grid.crs})",
            found=f"{tuple(round(v, 4) for v in shape.bounds)}",
            remedy="correct the grid's box or the boundary's CRS",
        )
    return kept


def _identity(
    request: SeasonRequest, settings: ImagerySettings, source: Source, wanted: Sequence[Tile]
) -> dict[str, Any]:
    """Everything that decides the pixels of a tile, so that a resumed run never mixes two."""
    return {
        "format": 1,
        "sensor": request.sensor,
        "season": request.season,
        "year": request.year,
        "orbit": request.orbit,
        "grid": request.grid.as_dict(),
        "settings": settings.pixel_identity(request.sensor),
        "source": source.fingerprint(),
        "tiles": [tile.index for tile in wanted],
    }


def _fetch(
    source: Source,
    request: SeasonRequest,
    main: SceneList,
    other: SceneList | None,
    wanted: Sequence[Tile],
    scratch: Scratch,
    losses: Losses,
    progress: Progress | None,
    records: Records,
) -> int:
    """Fetch the tiles that are not there yet, and those that lost something; how many were whole.

    The first failure stops the season: tiles in flight are finished and kept, no other is begun.
    So do losses, as soon as they are too many.

    Args:
        records: fetches and keeps tiles, and gives their records in any order.
    """
    held = {tile.index: scratch.read_record(tile.index) for tile in wanted}
    todo = [tile for tile in wanted if held[tile.index] is None or lost_in(held[tile.index])]
    done = resumed = len(wanted) - len(todo)
    for index in set(held) - {tile.index for tile in todo}:
        losses.add(held[index])
    if progress:
        progress(done, len(wanted))

    if todo:
        source.prepare(request, main.scenes, scratch.folder)
        if other:
            turned = request.on_orbit(opposite(request.orbit or "descending"))
            source.prepare(turned, other.scenes, scratch.folder)
    with closing(records(todo)) as found:
        for record in found:
            losses.add(record)
            done += 1
            losses.judge(done / len(wanted))
            if progress:
                progress(done, len(wanted))
    losses.judge(1.0)
    return resumed
