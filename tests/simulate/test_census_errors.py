"""Censuses that err: identifiers, partition and truth stay, counts and borders are off as said."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from popcorn_ml.errors import ConfigError
from popcorn_ml.simulate.census_errors import moved_borders, published_counts
from popcorn_ml.simulate.country import write_census
from popcorn_ml.simulate.family import FAMILIES
from popcorn_ml.simulate.spec import CensusError, CountrySpec

SMALL = CountrySpec(seed=8, width=100, height=100, urban_share=0.4, coarse_units=8)


def counts(folder, level):
    with (folder / "census" / f"counts_{level}_2020.csv").open(encoding="utf-8") as file:
        return {row["id"]: int(row["people"]) for row in csv.DictReader(file)}


def areas(folder, level):
    import geopandas

    frame = geopandas.read_file(folder / "census" / f"units_{level}.gpkg", layer="units")
    assert frame.geometry.is_valid.all()
    return dict(zip(frame["id"], frame.geometry.area, strict=True))


def test_an_error_that_cannot_be_is_refused():
    for wrong in ({"counts": -0.1}, {"counts": 5}, {"borders_px": 50}, {"years_older": -1}):
        with pytest.raises(ConfigError, match="out of range"):
            CensusError(**wrong)
    told = CensusError(0.05, 3, 2)
    assert str(told) == "counts 5 %, borders 3 px, 2 years older"
    assert str(CensusError()) == "exact"
    spec = replace(SMALL, census_error=told)
    assert CountrySpec.from_dict(spec.as_dict()) == spec


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_only_the_published_level_errs(tmp_path, family):
    exact, off = tmp_path / "exact", tmp_path / "off"
    spec = replace(SMALL, family=family)
    write_census(exact, spec, [2020])
    write_census(off, replace(spec, census_error=CensusError(0.05, 3, 2)), [2020])
    assert counts(exact, "fine") == counts(off, "fine")
    assert (exact / "truth" / "truth_2020.tif").read_bytes() == (
        off / "truth" / "truth_2020.tif"
    ).read_bytes()
    one, two = counts(exact, "coarse"), counts(off, "coarse")
    assert list(one) == list(two)
    assert one != two
    assert sum(one.values()) == sum(counts(exact, "fine").values())
    before, after = areas(exact, "coarse"), areas(off, "coarse")
    assert list(before) == list(after)
    assert before != after
    assert sum(after.values()) == pytest.approx(sum(before.values()))
    assert areas(exact, "fine") == areas(off, "fine")


def test_an_older_census_is_that_of_its_year(tmp_path):
    write_census(tmp_path / "old", replace(SMALL, census_error=CensusError(0, 0, 2)), [2020])
    write_census(tmp_path / "then", SMALL, [2018])
    with (tmp_path / "then" / "census" / "counts_coarse_2018.csv").open() as file:
        then = {row["id"]: int(row["people"]) for row in csv.DictReader(file)}
    assert counts(tmp_path / "old", "coarse") == then


def test_counts_are_off_by_what_is_said():
    people = np.full(20000, 1000)
    spec = replace(SMALL, census_error=CensusError(counts=0.05))
    told = published_counts(spec, 2020, people)
    assert told.std() == pytest.approx(50, rel=0.03)
    # the total within four standard deviations of its law
    assert abs(told.sum() - people.sum()) < 4 * 50 * np.sqrt(people.size)
    assert np.array_equal(told, np.rint(told))
    assert np.array_equal(told, published_counts(spec, 2020, people))
    assert not np.array_equal(told, published_counts(spec, 2021, people))
    assert published_counts(spec, 2020, np.zeros(5)).tolist() == [0] * 5


@settings(max_examples=25, deadline=None)
@example(seed=4522, most=4.0, cells=9, rows=20, cols=20)  # one lost unit on the ground of another
@given(
    seed=st.integers(0, 10_000),
    most=st.floats(0.5, 6),
    cells=st.integers(2, 30),
    rows=st.integers(20, 70),
    cols=st.integers(20, 70),
)
def test_borders_move_at_most_as_far_as_said_and_lose_no_unit(seed, most, cells, rows, cols):
    rng = np.random.default_rng(seed)
    middles = rng.uniform(0, 1, (cells, 2)) * (rows, cols)
    at = np.mgrid[:rows, :cols].reshape(2, -1).T
    off = ((at[:, None] - middles) ** 2).sum(-1).argmin(1).reshape(rows, cols)
    number = (np.unique(off, return_inverse=True)[1] + 1).reshape(rows, cols)
    moved = moved_borders(np.random.default_rng(seed + 1), number, most)
    assert np.array_equal(np.unique(moved), np.unique(number))
    for unit in np.unique(number):
        reach = ndimage.distance_transform_edt(number != unit)
        assert reach[moved == unit].max() <= most + 1e-6


def test_borders_do_move():
    number = np.kron(np.arange(1, 17).reshape(4, 4), np.ones((50, 50), int))
    moved = moved_borders(np.random.default_rng(3), number, 3.0)
    border = ndimage.distance_transform_edt(
        (number == np.roll(number, 1, 0)) & (number == np.roll(number, 1, 1))
    )
    near = border <= 1
    assert (moved != number)[near].mean() > 0.2
    assert not (moved != number)[border > 6].any()
