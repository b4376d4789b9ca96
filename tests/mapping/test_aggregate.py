"""Hectares: people conserved, and an uncertainty that knows how members agree over space."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from popcorn_ml import raster
from popcorn_ml.grid import EARTH_ENGINE_10M_DEG, Grid
from popcorn_ml.mapping import aggregate, dasymetric
from popcorn_ml.mapping.aggregate import aggregate_map, cell_sums, hectare_spread
from popcorn_ml.mapping.dasymetric import AdjustedMembers, Layers, adjust_map, read_adjustment
from popcorn_ml.zones import zone_sums

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
    assert hectare_spread(moved, moved.mean(axis=0))[0, 0] < 1e-12
    more = np.stack([one, 2 * one, 3 * one])
    np.testing.assert_allclose(hectare_spread(more, more.mean(axis=0))[0, 0], one.sum(), rtol=1e-12)


def test_unknown_where_a_fallback_placed_people_and_outside_does_not_count():
    members = np.ones((2, 10, 20))
    members[1] = 2.0
    population = np.ones((10, 20))
    members[:, 0, 0] = np.nan  # people placed by a fallback
    population[0, 10] = np.nan  # outside all units
    members[:, 0, 10] = np.nan
    spread = hectare_spread(members, population)
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


@pytest.mark.parametrize(
    ("crs", "step"),
    [("EPSG:32736", 10.0), ("EPSG:32736", 20.0), ("EPSG:4326", EARTH_ENGINE_10M_DEG)],
)
def test_cells_that_are_none_are_not_called_hectares(tmp_path, crs, step):
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
    if step == 10.0:
        assert said == "people per hectare"
        assert "largest_cell_ha" not in tags
    else:
        assert said == "people per 10 x 10 pixel cell"
        area = grid.row_area_m2().reshape(3, 10).sum(axis=1) * 10 / 10_000
        assert float(tags["smallest_cell_ha"]) == pytest.approx(area.min(), abs=1e-4)
        assert float(tags["largest_cell_ha"]) == pytest.approx(area.max(), abs=1e-4)
        assert area.max() < 0.7 or area.max() == 4


def adjusted(folder, grid, counted):
    """The place adjusted to counts, and what its members then are."""
    files = {name: folder / f"{name}.tif" for name in ("population", "members", "builtup", "units")}
    layers = Layers(**files, grid=grid)
    how = adjust_map(*files.values(), counted, grid, folder / "adjusted")
    return how, AdjustedMembers(read_adjustment(folder / "adjusted" / "adjustment.json"), layers)


def test_adjusted_hectares_hold_the_census_and_the_adjusted_members_spread(
    place, tmp_path, monkeypatch
):
    """Fault 4: the uncertainty of the product follows the adjustment."""
    grid, members, _, units = place
    monkeypatch.setattr(aggregate, "BLOCK_PX", 50)
    monkeypatch.setattr(dasymetric, "BLOCK_PX", 50)
    counted = np.arange(1.0, 17.0) * 100
    how, by_member = adjusted(tmp_path, grid, counted)
    assert how.fallbacks == [(6, 600.0, "builtup")]
    aggregate_map(tmp_path / "adjusted" / "population.tif", by_member, grid, tmp_path / "ha")
    total = raster.read_float(tmp_path / "ha" / "population.tif", bands=1)
    np.testing.assert_allclose(np.nansum(total, dtype=float), counted.sum(), rtol=1e-6)
    spread = raster.read_float(tmp_path / "ha" / "population_std.tif", bands=1)
    sums = np.array([zone_sums(units, member, 16) for member in members])
    with np.errstate(divide="ignore"):
        factor = np.concatenate([np.zeros((3, 1)), counted / sums[:, 1:]], axis=1)
    factor[:, 6] = 0.0
    expected = cell_sums(members * factor[:, units]).std(axis=0, ddof=1)
    touched = cell_sums((units == 6).astype(float)) > 0
    assert np.isnan(spread[touched]).all()
    kept = ~touched & ~np.isnan(total)
    np.testing.assert_allclose(spread[kept], expected[kept], rtol=1e-5, atol=1e-5)
    assert np.isnan(spread[np.isnan(total)]).all()


def test_members_that_only_disagree_about_the_total_are_certain_once_adjusted(place, tmp_path):
    """One member sees twice, another a third of the people of each unit: 70 % before, and now 0."""
    grid, members, _, units = place
    per_unit = np.random.default_rng(1).uniform(0.3, 2.0, (3, 17)).astype(np.float32)
    members = members[0] * per_unit[:, units]
    raster.write(tmp_path / "members.tif", members, grid, ["1", "2", "3"], np.nan)
    raster.write(tmp_path / "population.tif", members.mean(axis=0), grid, ["p"], np.nan)
    _, by_member = adjusted(tmp_path, grid, np.full(16, 5000.0))
    aggregate_map(tmp_path / "adjusted" / "population.tif", by_member, grid, tmp_path / "ha")
    total = raster.read_float(tmp_path / "ha" / "population.tif", bands=1)
    spread = raster.read_float(tmp_path / "ha" / "population_std.tif", bands=1)
    pixels = raster.read_float(tmp_path / "adjusted" / "population_std.tif", bands=1)
    assert np.nanmax(spread / np.maximum(total, 1.0)) < 1e-5
    assert np.nanmax(pixels) < 1e-4
    aggregate_map(tmp_path / "population.tif", tmp_path / "members.tif", grid, tmp_path / "before")
    before = raster.read_float(tmp_path / "before" / "population_std.tif", bands=1)
    assert np.nansum(before) > 0.2 * np.nansum(members.mean(axis=0))
