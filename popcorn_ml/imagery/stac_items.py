"""From STAC items to scenes: bands, baselines, orbits, offsets. Plain values, no network.

Items are dictionaries as catalogues send them. What differs between catalogues is in `Profile`;
what an item says is read by `stac_fields`, and whether it is of the right kind by `kinds`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from popcorn_ml.imagery import stac_fields
from popcorn_ml.imagery.kinds import OtherKind, check_product, s1_bands, sensor_of
from popcorn_ml.imagery.nearest import bounds_meet
from popcorn_ml.imagery.overpasses import strip_start
from popcorn_ml.imagery.secrets import unsigned
from popcorn_ml.imagery.source import LeftOut, Lost, Scene
from popcorn_ml.imagery.stac_fields import Box, mapping, number, properties, text
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

NAMELESS = "?"
"""Stands for an item that has neither an id nor an asset."""

UNCALIBRATED = {
    "sentinel-1-grd": "sentinel-1-grd holds uncalibrated digital numbers placed only by control "
    "points; the model needs backscatter in dB on a map projection"
}
"""Collections that are never read, and why."""


def scene_from_item(
    item: Mapping[str, Any], sensor: Sensor, profile: Profile
) -> Scene | Lost | LeftOut:
    """The scene an item describes, or why it cannot be used, or is not what was asked for.

    An item lacking the assets of single bands is kept: those bands are counted as lost where they
    are asked for, unless the scene was never taken in them.
    """
    said, wanted, held = properties(item), profile.assets[sensor], stac_fields.hrefs(item)
    links = {band: held[key.lower()] for band, key in wanted.items() if key.lower() in held}
    name = name_of(item)
    try:
        check_product(item, sensor, told=bool(text(item.get("collection"))))
        bands = _bands_of(item, sensor, name)
    except OtherKind as other:
        return LeftOut(name, str(other))
    moment = stac_fields.sensed(item)
    if moment is None:
        return Lost(name, "*", "the item says no datetime")
    if not links:
        return Lost(name, "*", f"none of the assets {', '.join(wanted.values())}")
    if profile.name == "planetary-computer":  # signed here when asked for, whatever they came with
        links = {band: unsigned(href) for band, href in links.items()}
    if profile.url is not None and not all(map(is_link, links.values())):
        return Lost(name, "*", "an asset is no http address: a catalogue may not name local files")
    orbit, track = (
        stac_fields.orbit_direction(said.get("sat:orbit_state")),
        number(said.get("sat:relative_orbit")),
    )
    shared: dict[str, Any] = {
        "id": name,
        "moment": moment,
        "platform": text(said.get("platform")).lower(),
        "orbit": orbit or None,
        "relative_orbit": None if track is None else int(track),
        "bbox": stac_fields.box_of(item),
        "assets": links,
        "bands": bands,
        "footprint": stac_fields.footprint_rings(mapping(item).get("geometry")),
    }
    if sensor == "s1":
        if not orbit:
            return Lost(name, "*", "the item says no sat:orbit_state; orbits must not be mixed")
        processed = text(said.get("updated")) or text(said.get("created"))
        return Scene(product="RTC", processed=processed, **shared)
    baseline = processing_baseline(said)
    try:
        offset = item_offset(item, wanted["B02"], baseline)
    except ValueError as error:
        return Lost(name, "*", f"{error}; without it the offset of the numbers is unknown")
    return Scene(
        product="L2A",
        tile=mgrs_tile(said, name),
        baseline=baseline,
        processed=text(said.get("s2:generation_time")) or _trailing_stamp(name),
        strip=strip_start(said.get("s2:datastrip_id")),
        offset=offset,
        cloud_cover=stac_fields.cloud_cover(said.get("eo:cloud_cover")),
        **shared,
    )


def name_of(item: object) -> str:
    """An item's id; of one without, the name of its first asset."""
    first = next(iter(stac_fields.hrefs(item).values()), "")
    return text(mapping(item).get("id")) or PurePosixPath(unsigned(first)).stem or NAMELESS


def _bands_of(item: Mapping[str, Any], sensor: Sensor, name: str) -> tuple[str, ...] | None:
    """The bands that a Sentinel-1 item was taken in; None for Sentinel-2, which has them all."""
    if sensor == "s2":
        return None
    said = properties(item)
    mode, polarisations = said.get("sar:instrument_mode"), said.get("sar:polarizations")
    return s1_bands(name, mode, polarisations, stac_fields.hrefs(item))


def of_collection(item: object, sensor: Sensor, collection: str, number: int) -> bool | LeftOut:
    """Whether an item on disk is of a sensor's collection.

    One that names no collection is told by its platform, its name or its assets; where nothing
    tells, it is left out, and that is said.

    Args:
        number: of the entry, the first being 1; names it where nothing else does.
    """
    held = mapping(item)
    named = text(held.get("collection"))
    if named:
        return named == collection
    keys: dict[Sensor, set[str]] = {
        one: {key.lower() for key in PROFILES["local"].assets[one].values()} for one in ("s1", "s2")
    }
    found = sensor_of(item, keys)
    if found is None:
        name = name_of(held)
        name = name if name != NAMELESS else f"entry {number}"
        return LeftOut(name, "an entry that does not say what it is")
    return found == sensor


def cloudier(item: object, limit: float) -> bool:
    """Whether an item says that clouds cover more of it; what says nothing is looked at."""
    cover = number(properties(item).get("eo:cloud_cover"))
    return cover is not None and cover > limit


def concerns(item: object, period: Period, orbit: str | None, box: Box) -> bool:
    """Whether an item belongs to a season, an orbit and a place, as far as it says so.

    Asked before an item is read, so that only unusable scenes that are missed count as lost.
    """
    moment, place = stac_fields.sensed(item), stac_fields.box_of(item)
    said = stac_fields.orbit_direction(properties(item).get("sat:orbit_state"))
    return (
        (moment is None or moment in period)
        and (orbit is None or not said or said == orbit)
        and (place is None or bounds_meet(place, box))
    )


def is_link(href: str) -> bool:
    """Whether an asset is asked for over the network; everything else is a path."""
    return href.startswith(("http://", "https://"))


def processing_baseline(said: Mapping[str, Any]) -> str | None:
    """The Sentinel-2 processing baseline ("05.00"), from the property or the product's name."""
    given = stac_fields.baseline(said.get("s2:processing_baseline"))
    if given:
        return given
    for key in ("s2:product_uri", "sentinel:product_id"):
        found = re.search(r"_N(\d{2})(\d{2})_", text(said.get(key)))
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
    if properties(item).get("earthsearch:boa_offset_applied") is True:
        return 0
    asset = mapping(mapping(item.get("assets")).get(band_key))
    bands = asset.get("raster:bands") or asset.get("bands")
    first = bands[0] if isinstance(bands, list | tuple) and bands else {}
    band = {**asset, **mapping(first)}
    scale = number(band.get("scale", band.get("raster:scale")))
    offset = number(band.get("offset", band.get("raster:offset")))
    if scale and offset is not None:
        return -round(offset / scale)
    return baseline_offset(baseline)


def mgrs_tile(said: Mapping[str, Any], name: str) -> str:
    """The Sentinel-2 tile ("35MNM"), "" where nothing says it."""
    if tile := text(said.get("s2:mgrs_tile")):
        return tile
    if (code := text(said.get("grid:code"))).startswith("MGRS-"):
        return code[5:]
    found = re.search(r"_T?(\d{2}[C-X][A-Z]{2})_", f"{name}_")
    return found[1] if found else ""


def _trailing_stamp(name: str) -> str:
    found = re.search(r"_(\d{8}T\d{6})$", name)
    return found[1] if found else ""
