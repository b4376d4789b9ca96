"""What fetching a country-year will take, told before it begins.

    estimate(grid, settings, year, boundary=None, secrets=None, ask=False) -> Estimate

Without `ask` the number of scenes is assumed from revisit times, so nothing is sent anywhere; with
it the catalogue is asked for the scenes of every season. Bytes and time are orders of magnitude:
the assumptions are in `ASSUMED`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popcorn_ml.grid import Grid
from popcorn_ml.imagery.build import tiles_inside
from popcorn_ml.imagery.choice import open_source
from popcorn_ml.imagery.source import SeasonRequest
from popcorn_ml.sentinel import SEASONS, SENSORS, Orbit, season_period

if TYPE_CHECKING:
    from popcorn_ml.imagery.boundary import Boundary
    from popcorn_ml.imagery.secrets import Secrets
    from popcorn_ml.imagery.settings import ImagerySettings

GRANULE_M = 109_800
"""Side of a Sentinel-2 granule."""


@dataclass(frozen=True)
class Assumptions:
    """Behind the estimate; each can be checked against a season's report afterwards.

    Attributes:
        s2_revisit_days, s1_revisit_days: between overpasses of one track (two satellites; one).
        tracks: overpasses of neighbouring tracks and granules, for each that is strictly needed.
        clear_tile_share: Sentinel-2 scenes with a clear pixel in a tile; of others only the scene
            classes are read.
        requests_an_asset: header, then the rows of blocks that a tile touches.
        overread: bytes of whole blocks against bytes of the tile.
        compressed: stored bytes against bytes in memory.
        megabytes_a_second: sustained from a catalogue's storage.
        earthengine_tile_s: for the service to compute one tile of a season.
    """

    s2_revisit_days: float = 5
    s1_revisit_days: float = 12
    tracks: float = 1.5
    clear_tile_share: float = 0.7
    requests_an_asset: float = 4
    overread: float = 1.6
    compressed: float = 0.7
    megabytes_a_second: float = 15
    earthengine_tile_s: float = 30


ASSUMED = Assumptions()


@dataclass
class Estimate:
    """What is to be expected of eight seasons of a year.

    Attributes:
        source: which.
        tiles_total, tiles: of the grid, and of those the boundary touches.
        tile_px: their side.
        scenes: for "s1 spring" and so on, scenes over the whole country.
        scenes_counted: asked for rather than assumed.
        requests, bytes: over all seasons.
        seconds: rough wall time.
        scratch_bytes: on disk while it goes on.
        output_bytes: of the composites, at most.
    """

    source: str
    tiles_total: int
    tiles: int
    tile_px: int
    scenes: dict[str, int] = field(default_factory=dict)
    scenes_counted: bool = False
    requests: int = 0
    bytes: int = 0
    seconds: float = 0.0
    scratch_bytes: int = 0
    output_bytes: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For a terminal."""
        counted = "counted" if self.scenes_counted else "assumed from revisit times"
        return [
            f"source    {self.source}",
            f"tiles     {self.tiles} of {self.tiles_total} "
            f"({self.tile_px} px; the others lie outside the boundary), 8 seasons",
            f"scenes    {sum(self.scenes.values())} ({counted})",
            f"requests  about {self.requests:,}",
            f"download  about {_human(self.bytes)}",
            f"time      about {_duration(self.seconds)}",
            f"disk      {_human(self.scratch_bytes)} scratch a season, "
            f"up to {_human(self.output_bytes)} composites",
        ]


def estimate(
    grid: Grid,
    settings: ImagerySettings,
    year: int,
    boundary: Path | Boundary | None = None,
    secrets: Secrets | None = None,
    ask: bool = False,
) -> Estimate:
    """Estimate the fetch of a country-year.

    Args:
        grid: the country's.
        settings: which source, which tiles.
        year: whose seasons.
        boundary: tiles outside it are not counted.
        secrets: needed by `ask` where the source needs them.
        ask: count scenes in the catalogue.

    Raises:
        ConfigError, ImageryError: as `build_season`.
    """
    from popcorn_ml.imagery.secrets import Secrets, guarded

    given = secrets or Secrets()
    with guarded(given):
        return _estimate(grid, settings, year, boundary, given, ask)


def _estimate(
    grid: Grid,
    settings: ImagerySettings,
    year: int,
    boundary: Path | Boundary | None,
    secrets: Secrets,
    ask: bool,
) -> Estimate:
    tiles = list(grid.tiles(settings.tile_px))
    wanted = tiles_inside(grid, tiles, boundary)
    pixels = sum(tile.core.height * tile.core.width for tile in wanted)
    result = Estimate(settings.source, len(tiles), len(wanted), settings.tile_px)
    area = _area_m2(grid)
    orbits: tuple[Orbit | None, ...] = (settings.s1_orbit,)
    source = open_source(settings, secrets) if ask else None
    try:
        for sensor in SENSORS:
            for season in SEASONS:
                period = season_period(year, season)
                days = (period.end - period.start).days
                revisit = ASSUMED.s2_revisit_days if sensor == "s2" else ASSUMED.s1_revisit_days
                over_a_pixel = days / revisit * ASSUMED.tracks
                if source is not None:
                    found = 0
                    for orbit in orbits if sensor == "s1" else (None,):
                        request = SeasonRequest(sensor, year, season, grid, orbit)
                        found += len(source.scenes(request).scenes)
                else:
                    side = GRANULE_M if sensor == "s2" else 2 * GRANULE_M
                    found = math.ceil(over_a_pixel * max(area / side**2, 1))
                result.scenes[f"{sensor} {season}"] = found
                _add_cost(result, sensor, len(wanted), pixels, over_a_pixel, settings)
    finally:
        if source is not None:
            source.close()
    result.scenes_counted = ask
    result.scratch_bytes = pixels * 10
    result.output_bytes = grid.width * grid.height * (4 * 2 + 2 * 2 + 2 * 2) * len(SEASONS)
    if settings.source == "earthengine":
        parallel = getattr(settings.chosen, "parallel", 1)
        result.seconds = result.tiles * 8 * ASSUMED.earthengine_tile_s / parallel
    else:
        result.seconds = result.bytes / (ASSUMED.megabytes_a_second * 1e6)
    return result


def _add_cost(
    result: Estimate,
    sensor: str,
    tiles: int,
    pixels: int,
    scenes: float,
    settings: ImagerySettings,
) -> None:
    if settings.source == "earthengine":
        result.requests += tiles
        result.bytes += pixels * (10 if sensor == "s2" else 6)
        return
    if settings.source != "stac" or getattr(settings.chosen, "profile", "") == "local":
        return
    read = ASSUMED.overread * ASSUMED.compressed
    if sensor == "s2":
        bands = 4 * ASSUMED.clear_tile_share
        result.bytes += round(pixels * scenes * (2 * bands + 0.25) * read)
        result.requests += round(tiles * scenes * (bands + 1) * ASSUMED.requests_an_asset)
    else:
        result.bytes += round(pixels * scenes * 2 * 4 * read)
        result.requests += round(tiles * scenes * 2 * ASSUMED.requests_an_asset)


def _area_m2(grid: Grid) -> float:
    return float(grid.row_area_m2().sum()) * grid.width


def _human(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
