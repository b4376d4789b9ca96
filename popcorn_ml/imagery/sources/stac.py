"""Composites from STAC catalogues: Planetary Computer, earth-search, or items on disk.

Scenes are found (`stac_items`, `stac_search`), read under each tile's pixels (`assets`), masked
and turned into one observation an overpass, and reduced to their median (`composite`).

Sentinel-2: numbers minus the offset of the item's own baseline, at least 1; clear where the scene
class is one of the kept. Sentinel-1: RTC scenes of one orbit direction, linear power to dB.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from popcorn_ml.edges import ServiceAddress, WrittenPath
from popcorn_ml.errors import ConfigError, ImageryError, ProviderDown
from popcorn_ml.grid import Window
from popcorn_ml.imagery.source import (
    STANDARD_ENCODING,
    Encoding,
    LeftOut,
    Lost,
    Scene,
    SceneList,
    SeasonRequest,
    TileAnswer,
    Traffic,
    scene_list,
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
        from popcorn_ml.imagery.overpasses import without_duplicates
        from popcorn_ml.imagery.stac_items import cloudier, concerns, scene_from_item

        profile = self.profile(request.sensor)
        box = lonlat_bounds(request.grid)
        limit = self._settings.max_cloud_percent
        found: list[Scene] = []
        lost: list[Lost] = []
        left_out: list[LeftOut] = []
        for item in self._items(request, profile, box):
            if isinstance(item, LeftOut):
                left_out.append(item)
                continue
            if not concerns(item, request.period, request.orbit, box):
                continue
            if request.sensor == "s2" and cloudier(item, limit):
                continue
            scene = scene_from_item(item, request.sensor, profile)
            if isinstance(scene, Lost):
                lost.append(scene)
            elif isinstance(scene, LeftOut):
                left_out.append(scene)
            else:
                found.append(scene)
        kept, duplicates = without_duplicates(found)
        return scene_list(kept, duplicates, lost, left_out)

    def _items(
        self, request: SeasonRequest, profile: Profile, box: tuple[float, float, float, float]
    ) -> Iterator[Mapping[str, Any] | LeftOut]:
        """Items of a sensor's collection, and entries of which nothing tells what they are."""
        collection = self.collection(request.sensor)
        if profile.url is None:
            from popcorn_ml.imagery.local_items import local_items
            from popcorn_ml.imagery.stac_items import concerns, of_collection

            items = local_items(self._collection_file(request.year))
            for number, item in enumerate(items, start=1):
                whose = of_collection(item, request.sensor, collection, number)
                if isinstance(whose, LeftOut):
                    if concerns(item, request.period, None, box):
                        yield whose
                elif whose:
                    yield item
            return
        from popcorn_ml.imagery.nearest import parts_of_box
        from popcorn_ml.imagery.stac_search import search

        for part in parts_of_box(box):
            yield from search(
                self._settings.url or profile.url,
                collection,
                part,
                request.period,
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
        from popcorn_ml.imagery.overpasses import by_overpass

        tile = request.grid.subgrid(window)
        box = lonlat_bounds(tile)
        near = [s for s in scenes if s.bbox is None or bounds_meet(s.bbox, box)]
        reader = AssetReader(TileCoordinates(tile), self._links(request.sensor, near))
        order = [(n, scene) for n, overpass in enumerate(by_overpass(near)) for scene in overpass]
        observations: dict[int, np.ndarray] = {}
        used, lost, traffic = [], [], Traffic()
        for (number, scene), (codes, gone, cost) in zip(
            order, self._read_all(reader, request, [s for _, s in order]), strict=True
        ):
            traffic.add(cost)
            lost += gone
            if codes is None or not codes.any():
                continue
            first = observations.get(number)
            if first is None:
                observations[number] = codes
            else:  # the same overpass seen through an overlapping granule: it must count once
                new = (first == 0) & (codes != 0)
                if not new.any():  # hidden below the others
                    continue
                np.copyto(first, codes, where=new)
            used.append(scene.id)
        _refuse_if_down(request, window, lost, traffic)
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
        from popcorn_ml.imagery.scene_reading import read_s1, read_s2

        read = read_s2 if request.sensor == "s2" else read_s1
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
            from popcorn_ml.imagery.backoff import Backoff
            from popcorn_ml.imagery.remote import Fetcher
            from popcorn_ml.imagery.signing import TOKEN_RETRIES, signer

            patience = Backoff(
                min(self._settings.retries, TOKEN_RETRIES), self._settings.first_wait_s
            )
            self._fetchers[name] = Fetcher(
                signer(name, self._settings.sign_url, self._secrets, patience),
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
            "observation": "one an overpass",
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


def _refuse_if_down(
    request: SeasonRequest, window: Window, lost: Sequence[Lost], traffic: Traffic
) -> None:
    """End a season of which a tile has lost everything to a provider that does not answer.

    A single asset may be at fault itself.

    Raises:
        ProviderDown: as said.
    """
    if len(lost) > 1 and len(lost) >= traffic.assets and all(one.down for one in lost):
        raise ProviderDown(
            f"none of {len(lost)} scene assets of a tile of {request} could be had",
            where=f"tile at row {window.row}, column {window.col}",
            expected="an answer from where the scenes are kept",
            found=f"{lost[0].reason}; first: {lost[0].scene} {lost[0].asset}",
            remedy="run again later: finished tiles are kept",
        )
