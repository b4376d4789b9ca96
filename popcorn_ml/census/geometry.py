"""Polygons of census units: mended, united, measured, and judged by where they lie.

Nothing here reads a file; `boundaries` does.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from popcorn_ml.census import globe
from popcorn_ml.census.findings import Finding, rows_text
from popcorn_ml.census.globe import LON_LAT as LON_LAT
from popcorn_ml.census.globe import equal_area as equal_area
from popcorn_ml.census.overlay import common_areas

if TYPE_CHECKING:
    import geopandas as gpd
    import numpy as np

MENDED_AREA_SHARE = 0.01
"""A polygon is mended in silence of its area only if that changes by less than this share."""
OVERLAP_WARN, OVERLAP_ERROR = 0.001, 0.05
"""Share of the smaller of two units that the other may also claim."""


def mend(frame: gpd.GeoDataFrame, path: Path) -> tuple[gpd.GeoDataFrame, list[Finding]]:
    """Valid two-dimensional polygons; those that cannot be mended are left out and reported.

    A self-intersecting polygon is rebuilt from its lines; where that changes its area by more
    than `MENDED_AREA_SHARE`, what it should have been is not known, and it is an error.
    """
    import numpy as np
    import shapely

    geometry = np.asarray(frame.geometry.values, dtype=object)
    geometry = shapely.force_2d(geometry)
    findings: list[Finding] = []

    empty = shapely.is_missing(geometry) | shapely.is_empty(geometry)
    if empty.any():
        rows = _described(frame, path, empty, problem="no geometry")
        findings.append(
            Finding(
                "geometry",
                "error",
                f"{path}: units that have no geometry: {rows_text(rows)}. Draw them, or "
                "remove them together with their people",
                rows,
            )
        )
    kind = shapely.get_type_id(geometry)
    other = ~empty & ~np.isin(kind, (3, 6, 7))
    if other.any():
        rows = _described(frame, path, other, problem="not a polygon")
        findings.append(
            Finding(
                "geometry",
                "error",
                f"{path}: features that are no polygons: {rows_text(rows)}. Hand in areas, "
                "not points or lines",
                rows,
            )
        )
    usable = ~empty & ~other
    broken = usable & ~np.where(usable, shapely.is_valid(geometry), True)
    spoiled = np.zeros(len(frame), bool)
    if broken.any():
        geometry, vanished, found = _rebuilt(frame, path, geometry, broken)
        findings += found
        spoiled[np.flatnonzero(broken)] = vanished
    flat = usable & ~broken & (np.where(usable, shapely.area(geometry), 1.0) <= 0)
    if flat.any():
        rows = _described(frame, path, flat, problem="no area")
        findings.append(
            Finding(
                "geometry",
                "error",
                f"{path}: polygons that have no area: {rows_text(rows)}. Draw them again",
                rows,
            )
        )
    keep = usable & ~spoiled & ~flat
    out = frame[keep].copy()
    out["geometry"] = [_polygonal(g) for g in geometry[keep]]
    return out.reset_index(drop=True), findings


def _described(frame: gpd.GeoDataFrame, path: Path, mask, **extra) -> tuple[dict, ...]:
    """The rows that a mask chooses, as findings tell them."""
    return tuple(
        {"file": path.name, "row": int(r), "id": i, "name": n, **extra}
        for r, i, n in zip(frame["row"][mask], frame["id"][mask], frame["name"][mask], strict=True)
    )


def _rebuilt(frame: gpd.GeoDataFrame, path: Path, geometry, broken):
    """Geometries with the invalid ones rebuilt, which of these came out empty, and findings."""
    import numpy as np
    import shapely

    findings: list[Finding] = []
    reasons = shapely.is_valid_reason(geometry[broken])
    before = np.abs([_ring_area(g) for g in geometry[broken]])
    fixed = np.array([_polygonal(shapely.make_valid(g)) for g in geometry[broken]], object)
    after = shapely.area(fixed)
    change = np.abs(after - before) / np.maximum(np.maximum(after, before), 1e-30)
    geometry = geometry.copy()
    geometry[broken] = fixed
    lost = (change > MENDED_AREA_SHARE) | (after <= 0)
    places = np.flatnonzero(broken)
    for severity, chosen in (("warn", ~lost), ("error", lost)):
        if not chosen.any():
            continue
        mask = np.zeros(len(frame), bool)
        mask[places[chosen]] = True
        rows = tuple(
            {**row, "problem": str(reason)}
            for row, reason in zip(_described(frame, path, mask), reasons[chosen], strict=True)
        )
        text = (
            "were mended, their area unchanged"
            if severity == "warn"
            else "cross themselves so that their area is not certain. Mend them in QGIS (Fix "
            "geometries) and look at the result"
        )
        findings.append(
            Finding(
                "geometry",
                "warn" if severity == "warn" else "error",
                f"{path}: polygons that {text}: {rows_text(rows)}",
                rows,
            )
        )
    return geometry, after <= 0, findings


def _polygonal(geometry):
    """The polygons of a geometry, without the points and lines that mending may leave."""
    import shapely

    if geometry.geom_type in ("Polygon", "MultiPolygon"):
        return geometry
    parts = [
        p
        for p in shapely.get_parts(shapely.get_parts(geometry))
        if p.geom_type in ("Polygon", "MultiPolygon")
    ]
    return shapely.union_all(parts) if parts else shapely.Polygon()


def _ring_area(geometry) -> float:
    """Area by the rings as drawn (shoelace), the sign of crossed parts included."""
    import shapely

    return float(
        sum(
            abs(shapely.area(shapely.Polygon(p.exterior)))
            - sum(abs(shapely.area(shapely.Polygon(h))) for h in p.interiors)
            for p in shapely.get_parts(geometry)
            if p.geom_type == "Polygon"
        )
    )


def unite(frame: gpd.GeoDataFrame, path: Path) -> tuple[gpd.GeoDataFrame, list[Finding]]:
    """One row a unit: parts of one id and one name become a multipolygon, others are reported.

    Units are sorted by id, so that their order does not depend on the file's.
    """
    import shapely

    findings: list[Finding] = []
    nameless = frame["id"] == ""
    if nameless.any():
        rows = tuple(
            {"file": path.name, "row": int(r), "name": n, "problem": "no id"}
            for r, n in zip(frame["row"][nameless], frame["name"][nameless], strict=True)
        )
        findings.append(
            Finding(
                "unit_ids",
                "error",
                f"{path}: units that have no identifier: {rows_text(rows)}. Fill it in, or "
                "name another column as `boundaries.columns.id`",
                rows,
            )
        )
        frame = frame[~nameless]
    frame = frame.sort_values(["id", "row"], kind="stable").reset_index(drop=True)
    twice = frame["id"].duplicated(keep=False)
    if not twice.any():
        return frame, findings
    same: list[dict] = []
    different: list[dict] = []
    geometry, drop = list(frame.geometry), []
    for _, group in frame[twice].groupby("id", sort=True):
        first = group.index[0]
        one_name = group["name"].nunique() == 1 and group["parent"].nunique() == 1
        described = [
            {"file": path.name, "row": int(r), "id": i, "name": n, "problem": "id used twice"}
            for r, i, n in zip(group["row"], group["id"], group["name"], strict=True)
        ]
        (same if one_name else different).extend(described)
        drop.extend(group.index[1:])
        if one_name:
            geometry[first] = _polygonal(shapely.union_all(list(group.geometry)))
    frame["geometry"] = geometry
    frame = frame.drop(index=drop).reset_index(drop=True)
    if same:
        findings.append(
            Finding(
                "unit_ids",
                "warn",
                f"{path}: features that share an id and a name and were joined into one "
                f"unit each: {rows_text(same)}",
                tuple(same),
            )
        )
    if different:
        findings.append(
            Finding(
                "unit_ids",
                "error",
                f"{path}: features that share an id under different names: "
                f"{rows_text(different)}. Only the first of each was kept; give each its own id",
                tuple(different),
            )
        )
    return frame, findings


def area_ha(frame: gpd.GeoDataFrame) -> np.ndarray:
    """Area of each polygon in hectares, float64, in `EQUAL_AREA_CRS`."""
    import shapely

    return shapely.area(equal_area(frame)) / 1e4


def overlaps(frame: gpd.GeoDataFrame, path: Path) -> list[Finding]:
    """Pairs of units that claim the same ground, by the share of the smaller of the two."""
    import numpy as np
    import shapely

    if len(frame) < 2:
        return []
    flat = equal_area(frame)
    left, right, common = common_areas(flat)
    if left.size == 0:
        return []
    area = shapely.area(flat)
    share = common / np.maximum(np.minimum(area[left], area[right]), 1e-9)
    findings = []
    for severity, mask in (
        ("error", share >= OVERLAP_ERROR),
        ("warn", (share >= OVERLAP_WARN) & (share < OVERLAP_ERROR)),
    ):
        if not mask.any():
            continue
        order = np.argsort(-share[mask], kind="stable")
        rows = tuple(
            {
                "file": path.name,
                "row": int(frame["row"].iloc[a]),
                "id": frame["id"].iloc[a],
                "other_id": frame["id"].iloc[b],
                "overlap_ha": round(float(c) / 1e4, 4),
                "share_of_smaller": round(float(s), 4),
            }
            for a, b, c, s in zip(
                left[mask][order],
                right[mask][order],
                common[mask][order],
                share[mask][order],
                strict=True,
            )
        )
        findings.append(
            Finding(
                "geometry_overlap",
                "error" if severity == "error" else "warn",
                f"{path}: pairs of units that overlap: {rows_text(rows)}. Each pixel goes "
                "to the smaller unit of the two; mend the boundaries if that is not right",
                rows,
            )
        )
    return findings


def place(
    frame: gpd.GeoDataFrame, path: Path, box: tuple[float, float, float, float]
) -> list[Finding]:
    """Findings on where the polygons lie: in their CRS's range, and in the country's box.

    Args:
        frame: polygons in any CRS.
        path: for messages.
        box: west, south, east, north in degrees; across the antimeridian west is greater.
    """
    import numpy as np
    import shapely

    findings: list[Finding] = []
    bounds = frame.geometry.bounds.to_numpy()

    def rows_of(mask, problem: str) -> tuple[dict, ...]:
        return tuple(
            {"file": path.name, "row": int(r), "id": i, "name": n, "problem": problem}
            for r, i, n in zip(
                frame["row"][mask], frame["id"][mask], frame["name"][mask], strict=True
            )
        )

    if frame.crs.is_geographic:
        outside = (np.abs(bounds[:, [0, 2]]) > 360).any(1) | (np.abs(bounds[:, [1, 3]]) > 90).any(1)
        if outside.any():
            rows = rows_of(outside, "not degrees")
            part = "all" if outside.all() else f"{len(rows)} of {len(frame)}"
            swapped = outside.all() and (np.abs(bounds[:, [0, 2]]) <= 90).all()
            hint = (
                "Latitude and longitude seem to be swapped"
                if swapped
                else "They seem to be metres: the file mixes two CRS, or states the wrong one"
            )
            findings.append(
                Finding(
                    "geometry_place",
                    "error",
                    f"{path}: {part} units lie outside the degrees of {frame.crs.to_string()}: "
                    f"{rows_text(rows)}. {hint}; export it again in one CRS",
                    rows,
                )
            )
            return findings
    degrees = shapely.bounds(globe.degrees(frame))
    west, south, east, north = box
    near = globe.meet(degrees, box)
    if near.all():
        return findings
    rows = rows_of(~near, "outside the country's box")
    hint = "Correct the file, the country's box, or its grid"
    if not near.any():
        turned = globe.meet(degrees[:, [1, 0, 3, 2]], box)
        hint = (
            "Latitude and longitude are swapped: export the file again"
            if turned.any()
            else "The file is of another country, or its CRS is not the one it states"
        )
    findings.append(
        Finding(
            "geometry_place",
            "error",
            f"{path}: units that lie outside the country's box "
            f"({west:.3f}, {south:.3f}, {east:.3f}, {north:.3f}): {rows_text(rows)}. {hint}",
            rows,
        )
    )
    return findings
