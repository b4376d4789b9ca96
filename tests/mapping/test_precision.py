"""Values stored to a step: sums stay, nothing becomes negative, and the file is smaller."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from popcorn_ml import raster
from popcorn_ml.mapping.aggregate import cell_sums
from popcorn_ml.mapping.precision import STEP, rounded
from popcorn_ml.mapping.predict import map_population
from popcorn_ml.zones import zone_table
from tests.mapping.places import a_spec


def people(seed, bands, rows, cols):
    """Mostly few, some many, some none, and some without a value."""
    rng = np.random.default_rng(seed)
    values = rng.lognormal(-2, 2, (bands, rows, cols)).astype(np.float32)
    values[rng.random(values.shape) < 0.2] = 0
    values[rng.random(values.shape) < 0.1] = np.nan
    return values


@settings(max_examples=60, deadline=None)
@example(seed=22, bands=1, rows=1, cols=2, step=0.25)  # less than a step in all of the cell
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(1, 70), st.integers(1, 70),
    st.sampled_from([2.0**-17, 2.0**-10, 0.25]),
)  # fmt: skip
def test_every_hectare_keeps_its_people(seed, bands, rows, cols, step):
    values = people(seed, bands, rows, cols)
    stored = rounded(values, step)
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(stored), np.isnan(values))
    np.testing.assert_array_equal(stored[values == 0], 0)
    assert np.nanmin(np.where(np.isnan(stored), 0, stored)) >= 0
    away = np.abs(stored.astype(np.float64) - values)
    assert np.nanmax(np.where(np.isnan(away), 0, away)) <= 1.5 * step + 1e-7 * np.nanmax(
        np.where(np.isnan(values), 0, values)
    )
    np.testing.assert_allclose(cell_sums(stored), cell_sums(values), rtol=2e-7, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 40), st.integers(0, 40))
def test_a_window_keeps_the_cells_of_the_grid(seed, row, col):
    """Windows that do not begin with a cell: whole cells in them are as in the whole raster."""
    values = people(seed, 1, 100, 100)
    whole, part = rounded(values, STEP), rounded(values[:, row:, col:], STEP, row, col)
    first = -(-row // 10) * 10, -(-col // 10) * 10
    np.testing.assert_array_equal(
        part[:, first[0] - row :, first[1] - col :], whole[:, first[0] :, first[1] :]
    )


def test_zones_keep_theirs_but_for_the_cells_that_their_borders_cut():
    rng = np.random.default_rng(1)
    values = people(2, 1, 600, 600)
    zones = (np.add.outer(np.arange(600) // 37, 0 * np.arange(600)) * 20).astype(np.uint32)
    zones += (np.arange(600) // 41).astype(np.uint32)[None]
    zones = np.roll(zones, rng.integers(0, 9), axis=0)
    count = int(zones.max())
    was, is_ = (zone_table(zones, [v[0]], count).sums[0] for v in (values, rounded(values, STEP)))
    large = was > 100
    assert large.sum() > 100
    np.testing.assert_allclose(is_[large], was[large], rtol=1e-6)


def test_the_members_of_a_map_are_stored_to_the_step_and_mean_the_map(tmp_path):
    spec = a_spec(tmp_path, (300, 320))
    map_population(spec)
    members = raster.read_float(spec.out / "population_members.tif")
    mean = members.mean(axis=0, dtype=np.float64)
    population = raster.read_float(spec.out / "population.tif", bands=1)
    np.testing.assert_allclose(mean, population, rtol=1e-6, atol=1.5 * STEP)
    np.testing.assert_allclose(cell_sums(mean), cell_sums(population), rtol=1e-6)
    assert np.nansum(mean) == pytest.approx(np.nansum(population, dtype=np.float64), rel=1e-7)
    on_steps = np.mod(members[np.isfinite(members)].astype(np.float64), STEP) == 0
    assert on_steps.mean() > 0.97
