"""Census units for the page: their outlines in degrees and their numbers, a GeoJSON file a level.

Outlines of a large level are simplified, edges that units share alike; numbers are the table's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from popcorn_ml.files import write_bytes

if TYPE_CHECKING:
    import geopandas as gpd
    from shapely.geometry.base import BaseGeometry

MANY_POINTS = 60_000
"""Corners of a level's outlines above which they are simplified."""
COARSEST_M = 160.0
DIGITS = 6
"""Decimals of a degree: a tenth of a metre."""

NUMBERS = (
    "census", "map", "adjusted", "density_km2", "p2_5", "p10", "p90", "p97_5", "adjusted_p2_5",
    "adjusted_p10", "adjusted_p90", "adjusted_p97_5", "change", "change_from", "change_p2_5",
    "change_p97_5",
)  # fmt: skip
TEXTS = ("level", "unit_id", "name", "census_kind")


def write_outlines(
    frame: gpd.GeoDataFrame, facts: Mapping[str, Any], parts: Path, stem: str
) -> list[dict[str, Any]]:
    """Write each level's units; returns what the page has to know of the levels.

    Args:
        frame: the units of all levels, as `unit_tables.unit_frame` gives them.
        facts: the map's.
        parts: folder that the files go to.
        stem: what their names begin with.
    """
    titles = {"train": "adjusted to", "evaluate": "compared with"}
    roles = {one["level"]: one["role"] for one in facts["census"]["levels"]}
    levels = list(dict.fromkeys(frame["level"]))
    levels.sort(key=lambda level: level != facts["census"]["level"])
    found = []
    for number, level in enumerate(levels):
        of_level = frame[frame["level"] == level]
        name = f"{stem}_units_{number}.json"
        write_bytes(parts / name, _geojson(of_level))
        told = titles.get(roles.get(level, ""), "")
        told = f" ({told})" if told else ""
        found.append({"title": f"{level}{told}", "level": level, "file": f"web/{name}"})
    return found


def _geojson(frame: gpd.GeoDataFrame) -> bytes:
    import shapely

    shapes = _simplified(np.asarray(frame.geometry), frame.crs)
    outlines = frame.set_geometry(shapes, crs=frame.crs).to_crs("EPSG:4326").geometry
    features = []
    rows = frame.drop(columns="geometry").to_dict("records")
    for number, (row, shape) in enumerate(zip(rows, outlines, strict=True), start=1):
        if shape is None or shape.is_empty:
            continue
        rounded = shapely.transform(shape, lambda points: np.round(points, DIGITS))
        features.append(
            {
                "type": "Feature",
                "bbox": [float(value) for value in np.round(rounded.bounds, DIGITS)],
                "properties": _properties(row) | {"n": number},
                "geometry": _polygons(rounded),
            }
        )
    whole = {"type": "FeatureCollection", "features": features}
    text = json.dumps(whole, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return f"{text}\n".encode()


def _polygons(shape: BaseGeometry) -> dict[str, Any]:
    import shapely

    parts = [one for one in shapely.get_parts(shape) if one.geom_type == "Polygon"]
    rings = [
        [np.asarray(ring.coords)[:, :2].tolist() for ring in (one.exterior, *one.interiors)]
        for one in parts
    ]
    return {"type": "MultiPolygon", "coordinates": rings}


def _properties(row: Mapping[str, Any]) -> dict[str, Any]:
    numbers = {key: _number(row.get(key)) for key in NUMBERS}
    texts = {key: row[key] if isinstance(row.get(key), str) else None for key in TEXTS}
    return {**texts, **{key: value for key, value in numbers.items() if value is not None}}


def _number(value: Any) -> float | None:
    return None if value is None or not np.isfinite(float(value)) else float(value)


def _simplified(shapes: np.ndarray, crs: Any) -> np.ndarray:
    """Outlines with at most about `MANY_POINTS` corners, as far as hectares allow it."""
    import shapely

    metres = 1.0 if crs.is_projected else 1 / 111_320
    step = 4.0
    found = shapes
    while shapely.get_num_coordinates(found).sum() > MANY_POINTS and step <= COARSEST_M:
        try:
            found = shapely.coverage_simplify(shapes, step * metres)
        except shapely.GEOSException:  # no coverage: each by itself
            found = shapely.simplify(shapes, step * metres)
        step *= 2
    return found
