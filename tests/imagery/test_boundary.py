"""A country's outline: polygons alone, whatever the format, and one layer of them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import geopandas
import pytest
from shapely import LineString, MultiPoint, Point, box
from shapely.geometry import GeometryCollection

from popcorn_ml.errors import ConfigError
from popcorn_ml.imagery.boundary import outline

SHAPE = box(30.0, -2.0, 31.0, -1.0)


def written(path: Path, *geometries: object, **options: object) -> Path:
    frame = geopandas.GeoDataFrame(geometry=list(geometries), crs=4326)
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_file(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.gpkg", "a.geojson", "a.shp", "a.parquet"])
def test_every_format_of_census_boundaries_is_read(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, SHAPE)
    assert outline(path, "EPSG:4326").equals(SHAPE)
    packed = tmp_path / "a.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for file in tmp_path.glob("a.*"):
            if file != packed:
                archive.write(file, file.name)
    assert outline(packed, "EPSG:4326").equals(SHAPE)


@pytest.mark.parametrize(
    "shape",
    [SHAPE.exterior, LineString(SHAPE.exterior.coords), MultiPoint(SHAPE.exterior.coords)],
)
def test_lines_and_points_enclose_nothing(tmp_path: Path, shape: object) -> None:
    with pytest.raises(ConfigError, match="no polygon") as failure:
        outline(written(tmp_path / "a.geojson", shape), "EPSG:32736")
    assert "1 " in str(failure.value)


def test_only_polygons_count_beside_others(tmp_path: Path) -> None:
    road = LineString([(0, 0), (60, 50)])
    many = GeometryCollection([SHAPE, road])
    for geometries in ([SHAPE, road], [SHAPE, Point(0, 0)], [many]):
        assert outline(written(tmp_path / "a.geojson", *geometries), "EPSG:4326").equals(SHAPE)


def test_several_layers_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.gpkg"
    written(path, SHAPE, layer="provinces")
    written(path, SHAPE.buffer(1), layer="country")
    with pytest.raises(ConfigError, match="several layers") as failure:
        outline(path, "EPSG:4326")
    assert "provinces, country" in str(failure.value)
