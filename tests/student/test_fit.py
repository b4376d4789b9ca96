"""A student learns from the members, the same whatever the threads, and says honestly what a
student makes of units that it never saw."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from popcorn_ml import raster
from popcorn_ml.errors import ConfigError, PopcornError, TrainingError, WeightsError
from popcorn_ml.mapping.builtup import map_builtup
from popcorn_ml.mapping.dasymetric import adjust_map
from popcorn_ml.mapping.predict import MappingSpec, map_population
from popcorn_ml.model.stored import read_card, read_student
from popcorn_ml.model.weights import load_extractor
from popcorn_ml.sentinel import SEASONS
from popcorn_ml.student import fit, loop
from popcorn_ml.student.fit import train_student
from popcorn_ml.training.out_of_fold import read_collected
from popcorn_ml.zones import zone_sums
from tests.student.places import student_spec, write_taught_place
from tests.training.places import Place

FILES = (
    "student.safetensors", "card.json", "history.json", "loss.png", "units.json",
    "out_of_fold.json",
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Place:
    """Read only; trainings have folders of their own."""
    return write_taught_place(tmp_path_factory.mktemp("taught"))


@pytest.fixture(scope="module")
def trained(place):
    """A training of a place, its parts as told."""
    told: list[tuple[int, int, dict]] = []
    result = train_student(student_spec(place, "trained"), lambda *said: told.append(said))
    return result, told


def content(folder: str | Path) -> dict[str, bytes]:
    return {name: (Path(folder) / name).read_bytes() for name in FILES}


def test_a_training_leaves_a_whole_folder(place, trained):
    """Weights that their card speaks for, what was trained on and what was not, a picture."""
    result, told = trained
    assert sorted(p.name for p in result.folder.iterdir()) == sorted(FILES)
    card = read_card(result.weights)
    assert card["sensors"] == "both"
    assert card["pixel_area_m2"] == 100.0
    assert card["hyperparameters"]["steps"] == 4
    assert "out" not in card["hyperparameters"]
    assert set(read_student(result.weights)) >= {"enter.convs.0.weight", "people_per_score"}
    units = json.loads((result.folder / "units.json").read_text())
    assert len(units["trained"]) == 12
    assert [(f["fold"], f["members"]) for f in units["folds"]] == [(0, [1]), (1, [2])]
    assert (result.folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    done = [(done, total) for done, total, _ in told]
    assert done == [(4, 12), (8, 12), (12, 12)]
    assert [said["lesson"] for _, _, said in told] == [
        "all units", "without fold 0", "without fold 1",
    ]  # fmt: skip


def test_every_unit_held_out_is_told_by_a_student_that_never_saw_it(place, trained):
    rows = read_collected(trained[0].folder / "out_of_fold.json")
    counts = {count["number"]: count for count in place.counts}
    assert [row.number for row in rows] == sorted(counts)
    assert {row.fold for row in rows} == {0, 1}
    for row in rows:
        assert (row.id, row.people) == (counts[row.number]["id"], counts[row.number]["people"])
        assert row.predicted > 0


def test_distilling_brings_the_student_nearer(tmp_path, monkeypatch):
    """The loss falls to well below what it was: people leave where members have nobody."""
    monkeypatch.setattr(loop, "PART_STEPS", 8)
    taught = write_taught_place(tmp_path / "taught")
    for path in (taught.folder / "members").glob("*/units.json"):
        path.unlink()
    result = train_student(student_spec(taught, steps=40, learning_rate=1e-2))
    losses = [entry["loss"] for entry in result.history]
    assert losses[-1] < 0.5 * losses[0]


def test_threads_change_no_byte(place, trained):
    spec = student_spec(place, "three", threads=3)
    train_student(spec)
    assert content(spec.out) == content(trained[0].folder)


def test_a_stopped_training_goes_on_to_the_same_weights(place, trained, monkeypatch):
    """Wherever it stops: within a lesson, or between two."""
    monkeypatch.setattr(loop, "PART_STEPS", 2)
    whole, cut = student_spec(place, "whole"), student_spec(place, "cut")
    train_student(whole)
    for stop in (2, 4, 6, 10):

        def stopping(done: int, *_: object, stop: int = stop) -> None:
            if done == stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train_student(cut, stopping)
        assert not Path(cut.out).exists()
    result = train_student(cut)
    assert result.resumed_after == 10
    assert content(cut.out) == content(whole.out)
    assert (
        content(whole.out)["student.safetensors"]
        == content(trained[0].folder)["student.safetensors"]
    )


def test_a_killed_command_goes_on(place, tmp_path):
    """The process is killed between two parts; run again it says where it was taken up."""
    spec = student_spec(place, "killed", steps=27, crop_px=64, out=str(tmp_path / "out"))
    path = tmp_path / "spec.json"
    path.write_text(spec.to_json())
    command = [sys.executable, "-m", "popcorn_ml.student", str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["done"] == 25
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    last = json.loads(again.stdout.splitlines()[-1])
    assert last["done"] is True
    assert last["resumed_after"] >= 25
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(FILES)


def test_another_specification_is_not_taken_up(place, tmp_path):
    spec = student_spec(place, out=str(tmp_path / "out"), work=str(tmp_path / "work"), steps=2)
    train_student(spec)
    again = train_student(replace(spec, seed=7))
    assert again.resumed_after == 0


def fold_students(spec) -> list[dict[str, torch.Tensor]]:
    """The weights of every lesson, from the state that a whole training leaves."""
    train_student(spec)
    return torch.load(Path(spec.work) / loop.STATE_FILE, weights_only=True)["done"]


def test_a_fold_student_never_sees_the_counts_of_its_fold(place, tmp_path):
    """Other counts there, and other people by members that saw them, change not one bit of it."""
    honest = write_taught_place(tmp_path / "honest")
    before = fold_students(student_spec(honest))
    hidden = {count["id"] for count in honest.counts[0::2]}
    honest.write_counts(
        [
            {**count, "people": 1000.0 + 17 * count["number"]} if count["id"] in hidden else count
            for count in honest.counts
        ]
    )
    members = raster.read_float(honest.folder / "members.tif")
    members[1] *= 3  # the second member saw the units that the first held out
    raster.write(
        honest.folder / "members.tif", members, honest.grid, ["member 1", "member 2"], np.nan
    )
    after = fold_students(student_spec(honest, "after"))
    same = [
        all(torch.equal(a[name], b[name]) for name in a) for a, b in zip(before, after, strict=True)
    ]
    assert same == [False, True, False]


def test_members_that_held_out_the_same_units_teach_one_student(place, tmp_path):
    same = write_taught_place(tmp_path / "same")
    for path in (same.folder / "members").glob("*/units.json"):
        path.write_text(json.dumps({"trained": [], "held_out": ["00001", "00005"]}))
    result = train_student(student_spec(same, steps=2))
    units = json.loads((result.folder / "units.json").read_text())
    assert [(f["members"], f["held_out"]) for f in units["folds"]] == [([1, 2], ["00001", "00005"])]
    assert [r.id for r in read_collected(result.folder / "out_of_fold.json")] == ["00001", "00005"]


def test_members_of_whom_nothing_is_known_teach_the_one_that_maps_alone(tmp_path):
    unknown = write_taught_place(tmp_path / "unknown")
    for path in (unknown.folder / "members").glob("*/units.json"):
        path.unlink()
    result = train_student(student_spec(unknown, steps=2))
    assert result.held_out == 0
    assert read_collected(result.folder / "out_of_fold.json") == []


def test_its_map_holds_everyone_once_it_is_adjusted(place, trained, tmp_path):
    """Mapped, and adjusted as any map is: every unit has the people that were counted there."""
    spec = student_spec(place)
    out = tmp_path / "map"
    map_population(
        MappingSpec(
            composites=spec.pairs(),
            builtup=Path(spec.builtup),
            members=[trained[0].weights],
            grid=place.grid,
            out=out,
            device="cpu",
            threads=1,
            kind="student",
        )
    )
    people = [count["people"] for count in place.counts]
    names = ("population.tif", "population_members.tif", "builtup_score.tif")
    adjust_map(
        *(out / name for name in names), place.folder / "units.tif", people, place.grid,
        out / "adjusted",
    )  # fmt: skip
    found = raster.read(out / "adjusted" / "population.tif", bands=1)
    sums = zone_sums(place.units, found, len(people))[1:]
    np.testing.assert_allclose(sums, people, rtol=1e-6)


def test_sentinel_2_alone_needs_no_file_of_sentinel_1(tmp_path):
    alone = write_taught_place(tmp_path / "alone")
    for path in alone.folder.glob("s1_*.tif"):
        path.unlink()
    composites = {s: {"s1": None, "s2": str(alone.folder / f"s2_{s}.tif")} for s in SEASONS}
    score = alone.folder / "s2_score.tif"
    spec = student_spec(alone, sensors="s2", composites=composites, builtup=str(score), steps=2)
    extractor = load_extractor(spec.extractor)
    map_builtup(extractor, spec.pairs(), alone.grid, score, threads=1, device="cpu")
    result = train_student(spec)
    assert read_student(result.weights)["enter.convs.0.weight"].shape[1] == 5
    assert result.held_out == 12


def test_a_season_may_be_missing_somewhere_or_anywhere(tmp_path):
    """A part that one season does not show, a part that none does, and a season that is not there;
    units that nobody sees are left out."""
    hole = (slice(0, 60), slice(0, 70))
    gaps = write_taught_place(tmp_path / "gaps", missing=dict.fromkeys(SEASONS, hole))
    spec = student_spec(gaps, steps=3)
    three = {s: pair for s, pair in spec.composites.items() if s != "summer"}
    result = train_student(replace(spec, composites=three))
    assert np.isfinite([entry["loss"] for entry in result.history]).all()
    assert result.trained < 12
    assert {row.number for row in read_collected(result.folder / "out_of_fold.json")} <= {
        *range(1, 13)
    }


@pytest.mark.parametrize(
    ("break_it", "error", "said"),
    [
        (lambda p: (p.folder / "members.tif").unlink(), PopcornError, "missing"),
        (lambda p: (p.folder / "s2_summer.tif").write_bytes(b"II*"), PopcornError, "s2_summer"),
        (lambda p: p.write_counts([]), PopcornError, "no census unit"),
        (
            lambda p: (p.folder / "members" / "1" / "units.json").write_text("{}"),
            TrainingError,
            "held out",
        ),
    ],
)
def test_bad_input_is_refused_and_nothing_written(tmp_path, break_it, error, said):
    broken = write_taught_place(tmp_path / "broken")
    spec = student_spec(broken)
    break_it(broken)
    with pytest.raises(error, match=said):
        train_student(spec)
    assert not Path(spec.out).exists()


def test_a_map_by_other_members_is_refused(place, tmp_path):
    spec = student_spec(place, out=str(tmp_path / "out"), work=str(tmp_path / "work"))
    with pytest.raises(ConfigError, match="2 bands"):
        train_student(replace(spec, members=spec.members[:1]))


def test_a_score_by_other_sensors_is_refused(place, tmp_path):
    score = tmp_path / "score.tif"
    raster.write(
        score, place.scores, place.grid, SEASONS, float("nan"),
        tags={"sensors": ", ".join(f"{s}: s2" for s in SEASONS)},
    )  # fmt: skip
    spec = student_spec(place, out=str(tmp_path / "out"), builtup=str(score))
    with pytest.raises(WeightsError, match="spring by s2"):
        fit.train_student(spec)
