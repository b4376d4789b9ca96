"""What a catalogue's item says of itself, read so that nothing that stands in it can do harm.

Catalogues write NaN into JSON, numbers as text, null where an object should be, and properties
that are lists. Whatever is not what the STAC specification has there reads as not said.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from popcorn_ml.imagery.source import Rings

Box = tuple[float, float, float, float]
"""West, south, east, north in degrees."""


def properties(item: object) -> Mapping[str, Any]:
    """An item's properties; none where they are no object."""
    return mapping(mapping(item).get("properties"))


def mapping(value: object) -> Mapping[str, Any]:
    """An object; an empty one for anything else."""
    return value if isinstance(value, Mapping) else {}


def text(value: object) -> str:
    """A text or a number as text; "" for anything else."""
    return str(value).strip() if isinstance(value, str | int | float) else ""


def number(value: object) -> float | None:
    """A finite number, also one written as text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def words(value: object) -> list[str]:
    """The texts of a list, or a text alone, in upper case."""
    given = value if isinstance(value, list | tuple | set) else [value]
    return [found.upper() for one in given if (found := text(one))]


def hrefs(item: object) -> dict[str, str]:
    """Where each asset lies, by its key in lower case.

    A text in an asset's place is where it lies; an asset that says no place is left out.
    """
    found = {}
    for key, asset in mapping(mapping(item).get("assets")).items():
        href = asset if isinstance(asset, str) else mapping(asset).get("href")
        if isinstance(href, str) and href.strip():
            found[str(key).lower()] = href
    return found


def sensed(item: object) -> datetime | None:
    """When an item was sensed, UTC; None where it does not say."""
    said = properties(item)
    return parse_moment(said.get("datetime")) or parse_moment(said.get("start_datetime"))


def parse_moment(given: object) -> datetime | None:
    """A STAC datetime as an aware datetime in UTC; None if there is none or it is not one."""
    if not isinstance(given, str):
        return None
    try:
        moment = datetime.fromisoformat(given.strip().replace("Z", "+00:00"))
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def orbit_direction(value: object) -> str:
    """Direction of flight: "ascending" or "descending", "" where it says neither."""
    said = text(value).lower()
    return said if said in ("ascending", "descending") else ""


def baseline(value: object) -> str | None:
    """A Sentinel-2 processing baseline as "05.10"; what is none stays as it is, for the message.

    A number has lost its zero: 5.1 was "05.10".
    """
    said = text(value)
    found = re.fullmatch(r"N?(\d{1,2})(?:\.(\d{1,2})|(\d{2}))?", said, re.IGNORECASE)
    if not found:
        return said or None
    return f"{int(found[1]):02d}.{(found[2] or found[3] or '').ljust(2, '0')}"


def box_of(item: object) -> Box | None:
    """West, south, east, north of an item in degrees, without heights; None if it says none.

    No scene is half the globe wide: one whose box is lies across the antimeridian. What it spans is
    then told by its footprint; without one it may lie anywhere on the circle.
    """
    held = mapping(item)
    given = held.get("bbox")
    box = [number(one) for one in given] if isinstance(given, list | tuple) else []
    if len(box) not in (4, 6) or None in box:
        return footprint_box(held.get("geometry"))
    west, south, east, north = (float(one or 0) for one in (*box[:2], *box[len(box) // 2 :][:2]))
    if east - west > 180:
        return footprint_box(held.get("geometry")) or (-180.0, south, 180.0, north)
    return west, south, east, north


def footprint_box(geometry: object) -> Box | None:
    """West, south, east, north of a scene's GeoJSON geometry; None if it has none.

    Across the antimeridian west is greater than east, whether or not the geometry was cut there.
    """
    points = list(_points(geometry))
    if not points:
        return None
    lons, lats = zip(*points, strict=True)
    west, east = min(lons), max(lons)
    if east - west > 180 and west < 0 <= east:
        west, east = min(v for v in lons if v >= 0), max(v for v in lons if v < 0)
    return west, min(lats), east, max(lats)


def footprint_rings(geometry: object) -> Rings:
    """Outer rings of a scene's GeoJSON geometry; none where a corner is not to be read."""
    held = mapping(geometry)
    kind, given = text(held.get("type")), held.get("coordinates")
    if kind == "GeometryCollection":
        parts = held.get("geometries")
        parts = parts if isinstance(parts, list | tuple) else ()
        return tuple(ring for part in parts for ring in footprint_rings(part))
    if not isinstance(given, list | tuple):
        return ()
    outer = {
        "Polygon": given[:1],
        "MultiPolygon": [
            polygon[0] for polygon in given if isinstance(polygon, list | tuple) and polygon
        ],
        "LinearRing": [given],
        "LineString": [given],
    }.get(kind, ())
    rings = tuple(tuple(_points({"coordinates": ring})) for ring in outer)
    whole = all(
        isinstance(ring, list | tuple) and len(ring) == len(points) >= 3
        for ring, points in zip(outer, rings, strict=True)
    )
    return rings if whole else ()


def cloud_cover(value: object) -> float | None:
    """Per cent that clouds hide; None where nothing is said, or no percentage."""
    said = number(value)
    return said if said is not None and 0 <= said <= 100 else None


def _points(geometry: object) -> Iterator[tuple[float, float]]:
    held = mapping(geometry)
    parts = held.get("geometries")
    if isinstance(parts, list | tuple):
        for part in parts:
            yield from _points(part)
        return
    waiting = [held.get("coordinates")]
    while waiting:
        part = waiting.pop(0)
        if not isinstance(part, list | tuple):
            continue
        lon, lat = (number(one) for one in (*part[:2], None, None)[:2])
        if lon is not None and lat is not None:
            yield lon, lat
        else:
            waiting[:0] = part
