"""The computations asked of Earth Engine: which images, and the median of a season. No network.

The scene list is explicit: it is asked for once (`listing`), duplicates are dropped and granules
are grouped by overpass on this side, and the composite's expression names every image. So the
manifest tells exactly what was used, a resumed fetch uses the same, and both sides of the
comparison with STAC follow one rule.

`ee` must be initialised before anything here is called: building an expression looks up the
service's list of algorithms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

from popcorn_ml.imagery.kinds import OtherKind, s1_bands
from popcorn_ml.imagery.nearest import parts_of_box
from popcorn_ml.imagery.overpasses import by_overpass, strip_start
from popcorn_ml.imagery.source import LeftOut, Lost, Scene
from popcorn_ml.imagery.stac_fields import (
    baseline,
    cloud_cover,
    footprint_box,
    footprint_rings,
    mapping,
    number,
    orbit_direction,
)
from popcorn_ml.sentinel import Orbit, Period, Sensor

S2 = "COPERNICUS/S2_SR_HARMONIZED"
S2_CLOUDS = "COPERNICUS/S2_CLOUD_PROBABILITY"
S1 = "COPERNICUS/S1_GRD"

COLLECTIONS: dict[Sensor, str] = {"s1": S1, "s2": S2}
EE_BANDS: dict[Sensor, tuple[str, ...]] = {"s1": ("VV", "VH"), "s2": ("B2", "B3", "B4", "B8")}
CLEAR = "clear"
"""Name of the band that counts clear observations."""

CLOUDS = "cloud_probability"
"""Name under which a scene keeps the id of its cloud probability image, if it has one."""

PROPERTIES: dict[Sensor, dict[str, str]] = {
    "s2": {
        "index": "system:index",
        "time": "system:time_start",
        "platform": "SPACECRAFT_NAME",
        "tile": "MGRS_TILE",
        "baseline": "PROCESSING_BASELINE",
        "processed": "GENERATION_TIME",
        "strip": "DATASTRIP_ID",
        "relative_orbit": "SENSING_ORBIT_NUMBER",
        "clouds": "CLOUDY_PIXEL_PERCENTAGE",
    },
    "s1": {
        "index": "system:index",
        "time": "system:time_start",
        "platform": "platform_number",
        "orbit": "orbitProperties_pass",
        "relative_orbit": "relativeOrbitNumber_start",
        "mode": "instrumentMode",
        "polarisations": "transmitterReceiverPolarisation",
    },
}


def listing(collection: str, period: Period, box: tuple[float, float, float, float]) -> Any:
    """A feature for each image of a collection in a period that meets a box.

    Args:
        period: end exclusive, as Earth Engine's own date filter has it.
        box: west, south, east, north in degrees.

    Returns:
        ee.FeatureCollection: geometry the image's footprint, properties those of `PROPERTIES`.
    """
    import ee

    sensor: Sensor = "s1" if collection == S1 else "s2"
    rings = [
        [[west, south], [west, north], [east, north], [east, south], [west, south]]
        for west, south, east, north in parts_of_box(box)
    ]
    place = (
        ee.Geometry.Polygon(rings, None, False)
        if len(rings) == 1
        else ee.Geometry.MultiPolygon([[ring] for ring in rings], None, False)
    )
    images = (
        ee.ImageCollection(collection)
        .filterDate(_milliseconds(period.start), _milliseconds(period.end))
        .filterBounds(place)
    )
    wanted = PROPERTIES[sensor]

    def describe(image: Any) -> Any:
        return ee.Feature(
            ee.Image(image).geometry(), {name: image.get(key) for name, key in wanted.items()}
        )

    return ee.FeatureCollection(images.map(describe))


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def scene_from_feature(feature: Mapping[str, Any], sensor: Sensor) -> Scene | Lost | LeftOut:
    """The scene that a feature of `listing` describes, or why it is none that can be used."""
    said = mapping(feature.get("properties"))
    index, time = said.get("index"), number(said.get("time"))
    if not index or time is None:
        return Lost(str(index or "?"), "*", "the image says no system:index or system:time_start")
    bands = None
    if sensor == "s1":
        try:
            bands = s1_bands(str(index), said.get("mode"), said.get("polarisations"))
        except OtherKind as other:
            return LeftOut(str(index), str(other))
    orbit, track = orbit_direction(said.get("orbit")), number(said.get("relative_orbit"))
    if sensor == "s1" and not orbit:
        return Lost(str(index), "*", "the image says no orbitProperties_pass")
    return Scene(
        id=str(index),
        moment=datetime.fromtimestamp(time / 1000, UTC),
        product="GRD" if sensor == "s1" else "L2A",
        platform=str(said.get("platform") or "").lower(),
        tile=str(said.get("tile") or ""),
        orbit=cast("Orbit | None", orbit or None),
        relative_orbit=None if track is None else int(track),
        baseline=baseline(said.get("baseline")),
        processed=str(said.get("processed") or ""),
        strip=strip_start(said.get("strip")),
        bbox=footprint_box(feature.get("geometry")),
        assets={"image": f"{COLLECTIONS[sensor]}/{index}"},
        bands=bands,
        cloud_cover=cloud_cover(said.get("clouds")),
        footprint=footprint_rings(feature.get("geometry")),
    )


def season_image(
    sensor: Sensor, scenes: Sequence[Scene], *, max_cloud: int, classes: Sequence[int]
) -> Any:
    """The composite of some scenes: bands in the project's encoding, and the clear count.

    One observation an overpass, its granules mosaicked, the latest processing on top. The median
    of an even number of observations is the mean of the middle two, a half goes up, as
    `composite.median_composite` has it.

    Args:
        sensor: whose.
        scenes: at least one.
        max_cloud: Sentinel-2 pixels count as clear below this cloud probability (per cent).
        classes: scene classes that count as clear where a scene has no probability image.

    Returns:
        ee.Image, all bands uint16 with 0 = nodata. Sentinel-2: B2, B3, B4, B8, reflectance x 10000.
        Sentinel-1: VV, VH, the codes of `composite.db_to_codes`. Last band `CLEAR`: clear
        observations of the band with the fewest.
    """
    import ee

    if sensor == "s2":
        seen = [[_reflectance(s, max_cloud, classes) for s in one] for one in by_overpass(scenes)]
    else:
        seen = [[_backscatter(s) for s in overpass] for overpass in by_overpass(scenes)]
    observations = [
        images[0] if len(images) == 1 else ee.ImageCollection(images[::-1]).mosaic()
        for images in seen
    ]
    season = ee.ImageCollection(observations)
    median = season.median().add(0.5).floor()
    clear = season.count().reduce(ee.Reducer.min()).rename([CLEAR])
    # Masked pixels come as 0, also outside every footprint: 0 must mean nodata in all bands.
    return median.addBands(clear).unmask(0, False).toUint16()


def _reflectance(scene: Scene, max_cloud: int, classes: Sequence[int]) -> Any:
    """Clear pixels of a Sentinel-2 image, reflectance x 10000, at least 1."""
    import ee

    image = ee.Image(scene.assets["image"])
    if CLOUDS in scene.assets:
        clear = ee.Image(scene.assets[CLOUDS]).select("probability").lt(max_cloud)
    else:
        labels = image.select("SCL")
        clear = labels.remap(list(classes), [1] * len(classes), 0)
    return image.select(list(EE_BANDS["s2"])).updateMask(clear).max(1)


def _backscatter(scene: Scene) -> Any:
    """A Sentinel-1 image in the codes of `composite.db_to_codes`, masked in a band it has not."""
    import ee

    held = [band for band in EE_BANDS["s1"] if scene.holds(band)]
    image = ee.Image(scene.assets["image"]).select(held)
    image = image.multiply(100).add(0.5).floor().clamp(-32767, 32767).add(32768)
    for band in EE_BANDS["s1"]:
        if band not in held:
            image = image.addBands(image.select(held[:1]).updateMask(0).rename([band]))
    return image if len(held) == len(EE_BANDS["s1"]) else image.select(list(EE_BANDS["s1"]))
