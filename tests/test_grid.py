"""The country's grid: snapping, nesting hectares, tiles, true areas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from popcorn_ml.grid import EARTH_ENGINE_10M_DEG, Grid, Window

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
