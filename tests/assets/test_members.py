"""Members train side by side as the pool allows; a killed one is taken up alone, to the same end.

Runs are real ones: Dagster's multiprocess executor, a process for every step and every training.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import psutil
import pytest
import yaml
from dagster import DagsterEventType
from dagster._core.definitions.reconstruct import ReconstructableRepository

from popcorn_assets.automation import TRAIN_JOB
from popcorn_assets.partitions import partition_key
from popcorn_assets.runs.in_process import INLINE, QUIET
from popcorn_assets.store.versions import Address, Store
from tests.platforms import Place, enter

pytestmark = [pytest.mark.long(60), pytest.mark.timeout(1200)]

MEMBERS = [1600, 1601, 1602, 1603]
KILLED = 1602
EPOCHS = 6
CHECKPOINTS = dg.AssetKey("checkpoints")
ADDRESS = Address("checkpoints", "demo", 2020)


def copied(tiny: Place, home: Path) -> Place:
    """The small country somewhere else, to be trained with four members."""
    shutil.copytree(tiny.home, home)
    file = home / "countries" / "demo.yaml"
    country = yaml.safe_load(file.read_text("utf-8"))
    country["training"] = {**country["training"], "members": len(MEMBERS), "epochs": EPOCHS}
    file.write_text(yaml.safe_dump(country, sort_keys=False, allow_unicode=True), "utf-8")
    return Place(home)


def partition_tags() -> dict[str, str]:
    return {
        "dagster/partition": partition_key("demo", 2020),
        "dagster/partition/country": "demo",
        "dagster/partition/year": "2020",
    }


def train_job():
    return ReconstructableRepository.for_module(
        "popcorn_assets.definitions", "defs", os.getcwd()
    ).get_reconstructable_job(TRAIN_JOB)


def trainings() -> dict[int, psutil.Process]:
    """Seed -> process, of the trainings that the runs of this process have launched."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        try:
            line = process.cmdline()
            if "popcorn_ml.training" in line:
                found[json.loads(Path(line[-1]).read_text())["seed"]] = process
        except (psutil.Error, OSError, ValueError):
            continue
    return found


class Watch(threading.Thread):
    """Counts the trainings at work, and kills one when its first epoch is on disk."""

    def __init__(self, data: Path, victim: int) -> None:
        super().__init__(daemon=True)
        self.data, self.victim = data, victim
        self.over = threading.Event()
        self.most = 0
        self.killed = False

    def run(self) -> None:
        while not self.over.wait(0.05):
            found = trainings()
            self.most = max(self.most, len(found))
            states = (self.data / ".work" / "checkpoints").rglob(
                f"member_{self.victim}/state/last.ckpt"
            )
            if not self.killed and self.victim in found and list(states):
                found[self.victim].send_signal(signal.SIGKILL)
                self.killed = True


@contextmanager
def watching(data: Path, victim: int) -> Iterator[Watch]:
    watch = Watch(data, victim)
    watch.start()
    try:
        yield watch
    finally:
        watch.over.set()
        watch.join()


def events(instance, run_id, kind):
    return [
        record.event_log_entry.get_dagster_event()
        for record in instance.get_records_for_run(run_id, of_type=kind).records
    ]


def messages(instance, run_id: str, step: str) -> list[str]:
    return [
        entry.user_message
        for entry in instance.all_logs(run_id)
        if entry.step_key == step and not entry.is_dagster_event
    ]


def spans(instance, run_id: str) -> list[tuple[float, float]]:
    """When each training step began and ended."""
    return [
        (step.start_time, step.end_time)
        for step in instance.get_run_step_stats(run_id)
        if ".train_member[" in step.step_key
    ]


def test_four_members_two_at_once_one_killed(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("POPCORN_STEPS", "4")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    alone = copied(tiny, tmp_path / "alone")
    enter(alone, monkeypatch)
    from popcorn_assets.definitions import defs

    with alone.instance() as instance:
        assert (
            defs.resolve_job_def(TRAIN_JOB)
            .execute_in_process(
                asset_selection=[CHECKPOINTS],
                partition_key=partition_key("demo", 2020),
                instance=instance,
                run_config={**QUIET, **INLINE},
            )
            .success
        )
    undisturbed = Store(alone.data).latest(ADDRESS)

    place = copied(tiny, tmp_path / "home")
    enter(place, monkeypatch)
    with place.instance() as instance:
        instance.event_log_storage.set_concurrency_slots("gpu", 2)
        with watching(place.data, KILLED) as watch:
            first = dg.execute_job(
                train_job(),
                instance,
                tags=partition_tags(),
                run_config=QUIET,
                asset_selection=[CHECKPOINTS],
                raise_on_error=False,
            )
        assert watch.killed
        assert not first.success
        step = f"checkpoints.train_member[member_{KILLED}]"

        # Never more than two at once, by the events that the UI draws and by the processes.
        at_work = spans(instance, first.run_id)
        assert len(at_work) == len(MEMBERS)
        together = [sum(a <= begin < b for a, b in at_work) for begin, _ in at_work]
        assert max(together) == 2
        assert watch.most == 2

        # The failure says what happened and what to do; the other members are done.
        failures = {
            e.step_key: e.step_failure_data
            for e in events(instance, first.run_id, DagsterEventType.STEP_FAILURE)
        }
        assert set(failures) == {step}
        said = failures[step].user_failure_data.description
        assert f"(seed {KILLED}) was killed by signal 9, SIGKILL (out of memory?)" in said
        assert "re-execute the run from failure" in said
        assert Store(place.data).latest(ADDRESS).version == Store(tiny.data).latest(ADDRESS).version

        with watching(place.data, -1) as watch:
            second = dg.execute_job(
                train_job(),
                instance,
                tags=partition_tags(),
                run_config=QUIET,
                asset_selection=[CHECKPOINTS],
                reexecution_options=dg.ReexecutionOptions.from_failure(first.run_id, instance),
                raise_on_error=False,
            )
        assert second.success
        assert watch.most == 1
        started = [e.step_key for e in events(instance, second.run_id, DagsterEventType.STEP_START)]
        assert started[:2] == [step, "checkpoints.collect_members"]
        assert not [key for key in started if "train_member" in key and key != step]
        told = messages(instance, second.run_id, step)
        (taken_up,) = [line for line in told if line.startswith("taken up after epoch")]
        assert 1 <= int(taken_up.rpartition(" ")[2]) < EPOCHS
        assert not [line for line in told if line.startswith("epoch 1 of")]
        (output,) = [
            e.step_output_data
            for e in events(instance, second.run_id, DagsterEventType.STEP_OUTPUT)
            if e.step_key == step
        ]
        assert output.metadata["loss"].value.startswith("![picture](data:image/png;base64,")
        assert output.metadata["taken up after epoch"].value >= 1
        published = Store(place.data).latest(ADDRESS)
        assert published.version == undisturbed.version
        assert published.manifest()["facts"] == undisturbed.manifest()["facts"]
        assert not list((place.data / ".work" / "checkpoints").rglob("member_*"))
