"""One small country of each family from its scenes to its scores, and taken up again."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.accuracy import RESULT, measure
from benchmarks.places import place_of
from popcorn_assets.country import load_country
from popcorn_ml.simulate.family import FAMILIES
from tests.platforms import enter, make_place, write_demo_file

pytestmark = pytest.mark.long(40)

TINY = {
    "width": 120, "height": 110, "coarse_units": 8, "urban_share": 0.3, "s2_dates": 2,
    "s1_passes": 1,
}  # fmt: skip


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_country_is_measured_and_not_made_twice(family, tmp_path, monkeypatch):
    place = place_of(8, tmp_path / "seeds", load_country("demo"), 2, family)
    place = replace(place, specifics=TINY, overrides={"epochs": 1, "members": 2}, run="short")
    home = make_place(tmp_path / "home")
    write_demo_file(home, place.spec)
    enter(home, monkeypatch)
    place = replace(place, country=load_country("demo"))
    (row,) = measure(place, ["bag"], ["both"])
    assert (row["seed"], row["family"], row["model"], row["census"]) == (8, family, "bag", "exact")
    assert row["ratio"] == pytest.approx(row["adjusted_rmse"] / row["builtup_rmse"])
    assert set(row["seconds"]) == {"prepare", "train", "map"}
    assert min(row["seconds"].values()) > 0
    by_class = row["densities"].values()
    squares = sum(each["hectares"] * each.get("rmse", 0) ** 2 for each in by_class)
    hectares = sum(each["hectares"] for each in by_class)
    assert np.sqrt(squares / hectares) == pytest.approx(row["adjusted_rmse"], rel=1e-3)
    assert json.loads((place.work / RESULT).read_text()) == row
    weights = sorted(place.work.glob("member_*/out/*.safetensors"))
    held = [path.read_bytes() for path in weights]
    scene = next((place.folder / "demo").rglob("B04.tif"))
    stamp = scene.stat().st_mtime_ns
    assert len(weights) == 2
    (again,) = measure(place, ["bag"], ["both"])
    assert [path.read_bytes() for path in weights] == held
    assert scene.stat().st_mtime_ns == stamp
    assert again == row  # seconds too: those of the first time
