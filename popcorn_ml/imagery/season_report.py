"""What a season's composite was made of, what was lost on the way and what it cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from popcorn_ml.errors import ImageryError, ProviderDown
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
        scenes_found: scenes in the catalogue after removing duplicates, before any choice.
        duplicates: ids of older processings that were left out.
        left_out: scenes of another kind than the product, and which.
        not_chosen: scenes passed over by `max_scenes` or `max_cloud_cover`, and why.
        choice: what was offered, what was kept and what that leaves, as `offered.Offered` tells it;
            `other_orbit` the same of that. None where nothing limits the scenes.
        lost: scenes and assets that could not be read, and why; `lost_share` of the assets.
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
    left_out: list[dict[str, str]] = field(default_factory=list)
    not_chosen: list[dict[str, str]] = field(default_factory=list)
    choice: dict[str, Any] | None = None
    lost: list[dict[str, Any]] = field(default_factory=list)
    lost_share: float = 0.0
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


@dataclass
class Losses:
    """What tiles lost of the scene assets they asked for.

    Attributes:
        lost: what, each once, whatever the number of tiles that miss it.
        failures, down: how often in all, and of these how often because of the provider.
    """

    request: str
    settings: ImagerySettings
    lost: set[Lost] = field(default_factory=set)
    failures: int = 0
    down: int = 0
    cost: Traffic = field(default_factory=Traffic)

    def add(self, record: Mapping[str, Any] | None) -> None:
        """Count what a finished tile's record says."""
        for note in (record or {}).values():
            self.cost.add(Traffic(**note["traffic"]))
            lost = [Lost(**one) for one in note["lost"]]
            self.lost |= set(lost)
            self.failures += len(lost)
            self.down += sum(one.down for one in lost)

    @property
    def share(self) -> float:
        """Of the assets asked for so far."""
        return self.failures / max(self.cost.assets, self.failures, 1)

    def judge(self, done: float) -> None:
        """Refuse a season that has lost too much, as soon as that is certain.

        Args:
            done: share of the tiles that were counted. The others are taken to have as many
                assets, and to lose none.

        Raises:
            ProviderDown: more assets lost than `max_lost_share`, most of them because the
                provider did not answer.
            ImageryError: more lost, for other reasons.
        """
        limit = self.settings.max_lost_share
        if self.share * done <= limit:
            return
        first = min(self.lost, key=lambda one: (one.scene, one.asset, one.reason))
        so_far = "" if done == 1 else f" of the first {done:.0%} of the tiles"
        kind = ProviderDown if 2 * self.down > self.failures else ImageryError
        raise kind(
            f"{self.failures} of {max(self.cost.assets, self.failures)} scene assets{so_far} "
            "could not be read",
            where=self.request,
            expected=f"at most {limit:.0%} of all (imagery.max_lost_share)",
            found=f"{self.share:.1%}; first: {first.scene} {first.asset}: {first.reason}",
            remedy="run again: finished tiles are kept, those with losses are tried anew",
        )


def lost_in(record: Mapping[str, Any] | None) -> int:
    """How many assets a finished tile lost."""
    return sum(len(note["lost"]) for note in (record or {}).values())


def tell_losses(report: SeasonReport, losses: Losses, lists: Iterable[SceneList]) -> None:
    """Write down what was lost and left out, and what the tiles cost."""
    lists = list(lists)
    lost = losses.lost | {one for scenes in lists for one in scenes.lost}
    left = {one for scenes in lists for one in scenes.left_out}
    report.traffic = asdict(losses.cost)
    report.lost = [asdict(one) for one in sorted(lost, key=lambda o: (o.scene, o.asset, o.reason))]
    report.lost_share = round(losses.share, 6)
    report.left_out = [asdict(one) for one in sorted(left, key=lambda one: one.scene)]


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


def tell_choice(report: SeasonReport, main: SceneList, other: SceneList | None) -> None:
    """Write down which scenes were passed over, and why."""
    lists = [main, *([other] if other else ())]
    passed = {one for found in lists for one in found.not_chosen}
    report.not_chosen = [asdict(one) for one in sorted(passed, key=lambda one: one.scene)]
    if main.choice is not None or (other and other.choice is not None):
        report.choice = dict(main.choice or {})
        if other:
            report.choice["other_orbit"] = other.choice and dict(other.choice)


def _summaries(scenes: Sequence[Scene], used: set[str]) -> list[dict[str, Any]]:
    return [scene.summary() for scene in scenes if scene.id in used]
