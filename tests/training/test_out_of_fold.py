"""What members say of the units that they never saw: honest, complete, and what the map has."""

from __future__ import annotations

import json

import numpy as np
import pytest

from popcorn_ml import raster
from popcorn_ml.errors import ConfigError, TrainingError
from popcorn_ml.mapping.predict import MappingSpec, map_population
from popcorn_ml.sentinel import SEASONS
from popcorn_ml.training.fit import train_member
from popcorn_ml.training.out_of_fold import (
    OUT_OF_FOLD_FILE,
    Unseen,
    as_json,
    collected,
    collected_json,
    losses,
    read_collected,
    read_member,
)
from popcorn_ml.training.spec import TrainingSpec
from popcorn_ml.training.units import find_units
from tests.training.places import block_units, write_place

pytestmark = pytest.mark.long(20)

FOLDS = {"held_out": "folds", "folds": 3, "keep_epoch": "last", "learning_rate": 3e-3}


@pytest.fixture(scope="module")
def folded(tmp_path_factory):
    """A place with clouds, three members, and each one's result."""
    missing = {"winter": (slice(0, 70), slice(0, 40)), "summer": (slice(40, 60), slice(20, 100))}
    folder = tmp_path_factory.mktemp("folds")
    place = write_place(folder, block_units(90, 120, 3, 4), missing=missing)
    results = [
        train_member(place.spec(f"m{k}", **FOLDS, fold=k, seed=1600 + k, epochs=3))
        for k in range(3)
    ]
    return place, results


def test_together_they_predict_every_unit_unseen(folded):
    place, results = folded
    held, trained = [], []
    for k, result in enumerate(results):
        said = json.loads((result.folder / "units.json").read_text())
        fold, unseen = read_member(result.folder)
        assert fold == k
        assert sorted(unit.id for unit in unseen) == sorted(said["held_out"])
        assert not {*said["trained"]} & {*said["held_out"]}
        held += said["held_out"]
        trained.append(len(said["trained"]))
    assert sorted(held) == [count["id"] for count in place.counts]
    assert trained == [8, 8, 8]


def test_the_prediction_is_what_the_map_of_that_member_has(folded, tmp_path):
    """Also where clouds hide a part of a unit in some seasons: summed pixel by pixel."""
    place, results = folded
    map_population(
        MappingSpec(
            composites={
                s: (place.folder / f"s1_{s}.tif", place.folder / f"s2_{s}.tif") for s in SEASONS
            },
            builtup=place.folder / "builtup_score.tif",
            members=[result.weights for result in results],
            grid=place.grid,
            out=tmp_path,
            device="cpu",
        )
    )
    bands = raster.read_float(tmp_path / "population_members.tif")
    for band, result in zip(bands, results, strict=True):
        _, unseen = read_member(result.folder)
        for unit in unseen:
            mapped = np.nansum(band[place.units == unit.number], dtype=np.float64)
            assert unit.predicted == pytest.approx(mapped, rel=1e-4)


def test_counts_held_out_change_nothing_of_what_is_predicted(folded, tmp_path, monkeypatch):
    """Neither by training nor by the first guess at the occupancy; the folds left as they were."""
    place, results = folded
    fold_of = {unit.number: k for k, r in enumerate(results) for unit in read_member(r.folder)[1]}
    monkeypatch.setattr("popcorn_ml.training.units.folds_of", lambda units, count: fold_of)
    _, before = read_member(results[0].folder)
    counts = [dict(count) for count in place.counts]
    for count in counts:
        count["people"] *= 7.0 if fold_of[count["number"]] == 0 else 1.0
    path = tmp_path / "counts.json"
    path.write_text(json.dumps(counts))
    spec = place.spec("other", **FOLDS, fold=0, seed=1600, epochs=3, counts=str(path))
    _, after = read_member(train_member(spec).folder)
    assert [u.predicted for u in after] == [u.predicted for u in before]
    assert [u.people for u in after] == [7 * u.people for u in before]


def test_resumed_and_with_more_threads_it_is_the_same(folded):
    place, results = folded
    spec = {**FOLDS, "fold": 1, "seed": 1601}
    train_member(place.spec("resumed", **spec, epochs=2))
    again = train_member(place.spec("resumed", **spec, epochs=3, threads=2))
    assert again.resumed_after == 2
    for file in results[1].folder.iterdir():
        assert (again.folder / file.name).read_bytes() == file.read_bytes(), file.name


def test_a_fold_is_scored_first_last_and_now_and_then(tmp_path):
    place = write_place(tmp_path, block_units(40, 60, 2, 3))
    result = train_member(place.spec(**FOLDS, fold=0, epochs=7))
    scored = [int(entry["epoch"]) for entry in result.history if "held_out_loss" in entry]
    assert scored == [1, 5, 7]
    _, unseen = read_member(result.folder)
    assert result.history[-1]["held_out_loss"] == losses(unseen, 100.0, 0.01)["held_out_loss"]
    # The fifth is scored as ever: as the mean of the seasons, here with no cloud about the same.
    assert result.history[4]["held_out_loss"] > 0


def test_units_held_out_by_all_are_the_mean_of_all(tmp_path):
    place = write_place(tmp_path, block_units(40, 60, 2, 3))
    folders = {
        str(seed): train_member(place.spec(f"{seed}", seed=seed, epochs=1)).folder
        for seed in (1, 2)
    }
    (unit,) = collected(folders)
    assert (unit.members, unit.fold) == (2, None)
    assert unit.predicted == pytest.approx(np.mean([*unit.by.values()]))
    (tmp_path / "all.json").write_bytes(collected_json([unit]))
    assert read_collected(tmp_path / "all.json") == [unit]


def test_older_members_and_broken_files(tmp_path):
    assert read_member(tmp_path) == (None, [])
    assert read_collected(tmp_path / "none.json") == []
    path = tmp_path / OUT_OF_FOLD_FILE
    path.write_bytes(as_json([Unseen("a", 1, 2.0, 3.0, 0.1)], 0, 2))
    assert read_member(tmp_path) == (0, [Unseen("a", 1, 2.0, 3.0, 0.1)])
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(TrainingError, match="cannot be read") as raised:
        read_member(tmp_path)
    assert str(path) in str(raised.value)


def test_where_clouds_leave_one_fold_folds_are_drawn_from_what_is_seen(tmp_path):
    """All members alike, so that each still has something to train on."""
    everywhere = dict.fromkeys(SEASONS, (slice(0, 40), slice(20, 120)))
    place = write_place(tmp_path, block_units(40, 120, 2, 6), missing=everywhere)
    held = []
    for fold in range(2):
        spec = place.spec(held_out="folds", folds=2, fold=fold, keep_epoch="last")
        units = find_units(
            spec.units, spec.builtup, spec.counts, SEASONS, spec.share_held_out, spec.own_fold
        )[1]
        assert len(units.trained) == len(units.held_out) == 1
        held.append(units.held_out[0].number)
    assert sorted(held) == [1, 7]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"folds": 1}, "folds"),
        ({"fold": 3}, "fold"),
        ({"keep_epoch": "best"}, "keep_epoch"),
        ({"held_out": "all"}, "held_out"),
    ],
)
def test_settings_that_cannot_be(changes, told):
    values = {"seed": 1, **FOLDS, **changes}
    with pytest.raises(ConfigError, match=told):
        TrainingSpec({"spring": "a"}, {"spring": "b"}, "c", "d", "e", "f", "g", "h", **values)
