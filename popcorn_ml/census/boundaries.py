"""Reading boundary files into valid polygons with a CRS, and saying what had to be mended.

GeoPackage, GeoJSON, Shapefile, GeoParquet and TopoJSON, also inside a zip archive. Rasters of unit
numbers are polygonised in `unit_rasters`. Which attribute means what comes from the settings.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from popcorn_ml.census.findings import Finding
from popcorn_ml.census.geometry import mend, unite
from popcorn_ml.census.globe import LON_LAT, whole
from popcorn_ml.census.settings import BoundarySettings
from popcorn_ml.census.tables import pick_column
from popcorn_ml.census.text import clean_id, clean_name
from popcorn_ml.errors import CensusError

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

VECTOR_SUFFIXES = (".gpkg", ".geojson", ".json", ".topojson", ".shp", ".parquet", ".geoparquet")
RASTER_SUFFIXES = (".tif", ".tiff")
MAGIC: dict[str, tuple[bytes, ...]] = {
    ".gpkg": (b"SQLite format 3\x00",),
    ".shp": (b"\x00\x00\x27\x0a",),
    ".parquet": (b"PAR1",),
    ".geoparquet": (b"PAR1",),
    ".geojson": (b"{",),
    ".json": (b"{",),
    ".topojson": (b"{",),
    ".tif": (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"),
    ".tiff": (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"),
}
"""How files of a kind begin. GDAL goes by contents and would follow a virtual file, whatever its
name, to any path or address written in it."""


NOT_AREAL = ("Point", "LineString", "Point Z", "LineString Z", "Point M", "LineString M")
"""Ends of the names of geometry types that are no polygons."""


@dataclass(frozen=True)
class Boundaries:
    """Units as polygons.

    Attributes:
        path: the file.
        frame: GeoDataFrame in the file's CRS: id, name, parent (text), row (1-based feature
            number), vintage, geometry (valid polygons, two-dimensional).
        findings: what was wrong or mended.
    """

    path: Path
    frame: gpd.GeoDataFrame
    findings: tuple[Finding, ...]


def read_boundaries(path: Path, settings: BoundarySettings, year: int | None = None) -> Boundaries:
    """Read polygons; those of one id are joined where they carry one name.

    Args:
        path: the file itself (`readers.Files` opens archives).
        settings: layer, columns and CRS.
        year: the partition's, where one file holds several vintages.

    Raises:
        CensusError: missing, unreadable, empty, without CRS or with one that contradicts the
            settings, without the named columns, without polygons.
    """
    raw = read_features(path, settings)
    findings: list[Finding] = []
    if raw.attrs.get("encoding_guessed"):
        findings.append(
            Finding(
                "units_readable",
                "warn",
                f"{path}: attributes are not UTF-8; read as {raw.attrs['encoding_guessed']}. Look "
                "at the names, and state `encoding` in the country's file",
            )
        )
    frame = _columns(raw, path, settings)
    if settings.year_column is not None:
        frame = _in_force(frame, raw, path, settings, year)
    if settings.shift != (0.0, 0.0):
        frame["geometry"] = frame.geometry.translate(*settings.shift)
    frame, found = mend(frame, path)
    findings += found
    frame, found = unite(frame, path)
    findings += found
    if frame.empty:
        raise CensusError(
            "the boundary file has no usable polygon",
            where=path,
            expected="polygons",
            found="; ".join(f.message for f in findings) or "none",
            remedy="hand in polygons, one or more for each unit",
        )
    return Boundaries(path, frame, tuple(findings))


def read_features(path: Path, settings: BoundarySettings) -> gpd.GeoDataFrame:
    """The features that the settings choose, as they are in the file, but whole across the
    antimeridian.

    Raises:
        CensusError: missing, unreadable, of several layers, empty, without CRS or with one that
            contradicts the settings.
    """
    import numpy as np

    raw = _open(path, settings)
    if len(raw) == 0:
        raise CensusError(
            "the boundary file has no features",
            where=path,
            expected="at least one polygon",
            found="none",
            remedy="export it again with its features",
        )
    raw = _kept(_with_crs(raw, path, settings), path, settings)
    if raw.crs.is_geographic:
        raw[raw.geometry.name] = whole(np.asarray(raw.geometry.values, dtype=object))
    return raw


def genuine(path: Path) -> None:
    """Refuse a boundary file or raster that is missing, empty, or not of the kind it is called.

    Raises:
        CensusError: so.
    """
    suffix = path.suffix.lower()
    if not path.is_file():
        raise CensusError(
            "the file is missing",
            where=path,
            remedy="put it there, or correct its path in the country's file",
        )
    with open(path, "rb") as stream:
        head = stream.read(64)
    if not head:
        raise CensusError(
            "the file is empty",
            where=path,
            found="0 bytes",
            remedy="fetch or export it again",
        )
    kinds = VECTOR_SUFFIXES + RASTER_SUFFIXES
    if suffix not in kinds:
        raise CensusError(
            "this kind of boundary file is not read",
            where=path,
            expected="one of " + ", ".join(kinds),
            found=suffix or "no suffix",
            remedy="save it as GeoPackage",
        )
    if not head.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n").startswith(MAGIC[suffix]):
        raise CensusError(
            "the file is not of the kind that its name says",
            where=path,
            expected=f"a {suffix} file",
            found=f"it begins with {head[:16]!r}",
            remedy="fetch the file itself again, or give it its right suffix",
        )


def _open(path: Path, settings: BoundarySettings) -> gpd.GeoDataFrame:
    import geopandas as gpd
    import pyarrow as pa

    genuine(path)
    suffix = path.suffix.lower()
    if suffix not in VECTOR_SUFFIXES:
        raise CensusError(
            "this kind of boundary file is not read",
            where=path,
            expected="one of " + ", ".join(VECTOR_SUFFIXES),
            found=suffix or "no suffix",
            remedy="save it as GeoPackage",
        )
    try:
        if suffix in (".parquet", ".geoparquet"):
            return gpd.read_parquet(path)
        if suffix == ".shp":
            return _open_shapefile(path, settings)
        return gpd.read_file(path, engine="pyogrio", layer=_one_layer(path, settings))
    except CensusError:
        raise
    except (pa.ArrowException, ValueError, OSError, RuntimeError, UnicodeError) as error:
        raise CensusError(
            "the boundary file cannot be read",
            where=path,
            expected=f"a complete {suffix} file",
            found=str(error).splitlines()[0],
            remedy="open it in QGIS, mend it and export it again",
        ) from error


def attribute_names(path: Path, settings: BoundarySettings) -> list[str]:
    """Names of the attributes of a boundary file, the geometry's left out."""
    raw = _open(path, settings)
    return [str(c) for c in raw.columns if c != raw.geometry.name]


def _one_layer(path: Path, settings: BoundarySettings) -> str | None:
    """The layer to read: the one that is named, or the only one that can hold polygons.

    GDAL would take the first, be it a table without geometry.
    """
    import pyogrio

    kinds = {str(name): kind for name, kind in pyogrio.list_layers(path) if kind is not None}
    layers = list(kinds)
    if settings.layer is not None and settings.layer not in layers:
        raise CensusError(
            "the boundary file has no such layer",
            where=path,
            expected=settings.layer,
            found=", ".join(layers),
            remedy="correct `layer` in the country's file",
        )
    if settings.layer is not None:
        return settings.layer
    areal = [n for n in layers if not str(kinds[n]).endswith(NOT_AREAL)]
    if len(areal) > 1 or (not areal and len(layers) > 1):
        raise CensusError(
            "the boundary file has several layers",
            where=path,
            expected="one, or its name in the settings",
            found=", ".join(areal or layers),
            remedy="name one as `layer` in the country's file",
        )
    return next(iter(areal or layers), None)


def _open_shapefile(path: Path, settings: BoundarySettings) -> gpd.GeoDataFrame:
    import geopandas as gpd

    missing = [s for s in (".dbf", ".shx") if not _sibling(path, s)]
    if missing:
        raise CensusError(
            "the shapefile is not complete",
            where=path,
            expected="the .dbf, .shx and .prj files beside it",
            found="missing: " + ", ".join(missing),
            remedy="hand in all its files, best in one zip archive",
        )
    if settings.encoding or _sibling(path, ".cpg"):
        return gpd.read_file(path, engine="pyogrio", encoding=settings.encoding)
    try:
        return gpd.read_file(path, engine="pyogrio", encoding="utf-8")
    except UnicodeDecodeError:
        frame = gpd.read_file(path, engine="pyogrio", encoding="cp1252")
        frame.attrs["encoding_guessed"] = "cp1252"
        return frame


def _sibling(path: Path, suffix: str) -> bool:
    return any(path.with_suffix(s).is_file() for s in (suffix, suffix.upper()))


def _with_crs(raw: gpd.GeoDataFrame, path: Path, settings: BoundarySettings) -> gpd.GeoDataFrame:
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    stated = None
    if settings.crs is not None:
        try:
            stated = CRS.from_user_input(settings.crs)
        except CRSError as error:
            raise CensusError(
                "the settings name an unknown CRS",
                where=path,
                expected="a code such as EPSG:4326",
                found=settings.crs,
                remedy="correct `crs` in the country's file",
            ) from error
    crs = raw.crs
    if crs is not None and any(word in crs.name.lower() for word in ("unknown", "undefined")):
        crs = None
    if crs is None and stated is None and _is_topojson(path):
        stated = CRS.from_user_input(LON_LAT)  # TopoJSON has no other, unless settings say so
    if crs is None and stated is None:
        raise CensusError(
            "the boundary file does not say its CRS",
            where=path,
            expected="a CRS in the file (for a shapefile, the .prj beside it)",
            found="none",
            remedy="state `crs` in the country's file, from the agency's documentation",
        )
    if crs is not None and stated is not None and not crs.equals(stated, ignore_axis_order=True):
        raise CensusError(
            "the boundary file's CRS is not the one in the settings",
            where=path,
            expected=settings.crs,
            found=crs.to_string()[:60],
            remedy="remove `crs` from the country's file, or correct the file",
        )
    return raw if crs is not None else raw.set_crs(stated, allow_override=True)


def _is_topojson(path: Path) -> bool:
    if path.suffix.lower() == ".topojson":
        return True
    if path.suffix.lower() != ".json":
        return False
    try:
        return json.loads(path.read_bytes()).get("type") == "Topology"
    except (ValueError, AttributeError):
        return False


def _kept(raw: gpd.GeoDataFrame, path: Path, settings: BoundarySettings) -> gpd.GeoDataFrame:
    """The features that `where` keeps; their numbers in the file stay in the index."""
    names = [str(c) for c in raw.columns if c != raw.geometry.name]
    attrs = raw.attrs
    for name, values in settings.where.items():
        column = pick_column(names, name, "the filter", "boundaries.where", path)
        raw = raw[raw[column].map(clean_id).isin([clean_id(v) for v in values])]
    if raw.empty:
        raise CensusError(
            "no feature of the boundary file passes the filter",
            where=path,
            expected=", ".join(f"{k} = {' or '.join(v)}" for k, v in settings.where.items()),
            remedy="correct `boundaries.where` in the country's file",
        )
    raw.attrs = attrs
    return raw


def _columns(raw: gpd.GeoDataFrame, path: Path, settings: BoundarySettings) -> gpd.GeoDataFrame:
    import geopandas as gpd

    names = [str(c) for c in raw.columns if c != raw.geometry.name]
    wanted = settings.columns

    def column(name: str, purpose: str) -> pd.Series:
        found = pick_column(names, name, purpose, f"boundaries.columns.{purpose}", path)
        return raw[found]

    data: dict[str, object] = {}
    parts = [column(name, "id").map(clean_id) for name in wanted.id]
    if parts:
        data["id"] = ["".join(pair) for pair in zip(*parts, strict=True)]
    for key in ("name", "parent"):
        name = getattr(wanted, key)
        data[key] = list(column(name, key).map(clean_name)) if name else [""] * len(raw)
    if not parts:
        if wanted.name is None:
            raise CensusError(
                "the settings name neither an id nor a name column of the boundaries",
                where=path,
                expected="boundaries.columns.id or .name",
                found=", ".join(names),
                remedy="add it to the country's file",
            )
        data["id"] = [
            f"{parent}/{name}" if parent else name
            for parent, name in zip(data["parent"], data["name"], strict=True)  # type: ignore[call-overload]
        ]
    frame = gpd.GeoDataFrame(data, geometry=list(raw.geometry), crs=raw.crs)
    frame["row"] = [int(i) + 1 for i in raw.index]
    frame["vintage"] = settings.vintage if settings.vintage is not None else -1
    return frame


def _in_force(
    frame: gpd.GeoDataFrame,
    raw: gpd.GeoDataFrame,
    path: Path,
    settings: BoundarySettings,
    year: int | None,
) -> gpd.GeoDataFrame:
    import pandas as pd

    assert settings.year_column is not None
    names = [str(c) for c in raw.columns]
    found = pick_column(names, settings.year_column, "vintage", "boundaries.year_column", path)
    vintages = pd.to_numeric(raw[found], errors="coerce")
    known = sorted({int(v) for v in vintages.dropna()})
    if not known:
        raise CensusError(
            "no feature says its year",
            where=path,
            expected=f"years in {found!r}",
            remedy="correct `boundaries.year_column` in the country's file",
        )
    past = [v for v in known if year is None or v <= year]
    chosen = past[-1] if past else known[0]
    keep = (vintages == chosen).to_numpy()
    out = frame[keep].reset_index(drop=True)
    out["vintage"] = chosen
    return out
