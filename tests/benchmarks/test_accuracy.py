"""One small country of each family from its scenes to its scores, and taken up again."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.accuracy import RESULT, measure, settings_of
from benchmarks.limits import people_of, ratio, taught
from benchmarks.places import Place, place_of, prepare
from benchmarks.students import settings_of_student
from popcorn_assets.country import load_country
from popcorn_ml import raster
from popcorn_ml.errors import ConfigError
from popcorn_ml.simulate.family import FAMILIES
from tests.platforms import enter, make_place, write_demo_file

pytestmark = pytest.mark.long(60)

TINY = {
    "width": 120, "height": 110, "coarse_units": 8, "urban_share": 0.3, "s2_dates": 2,
    "s1_passes": 1,
}  # fmt: skip
SHORT = {"epochs": 1, "members": 2, "student.steps": 4, "student.crop_px": 64}


@pytest.fixture(params=sorted(FAMILIES))
def place(request, tmp_path, monkeypatch) -> Place:
    made = place_of(8, tmp_path / "seeds", load_country("demo"), 2, request.param)
    made = replace(made, specifics=TINY, overrides=SHORT, run="short")
    home = make_place(tmp_path / "home")
    write_demo_file(home, made.spec)
    enter(home, monkeypatch)
    return replace(made, country=load_country("demo"))


def test_a_country_is_measured_and_not_made_twice(place):
    rows = measure(place, ["bag", "student"], ["both", "s2"])
    assert [row["model"] for row in rows] == ["bag", "student", "student, s2"]
    for row in rows:
        assert (row["seed"], row["family"], row["census"]) == (8, place.family, "exact")
        assert row["ratio"] == pytest.approx(row["adjusted_rmse"] / row["builtup_rmse"])
        assert row["builtup_rmse"] == rows[0]["builtup_rmse"]  # one yardstick for all
        assert set(row["seconds"]) == {"prepare", "train", "map"}
        assert min(row["seconds"].values()) > 0
        by_class = row["densities"].values()
        squares = sum(each["hectares"] * each.get("rmse", 0) ** 2 for each in by_class)
        hectares = sum(each["hectares"] for each in by_class)
        assert np.sqrt(squares / hectares) == pytest.approx(row["adjusted_rmse"], rel=1e-3)
    assert json.loads((place.work / RESULT).read_text()) == rows[0]
    assert json.loads((place.work / "student_s2" / RESULT).read_text()) == rows[2]
    held = {path: path.read_bytes() for path in place.work.rglob("*.safetensors")}
    scene = next((place.folder / "demo").rglob("B04.tif"))
    stamp = scene.stat().st_mtime_ns
    assert len([path for path in held if path.parent.name == "out"]) == 4
    assert measure(place, ["bag"], ["both"]) == rows[:1]  # seconds too: those of the first time
    assert all(path.read_bytes() == weights for path, weights in held.items() if path.exists())
    assert scene.stat().st_mtime_ns == stamp


def test_the_student_that_maps_is_the_same_without_those_for_units_unseen(place):
    whole = measure(place, ["student"], ["both"])
    alone = measure(replace(place, run="alone"), ["student"], ["both"], unseen=False)
    assert alone[0]["adjusted_rmse"] == whole[0]["adjusted_rmse"]
    told = json.loads((place.folder / "runs/alone/student_both/out/units.json").read_text())
    assert told["folds"] == []


def test_what_images_allow_is_measured_as_maps_are(place):
    prepare(place)
    true = np.nan_to_num(raster.read_float(place.truth, None, 1)).astype(np.float64)
    score = np.nan_to_num(raster.read_float(place.builtup)).mean(axis=0, dtype=np.float64)
    assert ratio(true, place) == pytest.approx(0, abs=1e-3)
    assert ratio(score, place) == pytest.approx(1)
    model = taught(place.family, "s2", places=2, steps=2)
    said = people_of(model, place, "s2")
    assert said.shape == true.shape
    assert np.isfinite(ratio(said, place))


def test_settings_of_a_student_are_told_apart(place):
    assert settings_of_student(place) == {"steps": 4, "crop_px": 64}
    settings, more = settings_of(place)
    assert (settings.epochs, settings.members, more) == (1, 2, {})
    with pytest.raises(ConfigError, match="no such setting of the student"):
        settings_of_student(replace(place, overrides={"student.step": 4}))
