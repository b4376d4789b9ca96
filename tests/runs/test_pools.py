"""Slots of a source's pool: one run after another, in Dagster's own tables, never left behind."""

import os
import shutil
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import dagster as dg
import pytest

from popcorn_assets.runs import pools
from popcorn_assets.runs.pools import slot, source_slot

pytestmark = pytest.mark.long(15)

ROOT = Path(__file__).resolve().parents[2]

LIMITS = {"concurrency": {"pools": {"default_limit": 1}}}


def a_job(body):
    @dg.op
    def work(context: dg.OpExecutionContext) -> None:
        body(context)

    @dg.job
    def alone():
        work()

    return alone


def info(instance, pool):
    return instance.event_log_storage.get_concurrency_info(pool)


RUN = """
import sys, time
import dagster as dg
from popcorn_assets.runs.pools import slot

@dg.op
def work(context: dg.OpExecutionContext) -> None:
    print("ready", flush=True)
    sys.stdin.readline()
    with slot(context, "stac"):
        begin = time.time()
        (claimed,) = context.instance.event_log_storage.get_concurrency_info("stac").claimed_slots
        assert claimed.run_id == context.run_id
        time.sleep(0.5)
        print(begin, time.time(), flush=True)

@dg.job
def alone():
    work()

with dg.DagsterInstance.from_config(sys.argv[1]) as instance:
    alone.execute_in_process(instance=instance)
"""


def test_two_runs_take_turns_at_a_source(tmp_path, monkeypatch):
    shutil.copyfile(ROOT / "dagster.yaml", tmp_path / "dagster.yaml")
    monkeypatch.chdir(tmp_path)
    # Dagster's tables are not made for two processes that make them at once.
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        a_job(lambda context: slot(context, "stac").__enter__()).execute_in_process(
            instance=instance
        )
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", RUN, str(tmp_path)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for _ in range(2)
    ]
    for run in runs:
        assert run.stdout.readline() == "ready\n"
    for run in runs:
        run.stdin.write("go\n")
        run.stdin.flush()  # both ask at the same time
    spans = [[float(word) for word in run.stdout.readline().split()] for run in runs]
    assert [run.wait(60) for run in runs] == [0, 0]
    (_, first), (second, _) = sorted(spans)
    assert first <= second
    monkeypatch.chdir(tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        waits = [
            entry.user_message
            for run in instance.get_runs()
            for entry in instance.all_logs(run.run_id)
            if entry.user_message.startswith("waiting for a slot")
        ]
        assert waits == ["waiting for a slot of the pool stac"]
        assert info(instance, "stac").active_slot_count == 0


def test_a_limit_that_an_operator_sets_counts():
    with dg.instance_for_test(overrides=LIMITS) as instance:
        instance.event_log_storage.set_concurrency_slots("earth-engine", 2)

        def body(context):
            with slot(context, "earth-engine"):
                found = info(instance, "earth-engine")
                assert (found.slot_count, found.active_slot_count) == (2, 1)

        assert a_job(body).execute_in_process(instance=instance).success


def test_a_failure_gives_the_slot_back():
    with dg.instance_for_test(overrides=LIMITS) as instance:

        def body(context):
            with source_slot(context, "stac"):
                raise RuntimeError("the provider is down")

        assert not a_job(body).execute_in_process(instance=instance, raise_on_error=False).success
        assert info(instance, "stac").active_slot_count == 0


@pytest.mark.parametrize(("source", "pool"), [("earthengine", "earth-engine"), ("files", None)])
def test_the_pool_is_the_sources(source, pool):
    with dg.instance_for_test(overrides=LIMITS) as instance:

        def body(context):
            with source_slot(context, source):
                keys = instance.event_log_storage.get_concurrency_keys()
                assert keys == ({pool} if pool else set())

        assert a_job(body).execute_in_process(instance=instance).success


@pytest.mark.parametrize(
    ("in_process", "others", "waits"), [(True, 0, False), (True, 1, True), (False, 0, True)]
)
def test_a_slot_is_not_waited_for_where_nobody_else_can_have_asked(
    monkeypatch, in_process, others, waits
):
    slept, sleep = [], time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: slept.append(seconds) or sleep(seconds))
    with dg.instance_for_test(overrides=LIMITS) as instance:
        for _ in range(others):
            instance.create_run_for_job(a_job(print), status=dg.DagsterRunStatus.STARTED)

        def body(context):
            turn = pools.in_turn(context.run_id) if in_process else nullcontext()
            with turn, slot(context, "stac"):
                assert info(instance, "stac").active_slot_count == 1

        assert a_job(body).execute_in_process(instance=instance).success
    assert (pools._SETTLED_SECONDS in slept) == waits
