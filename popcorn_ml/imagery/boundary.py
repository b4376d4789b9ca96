"""A country's outline from a vector file: which tiles it needs, and how far its grid reaches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from popcorn_ml.errors import ConfigError

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry


def outline(path: Path, crs: str) -> BaseGeometry:
    """The union of a file's polygons, in `crs`.

    Raises:
        ConfigError: missing, unreadable, empty, or without CRS.
    """
    import geopandas

    from popcorn_ml.census.boundaries import genuine

    if not Path(path).exists():
        raise ConfigError(
            "the boundary file is missing", where=path, remedy="correct its path in the country"
        )
    try:
        genuine(Path(path))  # GDAL would follow a virtual file to wherever it says
        table = geopandas.read_file(path)
    except Exception as error:  # whatever the driver of this format raises
        raise ConfigError(
            "the boundary file cannot be read",
            where=path,
            expected="polygons, for instance GeoPackage or GeoJSON",
            found=str(error),
        ) from error
    if table.crs is None:
        raise ConfigError(
            "the boundary file says no CRS",
            where=path,
            remedy="add it, for instance with ogr2ogr -a_srs",
        )
    shape = table.geometry.dropna().make_valid().to_crs(crs).union_all()
    if shape.is_empty:
        raise ConfigError("the boundary file has no polygon", where=path)
    return shape
