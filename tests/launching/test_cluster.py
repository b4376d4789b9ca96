"""Training and mapping over a dask cluster: a real scheduler, workers that are processes.

One worker is killed while it trains; what comes out is what an undisturbed training gives.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from popcorn_assets.resources import ComputeResource
from popcorn_assets.runs import launch
from popcorn_ml.compute.locks import holder, try_lock
from popcorn_ml.errors import ComputeError, ConfigError, LostConnection
from popcorn_ml.launching import cluster
from popcorn_ml.training.loop import STATE_FILE
from popcorn_ml.training.run import LOCK_FILE, train
from tests.runs.test_launch import contents, failure, run
from tests.training.places import block_units, write_place

pytest.importorskip("distributed")
pytestmark = [pytest.mark.long(30), pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]


def start(module: str, *arguments: str, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", f"distributed.cli.{module}", *arguments],
        cwd=environment.pop("cwd", ROOT),
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


class Cluster:
    """A scheduler and its workers, by their names."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "scheduler.json"
        self.processes = [
            start(
                "dask_scheduler",
                *("--host", "127.0.0.1", "--port", "0", "--no-dashboard"),
                *("--scheduler-file", str(self.file)),
            )
        ]
        self.workers: dict[str, subprocess.Popen] = {}

    @property
    def address(self) -> str:
        until = time.monotonic() + 60
        while True:
            try:
                return json.loads(self.file.read_text())["address"]
            except (OSError, ValueError):
                assert time.monotonic() < until
                time.sleep(0.05)

    def add(self, name: str, *arguments: str, **environment: str) -> None:
        self.workers[name] = start(
            "dask_worker",
            self.address,
            *("--name", name, "--nthreads", "1", "--no-nanny", "--no-dashboard"),
            *("--local-directory", str(self.file.parent / name)),
            *arguments,
            **environment,
        )
        self.processes.append(self.workers[name])

    def wait_for(self, names: set[str]) -> dict[str, str]:
        """Address -> name, once all these workers and no others are there."""
        until = time.monotonic() + 60
        with cluster.connected(self.address) as client:
            while True:
                found = client.scheduler_info()["workers"]
                if {str(w["name"]) for w in found.values()} == names:
                    return {address: str(w["name"]) for address, w in found.items()}
                assert time.monotonic() < until, found
                time.sleep(0.1)

    def stop(self, name: str) -> None:
        self.workers.pop(name).kill()

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@contextmanager
def a_cluster(folder: Path) -> Iterator[Cluster]:
    made = Cluster(folder)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Iterator[Cluster]:
    """Two workers that declare a GPU each; the trainings they get use the CPU all the same."""
    with a_cluster(tmp_path_factory.mktemp("cluster")) as made:
        for name in ("first", "second"):
            made.add(name, "--resources", "GPU=1")
        made.wait_for({"first", "second"})
        yield made


@pytest.fixture
def compute(two, tmp_path, monkeypatch) -> ComputeResource:
    monkeypatch.setenv("POPCORN_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("POPCORN_SCHEDULER", two.address)
    return ComputeResource(launcher="dask")


@contextmanager
def in_this_process(**settings) -> Iterator[str]:
    """A cluster without processes of its own; its scheduler's address."""
    from distributed import LocalCluster

    with LocalCluster(
        processes=False, dashboard_address=":0", protocol="tcp", host="127.0.0.1", **settings
    ) as made:
        yield made.scheduler_address


def test_maps_over_the_cluster_are_the_same(compute, tmp_path):
    from popcorn_ml.mapping.builtup import BuiltupSpec, run_builtup
    from popcorn_ml.mapping.predict import map_population
    from popcorn_ml.model.weights import save_extractor
    from tests.mapping.places import an_extractor
    from tests.mapping.test_predict import a_spec

    spec = a_spec(tmp_path, (40, 60), tile_px=32)
    weights = save_extractor(an_extractor(), tmp_path / "extractor.safetensors", {"name": "test"})
    builtup = BuiltupSpec(
        spec.composites, weights, spec.grid, tmp_path / "here" / "b.tif", tile_px=32
    )
    run_builtup(builtup)
    map_population(replace(spec, out=tmp_path / "here"))
    there = tmp_path / "there"
    told = []

    def body(context):
        tiles = lambda done, total: told.append((done, total))  # noqa: E731
        launch.map_builtup(context, compute, replace(builtup, out=there / "b.tif"), tiles)
        launch.map_population(context, compute, replace(spec, out=there), tiles)

    done, _, lines = run(body)
    assert done.success
    assert "tiles go to 2 workers of the cluster" in lines
    assert told == [(i, 4) for i in (1, 2, 3, 4)] * 2
    assert contents(there) == contents(tmp_path / "here")
    assert len(contents(there)) == 6


def test_a_worker_killed_midway_costs_its_tiles_and_no_byte(tmp_path, monkeypatch):
    """Its squares are mapped by the other one; what it had begun to write is in no file."""
    from popcorn_ml.mapping.predict import map_population
    from tests.mapping.test_predict import a_spec

    spec = a_spec(tmp_path, (250, 230), tile_px=32, threads=4)
    map_population(replace(spec, out=tmp_path / "here"))
    killed = []
    with a_cluster(tmp_path) as made:
        for name in ("one", "other"):
            made.add(name)
        made.wait_for({"one", "other"})

        def progress(done: int, total: int) -> None:
            if not killed and done < total / 2:
                killed.append(done)
                os.kill(made.workers["other"].pid, signal.SIGKILL)

        with cluster.connected(made.address) as client:
            pool = client.get_executor(pure=False)
            map_population(replace(spec, out=tmp_path / "there"), progress, pool=pool)
            assert len(client.scheduler_info()["workers"]) == 1
    assert killed
    assert contents(tmp_path / "there") == contents(tmp_path / "here")
    assert len(contents(tmp_path / "there")) == 5


def test_composites_over_the_cluster_are_the_same(tmp_path):
    """And a worker that dies costs its tiles."""
    from popcorn_ml.imagery.build import build_season
    from popcorn_ml.imagery.settings import ImagerySettings
    from popcorn_ml.simulate.country import write_country
    from popcorn_ml.simulate.spec import CountrySpec

    spec = CountrySpec(width=150, height=150, coarse_units=4, fine_units_each=2, seed=5)
    items = write_country(tmp_path / "scenes", spec, [2020]).items
    settings = ImagerySettings.parse(
        {"source": "stac", "stac": {"profile": "local", "items": str(items)}, "tile_px": 64}
    )

    def build(name, **options):
        out, work = tmp_path / name, tmp_path / f"{name}_work"
        build_season("s1", "spring", 2020, spec.grid, settings, out, work, **options)

    build("here")
    killed = []
    with a_cluster(tmp_path) as made:
        for name in ("one", "other"):
            made.add(name)
        made.wait_for({"one", "other"})

        def progress(done: int, total: int) -> None:
            if done and not killed:
                killed.append(done)
                os.kill(made.workers["other"].pid, signal.SIGKILL)

        with cluster.connected(made.address) as client:
            pool = client.get_executor(pure=False)
            build("there", pool=pool, workers=2, progress=progress)
    assert killed
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


def test_bad_input_is_not_tried_again(compute, tmp_path):
    place = write_place(tmp_path / "place", block_units(40, 60, 1, 3))
    spec = replace(place.spec(), counts=str(tmp_path / "nowhere.json"))
    done, _, _ = run(lambda context: launch.train_member(context, compute, spec))
    assert not done.success
    assert "nowhere.json" in failure(done)
    assert not [e for e in done.all_events if e.event_type_value == "STEP_UP_FOR_RETRY"]


def test_no_worker(tmp_path):
    with (
        in_this_process(n_workers=0) as address,
        cluster.connected(address) as client,
        pytest.raises(ComputeError, match="no workers") as raised,
    ):
        cluster.examine(client, address, "auto")
    assert f"dask worker {address}" in raised.value.remedy


def test_no_gpu_among_the_workers(tmp_path):
    with in_this_process(n_workers=1, threads_per_worker=3) as address:
        with cluster.connected(address) as client:
            with pytest.raises(ConfigError, match="no worker of the cluster declares a GPU"):
                cluster.examine(client, address, "cuda")
            found = cluster.examine(client, address, "auto", tmp_path)
            assert (found.slots, found.resources) == (3, {})
        with pytest.raises(ConfigError, match="no worker of the cluster declares a GPU"):
            ComputeResource(launcher="dask", device="cuda", scheduler=address).require_here()


def test_no_scheduler(monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1.0)
    compute = ComputeResource(launcher="dask", scheduler="tcp://127.0.0.1:9")
    with pytest.raises(LostConnection, match="cannot be reached") as raised:
        compute.require_here()
    assert "127.0.0.1:9" in str(raised.value)


def test_a_broken_connection_is_tried_again_a_few_times(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.5)
    monkeypatch.setattr(launch, "RECONNECTIONS", 2)
    monkeypatch.setattr(launch, "RECONNECT_SECONDS", 0)
    compute = ComputeResource(launcher="dask", scheduler="tcp://127.0.0.1:9")
    spec = write_place(tmp_path, block_units(40, 60, 1, 3)).spec()
    done, _, lines = run(lambda context: launch.train_member(context, compute, spec))
    assert not done.success
    assert [e.event_type_value for e in done.all_events].count("STEP_UP_FOR_RETRY") == 2
    assert sum("the dask scheduler cannot be reached" in line for line in lines) == 3


def test_a_worker_of_another_version_or_elsewhere(tmp_path):
    """Code that differs by a line; and a folder that is another one for the worker."""
    other = tmp_path / "code"
    shutil.copytree(ROOT / "popcorn_ml", other / "popcorn_ml", ignore=lambda *_: ["weights"])
    (other / "popcorn_ml" / "grid.py").open("a").write("\n# another line\n")
    with a_cluster(tmp_path) as made:
        made.add("blind", cwd=str(tmp_path))
        made.wait_for({"blind"})
        with cluster.connected(made.address) as client:
            cluster.examine(client, made.address, "auto", tmp_path / "shared")
            with pytest.raises(ComputeError, match="does not see the store"):
                cluster.examine(client, made.address, "auto", Path("/proc/self/cwd/tests"))
        assert not list((ROOT / "tests").glob(".seen*"))
        made.stop("blind")
        made.add("old", PYTHONPATH=str(other), cwd=str(other))
        made.wait_for({"old"})
        with (
            cluster.connected(made.address) as client,
            pytest.raises(ComputeError, match="other versions") as raised,
        ):
            cluster.examine(client, made.address, "auto")
        assert "popcorn_ml" in raised.value.expected


def test_a_training_that_nobody_waits_for_stops_at_its_next_epoch(two, tmp_path):
    spec = write_place(tmp_path, block_units(80, 120, 2, 4)).spec(epochs=1000, device="auto")

    def epoch(done: int, total: int, metrics: dict[str, float]) -> None:
        if done == 2:
            raise KeyboardInterrupt  # as a cancelled run would

    with cluster.connected(two.address) as client:
        found = cluster.examine(client, two.address, "auto")
        with pytest.raises(KeyboardInterrupt):
            cluster.train(client, found, spec, own_threads=True, note="run", say=print, epoch=epoch)
        until = time.monotonic() + 60
        while (lock := try_lock(Path(spec.work) / LOCK_FILE)) is None:
            assert time.monotonic() < until
            time.sleep(0.05)
        os.close(lock)


class Killer(threading.Thread):
    """Kills the worker that trains, once its first epoch is on disk."""

    def __init__(
        self,
        two: Cluster,
        names: dict[str, str],
        work: Path,
        state: str = STATE_FILE,
        lock: str = LOCK_FILE,
    ) -> None:
        super().__init__(daemon=True)
        self.two, self.names, self.state, self.lock = two, names, work / state, work / lock
        self.killed = ""

    def run(self) -> None:
        while not self.state.exists():
            time.sleep(0.02)
        self.killed = self.names[holder(self.lock).split(" on ")[1]]
        self.two.workers[self.killed].send_signal(signal.SIGKILL)


def test_a_training_survives_its_worker(two, compute, tmp_path):
    place = write_place(tmp_path / "place", block_units(80, 120, 2, 4))
    undisturbed = place.spec("undisturbed", epochs=5)
    train(undisturbed)
    names = two.wait_for({"first", "second"})
    spec = place.spec("disturbed", epochs=5, device="auto")
    killer = Killer(two, names, Path(spec.work))
    killer.start()
    done, result, lines = run(lambda context: launch.train_member(context, compute, spec))
    killer.join(60)
    assert done.success
    on = [names[line.split()[3]] for line in lines if line.startswith("training on worker ")]
    assert on[0] == killer.killed
    assert sorted(on) == ["first", "second"]
    (taken_up,) = [line for line in lines if line.startswith("taken up after epoch")]
    assert result["resumed_after"] == int(taken_up.split()[-1]) >= 1
    assert [line for line in lines if line.startswith("epoch 5 of 5")]
    assert contents(Path(spec.out)) == contents(Path(undisturbed.out))
    two.wait_for({"first", "second"} - {killer.killed})
