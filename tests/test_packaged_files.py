"""What the packaged countries come with: unchanged, found, wide enough, and less to fetch."""

from __future__ import annotations

import hashlib
import math

import geopandas as gpd
import pytest
import shapely

from popcorn_assets.assets.census import census_files, census_folders
from popcorn_assets.country import load_country
from popcorn_assets.paths import PACKAGED_FILES, given_path
from popcorn_ml.census.examine import examine
from popcorn_ml.errors import ConfigError
from popcorn_ml.imagery.boundary import outline
from popcorn_ml.imagery.estimate import estimate

SHA256 = {
    "outlines/che.geojson": "c79872409692687931d9c21b14c67cfb45704ab942c4108cff8e6d20b395a55e",
    "outlines/rwa.geojson": "1a9e034bd6274f3dcd390bcb73ebf43cfc969396e96934cee5368a8f20b838d0",
    "outlines/uga.geojson": "4d1cfd8048951ae4bbca73df3b8e2548fd69df40b3932ee720fa9c13b9e61b1f",
    "pricp2/municipios.geojson": "c40bc1debf469b34a25fa6810e66f4ba0df6b79b16c513a026a139052e000623",
    "pricp2/population_2020.csv": (
        "3c0cf1a951b0f85bfbe9a229ae23c0666cf6ef2997ee3e24404599ad70c5000a"
    ),
}
BORDER = {  # places that the bare outline leaves outside, or nearly: their points in GeoNames
    "rwa": [(29.25639, -1.70278), (28.9075, -2.4846)],  # Gisenyi, Cyangugu
    "uga": [(34.26056, 0.64444)],  # Malaba
    "che": [(6.24332, 46.30141), (9.65558, 47.386), (9.03119, 45.83203)],  # Hermance, Chiasso, ...
    "pricp2": [(-67.24685, 18.32189)],  # Stella
}
SHARE = {"rwa": 0.67, "uga": 0.67, "che": 0.65, "pricp2": 0.86}
"""Of the bytes of the whole grid, at most; measured 0.663, 0.669, 0.645, 0.851."""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("POPCORN_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


def test_no_file_was_changed_and_none_is_without_its_digest():
    there = {p for p in PACKAGED_FILES.rglob("*") if p.is_file() and p.name != "README.md"}
    assert {p.relative_to(PACKAGED_FILES).as_posix() for p in there} == set(SHA256)
    for name, digest in SHA256.items():
        assert hashlib.sha256((PACKAGED_FILES / name).read_bytes()).hexdigest() == digest, name


def test_puerto_rico_has_its_census_without_anything_put_anywhere():
    country = load_country("pricp2")
    assert {path.parent for path in census_files(country)} == {PACKAGED_FILES / "pricp2"}
    found = examine(country.census, country.pixel_grid(), census_folders("pricp2"))
    assert [check.name for check in found.checks if not check.passed] == []
    assert (found.years, found.missing) == ((2020,), ())
    level = found.levels["municipio"]
    assert (level.units, level.joined, level.people) == (78, 78, {2020: 3_285_874})


def test_the_stores_own_file_wins_over_the_packaged(tmp_path):
    assert given_path("outlines/rwa.geojson") == PACKAGED_FILES / "outlines/rwa.geojson"
    own = tmp_path / "data" / "outlines" / "rwa.geojson"
    own.parent.mkdir(parents=True)
    own.write_bytes((PACKAGED_FILES / "outlines/rwa.geojson").read_bytes())
    assert given_path("outlines/rwa.geojson") == own
    with pytest.raises(ConfigError, match="leads out"):
        given_path("../../elsewhere.geojson")


@pytest.mark.parametrize("code", sorted(BORDER))
def test_who_lives_at_the_border_is_inside(code):
    country = load_country(code)
    margin = country.grid.margin_m
    wide = outline(country.outline(), "EPSG:4326")
    assert all(shapely.contains_xy(wide, lon, lat) for lon, lat in BORDER[code])
    # Everywhere as far from the outline as it says, in a plane that measures it.
    raw = gpd.read_file(country.outline().path).to_crs(country.grid.crs or "EPSG:4326")
    plane = raw.estimate_utm_crs()
    inner = shapely.union_all(raw.to_crs(plane).geometry)
    edge = gpd.GeoSeries([wide.boundary], crs=4326).segmentize(0.05).to_crs(plane).iloc[0]
    near = shapely.distance(shapely.points(shapely.get_coordinates(edge)), inner)
    assert near.min() >= 0.995 * margin  # UTM itself is off by up to 0.2 % in Uganda
    assert near.max() <= 1.06 * margin  # east and west, in the south of Switzerland


@pytest.mark.parametrize("code", sorted(SHARE))
def test_sea_and_neighbours_are_not_fetched(code):
    country = load_country(code)
    grid = country.pixel_grid()
    all_of_it = estimate(grid, country.imagery, 2020)
    inside = estimate(grid, country.imagery, 2020, country.outline())
    assert inside.tiles < inside.tiles_total == all_of_it.tiles
    assert inside.bytes <= SHARE[code] * all_of_it.bytes
    # A land can be no smaller than its tiles.
    polygons = gpd.read_file(country.outline().path).to_crs("ESRI:54034")
    tile = (country.imagery.tile_px * 10) ** 2 * 1.02
    assert inside.tiles >= math.floor(polygons.area.sum() / tile)
