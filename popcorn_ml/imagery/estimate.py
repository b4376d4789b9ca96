"""What fetching a country-year will take, told before it begins.

    estimate(grid, settings, year, boundary=None, secrets=None, ask=False) -> Estimate

Without `ask` the number of scenes is assumed from revisit times, so nothing is sent anywhere; with
it the catalogue is asked for the scenes of every season, where they lie and how cloudy they are.
Bytes and time are orders of magnitude: the assumptions are in `ASSUMED`.

What other values of `max_scenes` would take is told beside it, and what share of pixels would
likely stay empty: were clouds independent from one observation to the next, a pixel stays empty
with the product of their cloud covers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popcorn_ml.grid import Grid, Tile
from popcorn_ml.imagery.build import tiles_inside
from popcorn_ml.imagery.choice import open_source
from popcorn_ml.imagery.source import SeasonRequest, Source
from popcorn_ml.sentinel import SEASONS, SENSORS, Sensor

if TYPE_CHECKING:
    from popcorn_ml.imagery.boundary import Boundary
    from popcorn_ml.imagery.offered import Depth
    from popcorn_ml.imagery.secrets import Secrets
    from popcorn_ml.imagery.settings import ImagerySettings

GRANULE_M = 109_800
"""Side of a Sentinel-2 granule."""

CHOICES = (None, 24, 12, 6, 3)
"""Values of `max_scenes` that an estimate compares."""


@dataclass(frozen=True)
class Assumptions:
    """Behind the estimate; each can be checked against a season's report afterwards.

    Attributes:
        s2_revisit_days, s1_revisit_days: between overpasses of one track (two satellites; one).
        tracks: overpasses of neighbouring tracks and granules, for each that is strictly needed.
        clear_tile_share: Sentinel-2 scenes with a clear pixel in a tile, were their cloud covers
            spread evenly from 0 to 100 %, as they are taken to be where no catalogue is asked; of
            others only the scene classes are read.
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


@dataclass(frozen=True)
class Cost:
    """What one choice of scenes takes, over all eight seasons.

    Attributes:
        max_scenes: observations of each place; None = all.
        scenes: for "s1 spring" and so on, scenes over the whole country.
        requests, bytes: of the fetch.
        empty_share: of each season, the share of pixels that likely no Sentinel-2 observation shows
            clear, before gaps are filled.
    """

    max_scenes: int | None
    scenes: dict[str, int]
    requests: int
    bytes: int
    empty_share: dict[str, float]

    @property
    def worst(self) -> tuple[str, float]:
        """The season that likely has most empty pixels, and their share."""
        return max(self.empty_share.items(), key=lambda one: one[1])


@dataclass
class Estimate:
    """What is to be expected of eight seasons of a year.

    Attributes:
        source: which.
        tiles_total, tiles: of the grid, and of those the boundary touches.
        tile_px: their side.
        max_scenes, max_cloud_cover: the country's limits; None = none.
        scenes: for "s1 spring" and so on, scenes over the whole country that would be used.
        scenes_counted: asked for rather than assumed.
        requests, bytes: over all seasons.
        empty_share: as `Cost` has it, of each season.
        choices: what other values of `max_scenes` would take, the country's own among them; none
            for a source without scenes.
        notes: what else there is to say of the choice.
        seconds: rough wall time.
        scratch_bytes: on disk while it goes on.
        output_bytes: of the composites, at most.
    """

    source: str
    tiles_total: int
    tiles: int
    tile_px: int
    max_scenes: int | None = None
    max_cloud_cover: float | None = None
    scenes: dict[str, int] = field(default_factory=dict)
    scenes_counted: bool = False
    requests: int = 0
    bytes: int = 0
    empty_share: dict[str, float] = field(default_factory=dict)
    choices: list[Cost] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
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
            f"scenes    {sum(self.scenes.values()):,} ({counted})",
            f"requests  about {self.requests:,}",
            f"download  about {_human(self.bytes)}",
            f"time      about {_duration(self.seconds)}",
            f"disk      {_human(self.scratch_bytes)} scratch a season, "
            f"up to {_human(self.output_bytes)} composites",
            *self._compared(),
            *self.notes,
        ]

    def _compared(self) -> list[str]:
        if not self.choices:
            return []
        clouds = (
            "any cloud cover"
            if self.max_cloud_cover is None
            else f"cloud cover up to {self.max_cloud_cover:g} %"
        )
        how = "said by the catalogue" if self.scenes_counted else "taken to be 0 to 100 %, evenly"
        lines = [
            "",
            f"What other imagery.max_scenes would take ({clouds}; > is what is said above):",
            "  max_scenes    scenes      requests  download  likely empty before gaps are filled",
        ]
        for cost in self.choices:
            own = ">" if cost.max_scenes == self.max_scenes else " "
            name = "no limit" if cost.max_scenes is None else str(cost.max_scenes)
            season, share = cost.worst
            lines.append(
                f"{own} {name:<10}  {sum(cost.scenes.values()):>8,}  {cost.requests:>12,}  "
                f"{_human(cost.bytes):>8}  {_percent(share)} of Sentinel-2's {season}"
            )
        return [
            *lines,
            f"Likely empty: the product of cloud covers ({how}), as if clouds were independent.",
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
    own = settings.scene_limit
    compared = [own] if settings.scenes_finished else sorted({*CHOICES, own}, key=_fewest_last)
    source = open_source(settings, secrets) if ask else None
    costs = {most: Cost(most, {}, 0, 0, {}) for most in compared}
    try:
        for sensor, season in product(SENSORS, SEASONS):
            orbit = settings.s1_orbit if sensor == "s1" else None
            request = SeasonRequest(sensor, year, season, grid, orbit)
            if source is None:
                depths = [_assumed(request, settings, most) for most in compared]
            else:
                depths = _counted(source, request, settings, wanted, compared)
            for most, depth in zip(compared, depths, strict=True):
                spent = _spent(sensor, depth, len(wanted), pixels, settings)
                costs[most] = _with(costs[most], request, depth, *spent)
    finally:
        if source is not None:
            source.close()
    mine = costs[own]
    result = Estimate(
        settings.source,
        len(tiles),
        len(wanted),
        settings.tile_px,
        max_scenes=own,
        max_cloud_cover=settings.cloud_limit("s2"),
        scenes=mine.scenes,
        scenes_counted=ask,
        requests=mine.requests,
        bytes=mine.bytes,
        empty_share=mine.empty_share,
        choices=[] if settings.scenes_finished else list(costs.values()),
        notes=_notes(settings),
        scratch_bytes=pixels * 10,
        output_bytes=grid.width * grid.height * (4 * 2 + 2 * 2 + 2 * 2) * len(SEASONS),
    )
    if settings.source == "earthengine":
        parallel = getattr(settings.chosen, "parallel", 1)
        result.seconds = result.tiles * 8 * ASSUMED.earthengine_tile_s / parallel
    else:
        result.seconds = result.bytes / (ASSUMED.megabytes_a_second * 1e6)
    return result


def _notes(settings: ImagerySettings) -> list[str]:
    limited = settings.max_scenes is not None or settings.max_cloud_cover is not None
    if settings.scenes_finished and limited:
        return [
            f"imagery.max_scenes and max_cloud_cover have no effect: the source {settings.source} "
            "holds finished composites"
        ]
    if settings.source == "earthengine":
        return ["Earth Engine sends the same bytes whatever the number of scenes behind them."]
    return []


def _fewest_last(most: int | None) -> float:
    return -math.inf if most is None else -most


def _with(cost: Cost, request: SeasonRequest, depth: Depth, requests: int, taken: int) -> Cost:
    """A cost and what a season adds to it."""
    empty: dict[str, float] = {}
    if depth.empty is not None:
        empty[request.season] = round(depth.empty, 6)
    return replace(
        cost,
        scenes={**cost.scenes, f"{request.sensor} {request.season}": depth.scenes},
        requests=cost.requests + requests,
        bytes=cost.bytes + taken,
        empty_share={**cost.empty_share, **empty},
    )


def _counted(
    source: Source,
    request: SeasonRequest,
    settings: ImagerySettings,
    tiles: Sequence[Tile],
    compared: Sequence[int | None],
) -> list[Depth]:
    """What the catalogue has of a season, under each of the choices compared."""
    from popcorn_ml.imagery.offered import Depth, Offered

    sensor = request.sensor
    found = source.scenes(request)
    if not found.scenes or settings.scenes_finished:
        empty = 1.0 if sensor == "s2" and not found.scenes else None
        return [Depth(len(found.scenes), 0.0, empty=empty) for _ in compared]
    offered = Offered(found, request, tiles)
    return [offered.depth(most, settings.cloud_limit(sensor)) for most in compared]


def _assumed(request: SeasonRequest, settings: ImagerySettings, most: int | None) -> Depth:
    """What revisit times promise of a season, cloud covers spread evenly from 0 to 100 %."""
    from popcorn_ml.imagery.offered import Depth

    sensor, period = request.sensor, request.period
    days = (period.end - period.start).days
    seen = days / (ASSUMED.s2_revisit_days if sensor == "s2" else ASSUMED.s1_revisit_days)
    limit = settings.cloud_limit(sensor)
    share = min(1.0 if most is None else most / seen, 1.0 if limit is None else limit / 100, 1.0)
    side = GRANULE_M if sensor == "s2" else 2 * GRANULE_M
    read = seen * share * ASSUMED.tracks
    scenes = math.ceil(read * max(_area_m2(request.grid) / side**2, 1))
    if sensor == "s1":
        return Depth(scenes, read)
    kept = round(seen * share)
    covers = [share * (n + 0.5) / kept for n in range(kept)]
    each = read / max(kept, 1)
    return Depth(scenes, read, tuple((each, cover) for cover in covers), math.prod(covers))


def _spent(
    sensor: Sensor, depth: Depth, tiles: int, pixels: int, settings: ImagerySettings
) -> tuple[int, int]:
    """Requests and bytes of a season."""
    if settings.source == "earthengine":
        return tiles, pixels * (10 if sensor == "s2" else 6)
    if settings.source != "stac" or getattr(settings.chosen, "profile", "") == "local":
        return 0, 0
    read = ASSUMED.overread * ASSUMED.compressed
    if sensor == "s1":
        return (
            round(tiles * depth.read * 2 * ASSUMED.requests_an_asset),
            round(pixels * depth.read * 2 * 4 * read),
        )
    # A tile under clouds of a share c has a clear pixel with probability 1 - c**k, which is
    # `clear_tile_share` on average where all shares are as frequent.
    k = ASSUMED.clear_tile_share / (1 - ASSUMED.clear_tile_share)
    clear = math.fsum(over * (1 - cover**k) for over, cover in depth.covers)
    return (
        round(tiles * (4 * clear + depth.read) * ASSUMED.requests_an_asset),
        round(pixels * (4 * 2 * clear + 0.25 * depth.read) * read),
    )


def _area_m2(grid: Grid) -> float:
    return float(grid.row_area_m2().sum()) * grid.width


def _human(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _percent(share: float) -> str:
    return "less than 0.01 %" if share < 1e-4 else f"{100 * share:.2g} %"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
