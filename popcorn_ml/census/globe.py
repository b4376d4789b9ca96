"""Polygons on the round earth: in one piece across the antimeridian, cut there, or laid on a plane.

Offices draw what crosses the antimeridian in three ways: cut at 180 degrees, counting on beyond it
(0 to 360), or straight from 179.9 to -179.9. All three are the same ground and are made one here.
A polygon is *whole* where its longitudes run on without a jump, beyond 180 if need be, and *cut*
where none leaves -180 to 180 (as RFC 7946 asks of files).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import geopandas as gpd
    import numpy as np
    from pyproj import CRS

EQUAL_AREA_CRS = "EPSG:6933"
"""Cylindrical equal area on the WGS 84 ellipsoid (NSIDC EASE-Grid 2.0): areas in m2, worldwide."""
LON_LAT = "EPSG:4326"
SEGMENT_SHARE = 1000
"""Edges are split to at most this share of a set's extent before a change of CRS."""
FARTHEST = 540.0
"""Longitudes beyond are no degrees, whatever the file says of itself."""
PLANES_WITHOUT_ENDS = ("Azimuthal", "Stereographic", "Orthographic", "Gnomonic")
TOUCHING = 1e-7
"""Degrees (1 cm) within which two parts are held to meet at the antimeridian."""


def whole(geometry: np.ndarray) -> np.ndarray:
    """Polygons in degrees, each in one piece, and the set in one piece if the globe allows it.

    What lies within -180 to 180 and spans less than half the globe stays to the last bit.
    """
    import numpy as np
    import shapely

    bounds = shapely.bounds(geometry)
    finite = np.isfinite(bounds).all(1)
    if not finite.any():
        return geometry
    west, east = bounds[finite, 0].min(), bounds[finite, 2].max()
    if max(-west, east) > FARTHEST or (west >= -180 and east <= 180 and east - west <= 180):
        return geometry
    out = geometry.copy()
    for k in np.flatnonzero(finite & (bounds[:, 2] - bounds[:, 0] > 180)):
        out[k] = _straightened(out[k])
    parts, owner, box = _parts(out)
    seam = _widest_gap(box[:, 0], box[:, 2])
    if seam is None:
        return out
    turns = np.ceil((seam - box[:, 0]) / 360 - TOUCHING)
    moved = box[:, [0, 2]] + 360 * turns[:, None]
    middle = (moved[:, 0].min() + moved[:, 1].max()) / 2
    return _turned(out, parts, owner, turns - math.floor((middle + 180) / 360))


def near(geometry: np.ndarray, lon: float) -> np.ndarray:
    """Polygons in degrees, each part turned to where it lies nearest to a meridian."""
    import numpy as np
    import shapely

    bounds = shapely.bounds(geometry)
    finite = np.isfinite(bounds).all(1)
    if not finite.any() or np.abs(bounds[finite][:, [0, 2]]).max() > FARTHEST:
        return geometry
    if (np.abs(bounds[finite][:, [0, 2]] - lon) <= 180).all():
        return geometry
    out = geometry.copy()
    for k in np.flatnonzero(finite & (bounds[:, 2] - bounds[:, 0] > 180)):
        out[k] = _straightened(out[k])
    parts, owner, box = _parts(out)
    return _turned(out, parts, owner, np.round((lon - (box[:, 0] + box[:, 2]) / 2) / 360))


def _parts(geometry: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The single parts that have an extent, the index of what each belongs to, and their bounds."""
    import numpy as np
    import shapely

    parts, owner = shapely.get_parts(geometry, return_index=True)
    box = shapely.bounds(parts)
    real = np.isfinite(box).all(1)
    return parts[real], owner[real], box[real]


def cut(geometry: np.ndarray) -> np.ndarray:
    """Valid polygons in degrees, cut at the antimeridian, no longitude beyond 180."""
    import numpy as np
    import shapely

    bounds = shapely.bounds(geometry)
    with np.errstate(invalid="ignore"):
        beyond = (bounds[:, 0] < -180) | (bounds[:, 2] > 180)
        beyond &= np.abs(bounds[:, [0, 2]]).max(1) <= FARTHEST
    if not beyond.any():
        return geometry
    out = geometry.copy()
    for k in np.flatnonzero(beyond):
        first = math.floor((bounds[k, 0] + 180) / 360)
        last = math.ceil((bounds[k, 2] - 180) / 360)
        pieces = [_between(out[k], turn) for turn in range(first, last + 1)]
        pieces = [part for piece in pieces for part in polygons_of(piece)]
        out[k] = pieces[0] if len(pieces) == 1 else shapely.MultiPolygon(pieces)
    return out


def _between(geometry, turn: int):
    """What of a polygon lies in one turn of the globe, brought to -180 to 180."""
    import shapely

    strip = shapely.box(-180 + 360 * turn, -90, 180 + 360 * turn, 90)
    return _shifted(shapely.intersection(geometry, strip), -360.0 * turn)


def polygons_of(geometry) -> list:
    """The single polygons of a geometry, without the points and lines beside them."""
    import shapely

    parts = shapely.get_parts(shapely.get_parts(shapely.get_parts(geometry)))
    return [p for p in parts if p.geom_type == "Polygon" and not p.is_empty]


def degrees(frame: gpd.GeoDataFrame) -> np.ndarray:
    """The polygons of a frame in any CRS, in WGS 84 degrees, whole."""
    import numpy as np
    import shapely

    moved = np.asarray(frame.geometry.to_crs(LON_LAT).values, dtype=object)
    out = whole(moved)
    if out is not moved:
        broken = ~shapely.is_valid(out)
        out[broken] = shapely.make_valid(out[broken])
    return out


def meet(bounds: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """Which of some bounds in degrees have a point in common with a box, any turn of the globe.

    Args:
        bounds: west, south, east, north of each, float64 (n, 4).
        box: the same of the box; where its west is greater, it reaches across the antimeridian.
    """
    import numpy as np

    west, south, east, north = box
    east += 360 * (east < west)
    with np.errstate(invalid="ignore"):
        rows = (bounds[:, 1] <= north) & (bounds[:, 3] >= south) & np.isfinite(bounds).all(1)
        turn = np.ceil((west - bounds[:, 2]) / 360)  # the first that is not wholly west of the box
        return rows & (bounds[:, 0] + 360 * turn <= east)


def equal_area(frame: gpd.GeoDataFrame) -> np.ndarray:
    """Valid polygons in `EQUAL_AREA_CRS`, cut at the antimeridian; one that has no place there
    becomes empty."""
    import geopandas as gpd
    import numpy as np
    import shapely

    source = gpd.GeoSeries(cut(degrees(frame)), crs=LON_LAT) if crosses(frame) else frame.geometry
    flat = np.asarray(source.to_crs(EQUAL_AREA_CRS).values, dtype=object)
    flat[~np.isfinite(shapely.bounds(flat)).all(1)] = shapely.Polygon()
    broken = ~shapely.is_valid(flat)
    if broken.any():
        flat[broken] = shapely.make_valid(flat[broken])
    return flat


def crosses(frame: gpd.GeoDataFrame) -> bool:
    """Whether a frame in any CRS may hold a polygon that crosses the antimeridian uncut."""
    from pyproj import Transformer

    bounds = frame.total_bounds
    if not all(map(math.isfinite, bounds)):
        return True
    if frame.crs.is_geographic:
        west, east = bounds[0], bounds[2]
    else:
        change = Transformer.from_crs(frame.crs, LON_LAT, always_xy=True)
        left, bottom, right, top = map(float, bounds)
        west, _, east, _ = change.transform_bounds(left, bottom, right, top, densify_pts=51)
    inside = -180 <= west <= east <= 180
    return not inside or east - west > 180


def on_plane(frame: gpd.GeoDataFrame, crs: str | CRS, lon: float | None = None) -> np.ndarray:
    """The polygons of a frame in another CRS, x before y, valid; empty what has no place there.

    Long edges are split before a change of CRS, so that neighbours whose vertices differ along a
    common straight border still share it afterwards.

    Args:
        frame: polygons in any CRS.
        crs: the target.
        lon: for a target in degrees, the meridian that polygons are to lie near, such as the
            middle of a grid that counts on beyond 180.
    """
    import numpy as np
    import shapely
    from pyproj import CRS, Transformer

    geometry = np.asarray(frame.geometry.values, dtype=object)
    source, target = frame.crs, CRS.from_user_input(crs)
    if source.equals(target, ignore_axis_order=True) and not source.is_geographic:
        return geometry
    transformer = Transformer.from_crs(source, target, always_xy=True)
    if source.is_geographic:
        geometry = whole(geometry)
    if source.is_geographic and target.is_geographic:
        still = source.equals(target, ignore_axis_order=True) or (
            transformer.definition.startswith("proj=noop") or "noop" in transformer.description
        )
        if still:
            return geometry if lon is None else near(geometry, lon)
    else:
        bounds = shapely.bounds(geometry)
        bounds = bounds[np.isfinite(bounds).all(1)]
        if bounds.size:
            extent = bounds[:, 2:].max(0) - bounds[:, :2].min(0)
            if extent.max() > 0:
                geometry = shapely.segmentize(geometry, extent.max() / SEGMENT_SHARE)
        if source.is_geographic:
            geometry = _cut_at_seam(geometry, target)

    def project(xy: np.ndarray) -> np.ndarray:
        x, y = transformer.transform(xy[:, 0], xy[:, 1])
        return np.column_stack([x, y])

    moved = shapely.transform(geometry, project)
    moved[~np.isfinite(shapely.bounds(moved)).all(1)] = shapely.Polygon()  # off the CRS's range
    if target.is_geographic:
        moved = whole(moved) if lon is None else near(whole(moved), lon)
    broken = ~shapely.is_valid(moved)
    if broken.any():
        moved[broken] = shapely.make_valid(moved[broken])
    return moved


def _cut_at_seam(geometry: np.ndarray, target: CRS) -> np.ndarray:
    """Polygons in degrees, cut where a projection's own plane ends, half the globe from its middle.

    Else such a polygon would reach from one end of the plane to the other, over everything.
    """
    import numpy as np
    import shapely

    middle = _central_meridian(target)
    if middle is None:
        return geometry
    bounds = shapely.bounds(geometry)
    with np.errstate(invalid="ignore"):
        seam = middle + 180 + 360 * np.floor((bounds[:, 2] - middle - 180) / 360)
        across = (bounds[:, 0] < seam - TOUCHING) & (seam + TOUCHING < bounds[:, 2])
    if not across.any():
        return geometry
    out = geometry.copy()
    for k in np.flatnonzero(across):
        sides = (
            shapely.box(seam[k] - 360, -90, seam[k] - TOUCHING, 90),
            shapely.box(seam[k] + TOUCHING, -90, seam[k] + 360, 90),
        )
        valid = shapely.make_valid(out[k])
        parts = [p for side in sides for p in polygons_of(shapely.intersection(valid, side))]
        out[k] = shapely.MultiPolygon(parts)
    return out


def _central_meridian(crs: CRS) -> float | None:
    """The middle of a projection whose plane has two ends, in degrees; None of any other."""
    operation = crs.coordinate_operation
    if operation is None or any(w in operation.method_name for w in PLANES_WITHOUT_ENDS):
        return None
    for parameter in operation.params:
        if parameter.name in ("Longitude of natural origin", "Longitude of false origin"):
            degrees = math.degrees(float(parameter.value) * parameter.unit_conversion_factor)
            return degrees + (crs.prime_meridian.longitude if crs.prime_meridian else 0.0)
    return None


def _straightened(geometry):
    """A polygon whose rings do not jump between the two ends of the degrees.

    A ring that goes round a pole, or from one end to the other and back, stays as it is.
    """
    import shapely

    polygons = []
    for part in shapely.get_parts(geometry):
        if part.geom_type != "Polygon":
            return geometry
        outer = _ring(part.exterior)
        if outer is None:
            polygons.append(part)
            continue
        middle = (outer[:, 0].min() + outer[:, 0].max()) / 2
        holes = []
        for hole in part.interiors:
            ring = _ring(hole)
            if ring is None:
                ring = shapely.get_coordinates(hole)
            inner = (ring[:, 0].min() + ring[:, 0].max()) / 2
            ring[:, 0] += 360 * round((middle - inner) / 360)
            holes.append(ring)
        polygons.append(shapely.Polygon(outer, holes))
    return polygons[0] if len(polygons) == 1 else shapely.MultiPolygon(polygons)


def _ring(ring) -> np.ndarray | None:
    """A ring's coordinates without jumps of half the globe or more; None where that is no ring."""
    import numpy as np
    import shapely

    xy = shapely.get_coordinates(ring)
    turns = -np.cumsum(np.round(np.diff(xy[:, 0]) / 360))
    xy[1:, 0] += 360 * turns
    flat = np.ptp(xy[:, 0]) == 0
    return None if turns[-1] != 0 or flat else xy


def _widest_gap(west: np.ndarray, east: np.ndarray) -> float | None:
    """The meridian behind the widest gap between intervals on the globe; None where none is."""
    import numpy as np

    if ((east - west) >= 360).any():
        return None
    start = np.mod(west, 360)
    order = np.argsort(start)
    start, end = start[order], (start + east - west)[order]
    reach = np.maximum.accumulate(np.maximum(end, end.max() - 360))
    gaps = np.append(start[1:], start[0] + 360) - reach
    widest = int(np.argmax(gaps))
    if gaps[widest] <= 0:
        return None
    return float(start[(widest + 1) % len(start)])


def _turned(
    geometry: np.ndarray, parts: np.ndarray, owner: np.ndarray, turns: np.ndarray
) -> np.ndarray:
    """Polygons with each part turned round the globe so many times; parts that meet are joined."""
    import numpy as np
    import shapely

    out = geometry.copy()
    box = shapely.bounds(parts)
    ends = np.abs(np.abs(box[:, [0, 2]]) - 180).min(1) < TOUCHING
    changed = np.unique(owner[turns != 0])
    single = np.bincount(owner, minlength=len(out)) == 1
    moved = parts.copy()
    for k in np.flatnonzero(turns != 0):
        moved[k] = _shifted(parts[k], 360.0 * turns[k])
    first = np.searchsorted(owner, np.arange(len(out) + 1))
    for k in changed:
        own = slice(first[k], first[k + 1])
        if single[k]:
            out[k] = moved[own][0]
        elif ends[own].sum() > 1:
            out[k] = shapely.union_all([shapely.make_valid(p) for p in moved[own]])
        elif all(p.geom_type == "Polygon" for p in moved[own]):
            out[k] = shapely.MultiPolygon(list(moved[own]))
        else:
            out[k] = shapely.GeometryCollection(list(moved[own]))
    return out


def _shifted(geometry, by: float):
    import numpy as np
    import shapely

    return shapely.transform(geometry, lambda xy: xy + np.array([by, 0.0])) if by else geometry
