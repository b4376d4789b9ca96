"""Filling what a season's composite lacks, by stated rules, each share counted.

    fill_gaps(sensor, season_dirs, grid, settings, out_dir, progress=None) -> FillReport

The rules, in this order, for each band by itself (a band is never filled from another):

1. neighbouring seasons: the mean of the season before and the season after, where both were
   observed (a half goes up), else the one that was; the year is taken as a circle;
2. the other orbit direction of the same season, Sentinel-1 only;
3. the nearest pixel that has a value by now, at most `nearest_px` pixels away; of several equally
   near the one furthest north, then west.

Only observations fill by rules 1 and 2, so the order of the seasons does not matter. What is left
stays nodata. Pixels outside the country's boundary (65535 in clear_count.tif) are neither filled
nor counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from popcorn_ml.compute.devices import cpus
from popcorn_ml.errors import RasterError
from popcorn_ml.grid import Grid, Tile, Window
from popcorn_ml.imagery.source import FLOAT_ENCODING, STANDARD_ENCODING, Encoding
from popcorn_ml.parallel import in_threads
from popcorn_ml.raster import CogWriter, bounded_cache, together
from popcorn_ml.raster_cache import in_bands
from popcorn_ml.sentinel import BANDS, SEASONS, Season, Sensor

if TYPE_CHECKING:
    from popcorn_ml.imagery.settings import ImagerySettings

RULES = ("observed", "neighbouring_seasons", "other_orbit", "nearest", "empty")
OUTSIDE = 65535


@dataclass
class FillReport:
    """How every season's pixels came about.

    Attributes:
        shares: season, band, rule ("observed", "neighbouring_seasons", "other_orbit", "nearest",
            "empty") to the share of the pixels inside the boundary; the five add up to 1.
        pixels_inside: pixels that were asked for.
        rules: the settings the filling followed.
        files: names written.
    """

    sensor: Sensor
    shares: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    pixels_inside: int = 0
    rules: dict[str, Any] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a manifest."""
        return asdict(self)

    @property
    def empty_share(self) -> float:
        """The largest share that any band of any season is left without."""
        return max(b["empty"] for season in self.shares.values() for b in season.values())


def fill_gaps(
    sensor: Sensor,
    season_dirs: Mapping[Season, Path],
    grid: Grid,
    settings: ImagerySettings,
    out_dir: Path,
    progress: Callable[[int, int], None] | None = None,
    threads: int = 0,
) -> FillReport:
    """Write `spring.tif` ... `winter.tif`, gap-filled, from the four folders of `build_season`.

    Args:
        sensor: whose.
        season_dirs: folder of each season.
        grid: the country's.
        settings: `gaps` and `tile_px` are used.
        out_dir: where the four files go.
        progress: told (tiles done, tiles in all).
        threads: tiles at once; 0 takes all cores. The result does not depend on it.

    Returns:
        What share of each band came from where.

    Raises:
        RasterError: a season is missing, unreadable, or on another grid.
    """
    _check_seasons(sensor, season_dirs, grid)
    rules = settings.gaps
    encoding = _common_encoding(sensor, season_dirs)
    counts = {s: np.zeros((len(BANDS[sensor]), len(RULES)), np.int64) for s in SEASONS}
    tiles = in_bands(grid.tiles(settings.tile_px, rules.nearest_px))
    inside = 0
    writers = _writers(sensor, grid, encoding, rules.model_dump_json(), out_dir)

    def work(tile: Tile) -> tuple[int, dict[Season, np.ndarray]]:
        """Fill a tile; the pixels that were asked for, and how many of them each rule gave."""
        asked = _asked_for(season_dirs, tile.read)
        observed = {
            season: _read(season_dirs[season] / "composite.tif", tile.read, encoding)
            for season in SEASONS
        }
        core = tile.core.inside(tile.read)
        found = {}
        for season in SEASONS:
            values, rule = _fill(
                season, observed, season_dirs[season], tile.read, asked, encoding, sensor, rules
            )
            writers[season].write(values[(slice(None), *core)], tile.core)
            given = [band[core][asked[core]] for band in rule]
            found[season] = np.array([np.bincount(one, minlength=len(RULES)) for one in given])
        return int(asked[core].sum()), found

    with bounded_cache(), together(*writers.values()):
        results = in_threads(work, tiles, threads or cpus())
        for done, (pixels, found) in enumerate(results, start=1):
            inside += pixels
            for season in SEASONS:
                counts[season] += found[season]
            if progress:
                progress(done, len(tiles))
    return _report(sensor, rules.model_dump(), inside, counts)


def _writers(
    sensor: Sensor, grid: Grid, encoding: Encoding, rules: str, out_dir: Path
) -> dict[Season, CogWriter]:
    """Of each season."""
    return {
        season: CogWriter(
            out_dir / f"{season}.tif",
            grid,
            BANDS[sensor],
            encoding.dtype,
            encoding.nodata,
            scale=encoding.scale,
            tags={"sensor": sensor, "season": season, "gaps": rules},
        )
        for season in SEASONS
    }


def _report(
    sensor: Sensor, rules: dict[str, Any], inside: int, counts: Mapping[Season, np.ndarray]
) -> FillReport:
    """What was counted, as shares of the pixels inside."""
    report = FillReport(sensor, pixels_inside=inside, rules=rules)
    for season in SEASONS:
        report.files.append(f"{season}.tif")
        report.shares[season] = {
            band: {
                name: round(float(n / inside), 6) if inside else 0.0
                for name, n in zip(RULES, counts[season][place], strict=True)
            }
            for place, band in enumerate(BANDS[sensor])
        }
    return report


def _check_seasons(sensor: Sensor, season_dirs: Mapping[Season, Path], grid: Grid) -> None:
    """Refuse seasons that are missing, unreadable, or on another grid.

    Raises:
        RasterError: see there.
    """
    from popcorn_ml.raster import check

    for season in SEASONS:
        if season not in season_dirs:
            raise RasterError(
                f"the {sensor} composite of {season} is missing",
                remedy="materialise the season, then fill the gaps",
            )
        check(season_dirs[season] / "composite.tif", grid, count=len(BANDS[sensor]))
        check(season_dirs[season] / "clear_count.tif", grid, count=1)


def _common_encoding(sensor: Sensor, season_dirs: Mapping[Season, Path]) -> Encoding:
    """The encoding of the seasons; float32 where they differ (one season redone from files)."""
    from popcorn_ml.raster import opened

    kinds = set()
    for season in SEASONS:
        with opened(season_dirs[season] / "composite.tif") as dataset:
            kinds |= set(dataset.dtypes)
    standard = STANDARD_ENCODING[sensor]
    return standard if kinds == {standard.dtype} else FLOAT_ENCODING


def _read(path: Path, window: Window, encoding: Encoding) -> np.ndarray:
    from popcorn_ml.raster import read, read_float

    if encoding.dtype == "float32":
        return read_float(path, window)
    return read(path, window)


def _asked_for(season_dirs: Mapping[Season, Path], window: Window) -> np.ndarray:
    """Pixels inside the boundary in any season, bool (rows, columns)."""
    from popcorn_ml.raster import read

    asked = np.zeros((window.height, window.width), bool)
    for season in SEASONS:
        asked |= read(season_dirs[season] / "clear_count.tif", window, 1) != OUTSIDE
    return asked


def _fill(
    season: Season,
    observed: Mapping[Season, np.ndarray],
    folder: Path,
    window: Window,
    asked: np.ndarray,
    encoding: Encoding,
    sensor: Sensor,
    rules: Any,
) -> tuple[np.ndarray, np.ndarray]:
    """Filled values and, for every pixel and band, the place in `RULES` of what gave it."""
    values = observed[season].copy()
    rule = np.full(values.shape, RULES.index("empty"), np.uint8)
    gap = is_missing(values, encoding)
    rule[~gap] = RULES.index("observed")

    def take(candidates: np.ndarray, name: str) -> None:
        nonlocal gap
        usable = gap & ~is_missing(candidates, encoding) & asked
        np.copyto(values, candidates, where=usable)
        rule[usable] = RULES.index(name)
        gap &= ~usable

    if rules.neighbouring_seasons and gap.any():
        place = SEASONS.index(season)
        before, after = observed[SEASONS[place - 1]], observed[SEASONS[(place + 1) % 4]]
        take(mean_of_present(before, after, encoding), "neighbouring_seasons")
    aside = folder / "other_orbit.tif"
    if sensor == "s1" and rules.other_orbit and gap.any() and aside.exists():
        take(_read(aside, window, encoding), "other_orbit")
    if rules.nearest_px and gap.any():
        for band in range(len(values)):
            wanted = gap[band] & asked
            if wanted.any():
                filled = nearest_within(values[band], gap[band], wanted, rules.nearest_px)
                rule[band][filled] = RULES.index("nearest")
    return values, rule


def is_missing(values: np.ndarray, encoding: Encoding) -> np.ndarray:
    """Where stored values are nodata."""
    return np.isnan(values) if values.dtype.kind == "f" else values == encoding.nodata


def mean_of_present(one: np.ndarray, other: np.ndarray, encoding: Encoding) -> np.ndarray:
    """Mean of two composites where both have a value (integers: a half goes up), else the one."""
    no_one, no_other = is_missing(one, encoding), is_missing(other, encoding)
    if one.dtype.kind == "f":
        mean = (one + other) / np.float32(2)
    else:
        mean = ((one.astype(np.int32) + other + 1) >> 1).astype(one.dtype)
    return np.where(no_one, other, np.where(no_other, one, mean))


def nearest_within(
    values: np.ndarray, gap: np.ndarray, wanted: np.ndarray, limit_px: int
) -> np.ndarray:
    """Fill, in place, from the nearest pixel that is no gap.

    Args:
        values: one band, (rows, columns).
        gap: pixels without a value.
        wanted: gaps to fill.
        limit_px: no further than this, between pixel centres.

    Returns:
        Pixels that were filled, bool. Which of several equally near pixels gives the value depends
        only on their places relative to the gap, so that blocks with a halo of `limit_px` give
        what the whole raster would.
    """
    from scipy.ndimage import distance_transform_edt

    filled = np.zeros(gap.shape, bool)
    if gap.all():
        return filled
    squared = np.rint(distance_transform_edt(gap) ** 2).astype(np.int64)
    rows, cols = np.nonzero(wanted & (squared <= limit_px * limit_px))
    distance = squared[rows, cols]
    order = np.argsort(distance, kind="stable")
    rows, cols, distance = rows[order], cols[order], distance[order]
    steps = offsets_by_distance(limit_px)
    result = np.empty(rows.size, values.dtype)
    cuts = np.flatnonzero(distance[1:] != distance[:-1]) + 1
    for start, end in pairwise([0, *cuts.tolist(), rows.size]):
        if start == end:
            continue
        r, c = rows[start:end], cols[start:end]
        open_ = np.arange(r.size)
        for dr, dc in steps[int(distance[start])]:
            y, x = r[open_] + dr, c[open_] + dc
            hit = (y >= 0) & (y < gap.shape[0]) & (x >= 0) & (x < gap.shape[1])
            hit[hit] = ~gap[y[hit], x[hit]]
            result[start + open_[hit]] = values[y[hit], x[hit]]
            open_ = open_[~hit]
            if not open_.size:
                break
    values[rows, cols] = result
    filled[rows, cols] = True
    return filled


@lru_cache(maxsize=8)
def offsets_by_distance(limit_px: int) -> dict[int, tuple[tuple[int, int], ...]]:
    """Row and column steps of each squared distance up to the limit, north first, then west."""
    found: dict[int, list[tuple[int, int]]] = {}
    for dr in range(-limit_px, limit_px + 1):
        reach = math.isqrt(limit_px * limit_px - dr * dr)
        for dc in range(-reach, reach + 1):
            found.setdefault(dr * dr + dc * dc, []).append((dr, dc))
    return {distance: tuple(steps) for distance, steps in found.items()}
