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
from popcorn_ml.mapping.ensemble import spread_of
from popcorn_ml.mapping.placing import METHODS, Adjustment, adjusted_members
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
    members = np.stack([population, population[::-1], population * 0.5])
    given_ = [population, units, people, builtup, members]
    before = [values.copy() for values in given_]
    for values in given_:
        values.setflags(write=False)
    adjusted, scaled, _ = adjust(population, units, people, builtup, members)
    for values, copy in zip(given_, before, strict=True):
        np.testing.assert_array_equal(values, copy)
    assert not np.shares_memory(adjusted, population)
    assert not np.shares_memory(scaled, members)


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


def two_members(population):
    """Two whose mean is the map, that put the people of neighbouring pixels to one or the other."""
    tilt = np.where(np.arange(population.shape[1]) % 2 == 0, 1.5, 0.5).astype(np.float32)
    return np.stack([population * tilt, population * (2 - tilt)])


def test_uncertainty_is_that_of_the_adjusted_members_and_unknown_where_a_fallback_decides():
    """Fault 4: the uncertainty was not rescaled."""
    population, units, builtup = a_place()
    members = two_members(population)
    people = [40.0, 80.0, 70.0, 16.0, 0.0]
    adjusted, spread, how = adjust(population, units, people, builtup, members)
    # 5 a pixel: 7.5 by one member, 2.5 by the other
    np.testing.assert_allclose(spread[units == 1], np.std([7.5, 2.5], ddof=1))
    assert np.isnan(spread[(units == 2) | (units == 3) | (units == 4) | (units == 0)]).all()
    assert (spread[units == 5] == 0).all()
    assert [member.factor[1] for member in how.members] == [2.5, 2.5]
    again, nothing, _ = adjust(population, units, people, builtup)
    assert nothing is None
    np.testing.assert_array_equal(again, adjusted)


def test_members_that_agree_once_adjusted_leave_no_uncertainty():
    """One sees three times as many people everywhere: the census has settled which is right."""
    population, units, builtup = a_place()
    members = np.stack([population * 0.5, population * 1.5])
    people = [40.0, 80.0, 70.0, 16.0, 0.0]
    _, spread, how = adjust(population, units, people, builtup, members)
    np.testing.assert_allclose(spread[units == 1], 0, atol=1e-12)
    assert [member.factor[1] for member in how.members] == [5.0, pytest.approx(5 / 3)]


def test_a_member_that_sees_a_unit_as_empty_has_a_fallback_of_its_own():
    """Its people of the unit are spread by built-up score, and the spread is from there."""
    population, units, builtup = a_place()
    builtup[units == 1] = np.tile([0.1, 0.2, 0.3, 0.4], 2)
    members = np.stack([population * 2, population * 0])
    people = [40.0, 0, 0, 0, 0]
    adjusted, spread, how = adjust(population, units, people, builtup, members)
    assert (adjusted[units == 1] == 5).all()
    assert [METHODS[member.method[1]] for member in how.members] == ["model", "builtup"]
    by_score = np.tile([2.0, 4.0, 6.0, 8.0], 2)
    expected = np.std([np.full(8, 5.0), by_score], axis=0, ddof=1)
    np.testing.assert_allclose(spread[units == 1], expected, rtol=1e-6)
    told = how.as_dict()["units"]
    assert told[0]["member_methods"] == ["model", "builtup"]
    assert "member_methods" not in told[1]


@settings(max_examples=60, deadline=None)
@given(places(), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_every_member_keeps_every_person(place, count, seed):
    """Unit sums are the census's for each member as for the map; equal ones do not differ."""
    population, units, people, builtup = place
    draw = np.random.default_rng(seed)
    members = (population * draw.uniform(0, 3, (count, 1, 1))).astype(np.float32)
    members *= draw.choice([0.0, 1.0], (count, UNITS + 1), p=[0.2, 0.8])[:, units]
    _, spread, how = adjust(population, units, people, builtup, members)
    assert len(how.members) == count
    silent = {unit for unit, _, _ in how.fallbacks}
    adjusted = list(adjusted_members(how, units, members, builtup))
    for one in adjusted:
        sums = zone_sums(units, one, UNITS)[1:]
        told = [unit not in silent and (units == unit).any() for unit in range(1, UNITS + 1)]
        np.testing.assert_allclose(sums[told], people[told], rtol=1e-9)
        assert np.isnan(one[np.isin(units, list(silent))]).all()
    np.testing.assert_allclose(spread, spread_of(np.stack(adjusted)), rtol=1e-6, atol=1e-6)
    same = np.broadcast_to(members[0], (3, *SHAPE)) * np.float32([1, 2, 4])[:, None, None]
    _, none, how = adjust(population, units, people, builtup, same)
    methods = np.stack([member.method for member in how.members])
    alike = (methods == methods[0]).all(axis=0)[units] & ~np.isnan(none)
    assert (none[alike] == 0).all()
    again = Adjustment.from_dict(json.loads(json.dumps(how.as_dict(), allow_nan=False)))
    for one, other in zip((how, *how.members), (again, *again.members), strict=True):
        np.testing.assert_array_equal(one.factor, other.factor)
        np.testing.assert_array_equal(one.method, other.method)
    for name in ("people", "predicted", "valid"):
        np.testing.assert_array_equal(getattr(how, name)[1:], getattr(again, name)[1:])


def test_a_unit_without_a_count_keeps_the_prediction_and_its_spread():
    population, units, builtup = a_place()
    members = two_members(population)
    people = [np.nan, 80.0, np.nan, np.nan, 10.0, np.nan]
    adjusted, scaled, how = adjust(population, units, people, builtup, members)
    for unit in (1, 3, 4):  # as predicted: two a pixel, nobody but for a hole, and no value
        np.testing.assert_array_equal(adjusted[units == unit], population[units == unit])
        np.testing.assert_allclose(
            scaled[units == unit], spread_of(members)[units == unit], rtol=1e-12
        )
    assert how.uncounted == [(1, 16.0), (3, 0.0), (4, 0.0)]
    assert how.unplaced == []  # the last unit has neither a pixel nor a count
    assert how.placed_people == 90.0
    same = [16.0, 80.0, 0.0, 0.0, 10.0, 0.0]
    expected = adjust(population, units, same, builtup)[0]
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
    members = population * rng.uniform(0.5, 1.5, (3, *grid.shape)).astype(np.float32)
    raster.write(folder / "members.tif", members, grid, ["1", "2", "3"], np.nan)
    for name, values in {"population": population, "builtup": builtup}.items():
        raster.write(folder / f"{name}.tif", values, grid, [name], np.nan)
    raster.write(folder / "units.tif", numbers, grid, ["unit"], 0, resampling="nearest")
    people = rng.integers(0, 5000, units).astype(float)
    return grid, people, population, numbers, builtup, members


def test_rasters_equal_arrays_and_keep_every_person(tmp_path):
    grid, people, population, units, builtup, members = write_place(tmp_path)
    steps: list[tuple[int, int]] = []
    how = adjust_map(
        tmp_path / "population.tif",
        tmp_path / "members.tif",
        tmp_path / "builtup.tif",
        tmp_path / "units.tif",
        people,
        grid,
        tmp_path / "out",
        tags={"census_level": "district"},
        progress=lambda done, total: steps.append((done, total)),
    )
    expected, spread, same = adjust(population, units, people, builtup, members)
    assert how.fallbacks == same.fallbacks
    assert [unit for unit, _, _ in how.fallbacks] == [7, 9]
    for name, values in (("population", expected), ("population_std", spread)):
        found = raster.read_float(tmp_path / "out" / f"{name}.tif", bands=1)
        np.testing.assert_allclose(found, values, rtol=1e-5, err_msg=name)
    for one, other in zip(how.members, same.members, strict=True):
        np.testing.assert_allclose(one.factor, other.factor, rtol=1e-12)
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
    paths = [tmp_path / f"{name}.tif" for name in ("population", "members", "builtup")]
    with pytest.raises(CensusError, match=r"units\.tif: the raster holds a unit that has no count"):
        adjust_map(*paths, tmp_path / "units.tif", people[:20], grid, tmp_path / "out")
    with pytest.raises(GridMismatch, match=r"population\.tif"):
        adjust_map(
            *paths, tmp_path / "units.tif", people, grid.subgrid(grid.whole().grown(0, (9, 9))),
            tmp_path / "out",
        )  # fmt: skip
    assert not (tmp_path / "out").exists()
