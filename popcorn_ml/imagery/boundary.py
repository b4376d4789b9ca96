"""A country's outline from a vector file: which tiles it needs, and how far its grid reaches.

The file is read as the boundaries of census units are: in the same formats, layers and archives.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popcorn_ml.errors import CensusError, ConfigError

if TYPE_CHECKING:
    import geopandas as gpd
    import numpy as np
    from shapely.geometry.base import BaseGeometry


METRES_A_DEGREE = 110_500
"""Of latitude, where it has the fewest, at the equator (WGS 84: 110,574)."""


@dataclass(frozen=True)
class Boundary:
    """A boundary file and what of it is meant.

    Attributes:
        path: the file, or a zip archive with it.
        member: the file inside an archive with several.
        layer: the layer, where the file has several.
        where: keep only features with these values.
        crs: of a file that does not say.
        margin_m: how far beyond the polygons still counts as inside.
    """

    path: Path
    member: str | None = None
    layer: str | None = None
    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    crs: str | None = None
    margin_m: float = 0

    def __str__(self) -> str:
        return str(self.path)

    def as_dict(self) -> dict[str, Any]:
        """What is said of the file beyond its name, as plain values; empty where nothing is."""
        said = {
            "member": self.member,
            "layer": self.layer,
            "where": {name: list(values) for name, values in self.where.items()},
            "crs": self.crs,
            "margin_m": self.margin_m,
        }
        return {name: value for name, value in said.items() if value}


def outline(boundary: Path | Boundary, crs: str, lon: float | None = None) -> BaseGeometry:
    """The union of a file's polygons and its margin, in `crs`.

    Args:
        boundary: the file.
        crs: the target.
        lon: for a target in degrees, the meridian near which the outline is wanted, such as the
            middle of a grid that counts on beyond 180.

    Raises:
        ConfigError: missing, unreadable, empty, without CRS, of several layers of which none is
            named, or not of polygons.
    """
    import shapely

    from popcorn_ml.census.globe import on_plane

    given = boundary if isinstance(boundary, Boundary) else Boundary(Path(boundary))
    try:
        frame = _features(given)
    except CensusError as error:
        what = error.what.replace("a census file", "the boundary file")
        raise ConfigError(
            what if "boundary file" in what else f"the boundary file cannot be read: {what}",
            where=error.where,
            expected=error.expected,
            found=error.found,
            remedy=(error.remedy or "").replace("`boundaries.", "`grid.") or None,
        ) from error
    shape = shapely.union_all(on_plane(frame, crs, lon))
    if shape.is_empty:
        raise ConfigError(
            "the boundary file has no polygon",
            where=given.path,
            expected=f"polygons within the range of {crs}",
            remedy="correct the file, or the grid's `crs`",
        )
    return _widened(shape, crs, given.margin_m) if given.margin_m else shape


def _widened(shape: BaseGeometry, crs: str, margin_m: float) -> BaseGeometry:
    """The shape and at least `margin_m` around it.

    In degrees, a margin is as wide as it has to be where the shape is farthest from the equator.
    """
    import math

    from pyproj import CRS
    from shapely.affinity import scale

    plane = CRS.from_user_input(crs)
    if not plane.is_geographic:
        return shape.buffer(margin_m / plane.axis_info[0].unit_conversion_factor)
    _, south, _, north = shape.bounds
    degrees = margin_m / METRES_A_DEGREE
    farthest = min(max(abs(south), abs(north)) + degrees, 89.0)
    narrow = math.cos(math.radians(farthest))
    wide = scale(shape, narrow, 1, origin=(0, 0)).buffer(degrees)
    return scale(wide, 1 / narrow, 1, origin=(0, 0))


def _features(boundary: Boundary) -> gpd.GeoDataFrame:
    """The polygons of a file, whole across the antimeridian, with their CRS."""
    import geopandas as gpd
    import numpy as np
    import shapely

    from popcorn_ml.census.boundaries import VECTOR_SUFFIXES, read_features
    from popcorn_ml.census.files import Files
    from popcorn_ml.census.settings import BoundarySettings

    path = boundary.path.resolve()
    settings = BoundarySettings(
        file=path.name, member=boundary.member, layer=boundary.layer, crs=boundary.crs,
        where=dict(boundary.where),
    )  # fmt: skip
    with Files(path.parent) as files:
        frame = read_features(files.open(settings, VECTOR_SUFFIXES), settings)
    geometry = shapely.force_2d(np.asarray(frame.geometry.values, dtype=object))
    geometry = geometry[~(shapely.is_missing(geometry) | shapely.is_empty(geometry))]
    areas = _areas(geometry)
    if areas.size == 0:
        kinds = Counter(g.geom_type for g in geometry).most_common()
        raise CensusError(
            "the boundary file has no polygon",
            where=boundary.path,
            expected="the country's outline as polygons: lines and points enclose nothing",
            found=", ".join(f"{count} {kind}" for kind, count in kinds) or "no geometry",
            remedy="turn the lines into polygons (QGIS: Vector geometry, Lines to polygons), or "
            "fetch the country's polygons",
        )
    return gpd.GeoDataFrame(geometry=areas, crs=frame.crs)


def _areas(geometry: np.ndarray) -> np.ndarray:
    """The valid polygons among geometries, also inside collections."""
    import numpy as np
    import shapely

    parts = shapely.get_parts(shapely.get_parts(shapely.get_parts(geometry)))
    areas = parts[np.isin(shapely.get_type_id(parts), (3, 6))]
    broken = ~shapely.is_valid(areas)
    areas[broken] = shapely.make_valid(areas[broken])
    return areas
