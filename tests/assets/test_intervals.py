"""A hectare map's intervals on the small country: given where enough units stand behind them, and
said why not where they do not."""

from __future__ import annotations

import json

import numpy as np
import pytest

from popcorn_assets.assets.intervals import map_files
from popcorn_assets.checks.intervals import known
from popcorn_assets.store.versions import Store
from popcorn_ml import raster
from popcorn_ml.intervals import people_in
from popcorn_ml.intervals.hectares import INTERVALS, NO_DATA, RELIABILITY
from popcorn_ml.intervals.law import QUANTILES
from popcorn_ml.mapping.aggregate import cell_sums
from popcorn_ml.training.out_of_fold import OUT_OF_FOLD_FILE
from popcorn_ml.warehouse.warehouse import Warehouse
from tests.assets.test_together import YEAR, at, make
from tests.platforms import copied as copy_of
from tests.platforms import enter


@pytest.fixture(scope="module")
def place(tiny, tmp_path_factory):
    return copy_of(tiny, tmp_path_factory.mktemp("intervals") / "home")


@pytest.fixture
def store(place, monkeypatch) -> Store:
    enter(place, monkeypatch)
    monkeypatch.setenv("POPCORN_LAUNCHER", "inline")
    return Store(place.data)


def test_too_few_units_give_no_intervals_and_it_is_said_how_many_are_needed(store):
    version = store.latest(at("hectare_map"))
    told = version.manifest()["facts"]["intervals"]
    assert not told["given"]
    assert "at least 20 are needed" in told["why"]
    assert not (version.path / INTERVALS).exists()
    assert not (version.path / RELIABILITY).exists()
    sql = "SELECT count(*) FROM map_intervals WHERE year = ?"
    assert Warehouse(store.warehouse).query(sql, [YEAR]) == [(0,)]


def test_intervals_of_hectares_and_units_agree_with_the_map_and_with_one_another(
    store, monkeypatch
):
    monkeypatch.setattr("popcorn_ml.intervals.units.LEAST_UNITS", 8)
    monkeypatch.setattr("popcorn_ml.intervals.fitting.LEAST_UNITS", 8)
    assert make("hectare_map").success
    version = store.latest(at("hectare_map"))
    assert version.manifest()["facts"]["intervals"]["given"]
    for folder in ("", "unadjusted/"):
        people = raster.read_float(version.file(f"{folder}population.tif"), None, 1)
        found = raster.read_float(version.file(f"{folder}{INTERVALS}"))
        with raster.opened(version.file(f"{folder}{INTERVALS}")) as dataset:
            assert list(dataset.descriptions) == list(QUANTILES)
        assert (np.isnan(found) == np.isnan(people)).all()
        known = ~np.isnan(people)
        assert (np.diff(found[:, known], axis=0) >= 0).all()
        assert (found[1, known] <= people[known] + 1e-4).all()
        assert (found[2, known] >= people[known] - 1e-4).all()
    _known_agree(store, version)
    use = raster.read(version.file(RELIABILITY), None, 1)
    people = raster.read_float(version.file("population.tif"), None, 1)
    assert ((use == NO_DATA) == np.isnan(people)).all()
    _units_agree(store, version)


def _known_agree(store: Store, version) -> None:
    """What the check holds the intervals against: finer units and hectares of both maps."""
    kinds = known(store, version, 1)
    assert [rows[0].of for rows in kinds] == [
        "map, units of the level fine",
        "map, inhabited hectares",
        "adjusted map, units of the level fine",
        "adjusted map, inhabited hectares",
    ]
    fine, hectares = kinds[0][0], kinds[3][0]
    sql = "SELECT count(*), sum(held_80::INT), sum(held_95::INT) FROM people_with_intervals "
    sql += "WHERE year = ? AND level = 'fine' AND product = 'map'"
    n, held_80, held_95 = Warehouse(store.warehouse).query(sql, [YEAR])[0]
    assert (fine.n, round(fine.held[80] * n), round(fine.held[95] * n)) == (n, held_80, held_95)
    people = raster.read_float(version.file("population.tif"), None, 1)
    truth = raster.read_float(store.root / f"demo/truth/truth_{YEAR}.tif", None, 1)
    true, bands = cell_sums(truth), raster.read_float(version.file(INTERVALS))
    chosen = ((people > 1) | (true > 1)) & ~np.isnan(people)
    inside = (true >= bands[1]) & (true <= bands[2])
    assert hectares.n == int(chosen.sum())
    assert hectares.held[80] == pytest.approx(inside[chosen].mean(), abs=0.003)


def _units_agree(store: Store, version) -> None:
    rows = Warehouse(store.warehouse).query(
        "SELECT level, product, unit_id, people, p10, p90, held_80, basis "
        "FROM people_with_intervals WHERE year = ?",
        [YEAR],
    )
    by = {(level, product, unit): row for level, product, unit, *row in rows}
    sums = Warehouse(store.warehouse).query(
        "SELECT level, product, unit_id, people FROM map_sums WHERE year = ?", [YEAR]
    )
    assert {key[:3] for key in sums} == set(by)
    for level, product, unit, people in sums:
        estimate, p10, p90, held, basis = by[level, product, unit]
        assert estimate == pytest.approx(people, rel=1e-6, abs=1e-6)
        if (level, product) == ("coarse", "adjusted"):  # known: there is nothing to be wrong
            assert (p10, p90, held) == (pytest.approx(people), pytest.approx(people), None)
        elif product == "map" and people > 1:
            assert p10 < people < p90
        else:  # a fine unit may be all of its coarse one
            assert p10 <= people <= p90
        assert "members that never saw it" in basis
    found = people_in(map_files(store, version).units, map_files(store, version))
    assert found["people"].sum() == pytest.approx(
        sum(row[3] for row in sums if row[:2] == ("coarse", "adjusted")), rel=1e-6
    )
    told = json.loads(version.file("coverage.json").read_text("utf-8"))
    assert {row["by"] for row in told} >= {"all"}


def test_members_that_all_saw_the_units_give_no_intervals(store):
    mapped = store.made_from(store.latest(at("hectare_map")), "population_map")
    told = next(e for e in mapped.manifest()["inputs"] if e["asset"] == "checkpoints")
    checkpoints = store.made_from(mapped, "checkpoints")
    assert told["version"] == checkpoints.version
    kept = checkpoints.path / OUT_OF_FOLD_FILE
    kept.chmod(0o644)
    kept.write_text("[]")  # as of a model that held nothing out
    assert make("hectare_map").success
    told = store.latest(at("hectare_map")).manifest()["facts"]["intervals"]
    assert not told["given"]
    assert "0 counted units" in told["why"]
    assert "training.held_out: folds" in told["why"]
