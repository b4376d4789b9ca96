"""What a season's composite was made of, what was lost on the way and what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from popcorn_ml.errors import ImageryError
from popcorn_ml.grid import Tile
from popcorn_ml.imagery.scratch import Scratch
from popcorn_ml.imagery.source import Lost, Scene, SceneList, Traffic
from popcorn_ml.sentinel import Orbit, Season, Sensor

if TYPE_CHECKING:
    from popcorn_ml.imagery.settings import ImagerySettings


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


def tell_losses(
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


def tell_scenes(
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
