"""Hectares: people conserved, and an uncertainty that knows how members agree over space."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from popcorn_ml import raster
from popcorn_ml.grid import EARTH_ENGINE_10M_DEG, Grid
from popcorn_ml.mapping import aggregate
from popcorn_ml.mapping.aggregate import aggregate_map, cell_sums, hectare_spread
from popcorn_ml.mapping.dasymetric import adjust_map

people = st.floats(0, 1e4, width=32) | st.just(float("nan"))


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=3, max_side=35), elements=people)
)
def test_people_are_conserved(values):
    cells = cell_sums(values)
    rows, cols = values.shape[-2:]
    assert cells.shape == (*values.shape[:-2], -(-rows // 10), -(-cols // 10))
    np.testing.assert_allclose(np.nansum(cells), np.nansum(values, dtype=float), rtol=1e-12)
    first = values[..., :10, :10]
    seen = ~np.isnan(first).all(axis=(-2, -1))
    np.testing.assert_array_equal(~np.isnan(cells[..., 0, 0]), seen)


def test_a_cell_without_any_value_has_none_and_others_count_what_there_is():
    values = np.ones((25, 30), np.float32)
    values[:10, :10] = np.nan
    values[:10, 10:19] = np.nan
    np.testing.assert_array_equal(
        cell_sums(values), [[np.nan, 10, 100], [100, 100, 100], [50, 50, 50]]
    )


def test_members_that_agree_on_the_sum_are_certain_of_it():
    """The pixels' deviations add up neither as they are nor as squares."""
    rng = np.random.default_rng(0)
    one = rng.random((10, 10))
    moved = np.stack([one, one[::-1], one.T])
    assert hectare_spread(moved, moved.mean(axis=0), np.ones((10, 10)))[0, 0] < 1e-12
    more = np.stack([one, 2 * one, 3 * one])
    np.testing.assert_allclose(
        hectare_spread(more, more.mean(axis=0), np.ones((10, 10)))[0, 0], one.sum(), rtol=1e-12
    )


def test_a_hectare_across_two_units_scales_each_part_by_its_own_factor():
    members = np.stack([np.ones((10, 10)), np.ones((10, 10)) * 3])
    members[1, :, 5:] = 1.0  # they differ on the left half alone
    factor = np.ones((10, 10))
    factor[:, :5] = 2.0
    factor[:, 5:] = 7.0
    spread = hectare_spread(members, members.mean(axis=0) * factor, factor)
    np.testing.assert_allclose(spread, [[np.std([100, 300], ddof=1)]])


def test_unknown_where_a_fallback_placed_people_and_outside_does_not_count():
    members = np.ones((2, 10, 20))
    members[1] = 2.0
    population = np.ones((10, 20))
    factor = np.ones((10, 20))
    factor[0, 0] = np.nan  # people placed by a fallback
    population[0, 10] = np.nan  # outside all units
    factor[0, 10] = np.nan
    spread = hectare_spread(members, population, factor)
    assert np.isnan(spread[0, 0])
    assert spread[0, 1] == pytest.approx(np.std([99, 198], ddof=1))


@pytest.fixture
def place(tmp_path):
    grid = Grid("EPSG:32736", 500_000.0, 9_800_000.0, 10.0, 153, 128)
    rng = np.random.default_rng(4)
    members = rng.gamma(0.5, 1.0, (3, *grid.shape)).astype(np.float32)
    members[:, 100:, 20:44] = np.nan
    units = (1 + np.arange(128)[:, None] // 37 * 4 + np.arange(153) // 41).astype(np.uint32)
    units[:, :7] = 0
    members[:, units == 6] = 0.0
    mean = members.mean(axis=0)
    raster.write(tmp_path / "members.tif", members, grid, ["1", "2", "3"], np.nan)
    raster.write(tmp_path / "population.tif", mean, grid, ["p"], np.nan)
    raster.write(tmp_path / "builtup.tif", np.ones_like(mean) * 0.3, grid, ["b"], np.nan)
    raster.write(tmp_path / "units.tif", units, grid, ["u"], 0, resampling="nearest")
    return grid, members, mean, units


def test_rasters_block_by_block(place, tmp_path, monkeypatch):
    grid, members, mean, _ = place
    monkeypatch.setattr(aggregate, "BLOCK_PX", 50)
    aggregate_map(tmp_path / "population.tif", tmp_path / "members.tif", grid, tmp_path / "ha")
    found = {
        name: raster.read_float(tmp_path / "ha" / f"{name}.tif", bands=1, grid=grid.hectares())
        for name in ("population", "population_std")
    }
    np.testing.assert_allclose(found["population"], cell_sums(mean), rtol=1e-6)
    sums = cell_sums(members)
    np.testing.assert_allclose(
        found["population_std"], sums.std(axis=0, ddof=1), rtol=1e-5, atol=1e-6
    )
    assert np.isnan(found["population"][11, 3])


@pytest.mark.parametrize("crs", ["EPSG:32736", "EPSG:4326"])
def test_cells_in_degrees_are_not_called_hectares(tmp_path, crs):
    step = EARTH_ENGINE_10M_DEG if crs == "EPSG:4326" else 10.0
    grid = Grid(crs, 6.0, 47.8, step, 40, 30)
    ones = np.ones((2, *grid.shape), np.float32)
    raster.write(tmp_path / "members.tif", ones, grid, ["1", "2"], np.nan)
    raster.write(tmp_path / "population.tif", ones[0], grid, ["p"], np.nan)
    aggregate_map(
        tmp_path / "population.tif", tmp_path / "members.tif", grid, tmp_path, tags={"a": 1}
    )
    with raster.opened(tmp_path / "population.tif") as made:
        (said,) = made.descriptions
    tags = raster.tags(tmp_path / "population.tif")
    assert tags["a"] == "1"
    if crs == "EPSG:32736":
        assert said == "people per hectare"
        assert "largest_cell_ha" not in tags
    else:
        assert said == "people per 10 x 10 pixel cell"
        area = grid.row_area_m2().reshape(3, 10).sum(axis=1) * 10 / 10_000
        assert float(tags["smallest_cell_ha"]) == pytest.approx(area.min(), abs=1e-4)
        assert float(tags["largest_cell_ha"]) == pytest.approx(area.max(), abs=1e-4)
        assert area.max() < 0.7


def test_adjusted_hectares_hold_the_census_and_the_adjusted_members_spread(place, tmp_path):
    """Fault 4: the uncertainty of the product follows the adjustment."""
    grid, members, _, units = place
    counted = np.arange(1.0, 17.0) * 100
    how = adjust_map(
        tmp_path / "population.tif", None, tmp_path / "builtup.tif", tmp_path / "units.tif",
        counted, grid, tmp_path / "adjusted",
    )  # fmt: skip
    assert how.fallbacks == [(6, 600.0, "builtup")]
    aggregate_map(
        tmp_path / "adjusted" / "population.tif",
        tmp_path / "members.tif",
        grid,
        tmp_path / "ha",
        factor=tmp_path / "adjusted" / "factor.tif",
    )
    total = raster.read_float(tmp_path / "ha" / "population.tif", bands=1)
    np.testing.assert_allclose(np.nansum(total, dtype=float), counted.sum(), rtol=1e-6)
    spread = raster.read_float(tmp_path / "ha" / "population_std.tif", bands=1)
    factor = how.factor[units]
    factor[units == 0] = 0.0
    expected = cell_sums(members * factor).std(axis=0, ddof=1)
    touched = cell_sums((units == 6).astype(float)) > 0
    assert np.isnan(spread[touched]).all()
    kept = ~touched & ~np.isnan(total)
    np.testing.assert_allclose(spread[kept], expected[kept], rtol=1e-5, atol=1e-5)
