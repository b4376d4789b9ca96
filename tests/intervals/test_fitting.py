"""The law's constants come back from units that follow it, and widths do not pretend."""

from __future__ import annotations

import numpy as np
import pytest

from popcorn_ml.intervals.fitting import (
    LEAST_UNITS,
    Unseen,
    conformal,
    fit,
    fit_law,
    needed_widths,
    width,
)
from popcorn_ml.intervals.law import LEVELS, Law, student_width, variance
from popcorn_ml.intervals.measures import Measured
from popcorn_ml.intervals.units import Seen, give, unseen_units


def made(law: Law, n: int, seed: int = 1, stretch: float = 1.0) -> Unseen:
    """Units whose errors follow a law, or are `stretch` times as large."""
    rng = np.random.default_rng(seed)
    density, extent = np.exp(rng.uniform(0, 6, n)), np.exp(rng.uniform(1, 5, n))
    people = density * extent
    spread = variance(law, people, people * density) * stretch**2
    shape = people**2 / spread
    counted = rng.gamma(shape, people / shape)
    return Unseen(np.arange(1, n + 1), counted, people, people * density, extent, np.arange(n) % 3)


def test_many_units_outweigh_what_was_believed():
    law = Law(9.0, 0.3, 0.5, 0.5)
    found = fit_law(made(law, 3000))
    units = made(law, 500, seed=9)
    ratio = variance(found, units.people, units.crowding) / variance(
        law, units.people, units.crowding
    )
    assert np.sqrt(ratio).min() > 0.8
    assert np.sqrt(ratio).max() < 1.25


@pytest.mark.parametrize("seed", range(3))
def test_units_hold_their_share_when_the_law_never_saw_them(seed):
    found = fit(made(Law(5.0, 0.2, 0.8, 0.3), 300, seed))
    for level in LEVELS:
        assert found.tried[level].mean() == pytest.approx(level / 100, abs=0.07)


def test_few_units_that_are_held_too_seldom_widen_and_none_narrow():
    needed = np.linspace(0.1, 3.0, 40)
    assert width(needed, 80) == conformal(needed, 0.8) > student_width(80)
    assert width(needed / 20, 80) == student_width(80)


def test_a_conformal_width_holds_its_share_of_what_comes_after():
    rng = np.random.default_rng(0)
    held = [rng.random() <= conformal(rng.random(19), 0.8) for _ in range(4000)]
    assert np.mean(held) == pytest.approx(0.8, abs=0.02)
    assert conformal(np.array([1.0, 2.0]), 0.95) == 2.0  # too few: the largest there is


def test_the_width_that_a_unit_needs_is_the_least_that_holds_it():
    from popcorn_ml.intervals.law import interval

    units, law = made(Law(5.0, 0.2, 0.8, 0.3), 50), Law(5.0, 0.2, 0.8, 0.3)
    needed = needed_widths(units, [law] * 50, 80)
    spread = variance(law, units.people, units.crowding)
    for scale, held in ((1.01, True), (0.99, False)):
        low, high = interval(units.people, spread * (needed * scale) ** 2, 80)
        inside = (units.counted >= low) & (units.counted <= high)
        loose = (needed > 0.06) & (needed < 19)
        assert (inside[loose] == held).mean() > 0.95


def test_no_law_from_fewer_units_than_needed():
    few = made(Law(5.0, 0.2, 0.8, 0.3), LEAST_UNITS - 1)
    with pytest.raises(ValueError, match="at least 20"):
        fit(few)
    about = {"level": "district", "country": "pri", "year": 2020, "trained_on": ("pri", 2020)}
    given = give(few, **about)
    assert given.model is None
    assert "19 counted units" in given.why
    assert "at least 20 are needed" in given.why
    assert give(made(Law(5.0, 0.2, 0.8, 0.3), LEAST_UNITS), **about).model is not None


def test_units_are_held_against_members_that_never_saw_them():
    people = np.array([0.0, 100.0, 200.0, 0.0, 50.0])
    measured = Measured(people, people * 30, np.full(5, 100), np.array([100, 100, 100, 100, 50]))
    by_member = np.array([[0.0, 90.0, 150.0, 1.0, 40.0], [0.0, 110.0, 250.0, 2.0, 60.0]])
    seen = {1: Seen((1,), 0), 2: Seen((0,), 1), 3: Seen((0,), 1), 4: Seen((1,), 0)}
    # unit 3 has nobody in the map, unit 4 no value on half of its pixels
    found = unseen_units(measured, by_member, [105, 160, 5, 70], seen, 0.01)
    assert found.number.tolist() == [1, 2]
    assert found.people.tolist() == [110.0, 150.0]
    assert found.counted.tolist() == [105, 160]
    everywhere = unseen_units(measured, by_member, [105, np.nan, 5, 70], None, 0.01)
    assert everywhere.number.tolist() == [1]
    assert everywhere.people.tolist() == [100.0]
