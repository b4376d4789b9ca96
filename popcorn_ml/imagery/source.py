"""What every source of imagery answers, in values that know nothing of any provider.

A source is one module in `popcorn_ml.imagery.sources`, named as the settings name it, with two
names in it: `Settings`, a pydantic model of what a country's file may say about it (its `HOW_ONLY`
names the fields that do not decide pixels, and `FINISHED` says whether it holds composites
instead of scenes), and `open_source(settings, imagery, secrets, workers)
-> Source`. Adding a source is adding that file.

Nothing here fetches or writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from popcorn_ml.grid import Grid, Window
from popcorn_ml.imagery.secrets import unsigned
from popcorn_ml.sentinel import (
    BANDS,
    S1_NODATA,
    S1_SCALE,
    S2_NODATA,
    Orbit,
    Period,
    Season,
    Sensor,
    season_period,
)

if TYPE_CHECKING:
    import numpy as np


Rings = tuple[tuple[tuple[float, float], ...], ...]
"""Outer rings of polygons, longitude and latitude of each corner."""


@dataclass(frozen=True)
class SeasonRequest:
    """One season of one sensor over one grid; for Sentinel-1, of one orbit direction."""

    sensor: Sensor
    year: int
    season: Season
    grid: Grid
    orbit: Orbit | None = None

    @property
    def period(self) -> Period:
        """Start inclusive, end exclusive, UTC."""
        return season_period(self.year, self.season)

    @property
    def bands(self) -> tuple[str, ...]:
        """Band names in the order of the composite."""
        return BANDS[self.sensor]

    def on_orbit(self, orbit: Orbit) -> SeasonRequest:
        """The same season seen from the other direction."""
        return replace(self, orbit=orbit)

    def __str__(self) -> str:
        direction = f" {self.orbit}" if self.orbit else ""
        return f"{self.sensor} {self.season} {self.year}{direction}"


@dataclass(frozen=True)
class Scene:
    """One image of a provider, as far as composites and manifests need it.

    Attributes:
        id: the provider's.
        moment: when it was sensed, UTC; None where a file does not say.
        product: "L2A", "L1C", "RTC" or "GRD".
        platform, tile: the satellite, and the Sentinel-2 tile (MGRS) where there is one.
        orbit, relative_orbit: direction of flight and number of the repeated track.
        baseline: Sentinel-2 processing baseline, "05.00".
        processed: when this version was made, as the provider writes it; later sorts later.
        strip: what tells two granules of one overpass and tile apart (sensing start of the strip).
        bbox: west, south, east, north in degrees; None = everywhere.
        offset: what to subtract from Sentinel-2 digital numbers.
        assets: where each band lies, without signatures.
        bands: those of the composite's that it was taken in; None = all of them.
        cloud_cover: per cent of a Sentinel-2 image that clouds hide, as the catalogue says; None
            where it does not.
        footprint: outlines of what it shows, longitudes and latitudes; empty where none is said.
            Asked about when scenes are chosen, and not kept beyond.
    """

    id: str
    moment: datetime | None
    product: str
    platform: str = ""
    tile: str = ""
    orbit: Orbit | None = None
    relative_orbit: int | None = None
    baseline: str | None = None
    processed: str = ""
    strip: str = ""
    bbox: tuple[float, float, float, float] | None = None
    offset: int = 0
    assets: Mapping[str, str] = field(default_factory=dict)
    bands: tuple[str, ...] | None = None
    cloud_cover: float | None = None
    footprint: Rings = field(default=(), compare=False, repr=False)

    def holds(self, band: str) -> bool:
        """Whether the scene was taken in a band."""
        return self.bands is None or band in self.bands

    def as_dict(self) -> dict[str, Any]:
        """Plain values; `scene_from_dict` reads them back, but for the footprint."""
        plain = asdict(replace(self, footprint=()))
        del plain["footprint"]
        plain["moment"] = self.moment.isoformat() if self.moment else None
        plain["assets"] = dict(self.assets)
        return plain

    def summary(self) -> dict[str, Any]:
        """What a manifest keeps: which image, when, how processed, from where.

        `files` are those of its assets that are on disk.
        """
        first = next(iter(self.assets.values()), None)
        return {
            "id": self.id,
            "datetime": self.moment.isoformat() if self.moment else None,
            "product": self.product,
            "platform": self.platform,
            "tile": self.tile,
            "orbit": self.orbit,
            "baseline": self.baseline,
            "offset": self.offset,
            "bands": self.bands and list(self.bands),
            "cloud_cover": self.cloud_cover,
            "href": first and unsigned(first),
            "files": sorted({href for href in self.assets.values() if href.startswith("/")}),
        }


def scene_from_dict(plain: Mapping[str, Any]) -> Scene:
    """The scene that `Scene.as_dict` described."""
    moment, bbox, bands = plain["moment"], plain["bbox"], plain.get("bands")
    return Scene(
        **{
            **plain,
            "moment": datetime.fromisoformat(moment) if moment else None,
            "bbox": tuple(bbox) if bbox else None,
            "bands": tuple(bands) if bands else None,
        }
    )


@dataclass(frozen=True)
class Lost:
    """A scene or one asset of it that could not be used, and why.

    `down` says that its provider did not answer, or answered with errors of its own.
    """

    scene: str
    asset: str
    reason: str
    down: bool = False


@dataclass(frozen=True)
class LeftOut:
    """A scene of another kind than the product asked for, or one that was not chosen, and why; no
    loss."""

    scene: str
    reason: str


@dataclass
class Traffic:
    """What fetching cost: requests sent, bytes received, requests repeated, links signed anew."""

    requests: int = 0
    bytes: int = 0
    retries: int = 0
    resigned: int = 0
    assets: int = 0

    def add(self, other: Traffic) -> None:
        """Count another's on top."""
        self.requests += other.requests
        self.bytes += other.bytes
        self.retries += other.retries
        self.resigned += other.resigned
        self.assets += other.assets


@dataclass(frozen=True)
class Encoding:
    """How a composite is stored: numpy type, the value for "no observation", unit of one step."""

    dtype: str
    nodata: float
    scale: float = 1.0


STANDARD_ENCODING: dict[Sensor, Encoding] = {
    "s1": Encoding("int16", S1_NODATA, S1_SCALE),
    "s2": Encoding("uint16", S2_NODATA),
}
FLOAT_ENCODING = Encoding("float32", float("nan"))


@dataclass
class TileAnswer:
    """A tile's composite.

    Attributes:
        values: stored values, (bands, rows, columns), in the source's encoding.
        clear: clear observations a pixel rests on, uint16 (rows, columns); of its bands, the one
            with the fewest.
        used: ids of the scenes with at least one clear pixel here.
        lost: what could not be read.
        traffic: what it cost.
    """

    values: np.ndarray
    clear: np.ndarray
    used: tuple[str, ...]
    lost: tuple[Lost, ...] = ()
    traffic: Traffic = field(default_factory=Traffic)


@dataclass(frozen=True)
class SceneList:
    """The scenes of a season, in a fixed order, and what is not among them.

    Attributes:
        duplicates: ids of older processings.
        lost: what is described in a way that cannot be used.
        left_out: what is of another kind.
        not_chosen: what the country's file has passed over, and why (`clearest`).
        choice: what was offered and what was kept; None where no choice was asked for.
        sought: where a source that knows the place looked in vain, for the error message.
    """

    scenes: tuple[Scene, ...]
    duplicates: tuple[str, ...] = ()
    lost: tuple[Lost, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    not_chosen: tuple[LeftOut, ...] = ()
    choice: Mapping[str, Any] | None = None
    sought: str = ""

    @property
    def offered(self) -> int:
        """Scenes there were to choose from."""
        return len(self.scenes) + len(self.not_chosen)


def scene_list(
    scenes: Iterable[Scene],
    duplicates: Iterable[str],
    lost: Iterable[Lost],
    left_out: Iterable[LeftOut],
) -> SceneList:
    """A season's scenes in their order, and the others in one that does not depend on pages."""
    return SceneList(
        tuple(scenes),
        tuple(duplicates),
        tuple(sorted(set(lost), key=lambda one: (one.scene, one.asset, one.reason))),
        tuple(sorted(set(left_out), key=lambda one: (one.scene, one.reason))),
    )


class Source(Protocol):
    """Where composites come from. All methods but `close` may be called from several threads."""

    parallel_tiles: int
    """How many tiles may be asked for at the same time."""

    def scenes(self, request: SeasonRequest) -> SceneList:
        """Every usable scene of the season over the grid, duplicates by reprocessing left out.

        Raises:
            ImageryError: the catalogue cannot be asked, or refuses.
        """
        ...

    def encoding(self, request: SeasonRequest) -> Encoding:
        """How `tile` returns values."""
        ...

    def prepare(self, request: SeasonRequest, scenes: Sequence[Scene], folder: Path) -> None:
        """What has to be done once before the tiles of a season; nothing, for most.

        Args:
            folder: may keep files until the season is done; the same one when resuming.
        """
        ...

    def tile(self, request: SeasonRequest, window: Window, scenes: Sequence[Scene]) -> TileAnswer:
        """The composite of one window of the grid from those of `scenes` that reach it.

        The same arguments give the same pixels, whatever else runs and however often.

        Raises:
            ImageryError: nothing of what was asked for can be had (not for single scenes: those
                are lost, and said so in the answer).
        """
        ...

    def provenance(self, request: SeasonRequest) -> dict[str, str]:
        """Provider, product and physical quantity, in words that a manifest keeps."""
        ...

    def fingerprint(self) -> str:
        """Changes when what this source would answer changes without its settings changing."""
        ...

    def close(self) -> None:
        """Let go of threads and connections."""
        ...


def opposite(orbit: Orbit) -> Orbit:
    """The other direction of flight."""
    return "ascending" if orbit == "descending" else "descending"
