"""Composites computed by Earth Engine: the season's median on its servers, pixels over here.

Sentinel-2: S2_SR_HARMONIZED (its baseline offset is removed already), clear where the joined cloud
probability is below 65 %, or by scene class where a scene has no probability image. Sentinel-1:
S1_GRD, IW, VV and VH (or one of them), one orbit direction, sigma-nought in dB.

Two ways to fetch: "tiles" asks for pixels tile by tile (`ee.data.computePixels`), several at a
time; "export" has the whole season written to a bucket once and reads it from there, for whole
countries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popcorn_ml.grid import Window
from popcorn_ml.imagery.ee_settings import Settings as Settings
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

if TYPE_CHECKING:
    from popcorn_ml.imagery.secrets import Secrets
    from popcorn_ml.imagery.settings import ImagerySettings


def open_source(
    settings: Settings, imagery: ImagerySettings, secrets: Secrets, workers: int
) -> EarthEngineSource:
    """A source over Earth Engine; the client is initialised when first asked."""
    return EarthEngineSource(settings, imagery, secrets)


class EarthEngineSource:
    """See `popcorn_ml.imagery.source.Source`."""

    def __init__(self, settings: Settings, imagery: ImagerySettings, secrets: Secrets) -> None:
        self._settings, self._imagery, self._secrets = settings, imagery, secrets
        self._client: Any = None
        self._exports: dict[str | None, Any] = {}
        self.parallel_tiles = settings.parallel

    def client(self) -> Any:
        """The initialised client."""
        if self._client is None:
            from popcorn_ml.imagery.backoff import Backoff
            from popcorn_ml.imagery.ee_client import EarthEngine

            self._client = EarthEngine(
                self._secrets,
                self._settings.url,
                Backoff(self._settings.retries, self._settings.first_wait_s),
            )
        return self._client

    def scenes(self, request: SeasonRequest) -> SceneList:
        from popcorn_ml.imagery.ee_graph import (
            CLOUDS,
            COLLECTIONS,
            S2_CLOUDS,
            listing,
            scene_from_feature,
        )
        from popcorn_ml.imagery.nearest import bounds_meet, lonlat_bounds
        from popcorn_ml.imagery.overpasses import in_period, without_duplicates

        client, traffic = self.client(), Traffic()
        box = lonlat_bounds(request.grid)
        found: list[Scene] = []
        lost: list[Lost] = []
        left_out: list[LeftOut] = []
        asked = listing(COLLECTIONS[request.sensor], request.period, box)
        for feature in client.features(asked, traffic, f"the scenes of {request}"):
            scene = scene_from_feature(feature, request.sensor)
            if isinstance(scene, Lost):
                lost.append(scene)
            elif isinstance(scene, LeftOut):
                left_out.append(scene)
            elif scene.bbox is None or bounds_meet(scene.bbox, box):
                found.append(scene)
        found = in_period(found, request.period)
        if request.orbit is not None:
            found = [scene for scene in found if scene.orbit == request.orbit]
        kept, duplicates = without_duplicates(found)
        if request.sensor == "s2" and self._settings.cloud_mask == "probability":
            asked = listing(S2_CLOUDS, request.period, box)
            known = {
                (feature.get("properties") or {}).get("index")
                for feature in client.features(asked, traffic, f"cloud probability of {request}")
            }
            kept = tuple(
                replace(s, assets={**s.assets, CLOUDS: f"{S2_CLOUDS}/{s.id}"})
                if s.id in known
                else s
                for s in kept
            )
        return scene_list(kept, duplicates, lost, left_out)

    def encoding(self, request: SeasonRequest) -> Encoding:
        return STANDARD_ENCODING[request.sensor]

    def prepare(self, request: SeasonRequest, scenes: Sequence[Scene], folder: Path) -> None:
        """Have the season exported and brought over, where the settings ask for it."""
        if self._settings.mode != "export" or not scenes:
            return
        from popcorn_ml.imagery.ee_export import fetch_export

        self._exports[request.orbit] = fetch_export(
            self.client(),
            self._image(request, scenes),
            request,
            self._settings,
            self._secrets,
            folder / f"export_{request.orbit or request.sensor}",
        )

    def tile(self, request: SeasonRequest, window: Window, scenes: Sequence[Scene]) -> TileAnswer:
        import numpy as np

        from popcorn_ml.imagery.composite import codes_to_db_hundredths
        from popcorn_ml.imagery.ee_graph import CLEAR, EE_BANDS
        from popcorn_ml.imagery.nearest import bounds_meet, lonlat_bounds

        box = lonlat_bounds(request.grid.subgrid(window))
        near = [s for s in scenes if s.bbox is None or bounds_meet(s.bbox, box)]
        encoding, traffic = self.encoding(request), Traffic()
        if not near:
            shape = (len(request.bands), window.height, window.width)
            empty = np.full(shape, encoding.nodata, encoding.dtype)
            return TileAnswer(empty, np.zeros(shape[1:], np.uint16), ())
        if request.orbit in self._exports:
            stack = self._exports[request.orbit].read(window)
        else:
            image = self._image(request, near)
            pixels = self.client().pixels(image, request.grid, window, traffic)
            names = (*EE_BANDS[request.sensor], CLEAR)
            stack = np.stack([pixels[name].astype(np.uint16, copy=False) for name in names])
        values, clear = stack[:-1], stack[-1]
        if request.sensor == "s1":
            values = codes_to_db_hundredths(values)
        traffic.assets += len(near)
        return TileAnswer(values, clear, tuple(sorted(s.id for s in near)), (), traffic)

    def _image(self, request: SeasonRequest, scenes: Sequence[Scene]) -> Any:
        from popcorn_ml.imagery.ee_graph import season_image

        self.client()
        return season_image(
            request.sensor,
            scenes,
            max_cloud=self._settings.max_cloud_probability,
            classes=self._imagery.clear_classes,
        )

    def provenance(self, request: SeasonRequest) -> dict[str, str]:
        from popcorn_ml.imagery.ee_graph import COLLECTIONS

        classes = "scene classes " + ", ".join(map(str, self._imagery.clear_classes))
        limit = self._settings.max_cloud_probability
        if request.sensor == "s1":
            quantity, clear = "sigma-nought, ground range detected, dB", "none"
        else:
            quantity = "bottom-of-atmosphere reflectance x 10000 (L2A), harmonised"
            clear = (
                classes
                if self._settings.cloud_mask == "scl"
                else f"cloud probability < {limit} %, else {classes}"
            )
        return {
            "provider": "earthengine",
            "collection": COLLECTIONS[request.sensor],
            "quantity": quantity,
            "backscatter": "sigma0" if request.sensor == "s1" else "",
            "level": "GRD" if request.sensor == "s1" else "L2A",
            "clear": clear,
            "observation": "one an overpass",
            "resampling": "nearest pixel centre (Earth Engine)",
        }

    def fingerprint(self) -> str:
        return ""

    def close(self) -> None:
        for export in self._exports.values():
            export.close()
