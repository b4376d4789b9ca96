"""Prepared places and what is told of their maps: shared images, classes, what more would give."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.accuracy_table import classes, losses, seeds
from benchmarks.breakdown import NOTHING, breakdown, together, truth_of
from benchmarks.places import LINKED, Place, check, place_of, prepare
from popcorn_assets.country import load_country
from popcorn_ml import raster
from popcorn_ml.census.build import prepare_counts, prepare_units
from popcorn_ml.errors import ConfigError
from popcorn_ml.files import write_json
from popcorn_ml.sentinel import SEASONS
from popcorn_ml.simulate.country import write_census
from popcorn_ml.simulate.family import FAMILIES
from popcorn_ml.simulate.spec import CensusError
from tests.platforms import enter, make_place, write_demo_file

SMALL = {"width": 150, "height": 140, "coarse_units": 8, "urban_share": 0.3}


def write(path, values, grid, names=("value",)):
    path.parent.mkdir(parents=True, exist_ok=True)
    raster.write(path, values.astype(np.float32), grid, list(names), float("nan"))


@pytest.fixture(params=sorted(FAMILIES))
def place(request, tmp_path, monkeypatch) -> Place:
    """A small place without scenes, whose score is the truth and whose map is true."""
    family = request.param
    made = place_of(8, tmp_path / "seeds", load_country("demo"), 1, family)
    made = replace(made, specifics=SMALL)
    home = make_place(tmp_path / "home")
    write_demo_file(home, made.spec)
    enter(home, monkeypatch)
    made = replace(made, country=load_country("demo"))
    write_census(made.folder / "demo", made.spec, [2020])
    grid = made.spec.grid
    census = made.country.census
    prepare_units("demo", 2020, census, grid, made.folder / "units", made.folder)
    prepare_counts("demo", 2020, census, made.folder / "units", made.folder / "counts", made.folder)
    truth = truth_of(made)
    write(made.builtup, np.stack([truth.built] * 4), grid, SEASONS)
    out = made.folder / "map"
    write(out / "population.tif", truth.people, grid)
    write(out / "adjusted" / "population.tif", truth.people, grid)
    write(out / "builtup_score.tif", truth.built, grid)
    for name in LINKED[:2]:
        (made.folder / name).mkdir()
        (made.folder / name / "spring.tif").write_bytes(b"a composite")
    write_json(made.folder / "spec.json", made.spec.as_dict())
    (made.folder / "prepared").touch()
    return made


def test_a_true_map_has_no_error_in_any_class(place):
    found = breakdown(place, place.folder / "map")
    kinds, densities = found["kinds"], found["densities"]
    assert set(kinds) == {*FAMILIES[place.family].kinds, NOTHING}
    total = sum(place.people("fine"))
    for classes_ in (kinds, densities):
        there = [each for each in classes_.values() if each["hectares"]]
        assert sum(each["hectares"] for each in there) == 15 * 14
        assert sum(each["people"] for each in there) == pytest.approx(total)
        assert all(each["rmse"] == 0 for each in there)
        assert max(each["builtup_rmse"] for each in there) > 1
    assert kinds[NOTHING]["people"] == 0
    # who knows every building's kind and footprint is nearer than who knows footprints alone
    assert 0 < found["limit"] < 1
    assert found["extractor"]["f1"] > 0.5
    write_json(place.folder / "result.json", found)  # nothing in it that JSON has not


def test_a_truth_of_another_seed_is_refused(place):
    grid = place.spec.grid
    write(place.truth, raster.read_float(place.truth, None, 1) + 1, grid)
    with pytest.raises(ConfigError, match="not what this checkout draws"):
        truth_of(place)


def test_a_folder_of_another_country_is_refused(place):
    check(place)
    with pytest.raises(ConfigError, match="its seed differs"):
        check(replace(place, seed=9))
    (place.folder / "spec.json").unlink()  # prepared before there were families
    if place.family == "first":
        check(place)
    else:
        with pytest.raises(ConfigError, match="its family differs"):
            check(place)


def test_a_census_that_errs_shares_the_images_of_the_exact_one(place):
    error = CensusError(0.05, 3)
    root = place.folder.parent
    off = place_of(8, root, place.country, 1, place.family, error)
    off = replace(off, specifics=SMALL)
    prepare(off)
    for name in ("s1_composites/spring.tif", "builtup_score.tif"):
        assert (off.folder / name).stat().st_ino == (place.folder / name).stat().st_ino
    assert not (off.folder / "demo" / "scenes").exists()
    assert off.people("fine") == place.people("fine")
    one, two = (np.array(p.people(p.level)) for p in (place, off))
    assert len(one) == len(two)
    assert (one != two).any()
    before, after = (raster.read(p.units(p.level), None, 1) for p in (place, off))
    assert set(np.unique(before)) == set(np.unique(after))
    assert 0 < (before != after).mean() < 0.5
    check(off)


def test_the_table_says_mean_worst_classes_and_losses(place):
    found = breakdown(place, place.folder / "map")
    row = {
        "seed": 8, "family": place.family, "census": "exact", "model": "bag", "ratio": 0.5,
        "adjusted_rmse": 5.0, "builtup_rmse": 10.0, "map_r2": 0.9, "builtup_r2": 0.8, "total": 0.01,
        "seconds": {"prepare": 100.0, "train": 50.0}, **found,
    }  # fmt: skip
    worse = {**row, "seed": 9, "ratio": 0.7, "adjusted_rmse": 7.0}
    off = {**row, "census": "counts 5 %", "ratio": 0.6, "adjusted_rmse": 6.0}
    text = "\n".join(seeds([row, worse]))
    assert "mean  0.600" in text
    assert "worst  0.700  (seed 9)" in text
    assert "100 s" in text
    merged = together([found["kinds"], found["kinds"]])
    one = found["kinds"][NOTHING]
    assert merged[NOTHING]["hectares"] == 2 * one["hectares"]
    assert merged[NOTHING]["builtup_rmse"] == pytest.approx(one["builtup_rmse"])
    assert len(classes([row, worse], "kinds")) == 1 + len(merged)
    assert any("+20.0%" in line for line in losses([row, worse, off]))
    assert losses([row, worse]) == []
    json.dumps(row)
