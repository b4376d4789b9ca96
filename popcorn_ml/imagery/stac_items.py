"""From STAC items to scenes: bands, baselines, orbits, duplicates, days. Plain values, no network.

Items are dictionaries as catalogues send them. What differs between catalogues is in `Profile`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from popcorn_ml.imagery.nearest import bounds_meet
from popcorn_ml.imagery.secrets import unsigned
from popcorn_ml.imagery.source import Lost, Scene
from popcorn_ml.sentinel import Period, Sensor, baseline_offset

SCL = "SCL"
"""Name under which a Sentinel-2 scene keeps the link to its scene classes."""


@dataclass(frozen=True)
class Profile:
    """A catalogue, as far as reading its items goes.

    Attributes:
        name: as in the settings.
        url: its STAC API; None for an item collection on disk.
        collections: collection of each sensor; a sensor that is missing here is refused.
        assets: for each sensor, asset key of every band (Sentinel-2: and of `SCL`).
        refused: why a sensor is not to be had here, and what to use instead.
    """

    name: str
    url: str | None
    collections: Mapping[Sensor, str]
    assets: Mapping[Sensor, Mapping[str, str]]
    refused: Mapping[Sensor, str]


_PLAIN_S2 = {"B02": "B02", "B03": "B03", "B04": "B04", "B08": "B08", SCL: "SCL"}
_PLAIN_S1 = {"VV": "vv", "VH": "vh"}

PROFILES: dict[str, Profile] = {
    "planetary-computer": Profile(
        "planetary-computer",
        "https://planetarycomputer.microsoft.com/api/stac/v1",
        {"s1": "sentinel-1-rtc", "s2": "sentinel-2-l2a"},
        {"s1": _PLAIN_S1, "s2": _PLAIN_S2},
        {},
    ),
    "earth-search": Profile(
        "earth-search",
        "https://earth-search.aws.element84.com/v1",
        {"s2": "sentinel-2-c1-l2a"},
        {"s2": {"B02": "blue", "B03": "green", "B04": "red", "B08": "nir", SCL: "scl"}},
        {
            "s1": "earth-search has Sentinel-1 only as ground range detected scenes: digital "
            "numbers without calibration, placed by control points, not backscatter in dB on a map"
        },
    ),
    "local": Profile(
        "local",
        None,
        {"s1": "sentinel-1-rtc", "s2": "sentinel-2-l2a"},
        {"s1": _PLAIN_S1, "s2": _PLAIN_S2},
        {},
    ),
}

UNCALIBRATED = {
    "sentinel-1-grd": "sentinel-1-grd holds uncalibrated digital numbers placed only by control "
    "points; the model needs backscatter in dB on a map projection"
}
"""Collections that are never read, and why."""


def scene_from_item(item: Mapping[str, Any], sensor: Sensor, profile: Profile) -> Scene | Lost:
    """The scene an item describes, or why it cannot be used.

    An item lacking the assets of single bands is kept: those bands are counted as lost where they
    are asked for.
    """
    name = str(item.get("id", "?"))
    properties = item.get("properties") or {}
    moment = parse_moment(properties.get("datetime") or properties.get("start_datetime"))
    if moment is None:
        return Lost(name, "*", "the item says no datetime")
    assets = item.get("assets") or {}
    wanted = profile.assets[sensor]
    links = {
        band: assets[key]["href"]
        for band, key in wanted.items()
        if isinstance(assets.get(key), Mapping) and isinstance(assets[key].get("href"), str)
    }
    if not links:
        return Lost(name, "*", f"none of the assets {', '.join(wanted.values())}")
    if profile.name == "planetary-computer":  # signed here when asked for, whatever they came with
        links = {band: unsigned(href) for band, href in links.items()}
    if profile.url is not None and not all(map(is_link, links.values())):
        return Lost(name, "*", "an asset is no http address: a catalogue may not name local files")
    orbit = str(properties.get("sat:orbit_state") or "").lower()
    shared: dict[str, Any] = {
        "id": name,
        "moment": moment,
        "platform": str(properties.get("platform") or "").lower(),
        "orbit": orbit if orbit in ("ascending", "descending") else None,
        "relative_orbit": properties.get("sat:relative_orbit"),
        "bbox": item_box(item),
        "assets": links,
    }
    if sensor == "s1":
        if shared["orbit"] is None:
            return Lost(name, "*", "the item says no sat:orbit_state; orbits must not be mixed")
        processed = str(properties.get("updated") or properties.get("created") or "")
        return Scene(product="RTC", processed=processed, **shared)
    baseline = processing_baseline(properties)
    try:
        offset = item_offset(item, wanted["B02"], baseline)
    except ValueError as error:
        return Lost(name, "*", f"{error}; without it the offset of the numbers is unknown")
    return Scene(
        product="L2A",
        tile=mgrs_tile(properties, name),
        baseline=baseline,
        processed=str(properties.get("s2:generation_time") or _trailing_stamp(name)),
        strip=_strip_start(properties),
        offset=offset,
        **shared,
    )


def item_box(item: Mapping[str, Any]) -> tuple[float, float, float, float] | None:
    """West, south, east, north of an item in degrees, without heights; None if it says none.

    No scene is half the globe wide: one whose box is lies across the antimeridian. What it spans is
    then told by its footprint; without one it may lie anywhere on the circle.
    """
    box = item.get("bbox")
    if not box:
        return None
    west, south = box[:2]
    east, north = box[len(box) // 2 :][:2]
    if east - west > 180:
        return footprint_box(item.get("geometry")) or (-180.0, south, 180.0, north)
    return west, south, east, north


def footprint_box(
    geometry: Mapping[str, Any] | None,
) -> tuple[float, float, float, float] | None:
    """West, south, east, north of a scene's GeoJSON geometry; None if it has none.

    Across the antimeridian west is greater than east, whether or not the geometry was cut there.
    """
    points: list[tuple[float, float]] = []

    def walk(part: Any) -> None:
        if part and isinstance(part[0], int | float):
            points.append((float(part[0]), float(part[1])))
        else:
            for inner in part:
                walk(inner)

    for single in (geometry or {}).get("geometries", [geometry] if geometry else []):
        walk(single.get("coordinates") or [])
    if not points:
        return None
    lons, lats = zip(*points, strict=True)
    west, east = min(lons), max(lons)
    if east - west > 180 and west < 0 <= east:
        west, east = min(v for v in lons if v >= 0), max(v for v in lons if v < 0)
    return west, min(lats), east, max(lats)


def concerns(
    item: Mapping[str, Any],
    period: Period,
    orbit: str | None,
    box: tuple[float, float, float, float],
) -> bool:
    """Whether an item belongs to a season, an orbit and a place, as far as it says so.

    Asked before an item is read, so that only unusable scenes that are missed count as lost.
    """
    properties = item.get("properties") or {}
    moment = parse_moment(properties.get("datetime") or properties.get("start_datetime"))
    said = str(properties.get("sat:orbit_state") or "").lower()
    place = item_box(item)
    return (
        (moment is None or moment in period)
        and (orbit is None or said not in ("ascending", "descending") or said == orbit)
        and (place is None or bounds_meet(place, box))
    )


def is_link(href: str) -> bool:
    """Whether an asset is asked for over the network; everything else is a path."""
    return href.startswith(("http://", "https://"))


def processing_baseline(properties: Mapping[str, Any]) -> str | None:
    """The Sentinel-2 processing baseline ("05.00"), from the property or the product's name."""
    given = properties.get("s2:processing_baseline")
    if given:
        return str(given)
    for key in ("s2:product_uri", "sentinel:product_id"):
        found = re.search(r"_N(\d{2})(\d{2})_", str(properties.get(key) or ""))
        if found:
            return f"{found[1]}.{found[2]}"
    return None


def item_offset(item: Mapping[str, Any], band_key: str, baseline: str | None) -> int:
    """What to subtract from an item's digital numbers.

    A catalogue that rewrites products says so: `earthsearch:boa_offset_applied`, and an offset in
    the band's raster metadata (reflectance units, so divided by the scale). Otherwise the item's
    own baseline decides, never its date.

    Raises:
        ValueError: neither says anything.
    """
    properties = item.get("properties") or {}
    if properties.get("earthsearch:boa_offset_applied") is True:
        return 0
    asset = (item.get("assets") or {}).get(band_key) or {}
    bands = asset.get("raster:bands") or asset.get("bands") or [{}]
    band = {**asset, **bands[0]}
    scale = band.get("scale", band.get("raster:scale"))
    offset = band.get("offset", band.get("raster:offset"))
    if scale and offset is not None:
        return -round(offset / scale)
    return baseline_offset(baseline)


def mgrs_tile(properties: Mapping[str, Any], name: str) -> str:
    """The Sentinel-2 tile ("35MNM"), "" where nothing says it."""
    if properties.get("s2:mgrs_tile"):
        return str(properties["s2:mgrs_tile"])
    if str(properties.get("grid:code", "")).startswith("MGRS-"):
        return str(properties["grid:code"])[5:]
    found = re.search(r"_T?(\d{2}[C-X][A-Z]{2})_", f"{name}_")
    return found[1] if found else ""


def _strip_start(properties: Mapping[str, Any]) -> str:
    found = re.search(r"_S(\d{8}T\d{6})", str(properties.get("s2:datastrip_id") or ""))
    return found[1] if found else ""


def _trailing_stamp(name: str) -> str:
    found = re.search(r"_(\d{8}T\d{6})$", name)
    return found[1] if found else ""


def parse_moment(text: str | None) -> datetime | None:
    """A STAC datetime as an aware datetime in UTC; None if there is none or it is not one."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def without_duplicates(scenes: Iterable[Scene]) -> tuple[tuple[Scene, ...], tuple[str, ...]]:
    """Of several processings of one scene, the last; and the ids of the others.

    One scene is one satellite, tile and sensing time, and, where a granule was cut in two on the
    ground, one strip. Later means a higher baseline, then a later processing time, then the id.

    Returns:
        Scenes ordered by time, then id, whatever the order they came in; ids dropped, sorted.
    """
    best: dict[tuple, Scene] = {}
    dropped: list[str] = []
    for scene in scenes:
        where = scene.tile or (scene.bbox and tuple(round(v, 3) for v in scene.bbox))
        key = (scene.platform, where, scene.moment, scene.strip, scene.orbit)
        rival = best.get(key)
        if rival is None:
            best[key] = scene
            continue
        keep, drop = (scene, rival) if _version(scene) > _version(rival) else (rival, scene)
        best[key] = keep
        if drop.id != keep.id:  # pages of a catalogue may repeat an item
            dropped.append(drop.id)
    kept = sorted(best.values(), key=lambda s: (s.moment or datetime.min.replace(tzinfo=UTC), s.id))
    return tuple(kept), tuple(sorted(dropped))


def _version(scene: Scene) -> tuple:
    major, _, minor = (scene.baseline or "0.0").partition(".")
    stamp = re.sub(r"\D", "", scene.processed)
    return int(major or 0), int(minor or 0), stamp.ljust(20, "0"), scene.id


def in_period(scenes: Iterable[Scene], period: Period) -> list[Scene]:
    """Those sensed from the period's start up to, not including, its end."""
    return [scene for scene in scenes if scene.moment in period]


def solar_day(scene: Scene, near: float | None = None) -> date:
    """The local day a scene was sensed on, by the sun: UTC plus an hour for 15 degrees east.

    The granules of one overpass share it, also where it crosses midnight UTC.

    Args:
        near: count on from this longitude, beyond 180 if need be, so that scenes on both sides of
            the antimeridian are of one calendar.
    """
    assert scene.moment is not None
    middle = middle_longitude(scene)
    if near is not None and abs(middle - near) > 180:
        middle += 360 if near > middle else -360
    return (scene.moment + timedelta(hours=middle / 15)).date()


def middle_longitude(scene: Scene) -> float:
    """Degrees east of a scene's middle; 0 if it does not say where it is."""
    west, _, east, _ = scene.bbox or (0.0, 0.0, 0.0, 0.0)
    if west <= east <= west + 180:
        return (west + east) / 2
    if east > west:  # across the antimeridian, it does not say where
        return 180.0
    middle = (west + east) / 2 + 180
    return middle if middle <= 180 else middle - 360


def by_solar_day(scenes: Sequence[Scene]) -> list[list[Scene]]:
    """Scenes of each solar day, days in order; within a day the latest processing first.

    Granules of a day overlap and show the same observation: it must count once, and the first of
    the list that has the pixel gives it.
    """
    days: dict[date, list[Scene]] = {}
    near = middle_longitude(scenes[0]) if scenes else None
    for scene in scenes:
        days.setdefault(solar_day(scene, near), []).append(scene)
    return [
        sorted(sorted(days[day], key=lambda s: s.id), key=_version_only, reverse=True)
        for day in sorted(days)
    ]


def _version_only(scene: Scene) -> tuple:
    return _version(scene)[:3]
