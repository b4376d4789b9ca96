"""The simulated place: one set of buildings behind what is seen and who is counted."""

from __future__ import annotations

import numpy as np
import pytest

from popcorn_ml.simulate.settlements import KIND_NAMES, ROOFS
from popcorn_ml.simulate.spec import CountrySpec, demo_grid
from popcorn_ml.simulate.world import MATERIALS, make_world, people, surface


def test_the_demo_grid_is_whole_hectares():
    grid = demo_grid()
    assert grid.shape == (770, 770)
    assert grid.step == 10.0
    assert grid.hectares().shape == (77, 77)
    assert grid.west % 100 == 0
    assert grid.north % 100 == 0


def test_a_grid_that_is_not_whole_hectares_is_refused():
    with pytest.raises(ValueError, match="whole hectares"):
        CountrySpec(width=768)
    with pytest.raises(ValueError, match="multiple of 100 m"):
        CountrySpec(west=312345.0)


def test_the_same_seed_gives_the_same_place_and_another_seed_another():
    a, b, c = (make_world(seed, (96, 96), 2020, 0.3) for seed in (1, 1, 2))
    assert np.array_equal(people(a, 2020), people(b, 2020))
    assert np.array_equal(surface(a, 2020).share, surface(b, 2020).share)
    assert not np.array_equal(people(a, 2020), people(c, 2020))


def test_shares_of_a_pixel_add_up_to_one(place):
    share = surface(place, 2020).share
    assert share.shape == (len(MATERIALS), *place.shape)
    assert share.min() >= 0
    np.testing.assert_allclose(share.sum(0), 1, atol=1e-5)


def test_roofs_cover_what_the_buildings_measure(place):
    """Footprints keep their area on the way to pixels, but for overlaps and the place's rim."""
    table = place.settlements.buildings
    table = table.where(table.built <= 2020.5)
    measured = float((table.length_m * table.width_m).sum())
    covered = float(surface(place, 2020).share[: len(ROOFS)].sum()) * 100
    assert covered == pytest.approx(measured, rel=0.03)
    assert covered <= measured


def test_people_live_in_dwellings_only(place):
    table = place.settlements.buildings
    industry = table.kind == KIND_NAMES.index("industry")
    assert industry.sum() > 5
    assert table.people[industry].sum() == 0
    count = people(place, 2020)
    assert count.dtype == np.int64
    there = table.where(table.built <= 2020.5)
    homes = np.zeros(place.shape, bool)
    homes[there.row.astype(int), there.col.astype(int)] = True
    assert count[~homes].sum() == 0
    assert count.sum() == there.people.sum()
    assert (there.people == 0).mean() > 0.05  # some stand empty


def test_it_grows_by_new_buildings_in_new_neighbourhoods(place):
    before, after = people(place, 2020), people(place, 2021)
    assert 1.01 < after.sum() / before.sum() < 1.10
    assert (after >= before).all()
    made = place.settlements
    new = ((made.founded > 2020.5) & (made.founded <= 2021.5))[made.neighbourhood]
    assert new.any()
    assert before[new].sum() < 0.1 * after[new].sum() + 50
    assert (surface(place, 2021).built >= surface(place, 2020).built - 1e-6).all()


def test_kinds_differ_in_people_per_built_up_area(place, by_kind):
    """What disaggregation by built-up area alone cannot know."""
    count, built = by_kind(people(place, 2020)), by_kind(surface(place, 2020).built)
    per_area = {name: count[name] / built[name] for name in KIND_NAMES}
    assert per_area["informal"] > 2 * per_area["suburb"]
    assert per_area["industry"] == 0
    assert built["industry"] > 0.15
    assert built["core"] > built["suburb"] > built["village"]
