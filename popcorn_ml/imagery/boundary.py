"""A country's outline from a vector file: which tiles it needs, and how far its grid reaches.

Read as census boundaries are: GeoPackage, GeoJSON, Shapefile, GeoParquet and TopoJSON, also inside
a zip archive. Only polygons make an outline.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from popcorn_ml.errors import CensusError, ConfigError

if TYPE_CHECKING:
    import geopandas as gpd
    from shapely.geometry.base import BaseGeometry


def outline(path: Path, crs: str) -> BaseGeometry:
    """The union of a file's polygons, in `crs`.

    Raises:
        ConfigError: missing, unreadable, of several layers, without CRS, or without polygons.
    """
    import shapely

    if not Path(path).exists():
        raise ConfigError(
            "the boundary file is missing", where=path, remedy="correct its path in the country"
        )
    try:
        table = _table(Path(path))
    except CensusError as error:
        remedy = error.remedy
        if "several layers" in error.what:
            remedy = "save the one with the country's outline as a file of its own"
        elif "CRS" in error.what:
            remedy = "add it, for instance with ogr2ogr -a_srs"
        raise ConfigError(
            f"the boundary file cannot be read: {error.what}",
            where=path,
            expected=error.expected,
            found=error.found,
            remedy=remedy,
        ) from None
    given = table.geometry.dropna()
    parts = given.make_valid().explode(index_parts=False)
    polygons = parts[parts.geom_type.isin(["Polygon", "MultiPolygon"]) & ~parts.is_empty]
    if polygons.empty:
        kinds = Counter(given.geom_type).most_common()
        raise ConfigError(
            "the boundary file has no polygon",
            where=path,
            expected="the country's outline as polygons: lines and points enclose nothing",
            found=", ".join(f"{count} {kind}" for kind, count in kinds) or "no geometry",
            remedy="turn the lines into polygons (QGIS: Vector geometry, Lines to polygons), or "
            "fetch the country's polygons",
        )
    return shapely.make_valid(polygons.to_crs(crs).union_all())


def _table(path: Path) -> gpd.GeoDataFrame:
    """The features of a boundary file, taken out of its archive if it is in one."""
    from popcorn_ml.census import archive
    from popcorn_ml.census.boundaries import VECTOR_SUFFIXES, features
    from popcorn_ml.census.settings import BoundarySettings

    settings = BoundarySettings(file=path.name)
    if path.suffix.lower() != ".zip":
        return features(path, settings)
    with tempfile.TemporaryDirectory(prefix="outline-") as folder:
        members = archive.unpack(path, Path(folder))
        chosen = [member for member in members if member.suffix.lower() in VECTOR_SUFFIXES]
        if len(chosen) != 1:
            raise CensusError(
                "the archive does not hold one boundary file",
                expected="one of " + ", ".join(VECTOR_SUFFIXES),
                found=", ".join(member.name for member in chosen) or "none",
                remedy="save the one with the country's outline as a file of its own",
            )
        return features(chosen[0], settings)
