"""Units joined into super-units, and maps that knew only their sums."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from popcorn_ml import raster
from popcorn_ml.evaluation import coarsening
from popcorn_ml.evaluation.coarsening import borders, coarsened, joined
from popcorn_ml.grid import Grid
from popcorn_ml.mapping.dasymetric import adjust
from popcorn_ml.zones import zone_table
from tests.training.places import block_units


def lattice(rows: int, cols: int) -> dict[tuple[int, int], int]:
    """Units numbered 1.. by rows, each touching its four neighbours along 10 edges."""
    found = {}
    for n in range(1, rows * cols + 1):
        if n % cols:
            found[n, n + 1] = 10
        if n + cols <= rows * cols:
            found[n, n + cols] = 10
    return found


def connected(units: set[int], touching) -> bool:
    seen, ahead = set(), [min(units)]
    while ahead:
        one = ahead.pop()
        seen.add(one)
        for a, b in touching:
            for here, there in ((a, b), (b, a)):
                if here == one and there in units - seen:
                    ahead.append(there)
    return seen == units


@pytest.mark.parametrize("block", [1280, 7, 16])
def test_borders_by_brute_force_whatever_the_blocks(tmp_path, monkeypatch, block):
    monkeypatch.setattr(coarsening, "BLOCK_PX", block)
    units = block_units(40, 50, 3, 4)
    units[np.random.default_rng(2).random(units.shape) < 0.1] = 0
    grid = Grid("EPSG:32736", 500_000.0, 9_800_000.0, 10.0, 50, 40)
    raster.write(tmp_path / "units.tif", units, grid, ["unit"], 0, resampling="nearest")
    expected: dict[tuple[int, int], int] = {}
    for r in range(40):
        for c in range(50):
            for rr, cc in ((r, c + 1), (r + 1, c)):
                if rr < 40 and cc < 50 and units[r, c] != units[rr, cc]:
                    a, b = sorted((int(units[r, c]), int(units[rr, cc])))
                    if a:
                        expected[a, b] = expected.get((a, b), 0) + 1
    assert borders(tmp_path / "units.tif", grid) == expected


@given(
    people=st.lists(st.floats(0, 1e5), min_size=12, max_size=12),
    size=st.integers(2, 8),
    groups=st.lists(st.integers(-1, 1), min_size=12, max_size=12),
)
def test_super_units_hang_together_and_keep_to_their_group(people, size, groups):
    touching = lattice(3, 4)
    found = joined(np.array(people), touching, size, np.array(groups))
    again = joined(np.array(people), dict(reversed(touching.items())), size, np.array(groups))
    np.testing.assert_array_equal(found, again)
    for number in range(1, found.max() + 1):
        units = {int(i) + 1 for i in np.flatnonzero(found == number)}
        assert len(units) > 1
        assert len({groups[i - 1] for i in units}) == 1
        assert connected(units, touching)
    assert all(found[i] == 0 for i in range(12) if groups[i] < 0)


@pytest.mark.parametrize("size", [2, 3, 4, 8])
def test_super_units_are_about_as_large_as_asked(size):
    found = joined(np.arange(1.0, 101.0), lattice(10, 10), size)
    sizes = np.bincount(found)[1:]
    assert (found > 0).all()
    assert sizes.min() >= size
    assert sizes.mean() < 1.6 * size


def test_a_unit_without_a_count_or_a_neighbour_is_in_none():
    people = np.array([10.0, np.nan, 30.0, 40.0, 50.0])
    found = joined(people, {(1, 2): 5, (2, 3): 5, (3, 4): 5}, 2)
    assert found.tolist() == [0, 0, 1, 1, 0]


@given(seed=st.integers(0, 1000))
def test_every_map_agrees_with_the_super_units_and_knows_no_more(seed):
    """People are conserved, and units' own counts change nothing but the sums of the joined."""
    chance = np.random.default_rng(seed)
    people, predicted = chance.lognormal(5, 1, 20), chance.lognormal(5, 1, 20)
    builtup, area = chance.uniform(1, 100, 20), chance.uniform(100, 1000, 20)
    touching = lattice(4, 5)
    for one in coarsened(people, predicted, builtup, area, touching):
        for values in one.predicted.values():
            sums, expected = (np.bincount(one.joined, v)[1:] for v in (values, people))
            np.testing.assert_allclose(sums, expected, rtol=1e-6)
        shares = np.bincount(one.joined, predicted)
        ours = np.bincount(one.joined, people)[one.joined] * predicted / shares[one.joined]
        np.testing.assert_allclose(one.predicted["adjusted"], ours, rtol=1e-6)


def test_it_is_what_adjusting_the_pixels_to_super_units_gives():
    """Pixel by pixel on a map, with the joined units as its census, then summed over units."""
    chance = np.random.default_rng(4)
    units = block_units(40, 40, 4, 4)
    population = chance.gamma(0.5, 2.0, units.shape)
    score = chance.random(units.shape)
    people = chance.lognormal(5, 0.5, 16)
    sums = zone_table(units, [population, score], 16)
    (one,) = coarsened(
        people, sums.sums[0, 1:], sums.sums[1, 1:], sums.pixels[1:].astype(float),
        lattice(4, 4), sizes=(4,),
    )  # fmt: skip
    super_units = np.concatenate([[0], one.joined])[units]
    totals = np.bincount(one.joined, people)[1:]
    placed, _, _ = adjust(population, super_units, totals, score)
    np.testing.assert_allclose(
        one.predicted["adjusted"], zone_table(units, [placed], 16).sums[0, 1:], rtol=1e-5
    )


def test_a_super_unit_that_the_map_sees_as_empty_falls_back_to_built_up_area():
    people = np.array([10.0, 30.0, 5.0, 5.0])
    predicted = np.array([0.0, 0.0, 4.0, 6.0])
    (one,) = coarsened(
        people, predicted, np.array([30.0, 10.0, 1.0, 1.0]), np.full(4, 100.0),
        {(1, 2): 9, (3, 4): 9}, sizes=(2,),
    )  # fmt: skip
    np.testing.assert_allclose(one.predicted["adjusted"], [30.0, 10.0, 4.0, 6.0])


def test_nothing_to_join():
    assert coarsened(np.ones(3), np.ones(3), np.ones(3), np.ones(3), {}) == []
