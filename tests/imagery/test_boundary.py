"""A country's outline: polygons only, read as the boundaries of census units are."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import geopandas as gpd
import pytest
import shapely

from popcorn_ml.errors import ConfigError
from popcorn_ml.grid import Grid
from popcorn_ml.imagery.boundary import Boundary, outline
from popcorn_ml.imagery.build import tiles_inside
from popcorn_ml.imagery.presets import grid_of_boundary

UTM = "EPSG:32736"
LAND = shapely.box(500_000, 9_800_000, 504_000, 9_804_000)
COAST = LAND.exterior
CAPITAL = shapely.Point(501_000, 9_801_000)
ISLAND = shapely.box(506_000, 9_800_000, 507_000, 9_801_000)


def written(path: Path, *features, to: str | None = None, **options) -> Path:
    frame = gpd.GeoDataFrame(
        {"kind": [g.geom_type for g in features]}, geometry=list(features), crs=UTM
    )
    frame = frame.to_crs(to) if to else frame
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_file(path, **options)
    return path


@pytest.mark.parametrize(
    "features",
    [
        (COAST,),  # closed, and no area all the same
        (CAPITAL, shapely.Point(503_000, 9_803_000)),
        (shapely.MultiLineString([COAST, ISLAND.exterior]),),
        (shapely.GeometryCollection([COAST, CAPITAL]),),
    ],
)
def test_lines_and_points_enclose_nothing(tmp_path: Path, features) -> None:
    path = written(tmp_path / "b.geojson", *features)
    with pytest.raises(ConfigError, match="no polygon") as caught:
        outline(path, UTM)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "features",
    [
        (LAND, CAPITAL),
        (LAND, ISLAND.exterior),
        (shapely.GeometryCollection([LAND, COAST, CAPITAL]),),
        (shapely.MultiPolygon([LAND, ISLAND]), shapely.Point(509_500, 9_800_500)),
    ],
)
def test_only_polygons_count_beside_others(tmp_path: Path, features) -> None:
    polygons = [p for g in features for p in shapely.get_parts(g) if p.geom_type == "Polygon"]
    shape = outline(written(tmp_path / "b.geojson", *features, to="EPSG:4326"), UTM)
    assert shape.area == pytest.approx(sum(p.area for p in polygons), rel=1e-6)


def test_several_layers_are_named_and_one_is_chosen(tmp_path: Path) -> None:
    path = written(tmp_path / "b.gpkg", CAPITAL.buffer(500), layer="capital")
    written(path, LAND, layer="country")
    with pytest.raises(ConfigError, match="several layers") as caught:
        outline(path, UTM)
    assert "capital, country" in str(caught.value)
    grid = grid_of_boundary(Boundary(path, layer="country"), UTM, 10.0)
    assert (grid.width, grid.height) == (400, 400)


def test_formats_and_archives_are_those_of_census_boundaries(tmp_path: Path) -> None:
    parquet = written(tmp_path / "b.parquet", LAND)
    shape = written(tmp_path / "land.shp", LAND)
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        for part in tmp_path.glob("land.*"):
            archive.write(part, part.name)
        archive.write(written(tmp_path / "island.gpkg", ISLAND), "island.gpkg")
    topology = {
        "type": "Topology", "arcs": [[[33, -2], [34, -2], [34, -1], [33, -1], [33, -2]]],
        "objects": {"land": {"type": "Polygon", "arcs": [[0]]}},
    }  # fmt: skip
    (tmp_path / "b.topojson").write_text(json.dumps(topology))
    archive_path = tmp_path / "b.zip"
    for path in (parquet, shape, Boundary(archive_path, member="land.shp")):
        assert outline(path, UTM).equals(LAND)
    assert outline(tmp_path / "b.topojson", "EPSG:4326").area == pytest.approx(1)
    with pytest.raises(ConfigError, match="several files that could be meant"):
        outline(archive_path, UTM)
    world = written(tmp_path / "world.gpkg", LAND, ISLAND.exterior)
    kept = Boundary(world, where={"kind": ("Polygon",)})
    assert outline(kept, UTM).equals(LAND)


@pytest.mark.parametrize("crs", [None, "EPSG:4326", "EPSG:3832"])
@pytest.mark.parametrize("way", ["cut", "0..360", "jumping"])
def test_across_the_antimeridian_the_grid_is_as_small_as_the_country(
    tmp_path: Path, way: str, crs: str | None
) -> None:
    land = shapely.box(179.9, -17.0, 180.1, -16.9)
    if way == "cut":
        land = shapely.union(
            shapely.box(179.9, -17, 180, -16.9), shapely.box(-180, -17, -179.9, -16.9)
        )
    elif way == "jumping":
        land = shapely.Polygon([(179.9, -17), (-179.9, -17), (-179.9, -16.9), (179.9, -16.9)])
    path = tmp_path / "b.geojson"
    gpd.GeoDataFrame(geometry=[land], crs="EPSG:4326").to_file(path)
    step = 0.0005 if crs == "EPSG:4326" else 50.0
    grid = grid_of_boundary(path, crs, step)
    assert max(grid.shape) < 500
    if crs is None:
        assert grid.crs in ("EPSG:32701", "EPSG:32760")
    tiles = list(grid.tiles(50))
    assert tiles_inside(grid, tiles, path) == tiles
    if crs == "EPSG:4326":
        other = Grid(crs, grid.west - 360, grid.north, step, grid.width, grid.height)
        assert len(tiles_inside(other, list(other.tiles(50)), path)) == len(tiles)


@pytest.mark.parametrize("crs", [UTM, "EPSG:4326"])
def test_a_margin_is_as_wide_as_it_says_in_any_crs(tmp_path: Path, crs: str) -> None:
    path = written(tmp_path / "b.gpkg", LAND)
    wide = outline(Boundary(path, margin_m=700), crs)
    edge = gpd.GeoSeries([wide.boundary], crs=crs).to_crs(UTM).iloc[0]
    away = [LAND.distance(shapely.Point(xy)) for xy in shapely.get_coordinates(edge)]
    assert 695 < min(away) <= max(away) < 712
    assert outline(Boundary(path), crs).equals(outline(path, crs))


def test_a_margin_brings_in_the_tiles_beside_the_boundary(tmp_path: Path) -> None:
    path = written(tmp_path / "b.gpkg", shapely.box(501_000, 9_801_000, 502_000, 9_802_000))
    grid = Grid.covering(UTM, LAND.bounds, 10.0)
    tiles = list(grid.tiles(100))
    near = tiles_inside(grid, tiles, Boundary(path))
    wide = tiles_inside(grid, tiles, Boundary(path, margin_m=300))
    assert {t.index for t in near} <= {t.index for t in wide}
    assert len(wide) == 9
