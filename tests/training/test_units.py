"""Census units: where they lie, and that every one of them ends up in a list."""

from __future__ import annotations

import json

import numpy as np
import pytest

from popcorn_ml import raster
from popcorn_ml.errors import CensusError, GridMismatch, RasterError
from popcorn_ml.grid import Grid
from popcorn_ml.sentinel import SEASONS
from popcorn_ml.training import units as units_module
from popcorn_ml.training.units import (
    Count,
    _Found,
    find_units,
    held_out_ids,
    initial_bias,
    read_counts,
    sort_units,
    survey,
)
from tests.training.places import block_units, write_place


def found_in(place, share=0.0):
    spec = place.spec()
    return find_units(spec.units, spec.builtup, spec.counts, SEASONS, share)[1]


@pytest.mark.parametrize("strip_px", [4_000_000, 1])
def test_boxes_pixels_and_scores_by_brute_force(tmp_path, monkeypatch, strip_px):
    """Also where a unit spans strips (of 256 rows at least) or lies in several parts."""
    monkeypatch.setattr(units_module, "STRIP_PX", strip_px)
    chance = np.random.default_rng(0)
    units = block_units(600, 70, 5, 3)
    units[chance.random(units.shape) < 0.1] = 0
    units[chance.random(units.shape) < 0.01] = 7
    hole = (slice(100, 140), slice(0, 30))
    place = write_place(tmp_path, units, missing={"autumn": hole})
    spec = place.spec()
    grid, found = survey(spec.units, spec.builtup, SEASONS)
    assert grid.shape == units.shape
    assert sorted(found) == sorted(np.unique(units[units > 0]).tolist())
    for number, one in found.items():
        rows, cols = np.nonzero(units == number)
        assert (one.top, one.left) == (rows.min(), cols.min())
        assert (one.bottom, one.right) == (rows.max() + 1, cols.max() + 1)
        assert one.pixels == len(rows)
        scores = place.scores[:, rows, cols]
        np.testing.assert_array_equal(one.observed, np.isfinite(scores).sum(axis=1))
        np.testing.assert_allclose(one.score_sum, np.nansum(scores, axis=1), rtol=1e-5)


def test_fault_7_unit_numbers_above_2_to_the_24_stay_apart(tmp_path):
    """As float32, 16777216 and 16777217 are one number."""
    units = block_units(40, 40, 2, 2) + np.uint32(2**24 - 2)
    assert len(np.unique(units.astype(np.float32))) < 4
    place = write_place(tmp_path, units)
    sorted_units = found_in(place)
    assert [unit.number for unit in sorted_units.trained] == [2**24 - 1 + i for i in range(4)]
    assert {unit.pixels for unit in sorted_units.trained} == {400}
    assert len({unit.box for unit in sorted_units.trained}) == 4


def test_fault_7_a_unit_raster_of_floats_is_refused(tmp_path):
    place = write_place(tmp_path, block_units(40, 40, 2, 2))
    raster.write(tmp_path / "float.tif", place.units.astype(np.float32), place.grid, ["unit"], 0)
    spec = place.spec(units=str(tmp_path / "float.tif"))
    with pytest.raises(RasterError, match="unsigned integers"):
        survey(spec.units, spec.builtup, SEASONS)


def test_fault_7_ids_stay_text(tmp_path):
    place = write_place(tmp_path, block_units(40, 40, 1, 2))
    place.write_counts(
        [
            {"number": 1, "id": "000123456789012345678", "people": 5},
            {"number": 2, "id": "123456789012345678", "people": 6},
        ]
    )
    assert [u.id for u in found_in(place).trained] == [
        "000123456789012345678",
        "123456789012345678",
    ]
    place.write_counts([{"number": 1, "id": 123, "people": 5}])
    with pytest.raises(CensusError, match="not text"):
        found_in(place)


def test_fault_7_and_10_no_unit_is_dropped_in_silence(tmp_path):
    """Without pixels, without any observation, without a count: each listed with its reason."""
    everywhere = dict.fromkeys(SEASONS, (slice(0, 20), slice(0, 20)))
    place = write_place(tmp_path, block_units(40, 60, 2, 3), missing=everywhere)
    counts = [c for c in place.counts if c["number"] != 3]
    counts.append({"number": 99, "id": "ghost", "name": "", "people": 1000})
    place.write_counts(counts)
    sorted_units = found_in(place)
    reasons = {unit.number: (unit.id, unit.reason) for unit in sorted_units.left_out}
    assert reasons.keys() == {1, 3, 99}
    assert "observed" in reasons[1][1]
    assert "no count" in reasons[3][1]
    assert reasons[99] == ("ghost", "it has no pixel in the raster")
    assert [unit.number for unit in sorted_units.trained] == [2, 4, 5, 6]


def test_fault_7_a_unit_without_pixels_has_no_box(tmp_path):
    place = write_place(tmp_path, block_units(40, 40, 1, 2))
    place.write_counts([*place.counts, {"number": 3, "id": "3", "people": 10}])
    sorted_units = found_in(place)
    assert 3 not in {unit.number for unit in (*sorted_units.trained, *sorted_units.held_out)}


def test_seasons_that_hide_a_unit_are_not_drawn_for_it(tmp_path):
    """Half of unit 1 in winter, a part of unit 2 in every season but differently."""
    missing = {
        "winter": (slice(0, 20), slice(0, 20)),
        "spring": (slice(0, 40), slice(20, 28)),
        "summer": (slice(0, 40), slice(20, 26)),
        "autumn": (slice(0, 40), slice(20, 27)),
    }
    place = write_place(tmp_path, block_units(40, 40, 1, 2), missing=missing)
    first, second = found_in(place).trained
    assert first.seasons == (0, 1, 2)
    winter = write_place(
        tmp_path / "b",
        block_units(40, 40, 1, 2),
        missing=missing | {"winter": (slice(0, 40), slice(20, 29))},
    )
    assert found_in(winter).trained[1].seasons == (1,)  # summer shows most of it
    assert second.seasons == (3,)


@pytest.mark.parametrize(("seen", "used"), [(0.499, False), (0.5, True), (0.003, False)])
def test_a_unit_hardly_seen_in_any_season_is_left_out_with_the_reason(seen, used):
    """Of 10,000 pixels 30 were seen, in one season, and 5,000 people were put into them."""

    def unit(number: int, *observed: int) -> _Found:
        counts = np.array(observed)
        return _Found(0, 100 * number, 100, 100 * number + 100, 10_000, counts, counts * 0.2)

    counts = [Count(number, f"unit {number}", "", 5000.0) for number in range(1, 21)]
    whole = {count.number: unit(count.number, 10_000, 10_000, 9_500) for count in counts}
    held = next(n for n in whole if f"unit {n}" in held_out_ids([c.id for c in counts], 0.2))
    shown = round(seen * 10_000)
    for number in (2, held):
        sliver = whole | {number: unit(number, 0, shown, shown // 2)}
        found = sort_units(counts, sliver, 0.2)
        left = {one.number: one for one in found.left_out}
        assert len(found.trained) + len(found.held_out) + len(left) == 20
        if used:
            assert not left
            hardly = next(u for u in (*found.trained, *found.held_out) if u.number == number)
            assert hardly.seasons == (1,)
            continue
        assert left.keys() == {number}
        assert left[number].id == f"unit {number}"
        assert left[number].reason == (
            f"its fullest season shows {shown} of its 10000 pixels, less than 50%"
        )
        assert number not in {u.number for u in (*found.trained, *found.held_out)}


def test_nothing_but_slivers_is_an_error_that_says_so():
    nearly = np.array([4_000, 0])
    found = {1: _Found(0, 0, 100, 100, 10_000, nearly, nearly * 0.2)}
    with pytest.raises(CensusError, match="no census unit to train on") as caught:
        sort_units([Count(1, "a", "", 5.0)], found, 0.0)
    assert "0 with both and enough observations" in str(caught.value.found)


@pytest.mark.parametrize("field", ["number", "id"])
def test_duplicates_raise(tmp_path, field):
    rows = [{"number": 1, "id": "a", "people": 1}, {"number": 2, "id": "b", "people": 2}]
    rows[1][field] = rows[0][field]
    path = tmp_path / "counts.json"
    path.write_text(json.dumps(rows))
    with pytest.raises(CensusError, match=f"{field} is given twice") as raised:
        read_counts(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    "row",
    [
        {"number": 0, "id": "a", "people": 1},
        {"number": 2**32, "id": "a", "people": 1},
        {"number": 1.0, "id": "a", "people": 1},
        {"number": True, "id": "a", "people": 1},
        {"number": 1, "id": "a", "people": -1},
        {"number": 1, "id": "a", "people": float("nan")},
        {"number": 1, "id": "a", "people": "12"},
        {"number": 1, "id": "a", "people": None},
        {"number": 1, "people": 1},
        "row",
    ],
)
def test_counts_that_cannot_be(tmp_path, row):
    path = tmp_path / "counts.json"
    path.write_text(json.dumps([row]))
    with pytest.raises(CensusError) as raised:
        read_counts(path)
    assert str(path) in str(raised.value)


def test_files_that_do_not_fit(tmp_path):
    place = write_place(tmp_path, block_units(40, 40, 2, 2))
    spec = place.spec()
    other = Grid(place.grid.crs, place.grid.west + 10, place.grid.north, 10.0, 40, 40)
    raster.write(tmp_path / "shifted.tif", place.scores, other, SEASONS, float("nan"))
    with pytest.raises(GridMismatch):
        survey(spec.units, tmp_path / "shifted.tif", SEASONS)
    raster.write(tmp_path / "one.tif", place.scores[:1], place.grid, ["spring"], float("nan"))
    with pytest.raises(RasterError, match="season") as raised:
        survey(spec.units, tmp_path / "one.tif", SEASONS)
    assert "one.tif" in str(raised.value)
    place.write_counts([{"number": 77, "id": "elsewhere", "people": 3}])
    with pytest.raises(CensusError, match="no census unit to train on") as census:
        found_in(place)
    assert "counts.json" in str(census.value)
    (tmp_path / "counts.json").write_text("[")
    with pytest.raises(CensusError, match="cannot be read"):
        found_in(place)


def test_held_out_units_do_not_depend_on_the_seed_or_on_others():
    ids = [f"unit {i}" for i in range(200)]
    held = held_out_ids(ids, 0.1)
    assert len(held) == 20
    assert held == held_out_ids(list(reversed(ids)), 0.1)
    assert len(held_out_ids(ids[:150], 0.1) & held) > 0.6 * 15
    assert held_out_ids(ids, 0) == set()
    assert len(held_out_ids(["a", "b"], 0.01)) == 1
    assert held_out_ids(["a"], 0.5) == set()
    assert len(held_out_ids(["a", "b"], 0.99)) == 1


def test_the_first_guess_has_the_right_total(tmp_path):
    place = write_place(tmp_path, block_units(60, 60, 2, 2))
    sorted_units = found_in(place)
    bias = initial_bias(sorted_units.trained)
    people = sum(count["people"] for count in place.counts)
    assert bias * place.scores.mean(axis=0).sum() == pytest.approx(people, rel=1e-5)


def test_a_place_without_built_up_area_is_an_error(tmp_path):
    place = write_place(tmp_path, block_units(40, 40, 2, 2))
    raster.write(
        tmp_path / "builtup_score.tif", place.scores * 0, place.grid, SEASONS, float("nan")
    )
    with pytest.raises(CensusError, match="built-up"):
        initial_bias(found_in(place).trained)


def test_a_unit_that_clouds_hide_moves_no_other_one():
    """Held out are the same ones, so that the losses of two trainings still compare."""
    counts = [Count(n, f"unit {n}", "", 100.0) for n in range(1, 96)]
    clear, hidden = (
        _Found(0, 0, 100, 100, 10_000, np.array([seen, 0]), np.array([seen * 0.2, 0.0]))
        for seen in (10_000, 4_000)
    )
    whole = {count.number: clear for count in counts}

    def held_out(found):
        return {unit.number for unit in sort_units(counts, found, 0.1).held_out}

    held = held_out(whole)
    assert {f"unit {n}" for n in held} == held_out_ids([count.id for count in counts], 0.1)
    for number in whole:
        assert held_out(whole | {number: hidden}) == held - {number}


def test_clouds_leave_something_to_train_on_and_something_held_out():
    counts = [Count(n, f"unit {n}", "", 100.0) for n in range(1, 11)]
    clear, hidden = (
        _Found(0, 0, 100, 100, 10_000, np.array([seen]), np.array([seen * 0.2]))
        for seen in (10_000, 4_000)
    )
    drawn = held_out_ids([count.id for count in counts], 0.3)
    for out in (drawn, {count.id for count in counts} - drawn):
        found = {c.number: hidden if c.id in out else clear for c in counts}
        units = sort_units(counts, found, 0.3)
        assert units.trained
        assert units.held_out
        assert len(units.left_out) == len(out)
