"""Runs that lost their process end and free their slots; whoever waits says for what."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import psutil
import pytest
from dagster import DagsterRunStatus
from dagster._core.events import EngineEventData
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher
from rich.console import Console

from popcorn_assets.commands.progress import printing
from popcorn_assets.runs.in_process import QUIET
from popcorn_assets.runs.instance import LocalLauncher
from popcorn_assets.runs.lost import (
    BEGUN_TAG,
    LAUNCHED_TAG,
    OWNER_TAG,
    begun_tag,
    end_lost_runs,
    end_run,
    lost_its_process,
    owner_tags,
    unjudged_runs,
)
from popcorn_assets.runs.pools import pools, stuck_slots
from popcorn_ml.errors import ConfigError

HERE = socket.gethostname()


@dg.op(pool="gpu")
def train():
    pass


@dg.job
def training():
    train()


@pytest.fixture
def instance(place):
    with dg.DagsterInstance.get() as instance:
        yield instance


@pytest.fixture
def gone() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert not psutil.pid_exists(process.pid)
    return process.pid


def launched(instance, pid: int, host: str = HERE) -> dg.DagsterRun:
    """A run as a code server leaves it that has started a process for it."""
    run = instance.create_run_for_job(
        training, status=DagsterRunStatus.STARTED, tags={LAUNCHED_TAG: host}
    )
    instance.report_engine_event(
        f"Started process for run (pid: {pid}).", run, EngineEventData.in_process(pid)
    )
    return run


def test_only_runs_whose_process_is_known_to_be_gone_are_judged(instance, gone):
    def run(**tags):
        return instance.create_run_for_job(training, status=DagsterRunStatus.STARTED, tags=tags)

    lost = [run(**{OWNER_TAG: f"{HERE}:{gone}"}), launched(instance, gone)]
    living = [run(**owner_tags("this")), launched(instance, os.getpid())]
    unknown = [
        run(),
        run(**{OWNER_TAG: f"elsewhere:{gone}"}),
        run(**{OWNER_TAG: f"{HERE}:{gone}", "dagster/parent_run_id": "x"}),
        launched(instance, gone, "elsewhere"),
        run(**{LAUNCHED_TAG: HERE}),  # no process was started yet
    ]
    assert all(lost_its_process(instance, r) for r in lost)
    assert not any(lost_its_process(instance, r) for r in (*living, *unknown))
    ended = end_lost_runs(instance)
    assert {r.run_id for r in ended} == {r.run_id for r in lost}
    for r in ended:
        assert instance.get_run_by_id(r.run_id).status == DagsterRunStatus.FAILURE
    for r in (*living, *unknown):
        assert instance.get_run_by_id(r.run_id).status == DagsterRunStatus.STARTED
    assert end_lost_runs(instance) == []


STARTED_BY_HAND = """
import time
import dagster as dg
from popcorn_assets.runs.executors import executor

@dg.op(pool="gpu")
def train(context: dg.OpExecutionContext) -> None:
    context.log.info("at work")
    time.sleep(600)

@dg.job
def held():
    train()

defs = dg.Definitions(jobs=[held], executor=executor())
"""


def test_a_killed_run_of_dagster_job_execute_gives_its_slot_back(instance, place):
    """No code server knows of it: its own executor notes which process works on it."""
    (place.home / "by_hand.py").write_text(STARTED_BY_HAND)
    (place.home / "here.yaml").write_text("execution: {config: {in_process: {}}}")
    instance.event_log_storage.set_concurrency_slots("gpu", 1)
    command = [Path(sys.executable).with_name("dagster"), "job", "execute",
               "-f", "by_hand.py", "-j", "held", "-c", "here.yaml"]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=place.home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 120
        while not (held := [slot for pool in pools(instance) for slot in pool.slots]):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        (run,) = instance.get_runs()
        assert not lost_its_process(instance, run)
        assert end_lost_runs(instance) == []
    finally:
        process.kill()
        process.wait()
    run = instance.get_run_by_id(run.run_id)
    assert lost_its_process(instance, run)
    assert instance.run_launcher.check_run_worker_health(run).status.value == "FAILED"
    assert [r.run_id for r in end_lost_runs(instance)] == [run.run_id]
    assert [slot.run_id for slot in held] == [run.run_id]
    (pool,) = pools(instance)
    assert pool.slots == []
    assert instance.get_run_by_id(run.run_id).status == DagsterRunStatus.FAILURE


def test_a_run_that_repeats_another_is_judged_by_its_own_process(instance, gone):
    copied = {OWNER_TAG: f"{HERE}:{gone}", "dagster/parent_run_id": "x"}
    run = instance.create_run_for_job(training, status=DagsterRunStatus.STARTED, tags=copied)
    assert not lost_its_process(instance, run)
    run = tagged(instance, run, {**owner_tags(run.run_id), OWNER_TAG: f"{HERE}:{gone}"})
    assert lost_its_process(instance, run)


def test_runs_that_cannot_be_judged_are_named_and_ended_by_hand(instance, gone):
    old = instance.create_run_for_job(training, status=DagsterRunStatus.STARTED)
    instance.report_engine_event(
        f"Executing steps using multiprocess executor: parent process (pid: {gone})", old
    )
    elsewhere = launched(instance, os.getpid(), "elsewhere")
    here = launched(instance, os.getpid())
    assert {(one.run.run_id, one.host, one.pid) for one in unjudged_runs(instance)} == {
        (old.run_id, "", gone),
        (elsewhere.run_id, "elsewhere", None),
    }
    slots = instance.event_log_storage
    slots.set_concurrency_slots("gpu", 1)
    assert slots.claim_concurrency_slot("gpu", old.run_id, "train").is_claimed
    with pytest.raises(ConfigError, match="is at work"):
        end_run(instance, here.run_id)
    with pytest.raises(ConfigError, match="no unfinished runs"):
        end_run(instance, "zzz")
    with pytest.raises(ConfigError, match=r"3|no unfinished"):
        end_run(instance, "")
    assert end_run(instance, old.run_id[:8]).run_id == old.run_id
    (pool,) = pools(instance)
    assert pool.slots == []
    assert [one.run.run_id for one in unjudged_runs(instance)] == [elsewhere.run_id]


def test_a_number_that_another_process_got_is_not_taken_for_the_runs(instance, monkeypatch):
    run = launched(instance, os.getpid())
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: time.time() + 3600)
    assert lost_its_process(instance, run)


def tagged(instance, run: dg.DagsterRun, tags: dict[str, str]) -> dg.DagsterRun:
    instance.add_run_tags(run.run_id, tags)
    return instance.get_run_by_id(run.run_id)


@pytest.fixture
def later() -> Iterator[subprocess.Popen]:
    """A process that is started when the test asks for it, and is at work until its end."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def test_setting_the_clock_forward_loses_no_run(instance, monkeypatch):
    run_id = str(uuid.uuid4())
    own = instance.create_run_for_job(
        training, run_id=run_id, status=DagsterRunStatus.STARTED, tags=owner_tags(run_id)
    )
    run = launched(instance, os.getpid())
    run = tagged(instance, run, begun_tag(run.run_id))
    # Processes are dated by the time of the boot, which moves with the clock.
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: time.time() + 3600)
    for living in (own, run):
        assert not lost_its_process(instance, living)
    assert instance.run_launcher.check_run_worker_health(run).status.value == "RUNNING"
    assert end_lost_runs(instance) == []


def test_a_younger_process_is_known_whatever_the_clock_says(instance, monkeypatch, later):
    run = launched(instance, later.pid)
    boot, seconds, run_id = begun_tag(run.run_id)[BEGUN_TAG].split(":")
    earlier = {BEGUN_TAG: f"{boot}:{float(seconds) - 60:.2f}:{run_id}"}
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: 0.0)
    assert lost_its_process(instance, tagged(instance, run, earlier))
    for unknown in (f"{boot}:{float(seconds) - 60}:another-run", f"another-boot:1.00:{run_id}"):
        assert not lost_its_process(instance, tagged(instance, run, {BEGUN_TAG: unknown}))


def test_a_run_that_waited_in_the_queue_is_not_lost_while_it_starts(instance, monkeypatch):
    run = launched(instance, os.getpid())
    made = instance.get_run_record_by_id(run.run_id)
    queued = made._replace(
        create_timestamp=made.create_timestamp - timedelta(hours=2), start_time=None
    )
    monkeypatch.setattr(type(instance), "get_run_record_by_id", lambda *_: queued)
    told = [e for e in instance.all_logs(run.run_id) if "Started process" in e.message]
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: told[0].timestamp - 1)
    assert not lost_its_process(instance, run)


def test_the_launcher_notes_the_machine_and_when(instance, monkeypatch):
    run = instance.create_run_for_job(training, status=DagsterRunStatus.STARTING)
    server = SimpleNamespace(host="localhost")
    monkeypatch.setattr(DefaultRunLauncher, "launch_run", lambda *_: None)
    monkeypatch.setattr(LocalLauncher, "_get_grpc_client_for_termination", lambda *_: server)
    instance.run_launcher.launch_run(SimpleNamespace(dagster_run=run))
    tags = instance.get_run_by_id(run.run_id).tags
    assert tags[LAUNCHED_TAG] == HERE
    assert tags[BEGUN_TAG].endswith(f":{run.run_id}")


def test_slots_of_lost_and_finished_runs_are_given_back_and_others_stay(instance, gone):
    slots = instance.event_log_storage
    slots.set_concurrency_slots("gpu", 3)
    lost, living, done = launched(instance, gone), launched(instance, os.getpid()), "no-such-run"
    for run_id in (lost.run_id, living.run_id, done):
        assert slots.claim_concurrency_slot("gpu", run_id, "train").is_claimed
    assert [slot.run_id for slot in stuck_slots(instance)] == [done]
    end_lost_runs(instance)
    (pool,) = pools(instance)
    assert (pool.name, pool.limit, [s.run_id for s in pool.slots]) == ("gpu", 3, [living.run_id])


def test_the_run_monitor_is_told_by_the_launcher(instance, gone):
    launcher = instance.run_launcher
    assert isinstance(launcher, LocalLauncher)
    assert launcher.supports_check_run_worker_health
    for pid, said in ((gone, "FAILED"), (os.getpid(), "RUNNING")):
        run = launched(instance, pid)
        assert launcher.check_run_worker_health(run).status.value == said


def test_waiting_for_a_slot_says_which_run_holds_it(instance):
    holder = launched(instance, os.getpid())
    slots = instance.event_log_storage
    assert not slots.get_concurrency_keys()
    slots.set_concurrency_slots("gpu", 1)
    assert slots.claim_concurrency_slot("gpu", holder.run_id, "train_member").is_claimed
    out = io.StringIO()
    told = threading.Event()

    def free_when_told():
        deadline = time.monotonic() + 60
        while "waits for a slot" not in out.getvalue() and time.monotonic() < deadline:
            time.sleep(0.05)
        told.set()
        slots.free_concurrency_slots_for_run(holder.run_id)

    other = threading.Thread(target=free_when_told)
    other.start()
    run_id = str(uuid.uuid4())
    with printing(instance, run_id, Console(file=out, width=200)):
        result = training.execute_in_process(instance=instance, run_id=run_id, run_config=QUIET)
    other.join()
    assert result.success
    assert told.is_set()
    said = [line.strip() for line in out.getvalue().splitlines() if "waits" in line]
    assert said == [
        "train waits for a slot of pool gpu, held by train_member of run "
        f"{holder.run_id[:8]} (started)"
    ]
