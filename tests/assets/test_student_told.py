"""Maps by a student: its scores and intervals rest on units that the students of the folds told,
not on bands of the map."""

from __future__ import annotations

import json

import numpy as np
import pytest

from popcorn_assets.assets.trained import Trained, unseen_by
from popcorn_assets.assets.unseen import told_without, trained_on
from popcorn_assets.store.versions import Address, Store
from popcorn_ml import raster
from popcorn_ml.training.out_of_fold import read_collected
from tests.assets.test_one_level import MADE, YEAR, at, country, materialise
from tests.platforms import Place

__all__ = ["country"]  # a fixture
OFF = 1.15
"""By which the students of the folds are off."""


def publish_student_map(store: Store, *, trained_in: str = "demo", year: int = YEAR) -> None:
    """The map there is, its mean as a student's one band; beside it what the folds told."""
    bag = store.latest(at("checkpoints"))
    themap = store.latest(at("population_map"))
    told = read_collected(bag.path / "out_of_fold.json")
    plain = {"inputs": [], "checks": [], "facts": {}, "parameters": {}, "shown": []}
    with store.draft(Address("student", trained_in, year)) as draft:
        rows = [
            {"id": u.id, "number": u.number, "people": u.people, "predicted": OFF * u.people,
             "fold": u.fold, "members": 1, "by": {}}
            for u in told
        ]  # fmt: skip
        (draft / "out_of_fold.json").write_text(json.dumps(rows))
        (draft / "student.safetensors").write_bytes(b"")
        student = store.publish(Address("student", trained_in, year), draft, plain)
    with store.draft(at("deployed_model")) as draft:
        decision = {
            "country": trained_in, "year": year, "version": student.version, "kind": "student",
            "members": ["student"], "level": "municipio",
        }  # fmt: skip
        (draft / "deployed.json").write_text(json.dumps(decision))
        deployed = store.publish(at("deployed_model"), draft, plain)
    inputs = [
        {"asset": v.address.asset, "country": v.address.country, "year": v.address.year,
         "version": v.version}
        for v in (student, deployed)
    ]  # fmt: skip
    with store.draft(at("population_map")) as draft:
        grid = raster.grid_of(themap.file("population.tif"))
        mean = raster.read_float(themap.file("population.tif"), bands=1)[None]
        for name in ("population", "population_std", "population_members", "builtup_score"):
            values = mean if name != "builtup_score" else raster.read_float(
                themap.file("builtup_score.tif"), bands=1)[None]  # fmt: skip
            values = np.where(np.isnan(mean), np.nan, 0.0) if name == "population_std" else values
            raster.write(draft / f"{name}.tif", values.astype(np.float32), grid, ["1"], np.nan)
        manifest = {**plain, "inputs": inputs, "shown": [["model", "student of demo|2020"]]}
        store.publish(at("population_map"), draft, {**manifest, "parameters": {"kind": "student"}})


@pytest.fixture
def own(country, monkeypatch) -> tuple[Place, Store]:
    place, store, _ = country
    return place, store


def test_scores_and_intervals_rest_on_the_students_of_the_folds(own):
    place, store = own
    publish_student_map(store)
    predicted = store.latest(at("population_map"))
    assert trained_on(store, predicted, "municipio") is None
    assert len(told_without(store, predicted, "municipio").units) == 78
    assert told_without(store, predicted, "another").units == {}
    judged = materialise(place, *MADE)
    found = json.loads(store.latest(at("evaluation")).file("metrics.json").read_text())
    scores = found["without_truth"]
    assert scores["counted"] == scores["units"] == 78
    assert scores["out_of_fold"]["mae_share"] == pytest.approx(OFF - 1)  # the map's own is others'
    assert scores["told_by"].startswith("students of the folds, on the images and counts of 2020")
    assert "students of the folds" in judged["scored_without_truth"].description
    hectares = store.latest(at("hectare_map"))
    told = hectares.manifest()["facts"]["intervals"]
    assert told["given"]
    assert "78 units of the level municipio in 2020, each held against a student" in told["why"]
    assert told["model"]["basis"]["unseen_by"] == "students that held it out"
    assert {e["asset"] for e in hectares.manifest()["inputs"]} >= {"student"}


def test_a_student_of_another_country_saw_no_unit_and_its_map_is_unseen(own):
    place, store = own
    publish_student_map(store, trained_in="uga")
    predicted = store.latest(at("population_map"))
    assert trained_on(store, predicted, "municipio") == [set()]
    assert told_without(store, predicted, "municipio").units == {}
    materialise(place, "hectare_map", "evaluation")
    found = json.loads(store.latest(at("evaluation")).file("metrics.json").read_text())
    assert found["without_truth"]["units"] == 78
    assert "told_by" not in found["without_truth"]
    told = store.latest(at("hectare_map")).manifest()["facts"]["intervals"]
    assert "were all trained elsewhere, on uga" in told["why"]


def test_of_another_year_the_counts_go_with_what_was_told(own):
    _, store = own
    publish_student_map(store, year=2019)
    predicted = store.latest(at("population_map"))
    folds = told_without(store, predicted, "municipio")
    assert folds.year == 2019
    units = store.latest(at("census_units")).file("units_municipio.tif")
    counted, said = folds.arrays(units)
    assert said == pytest.approx(OFF * counted)
    model = store.made_from(predicted, "student")
    trained = Trained("demo", 2019, {"demo": "municipio"}, model, "student", ("student",))
    seen = unseen_by(trained, "demo", "municipio", units)
    assert len(seen) == 78
    assert all(one.members == () and one.told[1] == OFF * one.told[0] for one in seen.values())
    assert unseen_by(trained, "uga", "municipio", units) is None
    assert unseen_by(trained, "demo", "another", units) == {}
