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

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popcorn_ml.errors import ConfigError, ImageryError
from popcorn_ml.grid import Grid, Tile
from popcorn_ml.imagery.choice import open_source
from popcorn_ml.imagery.gaps import FillReport, fill_gaps
from popcorn_ml.imagery.scratch import Scratch
from popcorn_ml.imagery.source import (
    Encoding,
    Lost,
    Scene,
    SceneList,
    SeasonRequest,
    Source,
    TileAnswer,
    Traffic,
    scene_from_dict,
)
from popcorn_ml.sentinel import Orbit, Season, Sensor

if TYPE_CHECKING:
    import numpy as np

    from popcorn_ml.imagery.secrets import Secrets
    from popcorn_ml.imagery.settings import ImagerySettings

__all__ = ["FillReport", "SeasonReport", "build_season", "fill_gaps", "tiles_inside"]

NOT_ASKED_FOR = 65535
"""In clear_count.tif: the pixel lies in a tile outside the country's boundary."""

Progress = Callable[[int, int], None]


@dataclass
class SeasonReport:
    """What a season's composite was made of and what it cost. Shares are of the pixels asked for.

    Attributes:
        sensor, season, year, source, orbit: what was made; orbit is None for Sentinel-2.
        start, end: the season, ISO 8601, end exclusive.
        scenes: those with at least one clear pixel in the composite.
        scenes_found: scenes in the catalogue after removing duplicates.
        duplicates: ids of older processings that were left out.
        lost: scenes and assets that could not be read, and why.
        tiles: total, outside the boundary, fetched now, taken from an interrupted run.
        nodata_share: pixels without a value in at least one band, of the preferred orbit alone.
        clear: clear observations a pixel: min, median, mean, max, share with none, with one.
        other_orbit: for Sentinel-1, None where the file was not needed; else its scenes used,
            `share` of pixels that it holds a value of, `nodata_share` that still lack one in at
            least one band when it stands in for the preferred orbit, `bands` as below.
        bands: for each band count, mean, std, min, p02, median, p98, max (dB or x 10000).
        provenance: provider, product, physical quantity.
        traffic: requests, bytes, retries, resigned links, assets read.
        files: names written into the folder.
        seconds: wall time.
    """

    sensor: Sensor
    season: Season
    year: int
    source: str
    orbit: Orbit | None
    start: str
    end: str
    grid: dict[str, Any]
    scenes: list[dict[str, Any]] = field(default_factory=list)
    scenes_found: int = 0
    duplicates: list[str] = field(default_factory=list)
    lost: list[dict[str, str]] = field(default_factory=list)
    tiles: dict[str, int] = field(default_factory=dict)
    nodata_share: float = 0.0
    clear: dict[str, float | int] = field(default_factory=dict)
    other_orbit: dict[str, Any] | None = None
    bands: dict[str, dict[str, float | int | None]] = field(default_factory=dict)
    provenance: dict[str, str] = field(default_factory=dict)
    traffic: dict[str, int] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a manifest."""
        return asdict(self)


def build_season(
    sensor: Sensor,
    season: Season,
    year: int,
    grid: Grid,
    settings: ImagerySettings,
    out_dir: Path,
    scratch_dir: Path,
    *,
    boundary: Path | None = None,
    workers: int = 2,
    progress: Progress | None = None,
    secrets: Secrets | None = None,
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
            progress, given,
        )  # fmt: skip


def _build_season(
    sensor: Sensor,
    season: Season,
    year: int,
    grid: Grid,
    settings: ImagerySettings,
    out_dir: Path,
    scratch_dir: Path,
    boundary: Path | None,
    workers: int,
    progress: Progress | None,
    secrets: Secrets,
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
        main, other = _scene_lists(source, request, settings, scratch)
        with bounded_cache():
            resumed = _fetch(source, request, main, other, wanted, scratch, progress)
            report = SeasonReport(
                sensor=sensor,
                season=season,
                year=year,
                source=settings.source,
                orbit=orbit,
                start=request.period.start.isoformat(),
                end=request.period.end.isoformat(),
                grid=grid.as_dict(),
                scenes_found=len(main.scenes),
                duplicates=list(main.duplicates),
                provenance=source.provenance(request),
            )
            report.tiles = {
                "total": len(tiles),
                "outside": len(tiles) - len(wanted),
                "fetched": len(wanted) - resumed,
                "resumed": resumed,
            }
            _tell_losses(report, main, other, wanted, scratch, settings)
            _assemble(report, source.encoding(request), grid, tiles, wanted, scratch, out_dir)
            _tell_scenes(report, main, other, wanted, scratch)
    finally:
        source.close()
    scratch.discard()
    report.seconds = round(time.monotonic() - began, 3)
    return report


def tiles_inside(grid: Grid, tiles: Sequence[Tile], boundary: Path | None) -> list[Tile]:
    """The tiles that a country's boundary touches; all of them without a boundary.

    Raises:
        ConfigError: the boundary cannot be read, has no CRS, or lies outside the grid.
    """
    if boundary is None:
        return list(tiles)
    from shapely import box, prepare

    from popcorn_ml.imagery.boundary import outline

    shape = outline(boundary, grid.crs)
    prepare(shape)
    kept = [tile for tile in tiles if shape.intersects(box(*grid.window_bounds(tile.core)))]
    if not kept:
        raise ConfigError(
            "the boundary lies outside the country's grid",
            where=boundary,
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
        "settings": settings.pixel_identity(),
        "source": source.fingerprint(),
        "tiles": [tile.index for tile in wanted],
    }


def _scene_lists(
    source: Source, request: SeasonRequest, settings: ImagerySettings, scratch: Scratch
) -> tuple[SceneList, SceneList | None]:
    """Scenes of the preferred and of the other orbit, as they were when the fetch began.

    Raises:
        ImageryError: there are none, or too many of them cannot be used; what the catalogue
            answered is then not kept, for it may answer otherwise tomorrow.
    """
    kept = scratch.read_json("scenes.json")
    if kept is not None:
        main, other = _unplain(kept[0]), kept[1] and _unplain(kept[1])
    else:
        main, other = source.scenes(request), None
        if request.orbit is not None and settings.s1_other_orbit:
            other = source.scenes(request.on_orbit(_opposite(request.orbit)))
    lists = [main, *([other] if other else ())]
    try:
        if not any(one.scenes for one in lists):
            raise _nothing_found(request, settings, lists)
        _refuse_unusable(request, settings, lists)
    except ImageryError:
        scratch.discard()  # also a list kept under a more generous limit, and its tiles
        raise
    if kept is None:
        scratch.keep_json("scenes.json", [_plain(main), other and _plain(other)])
    return main, other


def _refuse_unusable(
    request: SeasonRequest, settings: ImagerySettings, lists: Sequence[SceneList]
) -> None:
    """Refuse a season whose catalogue describes too many scenes in a way that nobody can use.

    Raises:
        ImageryError: more scenes lost than `max_lost_share` of all.
    """
    lost = {one.scene: one.reason for scenes in lists for one in scenes.lost}
    usable = {scene.id for scenes in lists for scene in scenes.scenes} - set(lost)
    share = len(lost) / max(len(lost) + len(usable), 1)
    if share <= settings.max_lost_share:
        return
    reasons = Counter(lost.values()).most_common()
    told = "; ".join(f"{count} x {reason}" for reason, count in reasons[:3])
    more = f"; and {len(reasons) - 3} other reasons" if len(reasons) > 3 else ""
    raise ImageryError(
        f"{len(lost)} of {len(lost) + len(usable)} scenes of {request} cannot be used",
        where=f"imagery source {settings.source}",
        expected=f"at most {settings.max_lost_share:.0%} (imagery.max_lost_share)",
        found=f"{share:.1%}: {told}{more}; first: {min(lost)}",
        remedy="have the catalogue's items completed, choose another source, or raise the limit",
    )


def _plain(scenes: SceneList) -> dict[str, Any]:
    return {
        "scenes": [scene.as_dict() for scene in scenes.scenes],
        "duplicates": list(scenes.duplicates),
        "lost": [asdict(one) for one in scenes.lost],
    }


def _unplain(kept: dict[str, Any]) -> SceneList:
    return SceneList(
        tuple(scene_from_dict(scene) for scene in kept["scenes"]),
        tuple(kept["duplicates"]),
        tuple(Lost(**one) for one in kept["lost"]),
    )


def _opposite(orbit: Orbit) -> Orbit:
    return "ascending" if orbit == "descending" else "descending"


def _nothing_found(
    request: SeasonRequest, settings: ImagerySettings, lists: Sequence[SceneList]
) -> ImageryError:
    lost = sorted({one for found in lists for one in found.lost}, key=lambda one: one.scene)
    unusable = f"; {len(lost)} unusable, first: {lost[0].reason}" if lost else ""
    sought = " or ".join(found.sought for found in lists if found.sought)
    return ImageryError(
        f"there is not a single scene of {request}",
        where=f"imagery source {settings.source}",
        expected=sought
        or f"scenes from {request.period.start:%Y-%m-%d} to before "
        f"{request.period.end:%Y-%m-%d} over {tuple(round(v, 5) for v in request.grid.bounds)}",
        found=f"none{unusable}",
        remedy="check the year, the grid's box and CRS, and that the source holds this period",
    )


def _fetch(
    source: Source,
    request: SeasonRequest,
    main: SceneList,
    other: SceneList | None,
    wanted: Sequence[Tile],
    scratch: Scratch,
    progress: Progress | None,
) -> int:
    """Fetch the tiles that are not there yet; how many were.

    The first failure stops the season: tiles in flight are finished and kept, no other is begun.
    """
    todo = [tile for tile in wanted if scratch.read_record(tile.index) is None]
    done = resumed = len(wanted) - len(todo)
    if progress:
        progress(done, len(wanted))

    failed = threading.Event()

    def fetch(tile: Tile) -> None:
        if failed.is_set():
            return
        try:
            fetch_tile(tile)
        except BaseException:
            failed.set()
            raise

    def fetch_tile(tile: Tile) -> None:
        answer = source.tile(request, tile.core, main.scenes)
        arrays = {"values": answer.values, "clear": answer.clear}
        record: dict[str, Any] = {"main": _note(answer)}
        if other and other.scenes and not answer.clear.all():
            aside = source.tile(
                request.on_orbit(_opposite(request.orbit or "descending")), tile.core, other.scenes
            )
            values = _only_gaps(aside.values, answer.values, source.encoding(request))
            if values is not None:
                arrays["other"] = values
            record["other"] = _note(aside)
        scratch.keep_tile(tile.index, arrays, record)

    if todo:
        source.prepare(request, main.scenes, scratch.folder)
        if other:
            opposite = request.on_orbit(_opposite(request.orbit or "descending"))
            source.prepare(opposite, other.scenes, scratch.folder)
    pool = ThreadPoolExecutor(max(1, source.parallel_tiles), thread_name_prefix="tiles")
    try:
        for future in as_completed([pool.submit(fetch, tile) for tile in todo]):
            future.result()
            done += 1
            if progress:
                progress(done, len(wanted))
    finally:
        pool.shutdown(cancel_futures=True)
    return resumed


def _note(answer: TileAnswer) -> dict[str, Any]:
    return {
        "used": list(answer.used),
        "lost": [asdict(one) for one in answer.lost],
        "traffic": asdict(answer.traffic),
    }


def _only_gaps(values: np.ndarray, main: np.ndarray, encoding: Encoding) -> np.ndarray | None:
    """The other orbit's values where the preferred one has none; None where that is nowhere."""
    import numpy as np

    gap = _missing(main, encoding)
    if not (gap & ~_missing(values, encoding)).any():
        return None
    return np.where(gap, values, np.array(encoding.nodata, values.dtype))


def _missing(values: np.ndarray, encoding: Encoding) -> np.ndarray:
    import numpy as np

    return np.isnan(values) if values.dtype.kind == "f" else values == encoding.nodata


def _tell_losses(
    report: SeasonReport,
    main: SceneList,
    other: SceneList | None,
    wanted: Sequence[Tile],
    scratch: Scratch,
    settings: ImagerySettings,
) -> None:
    """Sum up losses and costs over the tiles; refuse a season that lost too much.

    Raises:
        ImageryError: more assets lost than `max_lost_share`; the tiles that lost some are
            forgotten, so that the next run tries them again.
    """
    lost = {*main.lost, *(other.lost if other else ())}
    failures, cost, wounded = 0, Traffic(), []
    for tile in wanted:
        record = scratch.read_record(tile.index) or {}
        for note in record.values():
            cost.add(Traffic(**note["traffic"]))
            failures += len(note["lost"])
            lost |= {Lost(**one) for one in note["lost"]}
            if note["lost"]:
                wounded.append(tile.index)
    report.traffic = asdict(cost)
    report.lost = [asdict(one) for one in sorted(lost, key=lambda o: (o.scene, o.asset, o.reason))]
    share = failures / max(cost.assets, failures, 1)
    if share > settings.max_lost_share:
        for index in wounded:
            scratch.drop_tile(index)
        first = report.lost[0]
        raise ImageryError(
            f"{failures} of {cost.assets} scene assets could not be read",
            where=f"{report.sensor} {report.season} {report.year}, {settings.source}",
            expected=f"at most {settings.max_lost_share:.0%} (imagery.max_lost_share)",
            found=f"{share:.1%}; first: {first['scene']} {first['asset']}: {first['reason']}",
            remedy="run again: finished tiles are kept, those with losses are tried anew",
        )


def _assemble(
    report: SeasonReport,
    encoding: Encoding,
    grid: Grid,
    tiles: Sequence[Tile],
    wanted: Sequence[Tile],
    scratch: Scratch,
    out_dir: Path,
) -> None:
    """Write the season's files from the finished tiles, in the order of the grid."""
    import numpy as np

    from popcorn_ml.imagery.stats import BandStats, clear_summary
    from popcorn_ml.raster import CogWriter
    from popcorn_ml.sentinel import BANDS

    bands = BANDS[report.sensor]
    stats = {band: BandStats(report.sensor) for band in bands}
    counts = np.zeros(NOT_ASKED_FOR + 1, np.int64)
    aside_stats = {band: BandStats(report.sensor) for band in bands}
    asked = gaps = left = elsewhere = 0
    chosen = {tile.index for tile in wanted}
    others: dict[int, bool] = {}
    tags = {"sensor": report.sensor, "season": report.season, "year": report.year}
    with (
        CogWriter(
            out_dir / "composite.tif",
            grid,
            bands,
            encoding.dtype,
            encoding.nodata,
            scale=encoding.scale,
            tags={**tags, "orbit": report.orbit or "", **report.provenance},
        ) as composite,
        CogWriter(
            out_dir / "clear_count.tif",
            grid,
            ("clear_count",),
            "uint16",
            NOT_ASKED_FOR,
            tags=tags,
            resampling="nearest",
        ) as clear,
    ):
        for tile in tiles:
            shape = (len(bands), tile.core.height, tile.core.width)
            if tile.index not in chosen:
                composite.write(np.full(shape, encoding.nodata, encoding.dtype), tile.core)
                clear.write(np.full(shape[1:], NOT_ASKED_FOR, np.uint16), tile.core)
                continue
            arrays, _ = _tile(scratch, tile)
            composite.write(arrays["values"], tile.core)
            clear.write(arrays["clear"], tile.core)
            other = arrays.get("other")
            others[tile.index] = other is not None
            for place, band in enumerate(bands):
                stats[band].add(arrays["values"][place])
                if other is not None:
                    aside_stats[band].add(other[place])
            counts += np.bincount(arrays["clear"].reshape(-1), minlength=counts.size)
            asked += arrays["clear"].size
            missing = _missing(arrays["values"], encoding)
            gaps += int(missing.any(axis=0).sum())
            if other is not None:
                missing &= _missing(other, encoding)
            left += int(missing.any(axis=0).sum())
    report.files = ["composite.tif", "clear_count.tif"]
    report.nodata_share = round(gaps / asked, 6)
    report.clear = clear_summary(counts)
    report.bands = {band: stats[band].as_dict() for band in bands}
    if not any(others.values()):
        return
    with CogWriter(
        out_dir / "other_orbit.tif",
        grid,
        bands,
        encoding.dtype,
        encoding.nodata,
        scale=encoding.scale,
        tags={**tags, "orbit": _opposite(report.orbit or "descending"), **report.provenance},
    ) as aside:
        for tile in tiles:
            shape = (len(bands), tile.core.height, tile.core.width)
            values = np.full(shape, encoding.nodata, encoding.dtype)
            if others.get(tile.index):
                values = _tile(scratch, tile)[0]["other"]
                elsewhere += int((~_missing(values, encoding)).any(axis=0).sum())
            aside.write(values, tile.core)
    report.files.append("other_orbit.tif")
    report.other_orbit = {
        "share": round(elsewhere / asked, 6),
        "nodata_share": round(left / asked, 6),
        "bands": {band: aside_stats[band].as_dict() for band in bands},
    }


def _tile(scratch: Scratch, tile: Tile) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    held = scratch.read_tile(tile.index)
    if held is None:
        raise ImageryError(
            f"tile {tile.index} was finished and can no longer be read",
            where=scratch.folder,
            remedy="see whether something empties this folder, and run again",
        )
    return held


def _tell_scenes(
    report: SeasonReport,
    main: SceneList,
    other: SceneList | None,
    wanted: Sequence[Tile],
    scratch: Scratch,
) -> None:
    """List the scenes that left a pixel in the composite."""
    used: dict[str, set[str]] = {"main": set(), "other": set()}
    for tile in wanted:
        for part, note in (scratch.read_record(tile.index) or {}).items():
            used[part] |= set(note["used"])
    report.scenes = _summaries(main.scenes, used["main"])
    if report.other_orbit is not None and other is not None:
        report.other_orbit["scenes"] = _summaries(other.scenes, used["other"])


def _summaries(scenes: Sequence[Scene], used: set[str]) -> list[dict[str, Any]]:
    return [scene.summary() for scene in scenes if scene.id in used]
