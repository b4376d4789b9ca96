"""Composites from STAC catalogues: Planetary Computer, earth-search, or items on disk.

Scenes are found (`stac_items`, `stac_search`), read under each tile's pixels (`assets`), masked
and turned into one observation per solar day, and reduced to their median (`composite`).

Sentinel-2: numbers minus the offset of the item's own baseline, at least 1; clear where the scene
class is one of the kept. Sentinel-1: RTC scenes of one orbit direction, linear power to dB.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from popcorn_ml.edges import ServiceAddress, WrittenPath, within
from popcorn_ml.errors import ConfigError, ImageryError
from popcorn_ml.grid import Window
from popcorn_ml.imagery.source import (
    STANDARD_ENCODING,
    Encoding,
    Lost,
    Scene,
    SceneList,
    SeasonRequest,
    TileAnswer,
    Traffic,
)
from popcorn_ml.sentinel import Sensor

if TYPE_CHECKING:
    import numpy as np

    from popcorn_ml.imagery.secrets import Secrets
    from popcorn_ml.imagery.settings import ImagerySettings
    from popcorn_ml.imagery.stac_items import Profile


class Settings(BaseModel):
    """What a country's file may say under `stac`.

    Attributes:
        profile: which catalogue: "planetary-computer", "earth-search", or "local" for an item
            collection on disk.
        s1_profile: another catalogue for Sentinel-1; None = the same.
        items: for "local": the item collection (GeoJSON), "{year}" standing for the year; links
            in it are relative to its folder.
        url, sign_url: another address for the catalogue and for the service that signs links (a
            mirror).
        collections: other collections than the profile's, by sensor.
        max_cloud_percent: Sentinel-2 scenes cloudier than this are not fetched.
        pool: assets read at the same time.
        retries, first_wait_s: repetitions after a server error or a cut connection, and the mean
            wait before the first; it doubles each time.
        timeout_s: of one request.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    HOW_ONLY: ClassVar[frozenset[str]] = frozenset(
        {"pool", "retries", "first_wait_s", "timeout_s", "sign_url"}
    )

    profile: Literal["planetary-computer", "earth-search", "local"] = "planetary-computer"
    s1_profile: Literal["planetary-computer", "local"] | None = None
    items: WrittenPath | None = None
    url: ServiceAddress | None = None
    sign_url: ServiceAddress | None = None
    collections: dict[Sensor, str] = Field(default_factory=dict)
    max_cloud_percent: float = Field(default=100.0, gt=0, le=100)
    pool: int = Field(default=8, ge=1, le=32)
    retries: int = Field(default=6, ge=0, le=12)
    first_wait_s: float = Field(default=0.5, gt=0)
    timeout_s: float = Field(default=60.0, gt=0)


def open_source(
    settings: Settings, imagery: ImagerySettings, secrets: Secrets, workers: int
) -> StacSource:
    """A source over the catalogue that the settings name."""
    return StacSource(settings, imagery, secrets, workers)


class StacSource:
    """See `popcorn_ml.imagery.source.Source`. One tile at a time, its assets read in parallel."""

    parallel_tiles = 1

    def __init__(
        self, settings: Settings, imagery: ImagerySettings, secrets: Secrets, workers: int
    ) -> None:
        self._settings, self._imagery, self._secrets = settings, imagery, secrets
        self._workers = workers
        local = settings.profile == "local" and settings.s1_profile in (None, "local")
        size = min(settings.pool, workers) if local else settings.pool
        self._pool = ThreadPoolExecutor(size, thread_name_prefix="assets")
        self._ahead = size + 2
        self._fetchers: dict[str, Any] = {}

    # Scenes

    def profile(self, sensor: Sensor) -> Profile:
        """The catalogue asked for a sensor.

        Raises:
            ImageryError: the catalogue has nothing that the model could use.
        """
        from popcorn_ml.imagery.stac_items import PROFILES, UNCALIBRATED

        name = self._settings.profile
        if sensor == "s1" and self._settings.s1_profile:
            name = self._settings.s1_profile
        profile = PROFILES[name]
        collection = self._settings.collections.get(sensor)
        reason = UNCALIBRATED.get(collection or "") or profile.refused.get(sensor)
        if reason:
            raise ImageryError(
                f"this Sentinel-{sensor[1]} collection cannot be used: {reason}",
                where=f"imagery.stac, {name}",
                found=collection,
                remedy="use sentinel-1-rtc of the Planetary Computer "
                "(imagery.stac.s1_profile: planetary-computer), or Earth Engine",
            )
        return profile

    def collection(self, sensor: Sensor) -> str:
        """The collection asked for a sensor."""
        return self._settings.collections.get(sensor, self.profile(sensor).collections[sensor])

    def scenes(self, request: SeasonRequest) -> SceneList:
        from popcorn_ml.imagery.nearest import lonlat_bounds
        from popcorn_ml.imagery.stac_items import concerns, scene_from_item, without_duplicates

        profile = self.profile(request.sensor)
        box = lonlat_bounds(request.grid)
        found: list[Scene] = []
        lost: list[Lost] = []
        for item in self._items(request, profile, box):
            if concerns(item, request.period, request.orbit, box):
                scene = scene_from_item(item, request.sensor, profile)
                if isinstance(scene, Lost):
                    lost.append(scene)
                else:
                    found.append(scene)
        kept, duplicates = without_duplicates(found)
        return SceneList(kept, duplicates, tuple(sorted(lost, key=lambda one: one.scene)))

    def _items(
        self, request: SeasonRequest, profile: Profile, box: tuple[float, float, float, float]
    ) -> Iterator[dict[str, Any]]:
        limit = self._settings.max_cloud_percent
        if profile.url is None:
            for item in self._local_items(request.year):
                if item.get("collection") == self.collection(request.sensor):
                    cloud = (item.get("properties") or {}).get("eo:cloud_cover")
                    if request.sensor == "s1" or cloud is None or cloud <= limit:
                        yield item
            return
        from popcorn_ml.imagery.nearest import parts_of_box
        from popcorn_ml.imagery.stac_search import search

        for part in parts_of_box(box):
            yield from search(
                self._settings.url or profile.url,
                self.collection(request.sensor),
                part,
                request.period,
                max_cloud_percent=limit if request.sensor == "s2" and limit < 100 else None,
                retries=self._settings.retries,
                timeout_s=self._settings.timeout_s,
            )

    def _collection_file(self, year: int) -> Path:
        if self._settings.items is None:
            raise ConfigError(
                "the local catalogue needs its item collection",
                where="imagery.stac.items",
                remedy="give the path of the GeoJSON file that lists the scenes",
            )
        return Path(str(self._settings.items).replace("{year}", str(year)))

    def _local_items(self, year: int) -> list[dict[str, Any]]:
        """Items of a collection on disk; scenes lie below its folder, or are links.

        Raises:
            ConfigError: a path leads elsewhere.
        """
        from popcorn_ml.imagery.stac_items import is_link

        path = self._collection_file(year)
        try:
            items = json.loads(path.read_text("utf-8"))["features"]
        except FileNotFoundError as error:
            raise ImageryError(
                "the item collection is missing", where=path, remedy="make or fetch the scenes"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise ImageryError(
                "this is not a STAC item collection",
                where=path,
                expected='GeoJSON with "features"',
                found=str(error),
            ) from error
        folder = path.resolve().parent
        for item in items:
            for asset in (item.get("assets") or {}).values():
                href = asset.get("href")
                if isinstance(href, str) and not is_link(href):
                    asset["href"] = str(within(folder / href, [folder]).resolve())
        return items

    # Pixels

    def encoding(self, request: SeasonRequest) -> Encoding:
        return STANDARD_ENCODING[request.sensor]

    def prepare(self, request: SeasonRequest, scenes: Sequence[Scene], folder: Path) -> None:
        pass

    def tile(self, request: SeasonRequest, window: Window, scenes: Sequence[Scene]) -> TileAnswer:
        import numpy as np

        from popcorn_ml.imagery.assets import AssetReader
        from popcorn_ml.imagery.composite import codes_to_db_hundredths, median_composite
        from popcorn_ml.imagery.nearest import TileCoordinates, bounds_meet, lonlat_bounds
        from popcorn_ml.imagery.stac_items import by_solar_day

        tile = request.grid.subgrid(window)
        box = lonlat_bounds(tile)
        near = [s for s in scenes if s.bbox is None or bounds_meet(s.bbox, box)]
        reader = AssetReader(TileCoordinates(tile), self._links(request.sensor, near))
        days = by_solar_day(near)
        order = [(number, scene) for number, day in enumerate(days) for scene in day]
        observations: dict[int, np.ndarray] = {}
        used, lost, traffic = [], [], Traffic()
        for (number, scene), (codes, gone, cost) in zip(
            order, self._read_all(reader, request, [s for _, s in order]), strict=True
        ):
            traffic.add(cost)
            lost += gone
            if codes is None or not codes.any():
                continue
            used.append(scene.id)
            first = observations.get(number)
            if first is None:
                observations[number] = codes
            else:  # the same overpass seen through an overlapping granule: it must count once
                np.copyto(first, codes, where=first == 0)
        shape = (len(request.bands), window.height, window.width)
        if observations:
            values, count = median_composite(
                [observations[n] for n in sorted(observations)], self._workers
            )
            clear = count.min(axis=0)
        else:
            values, clear = np.zeros(shape, np.uint16), np.zeros(shape[1:], np.uint16)
        if request.sensor == "s1":
            values = codes_to_db_hundredths(values)
        return TileAnswer(values, clear, tuple(sorted(used)), tuple(lost), traffic)

    def _read_all(
        self, reader: Any, request: SeasonRequest, scenes: list[Scene]
    ) -> Iterator[tuple[np.ndarray | None, list[Lost], Traffic]]:
        """Each scene's codes in the order given, a few read ahead, so that memory stays bounded."""
        read = _read_s2 if request.sensor == "s2" else _read_s1
        classes = self._imagery.clear_classes
        waiting: deque[Future] = deque()
        rest = iter(scenes)
        try:
            while True:
                while len(waiting) < self._ahead and (scene := next(rest, None)) is not None:
                    waiting.append(self._pool.submit(read, reader, scene, request.bands, classes))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def _links(self, sensor: Sensor, scenes: Sequence[Scene]) -> Any:
        """What opens links; None where every asset is on disk."""
        if not any("://" in href for scene in scenes for href in scene.assets.values()):
            return None
        name = self.profile(sensor).name
        if name not in self._fetchers:
            from popcorn_ml.imagery.remote import Fetcher, signer

            self._fetchers[name] = Fetcher(
                signer(name, self._settings.sign_url, self._secrets),
                retries=self._settings.retries,
                timeout_s=self._settings.timeout_s,
                connections=self._settings.pool,
                first_wait_s=self._settings.first_wait_s,
            )
        return self._fetchers[name]

    # About the source

    def provenance(self, request: SeasonRequest) -> dict[str, str]:
        profile = self.profile(request.sensor)
        if request.sensor == "s2":
            quantity = "bottom-of-atmosphere reflectance x 10000 (L2A), baseline offset removed"
            mask = "scene classes " + ", ".join(map(str, self._imagery.clear_classes))
        else:
            quantity = "gamma-nought, radiometrically terrain corrected, dB"
            mask = "none"
        return {
            "provider": profile.name,
            "collection": self.collection(request.sensor),
            "quantity": quantity,
            "backscatter": "gamma0" if request.sensor == "s1" else "",
            "level": "L2A" if request.sensor == "s2" else "RTC",
            "clear": mask,
            "observation": "one a solar day",
            "resampling": "nearest pixel centre, exact",
        }

    def fingerprint(self) -> str:
        files = collection_files(self._settings)
        if not files:
            return ""
        digest = hashlib.sha256()
        for file in files:
            digest.update(file.read_bytes())
        return digest.hexdigest()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        for fetcher in self._fetchers.values():
            fetcher.close()


def collection_files(settings: Settings) -> list[Path]:
    """The item collections on disk that the settings name, of every year; none for a catalogue."""
    if settings.profile != "local" or settings.items is None:
        return []
    pattern = settings.items
    return sorted(pattern.parent.glob(pattern.name.replace("{year}", "*")))


def _read_s2(
    reader: Any, scene: Scene, bands: tuple[str, ...], classes: tuple[int, ...]
) -> tuple[np.ndarray | None, list[Lost], Traffic]:
    """Clear reflectance codes (bands, rows, columns) of a scene; None where nothing is clear."""
    import numpy as np

    from popcorn_ml.imagery.composite import reflectance_codes
    from popcorn_ml.imagery.remote import AssetLost
    from popcorn_ml.imagery.stac_items import SCL

    traffic = Traffic()
    try:
        labels = _asset(reader, scene, SCL, 0, traffic)
    except AssetLost as error:
        return None, [Lost(scene.id, SCL, str(error))], traffic
    if labels is None:
        return None, [], traffic
    clear = np.isin(labels, classes)
    if not clear.any():  # nothing to see: the large assets need not be fetched
        return None, [], traffic
    codes, lost = np.zeros((len(bands), *clear.shape), np.uint16), []
    for place, band in enumerate(bands):
        try:
            numbers = _asset(reader, scene, band, 0, traffic)
        except AssetLost as error:
            lost.append(Lost(scene.id, band, str(error)))
            continue
        if numbers is not None:
            np.multiply(reflectance_codes(numbers, scene.offset), clear, out=codes[place])
    return codes, lost, traffic


def _read_s1(
    reader: Any, scene: Scene, bands: tuple[str, ...], classes: tuple[int, ...]
) -> tuple[np.ndarray | None, list[Lost], Traffic]:
    """Backscatter codes (bands, rows, columns) of a scene; None where it does not reach."""
    import numpy as np

    from popcorn_ml.imagery.composite import power_to_codes
    from popcorn_ml.imagery.remote import AssetLost

    traffic, lost = Traffic(), []
    layers: list[np.ndarray | None] = []
    for band in bands:
        try:
            power = _asset(reader, scene, band, -32768, traffic)
        except AssetLost as error:
            lost.append(Lost(scene.id, band, str(error)))
            power = None
        layers.append(None if power is None else power_to_codes(power))
    present = next((layer for layer in layers if layer is not None), None)
    if present is None:
        return None, lost, traffic
    return np.stack([np.zeros_like(present) if x is None else x for x in layers]), lost, traffic


def _asset(
    reader: Any, scene: Scene, band: str, fill: float, traffic: Traffic
) -> np.ndarray | None:
    from popcorn_ml.imagery.remote import AssetLost

    if band not in scene.assets:
        raise AssetLost("the item has no such asset")
    return reader.read(scene.assets[band], fill, traffic)
