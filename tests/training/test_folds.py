"""Which member holds out which units: every unit once, in blocks, balanced, and not by chance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from popcorn_ml.training.folds import Placed, block_size, blocks_of, folds_of


def place(rows: int, cols: int, side: float = 100.0, people=lambda n: 100.0) -> list[Placed]:
    return [
        Placed(1 + r * cols + c, (r + 0.5) * side, (c + 0.5) * side, people(r * cols + c))
        for r in range(rows)
        for c in range(cols)
    ]


PLACED = st.builds(
    lambda spots: [Placed(i + 1, r, c, p) for i, (r, c, p) in enumerate(spots)],
    st.lists(
        st.tuples(st.floats(0, 5000), st.floats(0, 5000), st.floats(0, 1e5)),
        max_size=60,
    ),
)


@given(units=PLACED, folds=st.integers(0, 7))
def test_every_unit_is_held_out_once_and_no_fold_is_everything(units, folds):
    found = folds_of(units, folds)
    if folds < 2 or len(units) < 2:
        assert found == {}
        return
    assert found.keys() == {unit.number for unit in units}
    assert set(found.values()) <= set(range(folds))
    assert len(set(found.values())) > 1
    assert found == folds_of(units[::-1], folds)


def test_folds_are_balanced_by_people_and_by_number():
    """Towns of many people in one corner, as in a real country."""
    chance = np.random.default_rng(3)
    weights = chance.lognormal(6, 0.8, 144)
    units = place(12, 12, people=lambda n: float(weights[n] * (5 if n < 20 else 1)))
    for folds in (2, 3, 5):
        found = folds_of(units, folds)
        people, number = np.zeros(folds), np.zeros(folds)
        for unit in units:
            people[found[unit.number]] += unit.people
            number[found[unit.number]] += 1
        np.testing.assert_allclose(people / people.sum(), 1 / folds, atol=0.06)
        np.testing.assert_allclose(number / number.sum(), 1 / folds, atol=0.06)


def test_neighbours_are_held_out_together():
    """More of a unit's four neighbours share its fold than by chance, a third."""
    found = folds_of(place(12, 12), 3)
    pairs = [(n, n + 1) for n in found if n % 12] + [(n, n + 12) for n in found if n <= 132]
    assert np.mean([found[a] == found[b] for a, b in pairs]) > 0.55


def test_a_unit_added_changes_no_block_but_its_own():
    chance = np.random.default_rng(5)
    units = [
        Placed(n, *map(float, chance.uniform(0, 4000, 2)), float(chance.lognormal(6, 1)))
        for n in range(1, 101)
    ]
    before = blocks_of(units, block_size(len(units), 3))
    new = Placed(500, 10.0, 10.0, 1.0)
    after = blocks_of([*units, new], block_size(len(units) + 1, 3))
    kept = {tuple(u.number for u in block) for block in before}
    now = {tuple(u.number for u in block) for block in after}
    assert len(kept - now) <= 1


@pytest.mark.parametrize("count", [2, 3, 5])
def test_units_at_one_place_are_divided_all_the_same(count):
    """An island within a ring of land has the ring's middle."""
    found = folds_of([Placed(n, 50.0, 50.0, 10.0) for n in range(1, 9)], count)
    assert set(found.values()) == set(range(count))


def test_few_units():
    assert folds_of([], 3) == {} == folds_of(place(1, 1), 3)
    assert sorted(folds_of(place(1, 2), 3).values()) == [0, 1]
    nobody = folds_of(place(2, 2, people=lambda n: 0.0), 2)
    assert sorted(nobody.values()) == [0, 0, 1, 1]


def test_block_sizes_are_powers_of_two():
    for units in range(1, 2000):
        size = block_size(units, 3)
        assert size & (size - 1) == 0
        assert size == 1 or size * 3 * 3 <= units
        assert math.ceil(units / size) >= min(units, 9)
