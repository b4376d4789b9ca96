"""`popcorn run` in processes of its own: made, interrupted, killed, beside others, not possible."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import psutil
import pytest
from click.testing import CliRunner

from popcorn_assets.cli import cli
from popcorn_assets.commands import run as command
from popcorn_assets.partitions import partition_key
from popcorn_assets.runs.in_process import job_origin
from popcorn_assets.runs.lost import lost_its_process, owner_tags
from popcorn_assets.store.versions import Address, Store
from popcorn_ml.errors import ConfigError
from tests.platforms import Place, copied, enter

pytestmark = [pytest.mark.long(60), pytest.mark.timeout(600)]

SECONDS = 400
"""At most for what a busy machine does in ten."""

PROCESSES = {"POPCORN_STEPS": "2"}
"""Has the steps of a small country work in processes of their own, too."""

SEASON = Address("s1_summer", "demo", 2021)


@pytest.fixture(scope="module")
def copy(pristine, tmp_path_factory) -> Place:
    """The small country, to be made anew in parts."""
    return copied(pristine, tmp_path_factory.mktemp("run") / "home")


@pytest.fixture
def own(copy, monkeypatch) -> Place:
    """The same, entered."""
    enter(copy, monkeypatch)
    return copy


class Started:
    """`popcorn run` at work, with what it has said so far."""

    def __init__(self, place: Place, job: str, processes: bool) -> None:
        self.log = place.home / f"run-{time.monotonic_ns()}.log"
        popcorn = Path(sys.executable).with_name("popcorn")
        with self.log.open("w") as out:
            self.process = subprocess.Popen(
                [popcorn, "run", "demo", "2021", "--job", job],
                cwd=place.home,
                env={**os.environ, **place.environment(), **(PROCESSES if processes else {})},
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def said(self) -> str:
        return self.log.read_text()

    def until(self, text: str) -> None:
        wait(lambda: text in self.said() or self.process.poll() is not None)
        assert text in self.said(), self.said()

    def ended(self) -> int:
        return self.process.wait(SECONDS)


def wait(fulfilled: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not fulfilled():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@contextmanager
def started(place: Place, job: str = "ingest", *, processes: bool = False) -> Iterator[Started]:
    one = Started(place, job, processes)
    try:
        yield one
    finally:
        if one.process.poll() is None:
            os.killpg(one.process.pid, signal.SIGKILL)
            one.process.wait()


@contextmanager
def season_in_the_making(place: Place) -> Iterator[str]:
    """One season is gone, and whoever makes it again waits in the midst of it; its version."""
    store = Store(place.data)
    version = store.latest(SEASON)
    recipe = version.manifest()["recipe"]
    (store.folder(SEASON) / "LATEST").unlink()
    with store.working(SEASON, recipe, "this test"):
        yield version.version


def newest_run(place: Place) -> dg.DagsterRun:
    with place.instance() as instance:
        return instance.get_runs(limit=1)[0]


def children_of(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


@pytest.mark.parametrize("processes", [True, False], ids=["processes", "one process"])
def test_a_killed_run_is_known_to_be_lost_and_the_next_goes_on(own, processes):
    kept = Store(own.data).latest(Address("s1_spring", "demo", 2021)).manifest()["run_id"]
    with season_in_the_making(own) as version, started(own, processes=processes) as killed:
        killed.until("this test works on s1_summer")
        children = children_of(killed.process.pid)
        forked = [child for child in children if "forkserver" in " ".join(child.cmdline())]
        assert bool(forked) == processes
        os.kill(killed.process.pid, signal.SIGKILL)
        assert killed.ended() == -signal.SIGKILL
        psutil.wait_procs(children, timeout=SECONDS)
        assert [one for one in children if one.is_running()] == [], "a step outlived its run"
        run = newest_run(own)
        with own.instance() as instance:
            assert run.status == dg.DagsterRunStatus.STARTED
            assert lost_its_process(instance, run)
    assert Store(own.data).find(SEASON) is None
    with started(own) as again:
        assert again.ended() == 0, again.said()
    with own.instance() as instance:
        assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.FAILURE
        last = instance.get_runs(limit=1)[0]
        assert last.status == dg.DagsterRunStatus.SUCCESS
        assert last.remote_job_origin == job_origin("ingest")
    assert Store(own.data).latest(SEASON).version == version
    assert "assets made: 1, current already: 7" in again.said()
    assert Store(own.data).latest(Address("s1_spring", "demo", 2021)).manifest()["run_id"] == kept


@pytest.mark.parametrize(
    ("how", "processes"),
    [("Ctrl-C", True), ("Ctrl-C", False), ("a closed terminal", False), ("Terminate", True)],
)
def test_a_run_that_is_asked_to_end_is_cancelled_and_its_steps_end(own, how, processes):
    with season_in_the_making(own) as version, started(own, processes=processes) as one:
        one.until("this test works on s1_summer")
        children = children_of(one.process.pid)
        if how == "Terminate":
            with own.instance() as instance:
                assert instance.run_launcher.terminate(newest_run(own).run_id)
        else:
            os.kill(one.process.pid, signal.SIGINT if how == "Ctrl-C" else signal.SIGHUP)
        assert one.ended() == command.INTERRUPTED, one.said()
        psutil.wait_procs(children, timeout=SECONDS)
        assert [child for child in children if child.is_running()] == []
    assert newest_run(own).status == dg.DagsterRunStatus.CANCELED
    assert "To go on with it: popcorn run demo 2021 --job ingest" in one.said()
    store = Store(own.data)
    (store.folder(SEASON) / "LATEST").write_text(f"{version}\n")  # for the tests that follow


def test_a_run_waits_for_another_at_work_and_makes_nothing_twice(own):
    from popcorn_assets.definitions import defs

    with own.instance() as instance:
        tags = {"dagster/partition": str(partition_key("demo", 2021)), **owner_tags("daemon's")}
        other = instance.create_run_for_job(
            defs.resolve_job_def("census"), status=dg.DagsterRunStatus.STARTED, tags=tags
        )
        with started(own, "census") as one:
            one.until(f"Run {other.run_id[:8]} (census) has demo|2021")
            with started(own, "census") as two:
                two.until("has demo|2021: waiting for its end")
                instance.report_run_canceled(other)
                assert one.ended() == two.ended() == 0, one.said() + two.said()
        runs = instance.get_runs(dg.RunsFilter(job_name="census"), limit=2)
        begun = sorted(instance.get_run_stats(run.run_id).start_time for run in runs)
        ended = sorted(instance.get_run_stats(run.run_id).end_time for run in runs)
        assert ended[0] <= begun[1], "both were at work at once"
    assert "assets made: 0, current already: 2" in two.said()


def test_a_step_that_fails_is_told_with_its_remedy_and_how_to_go_on(own):
    table = own.data / "demo" / "census" / "counts_coarse_2021.csv"
    kept = table.read_text()
    table.write_text(re.sub(r"\d+\s*$", "-5\n", kept))
    try:
        with started(own, "census") as one:
            assert one.ended() == command.FAILED, one.said()
    finally:
        table.write_text(kept)
    assert "The run failed. census_counts" in one.said()
    assert "error counts_nonnegative on census_counts" in one.said()
    assert "goes on with the rest: popcorn run demo 2021 --job census" in one.said()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["demo"], "which year is meant"),
        (["demo", "2021", "--years", "2020-2021"], "which year is meant"),
        (["demo", "--years", "2021-2020"], "the years cannot be used"),
        (["demo", "--years", "later"], "the years cannot be used"),
        (["demo", "1990"], "there is no imagery of 1990"),
        (["demo", "--years", "2020-2050"], "there is no imagery of 20"),
        (["nowhere", "2021"], "there is no country 'nowhere'"),
    ],
)
def test_arguments_that_cannot_be_used_start_nothing(place, arguments, said):
    done = CliRunner().invoke(cli, ["run", *arguments])
    assert isinstance(done.exception, ConfigError)
    assert said in str(done.exception)
    assert not (place.data / "dagster").exists()


def test_a_map_without_a_model_fails_before_anything_is_fetched(place):
    done = CliRunner().invoke(cli, ["run", "rwa", "--years", "2020-2021", "--job", "refresh"])
    assert done.exit_code == command.FAILED, done.output
    assert done.output.count("Nothing was started.") == 2
    assert "remedy:" in done.output
    assert "0 of 2 years are made; failed: 2020, 2021" in done.output
    with place.instance() as instance:
        assert instance.get_runs_count() == 0


def test_every_job_of_a_country_year_can_be_named():
    from popcorn_assets.automation.jobs import jobs

    assert set(command.JOBS) == {job.name for job in jobs}
    told = CliRunner().invoke(cli, ["run", "--help"]).output
    assert re.search(r"exit code is 0 when all is made", " ".join(told.split()))
