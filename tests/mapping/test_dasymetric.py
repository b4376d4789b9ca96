"""Adjustment to the census: every person kept, nothing overwritten, everything reported."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from popcorn_ml import raster
from popcorn_ml.errors import CensusError, GridMismatch
from popcorn_ml.grid import Grid
from popcorn_ml.mapping.dasymetric import adjust, adjust_map
from popcorn_ml.zones import raster_zone_sums, zone_sums

UNITS = 6
SHAPE = (12, 15)


@st.composite
def places(draw):
    """A map with holes and empty stretches, units some of which have no pixel, and counts."""
    units = draw(hnp.arrays(np.uint32, SHAPE, elements=st.integers(0, UNITS)))
    value = st.just(0.0) | st.just(float("nan")) | st.floats(0, 500, width=32)
    population = draw(hnp.arrays(np.float32, SHAPE, elements=value))
    for unit in draw(st.sets(st.integers(1, UNITS), max_size=3)):
        population[units == unit] = draw(st.sampled_from([0.0, np.nan]))
    score = st.just(0.0) | st.floats(0, 1, width=32) | st.just(float("nan"))
    builtup = draw(hnp.arrays(np.float32, SHAPE, elements=score))
    counts = st.just(0.0) | st.integers(0, 10**7).map(float) | st.floats(1e-3, 1e6)
    people = np.array(draw(st.lists(counts, min_size=UNITS, max_size=UNITS)))
    return population, units, people, builtup


@settings(max_examples=100, deadline=None)
@given(places())
def test_every_person_is_kept(place):
    """Fault 4: the people of a unit predicted as zero vanished; those outside all units stayed."""
    population, units, people, builtup = place
    adjusted, _, how = adjust(population, units, people, builtup)
    lost = dict(how.unplaced)
    placed = np.array([0.0 if unit in lost else people[unit - 1] for unit in range(1, UNITS + 1)])
    np.testing.assert_allclose(zone_sums(units, adjusted, UNITS)[1:], placed, rtol=1e-9)
    np.testing.assert_allclose(np.nansum(adjusted) + sum(lost.values()), people.sum(), rtol=1e-9)
    stored = adjusted.astype(np.float32)
    np.testing.assert_allclose(zone_sums(units, stored, UNITS)[1:], placed, rtol=1e-6)
    everywhere = np.isin(units, [u for u, _, method in how.fallbacks if method == "all_pixels"])
    has_value = (units > 0) & (everywhere | ~np.isnan(population))
    without_people = np.isin(units, np.flatnonzero(how.valid == 0)) & ~everywhere
    np.testing.assert_array_equal(~np.isnan(adjusted)[~without_people], has_value[~without_people])
    assert np.isnan(adjusted[units == 0]).all()
    assert set(lost) == {unit for unit in range(1, UNITS + 1) if not (units == unit).any()}
    assert (adjusted[~np.isnan(adjusted)] >= 0).all()
    assert how.placed_people == pytest.approx(placed.sum(), rel=1e-12)
    json.dumps(how.as_dict(), allow_nan=False)


@settings(max_examples=50, deadline=None)
@given(places())
def test_inputs_stay_as_they_were(place):
    """Fault 4: the adjustment overwrote its input."""
    population, units, people, builtup = place
    spread = population * 0.1
    given_ = [population, units, people, builtup, spread]
    before = [values.copy() for values in given_]
    for values in given_:
        values.setflags(write=False)
    adjusted, scaled, _ = adjust(population, units, people, builtup, spread)
    for values, copy in zip(given_, before, strict=True):
        np.testing.assert_array_equal(values, copy)
    assert not np.shares_memory(adjusted, population)
    assert not np.shares_memory(scaled, spread)


def a_place():
    """Five units in strips: seen by the model, as empty, without built-up, without values."""
    units = np.repeat(np.array([0, 1, 2, 3, 4, 5], np.uint32), 4)[None].repeat(2, 0)
    population = np.full(units.shape, 2.0, np.float32)
    population[units == 2] = 0.0
    population[units == 3] = 0.0
    population[units == 4] = np.nan
    builtup = np.full(units.shape, 0.5, np.float32)
    builtup[units == 2] = np.tile([0.0, 0.1, 0.3, 0.0], 2)
    builtup[units == 3] = 0.0
    population[0, 12] = np.nan  # unit 3 loses a pixel
    return population, units, builtup


def test_fallbacks_in_their_order_and_reported():
    """Fault 4: units that the model sees as empty."""
    population, units, builtup = a_place()
    people = [40.0, 80.0, 70.0, 16.0, 0.0, 9.0]
    adjusted, _, how = adjust(population, units, people, builtup)
    assert how.fallbacks == [
        (2, 80.0, "builtup"),
        (3, 70.0, "area"),
        (4, 16.0, "all_pixels"),
        (6, 9.0, "unplaced"),
    ]
    assert how.unplaced == [(6, 9.0)]
    np.testing.assert_allclose(adjusted[0], [np.nan] * 4 + [5.0] * 4 + [0, 10, 30, 0]
                               + [np.nan, 10, 10, 10] + [2.0] * 4 + [0.0] * 4)  # fmt: skip
    assert how.predicted[0] == 16.0
    told = how.as_dict()
    assert told["predicted_outside_units"] == 16.0
    assert told["unplaced"] == [{"unit": 6, "people": 9.0}]
    assert told["units"][0]["factor"] == 2.5
    assert told["units"][5]["factor"] is None


def test_a_hint_of_people_is_no_pattern_to_trust():
    """A unit of 100,000 people predicted as one person in all counts as seen empty."""
    population, units, builtup = a_place()
    population[units == 1] = 1.0 / 8
    _, _, how = adjust(population, units, [100_000.0, 0, 0, 0, 0], builtup)
    assert how.fallbacks == [(1, 100_000.0, "builtup")]


def test_uncertainty_is_scaled_and_unknown_where_a_fallback_decides():
    """Fault 4: the uncertainty was not rescaled."""
    population, units, builtup = a_place()
    spread = population * 0.25
    people = [40.0, 80.0, 70.0, 16.0, 0.0]
    adjusted, scaled, _ = adjust(population, units, people, builtup, spread)
    np.testing.assert_allclose(scaled[units == 1], adjusted[units == 1] * 0.25)
    assert np.isnan(scaled[(units == 2) | (units == 3) | (units == 4) | (units == 0)]).all()
    assert (scaled[units == 5] == 0).all()
    again, nothing, _ = adjust(population, units, people, builtup)
    assert nothing is None
    np.testing.assert_array_equal(again, adjusted)


def test_a_unit_without_a_count_keeps_the_prediction_and_its_spread():
    population, units, builtup = a_place()
    spread = population * 0.25
    people = [np.nan, 80.0, np.nan, np.nan, 10.0, np.nan]
    adjusted, scaled, how = adjust(population, units, people, builtup, spread)
    for unit in (1, 3, 4):  # as predicted: two a pixel, nobody but for a hole, and no value
        np.testing.assert_array_equal(adjusted[units == unit], population[units == unit])
        np.testing.assert_array_equal(scaled[units == unit], spread[units == unit])
    assert how.uncounted == [(1, 16.0), (3, 0.0), (4, 0.0)]
    assert how.unplaced == []  # the last unit has neither a pixel nor a count
    assert how.placed_people == 90.0
    same = [16.0, 80.0, 0.0, 0.0, 10.0, 0.0]
    expected = adjust(population, units, same, builtup, spread)[0]
    np.testing.assert_array_equal(adjusted[units == 2], expected[units == 2])
    np.testing.assert_array_equal(adjusted[units == 5], expected[units == 5])
    assert np.isnan(adjusted[units == 0]).all()
    told = json.loads(json.dumps(how.as_dict(), allow_nan=False))
    assert told["people"] == 90.0
    assert told["uncounted"][0] == {"unit": 1, "predicted": 16.0}
    assert [told["units"][0][key] for key in ("people", "method", "factor")] == [
        None, "uncounted", 1.0,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("people", "said"),
    [
        ([1.0, -2.0, 3.0, 4.0, 5.0], "unit 2"),
        ([1.0, 2.0, 3.0, 4.0, float("inf")], "unit 5"),
    ],
)
def test_refuses_counts_that_are_none(people, said):
    population, units, builtup = a_place()
    with pytest.raises(CensusError, match=said):
        adjust(population, units, people, builtup)


def test_refuses_units_without_a_count_and_other_shapes():
    population, units, builtup = a_place()
    with pytest.raises(ValueError, match=r"zone number \d is outside 0..3"):
        adjust(population, units, [1.0, 2.0, 3.0], builtup)
    with pytest.raises(ValueError, match="builtup of shape"):
        adjust(population, units, [1.0] * 5, builtup[:1])


def write_place(folder, rows=300, cols=280, units=30):
    grid = Grid("EPSG:32736", 500_000.0, 9_800_000.0, 10.0, cols, rows)
    rng = np.random.default_rng(2)
    numbers = (np.arange(rows)[:, None] // 50 * 5 + np.arange(cols) // 60 + 1).astype(np.uint32)
    numbers[:20] = 0
    population = rng.gamma(0.3, 2.0, grid.shape).astype(np.float32)
    population[numbers == 7] = 0.0
    population[numbers == 9] = np.nan
    population[rng.random(grid.shape) < 0.05] = np.nan
    builtup = rng.random(grid.shape, dtype=np.float32)
    for name, values in {
        "population": population,
        "population_std": population * np.float32(0.2),
        "builtup": builtup,
    }.items():
        raster.write(folder / f"{name}.tif", values, grid, [name], np.nan)
    raster.write(folder / "units.tif", numbers, grid, ["unit"], 0, resampling="nearest")
    people = rng.integers(0, 5000, units).astype(float)
    return grid, people, population, numbers, builtup


def test_rasters_equal_arrays_and_keep_every_person(tmp_path):
    grid, people, population, units, builtup = write_place(tmp_path)
    steps: list[tuple[int, int]] = []
    how = adjust_map(
        tmp_path / "population.tif",
        tmp_path / "population_std.tif",
        tmp_path / "builtup.tif",
        tmp_path / "units.tif",
        people,
        grid,
        tmp_path / "out",
        tags={"census_level": "district"},
        progress=lambda done, total: steps.append((done, total)),
    )
    expected, spread, same = adjust(population, units, people, builtup, population * 0.2)
    assert how.fallbacks == same.fallbacks
    assert [unit for unit, _, _ in how.fallbacks] == [7, 9]
    for name, values in (("population", expected), ("population_std", spread)):
        found = raster.read_float(tmp_path / "out" / f"{name}.tif", bands=1)
        np.testing.assert_allclose(found, values, rtol=1e-5, err_msg=name)
    sums = raster_zone_sums(
        tmp_path / "units.tif", [tmp_path / "out" / "population.tif"], grid, len(people)
    ).sums[0]
    np.testing.assert_allclose(sums[1:], people, rtol=1e-6)
    assert sums[0] == 0
    factor = raster.read_float(tmp_path / "out" / "factor.tif", bands=1)
    by_model = ~np.isnan(factor)
    np.testing.assert_allclose(
        (population * factor)[by_model], expected[by_model], rtol=1e-5, equal_nan=True
    )
    assert not by_model[(units == 0) | (units == 7) | (units == 9)].any()
    told = json.loads((tmp_path / "out" / "adjustment.json").read_text())
    assert told["people"] == people.sum() == pytest.approx(told["placed_people"])
    assert steps == [(1, 2), (2, 2)]


def test_rasters_that_do_not_belong_together_leave_nothing(tmp_path):
    grid, people, *_ = write_place(tmp_path)
    paths = [tmp_path / f"{name}.tif" for name in ("population", "population_std", "builtup")]
    with pytest.raises(CensusError, match=r"units\.tif: the raster holds a unit that has no count"):
        adjust_map(*paths, tmp_path / "units.tif", people[:20], grid, tmp_path / "out")
    with pytest.raises(GridMismatch, match=r"population\.tif"):
        adjust_map(
            *paths, tmp_path / "units.tif", people, grid.subgrid(grid.whole().grown(0, (9, 9))),
            tmp_path / "out",
        )  # fmt: skip
    assert not (tmp_path / "out").exists()
