"""Students trained and mapped with by a process of its own and by a dask cluster: the bytes that
they have in this process, whoever is killed on the way."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from popcorn_assets.resources import ComputeResource
from popcorn_assets.runs import launch
from popcorn_ml.launching import cluster
from popcorn_ml.mapping.builtup import BuiltupSpec, map_builtup
from popcorn_ml.mapping.spec import MappingSpec
from popcorn_ml.model.weights import load_extractor, save_extractor
from popcorn_ml.student.loop import STATE_FILE
from popcorn_ml.student.run import LOCK_FILE, train
from tests.launching.test_cluster import Killer, compute, two
from tests.mapping.places import a_spec, an_extractor
from tests.mapping.test_student import write_student
from tests.runs.test_launch import contents, failure, run
from tests.student.places import student_spec, write_taught_place
from tests.training.places import Place

pytest.importorskip("distributed")
pytestmark = [pytest.mark.long(40), pytest.mark.timeout(300)]

__all__ = ["compute", "two"]  # fixtures
EXTRACTOR = "extractor.safetensors"
STEPS = 20
"""Of each of the three trainings: enough for one to be killed before the last has ended."""


@pytest.fixture(autouse=True)
def _own_store(tmp_path, monkeypatch):
    monkeypatch.setenv("POPCORN_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Place:
    """Its built-up score is Sentinel-2's alone, as its students look at nothing else."""
    place = write_taught_place(tmp_path_factory.mktemp("taught"))
    seen = {
        season: (None, Path(pair["s2"] or ""))
        for season, pair in student_spec(place).composites.items()
    }
    extractor = load_extractor(place.folder / "extractor.safetensors")
    map_builtup(extractor, seen, place.grid, place.folder / "s2_score.tif", threads=1)
    return place


def spec_of(place: Place, name: str, **changes):
    seen = {
        season: {"s1": None, "s2": pair["s2"]}
        for season, pair in student_spec(place).composites.items()
    }
    score = str(place.folder / "s2_score.tif")
    return student_spec(
        place, name, composites=seen, builtup=score, sensors="s2", steps=STEPS, **changes
    )


@pytest.fixture(scope="module")
def undisturbed(place) -> dict[str, bytes]:
    """What a training in this process leaves."""
    spec = spec_of(place, "undisturbed")
    train(spec)
    return contents(Path(spec.out))


def launched(compute: ComputeResource, spec):
    """A student's training as the asset launches it, with the steps that it told."""
    told: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        told.append((done, total))

    done, result, lines = run(
        lambda context: launch.train_student(context, compute, spec, progress)
    )
    return done, result, lines, told


def when(there: Callable[[], bool], then: Callable[[], None]) -> threading.Thread:
    """Do something as soon as something else is so."""

    def wait() -> None:
        until = time.monotonic() + 120
        while not there():
            assert time.monotonic() < until
            time.sleep(0.01)
        then()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def kill_the_training() -> None:
    for child in psutil.Process().children(recursive=True):
        try:
            trains = "popcorn_ml.student" in child.cmdline()
        except psutil.Error:  # one that has just ended
            continue
        if trains:
            child.kill()


def test_a_process_of_its_own_killed_once_goes_on_to_the_same_bytes(place, undisturbed):
    subprocess = ComputeResource(device="cpu", launcher="subprocess")
    spec = spec_of(place, "process")
    killing = when((Path(spec.work) / STATE_FILE).exists, kill_the_training)
    done, *_ = launched(subprocess, spec)
    killing.join(60)
    assert not done.success
    assert "the process that trains a student was killed by signal 9, SIGKILL" in failure(done)
    assert not Path(spec.out).exists()
    done, result, lines, _ = launched(subprocess, spec)
    assert done.success
    assert STEPS <= result["resumed_after"] < 3 * STEPS
    assert f"taken up after step {result['resumed_after']}" in lines
    assert [line for line in lines if line.startswith(f"step {3 * STEPS} of {3 * STEPS} (without")]
    assert contents(Path(spec.out)) == undisturbed
    assert set(undisturbed) >= {"student.safetensors", "out_of_fold.json"}


def test_a_training_on_the_cluster_survives_its_worker(place, undisturbed, two, compute):
    names = two.wait_for({"first", "second"})
    spec = spec_of(place, "cluster", device="auto", threads=2)
    killer = Killer(two, names, Path(spec.work), STATE_FILE, LOCK_FILE)
    killer.start()
    done, result, lines, told = launched(compute, spec)
    killer.join(60)
    assert done.success
    on = [names[line.split()[5]] for line in lines if line.startswith("training a student on")]
    assert on == [killer.killed, *({"first", "second"} - {killer.killed})]
    assert f"taken up after step {result['resumed_after']}" in lines
    assert told[-1] == (3 * STEPS, 3 * STEPS)
    assert contents(Path(spec.out)) == undisturbed
    two.wait_for({"first", "second"} - {killer.killed})


def mapped(compute: ComputeResource, spec: MappingSpec, tmp_path: Path, name: str):
    """A map by whoever a launcher asks, and the score of Sentinel-2 that it goes by, if any."""
    out = replace(spec, out=tmp_path / name)
    if (tmp_path / EXTRACTOR).exists():
        score = out.out / "score.tif"
        builtup = BuiltupSpec(
            spec.composites, tmp_path / EXTRACTOR, spec.grid, score, tile_px=32, device="cpu"
        )
        made, *_ = run(lambda context: launch.map_builtup(context, compute, builtup, print))
        assert made.success, failure(made)
        out = replace(out, builtup=score)
    told: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        told.append((done, total))

    done, written, _ = run(lambda context: launch.map_population(context, compute, out, progress))
    assert done.success, failure(done)
    return contents(out.out), written["counts"], told


def test_maps_by_a_student_are_the_same_whoever_makes_them(compute, tmp_path):
    """Of Sentinel-2 alone, score included: there are no files of Sentinel-1."""
    spec = a_spec(tmp_path, (90, 120), tile_px=32)
    seen = {season: (None, s2) for season, (_, s2) in spec.composites.items()}
    save_extractor(an_extractor(), tmp_path / EXTRACTOR, {"name": "test"})
    for path in tmp_path.rglob("s1_*.tif"):
        path.unlink()
    spec = replace(
        spec,
        composites=seen,
        kind="student",
        members=[write_student(tmp_path / "student", ("s2",))],
        leave_out=1e-3,
        device="cpu",
    )
    inline, process = (ComputeResource(device="cpu", launcher=n) for n in ("inline", "subprocess"))
    here, counts, _ = mapped(inline, spec, tmp_path, "here")
    assert len(here) == 6
    for name, where in {"process": process, "cluster": compute}.items():
        there, counted, told = mapped(where, spec, tmp_path, name)
        assert there == here
        assert counted == counts
        assert told == ([(i, 12) for i in range(1, 13)] if name == "cluster" else [])


def test_a_worker_killed_while_a_student_maps_costs_no_byte(compute, two, tmp_path):
    """Another comes in its place, as its tests before this one have left one alone."""
    two.add("third", "--resources", "GPU=1")
    until = time.monotonic() + 60
    with cluster.connected(two.address) as client:
        while len(client.scheduler_info()["workers"]) < 2:
            assert time.monotonic() < until
            time.sleep(0.1)
    spec = replace(
        a_spec(tmp_path, (250, 230), tile_px=32),
        kind="student",
        members=[write_student(tmp_path / "student")],
        device="cpu",
    )
    here, *_ = mapped(ComputeResource(device="cpu", launcher="inline"), spec, tmp_path, "here")
    killed: list[int] = []

    def progress(done: int, total: int) -> None:
        if not killed and done < total / 2:
            killed.append(done)
            os.kill(two.workers.pop("third").pid, signal.SIGKILL)

    out = replace(spec, out=tmp_path / "there")
    done, *_ = run(lambda context: launch.map_population(context, compute, out, progress))
    assert done.success, failure(done)
    assert killed
    assert contents(out.out) == here
