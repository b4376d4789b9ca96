"""Families of worlds: the first is as it always was, the second another under the same laws."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from popcorn_ml import raster
from popcorn_ml.errors import ConfigError
from popcorn_ml.simulate import dryland, optics
from popcorn_ml.simulate.country import make_world, write_country
from popcorn_ml.simulate.dryland.kinds import KIND_NAMES, KINDS, ROOFS
from popcorn_ml.simulate.dryland.units import make_units
from popcorn_ml.simulate.dryland.world import MATERIALS
from popcorn_ml.simulate.family import FAMILIES, SECOND, family_of
from popcorn_ml.simulate.spec import FIRST, CountrySpec
from tests.simulate.conftest import INNER

TINY = CountrySpec(
    code="tiny", seed=8, width=60, height=60, urban_share=0.4, coarse_units=4,
    s2_dates=3, s2_edge_dates=1, s1_passes=1,
)  # fmt: skip
CENSUS_BEFORE = "a0f7e2eb75bd83ced391cde4a80d24323db7e7566b0722fda953227a3309a355"
"""Of the counts and the truth that the first family wrote of `TINY`, 2020, before there was a
second."""

PIXELS_BEFORE = {
    "B02": 690022107, "B03": 734511617, "B04": 767713350, "B08": 1033927932, "SCL": 372431,
    "vv": 20321.173313, "vh": 3455.446690,
}  # fmt: skip
"""Sums over all its scenes then. Not bytes: products of matrices round by machine and threads."""

LARGE = CountrySpec(seed=9, family=SECOND, width=400, height=420, urban_share=0.12, coarse_units=30)
SECOND_FAMILY = FAMILIES[SECOND]


@pytest.fixture(scope="module")
def dry():
    return make_world(LARGE)


@pytest.fixture(scope="module")
def dry_people(dry):
    return SECOND_FAMILY.people(dry, 2020)


@pytest.fixture(scope="module")
def covered(dry):
    return SECOND_FAMILY.surface(dry, 2020)


def test_the_first_family_is_drawn_as_it_always_was(tmp_path):
    write_country(tmp_path, TINY, [2020])
    digest = hashlib.sha256()
    for path in sorted([*(tmp_path / "census").glob("*.csv"), *(tmp_path / "truth").iterdir()]):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    assert digest.hexdigest() == CENSUS_BEFORE
    sums = dict.fromkeys(PIXELS_BEFORE, 0.0)
    for path in (tmp_path / "scenes").rglob("*.tif"):
        values = raster.read(path, bands=1).astype(np.float64)
        sums[path.stem] += values[values > -1].sum()
    assert sums == pytest.approx(PIXELS_BEFORE, rel=1e-6)


def test_a_specification_of_before_is_read_and_said_as_before():
    assert "family" not in TINY.as_dict()
    assert "census_error" not in TINY.as_dict()
    for spec in (TINY, LARGE):
        assert CountrySpec.from_dict(spec.as_dict()) == spec


def test_a_change_of_any_module_of_a_family_is_a_change_of_its_countries():
    folder = Path(dryland.__file__).parent
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert set(dryland.MODULES) == modules
    for family in FAMILIES.values():
        assert all((folder.parent / name).is_file() for name in family.code)


def test_an_unknown_family_is_refused():
    with pytest.raises(ConfigError, match="first, second"):
        family_of("third")


def test_the_same_seed_gives_the_same_place_another_seed_or_family_another(dry, dry_people):
    again = make_world(LARGE)
    assert np.array_equal(SECOND_FAMILY.people(again, 2020), dry_people)
    assert np.array_equal(
        SECOND_FAMILY.surface(again, 2020).share, SECOND_FAMILY.surface(dry, 2020).share
    )
    other = make_world(replace(LARGE, seed=10))
    assert not np.array_equal(SECOND_FAMILY.people(other, 2020), dry_people)
    first = make_world(replace(LARGE, family=FIRST))
    assert not np.array_equal(FAMILIES[FIRST].people(first, 2020), dry_people)


def test_families_share_no_kind_no_roof_and_no_spectrum():
    assert not set(FAMILIES[FIRST].kinds) & set(KIND_NAMES)
    from popcorn_ml.simulate.dryland.spectra import GAMMA0_DB, REFLECTANCE
    from popcorn_ml.simulate.radar import GAMMA0_DB as FIRST_GAMMA0_DB

    assert not set(optics.REFLECTANCE.values()) & set(REFLECTANCE.values())
    common = (set(GAMMA0_DB) & set(FIRST_GAMMA0_DB)) - {"water"}
    assert all(GAMMA0_DB[name] != FIRST_GAMMA0_DB[name] for name in common)


@pytest.mark.parametrize("seed", [9, 17])
def test_people_are_kept_from_buildings_to_pixels_to_units(seed):
    spec = replace(LARGE, seed=seed)
    place = make_world(spec)
    people = SECOND_FAMILY.people(place, 2020)
    table = place.settlements.buildings
    there = table.where(table.built <= 2020.5)
    assert people.sum() == there.people.sum() > 1000
    inside = people[INNER]
    for level in make_units(spec, inside, place).values():
        count = len(level.ids)
        assert level.number.min() == 1
        assert np.array_equal(np.unique(level.number), np.arange(1, count + 1))
        sums = np.bincount(level.number.ravel(), inside.ravel(), count + 1)
        assert sums[1:].sum() == inside.sum()


def test_units_follow_people_and_finer_ones_nest(dry, dry_people):
    inside = dry_people[INNER]
    levels = make_units(LARGE, inside, dry)
    coarse, fine = levels["coarse"], levels["fine"]
    assert len(coarse.ids) == LARGE.coarse_units
    assert len(set(coarse.ids)) == len(set(coarse.names)) == len(coarse.ids)
    assert all(name.startswith("0") for name in coarse.ids)
    area = np.bincount(coarse.number.ravel())[1:]
    assert area.max() > 5 * np.median(area)  # few huge ones
    sums = np.bincount(coarse.number.ravel(), inside.ravel())[1:]
    assert np.median(sums) > 0.3 * sums.max()  # and about as many people in most
    assert np.array_equal(
        np.array(coarse.ids)[coarse.number - 1], np.array(fine.parents)[fine.number - 1]
    )


def test_every_kind_is_built_and_lived_in_as_it_says(dry):
    table = dry.settlements.buildings
    table = table.where(table.built <= 2020.5)
    for number, (name, kind) in enumerate(KINDS.items()):
        here = table.where(table.kind == number)
        assert len(here) > 5, name
        assert (here.people.sum() == 0) == (kind.household == 0)
        roofs = np.bincount(here.roof, minlength=len(ROOFS))
        assert not roofs[np.array(kind.roofs) == 0].any()
    per_m2 = {}
    for name in ("flats", "terrace", "villa", "medina"):
        here = table.where(table.kind == KIND_NAMES.index(name))
        per_m2[name] = here.people.sum() / (here.length_m * here.width_m).sum()
    assert per_m2["flats"] > 2 * per_m2["terrace"] > 4 * per_m2["villa"]


def test_it_grows_and_nothing_is_demolished(dry, dry_people, covered):
    after = SECOND_FAMILY.people(dry, 2022)
    assert (after >= dry_people).all()
    assert 1.005 < after.sum() / dry_people.sum() < 1.15
    assert (SECOND_FAMILY.surface(dry, 2022).built >= covered.built - 1e-6).all()


def test_roofs_cover_what_the_buildings_measure(dry, covered):
    table = dry.settlements.buildings
    table = table.where(table.built <= 2020.5)
    measured = float((table.length_m * table.width_m).sum())
    assert covered.share.min() >= 0
    np.testing.assert_allclose(covered.share.sum(0), 1, atol=1e-5)
    assert covered.share.shape[0] == len(MATERIALS)
    assert float(covered.share[: len(ROOFS)].sum()) * 100 == pytest.approx(measured, rel=0.04)


def test_fields_green_by_their_own_calendar_and_the_plain_after_rain(dry, covered):
    def ndvi(t):
        view = SECOND_FAMILY.reflectance(dry, covered, t, np.random.default_rng(0))
        assert view.dtype == np.float32
        assert view.shape == (4, *dry.shape)
        return (view[3] - view[2]) / (view[3] + view[2])

    spring, autumn = ndvi(0.24), ndvi(0.62)
    crop = covered.share[MATERIALS.index("crop")] > 0.8
    barley, cotton = (crop & (dry.land.calendar == n) for n in (0, 2))
    assert spring[barley].mean() > autumn[barley].mean() + 0.2
    assert autumn[cotton].mean() > spring[cotton].mean() + 0.2
    plain = covered.share[MATERIALS.index("soil")] > 0.5
    assert spring[plain].mean() > autumn[plain].mean()


def test_a_country_of_the_second_family_is_written_whole(tmp_path):
    spec = replace(TINY, family=SECOND, seed=11)
    made = write_country(tmp_path, spec, [2020])
    truth = raster.read(made.truth_file(2020), bands=1)
    assert made.people[2020] == int(truth.sum(dtype=np.float64)) > 0
    assert set(made.scenes) == {"sentinel-1-rtc", "sentinel-2-l2a"}
    assert not write_country(tmp_path, spec, [2020]).written
