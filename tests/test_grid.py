"""The country's grid: snapping, nesting hectares, tiles, true areas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS

from popcorn_ml.errors import ConfigError
from popcorn_ml.grid import EARTH_ENGINE_10M_DEG, Grid, Window, check_grid, default_step

WGS84_AREA_M2 = 510_065_621_724_089


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(1, 5e4), st.floats(1, 5e4))
def test_covering_contains_the_bounds_and_nests_hectares(west, south, width, height):
    grid = Grid.covering("EPSG:32736", (west, south, west + width, south + height), 10.0)
    left, bottom, right, top = grid.bounds
    slack = 1e-3
    assert left <= west + slack
    assert bottom <= south + slack
    assert right >= west + width - slack
    assert top >= south + height - slack
    assert grid.west % 100 == 0
    assert grid.north % 100 == 0
    assert grid.width % 10 == 0
    assert grid.height % 10 == 0
    assert right - left < width + 200 + slack


def test_published_countries_keep_earth_engines_step_with_nesting_hectares():
    rwanda = Grid.covering(
        "EPSG:4326", (28.782241, -2.903950, 30.961654, -0.994897), EARTH_ENGINE_10M_DEG
    )
    cells = rwanda.west / (10 * EARTH_ENGINE_10M_DEG)
    assert cells == pytest.approx(round(cells), abs=1e-6)
    assert rwanda.shape == (21260, 24270)


@given(st.integers(1, 120), st.integers(1, 120), st.integers(7, 90), st.integers(0, 40))
def test_every_pixel_is_in_exactly_one_tile(height, width, size, halo):
    grid = Grid("EPSG:32736", 0, 0, 10, width, height)
    visits = np.zeros(grid.shape, int)
    tiles = list(grid.tiles(size, halo))
    for tile in tiles:
        visits[tile.core.slices] += 1
        inner = np.zeros((tile.read.height, tile.read.width), bool)
        inner[tile.core.inside(tile.read)] = True
        assert inner.sum() == tile.core.height * tile.core.width
    assert (visits == 1).all()
    assert len(tiles) == grid.tile_count(size)
    assert [t.index for t in tiles] == list(range(len(tiles)))


def test_areas_of_all_pixels_of_the_globe_add_up_to_the_ellipsoid():
    globe = Grid("EPSG:4326", -180.0, 90.0, 0.5, 720, 360)
    assert globe.row_area_m2().sum() * globe.width == pytest.approx(WGS84_AREA_M2, rel=1e-6)


def test_area_of_a_hectare_in_switzerland_is_what_is_reported():
    step = EARTH_ENGINE_10M_DEG
    grid = Grid("EPSG:4326", 8.0, 47.0, step, 10, 10)
    # On the ellipsoid a cell is narrower by the cosine, and its radii differ from the sphere's.
    assert grid.row_area_m2().mean() == pytest.approx(100 * math.cos(math.radians(47)), rel=0.01)


def test_metric_pixels_have_the_area_of_the_plane():
    assert set(Grid("EPSG:32736", 0, 0, 10, 5, 7).row_area_m2()) == {100.0}


def test_window_grows_to_the_edge_only():
    assert Window(0, 5, 10, 10).grown(4, (12, 40)) == Window(0, 1, 12, 18)


def test_empty_bounds_are_refused():
    with pytest.raises(ValueError, match="empty bounds"):
        Grid.covering("EPSG:32736", (10, 0, 10, 5), 10)


def metric(crs: str, west: float, north: float, width: int, height: int, step: float = 10.0):
    return Grid(crs, west, north, step, width, height)


SWITZERLAND_IN_MERCATOR = metric("EPSG:3857", 645_600, 6_090_300, 54_560, 35_790)


@pytest.mark.parametrize(
    "grid",
    [
        metric("EPSG:32736", 312_300, 9_755_700, 770, 770),
        metric("EPSG:32632", -900_000, 5_400_000, 10_000, 10_000),  # 19 degrees off its meridian
        metric("EPSG:3035", 2_500_000, 5_500_000, 500_000, 400_000),
        metric("EPSG:2056", 2_485_000, 1_296_000, 34_900, 22_100),
        metric("EPSG:32632+5773", 400_000, 5_400_000, 10_000, 10_000),
        metric("EPSG:3857", 3_300_000, -100_000, 20_000, 20_000),  # at the equator it is right
        Grid("EPSG:4326", 5.8, 47.9, EARTH_ENGINE_10M_DEG, 53_460, 23_440),
    ],
    ids=lambda grid: grid.crs,
)
def test_grids_whose_areas_are_true_are_taken(grid):
    check_grid(grid)


@pytest.mark.parametrize(
    ("grid", "found"),
    [
        (SWITZERLAND_IN_MERCATOR, "2.05 to 2.22 times"),
        (metric("EPSG:32632", -3_000_000, 1_000_000, 10_000, 10_000), "1.31 to 1.33 times"),
        (metric("EPSG:32632", -99e6, 99e6, 10, 10), "does not reach"),
    ],
)
def test_a_projection_with_wrong_areas_is_refused_with_what_to_take(grid, found):
    """In the web's Mercator a pixel of Switzerland was taken for twice its area."""
    with pytest.raises(ConfigError, match=r"^grid\.crs: areas") as caught:
        check_grid(grid)
    assert found in str(caught.value.found)
    assert "UTM" in str(caught.value.remedy)
    assert "equal-area" in str(caught.value.remedy)


def test_units_are_known_however_they_are_spelt():
    """Files written by others call them Meter, and degrees by a long name."""
    for code, west, step in (("EPSG:32736", 312_300, 10.0), ("EPSG:4326", 30.0, 1e-4)):
        esri = CRS(code).to_wkt("WKT1_ESRI")
        assert "Meter" in esri or "Degree" in esri
        check_grid(Grid(esri, west, 0.0, step, 10, 10))


@pytest.mark.parametrize("crs", ["EPSG:2263", "EPSG:4807", "EPSG:4978", 'LOCAL_CS["x"]', "x:1"])
def test_a_crs_in_other_units_or_none_is_refused(crs):
    """Feet, grads, a geocentric one, one of no place, none."""
    with pytest.raises(ConfigError, match=r"^grid\.crs: ") as caught:
        check_grid(Grid(crs, 0, 0, 10.0, 10, 10))
    assert caught.value.expected


@pytest.mark.parametrize(
    ("crs", "step", "allowed"),
    [
        ("EPSG:4326", 10.0, "8.983e-06 to 0.008983 degrees"),
        ("EPSG:32736", EARTH_ENGINE_10M_DEG, "1 to 1000 metres"),
        ("EPSG:32736", 5000.0, "1 to 1000 metres"),
    ],
)
def test_a_step_absurd_for_the_unit_is_refused_with_the_range(crs, step, allowed):
    with pytest.raises(ConfigError, match=r"^grid\.step: ") as caught:
        check_grid(Grid(crs, 0, 0, step, 10, 10))
    assert allowed in str(caught.value.expected)


def test_ten_metres_in_units_of_the_crs():
    assert default_step("EPSG:4326") == EARTH_ENGINE_10M_DEG
    assert default_step("EPSG:32736") == 10.0
