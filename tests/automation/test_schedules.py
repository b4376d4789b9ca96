"""A year of schedules with the clock moved: three countries, Dagster's own scheduler, a daily tick.

The scheduler's loop runs as in the daemon and asks a real code server; only the clock is set, and
runs stay in the queue. What ticked, what was skipped and what was started is read back from the
instance.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import dagster as dg
import pytest
import yaml
from dagster._core.scheduler.instigation import TickStatus
from dagster._core.test_utils import create_test_daemon_workspace_context, freeze_time
from dagster._core.workspace.load_target import ModuleTarget
from dagster._scheduler.scheduler import launch_scheduled_runs

from popcorn_assets.automation.schedules import WORK_TAG, closed_season, closed_year
from popcorn_assets.store.making import REUSE_TAG
from popcorn_assets.store.versions import Store
from tests.platforms import REPOSITORY, make_place, publish_model

pytestmark = [pytest.mark.long(40), pytest.mark.timeout(600)]

FIRST, LAST = date(2024, 6, 1), date(2025, 5, 31)
OFF = (date(2025, 3, 13), date(2025, 3, 18))
"""First and last day on which the machine was off."""

COUNTRIES = ("aaa", "bbb", "ccc")
LATE_MODEL = date(2025, 3, 23)


def write_country(place, code: str, **sections) -> None:
    """The demo's file under another code."""
    packaged = REPOSITORY / "popcorn_assets" / "countries" / "demo.yaml"
    country = {**yaml.safe_load(packaged.read_text("utf-8")), **sections}
    (place.home / "countries" / f"{code}.yaml").write_text(yaml.safe_dump(country), "utf-8")


def days() -> Iterator[date]:
    """Every day of the weeks in which something is scheduled, every tenth day besides."""
    day = FIRST
    while day <= LAST:
        if day.day % 10 == 0 or day.month == 3 or (day.month % 3 == 0 and day.day < 17):
            yield day
        day += timedelta(days=1)


def days_of_ticks() -> Iterator[date]:
    """The days on which something is scheduled."""
    for day in days():
        if day.month % 3 == 0 and (
            day.day in (5, 8, 11, 14) or (day.month == 3 and day.day in (15, 18, 21, 24, 27, 30))
        ):
            yield day


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty platform in memory where there is room: the scheduler writes after every look."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else tmp_path) as folder:
        made = make_place(Path(folder) / "home")
        for name, value in made.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(made.home)
        yield made


@contextmanager
def daemon(place):
    """Instance and workspace as the daemon has them."""
    with (
        place.instance() as instance,
        create_test_daemon_workspace_context(
            ModuleTarget("popcorn_assets.definitions", None, None, "popcorn"), instance
        ) as workspace,
    ):
        yield instance, workspace


def scheduler_looks(workspace, day: date) -> None:
    """The scheduler's loop, once, in the evening of a day."""
    now = datetime(day.year, day.month, day.day, 20, tzinfo=UTC)
    with freeze_time(now):
        list(launch_scheduled_runs(workspace, logging.getLogger("scheduler"), now, {}))


def schedules(workspace) -> dict:
    location = next(iter(workspace.create_request_context().code_locations))
    return {s.name: s for s in next(iter(location.get_repositories().values())).get_schedules()}


def ticks(instance, schedule) -> dict[float, object]:
    """Ticks of a schedule, by time: those that Dagster has not yet forgotten."""
    found = instance.get_ticks(schedule.get_remote_origin_id(), schedule.selector_id)
    return {tick.timestamp: tick for tick in found}


def steps(instance, run) -> set[str]:
    plan = instance.get_execution_plan_snapshot(run.execution_plan_snapshot_id)
    return {key.partition(".")[0] for key in plan.step_keys_to_execute}


def test_a_year_of_three_countries(place, capsys):
    switched = {"refresh": True, "ingest": True}
    for code, model in (("aaa", "aaa"), ("bbb", "bbb"), ("ccc", "aaa")):
        write_country(place, code, model={"country": model, "year": 2020}, automation=switched)
    store = Store(place.data)
    publish_model(store, "aaa", 2020)

    with daemon(place) as (instance, workspace):
        scheduled = schedules(workspace)
        assert {name for name, s in scheduled.items() if s.default_status.value == "RUNNING"} == {
            f"{job}_{country}" for job in ("refresh", "ingest") for country in COUNTRIES
        }
        assert {"refresh_rwa", "ingest_rwa"} <= scheduled.keys()  # off: its file says nothing

        seen: dict[str, dict] = {name: {} for name in scheduled}
        for day in days():
            if OFF[0] <= day <= OFF[1]:
                continue
            if day == LATE_MODEL:
                publish_model(store, "bbb", 2020)
            scheduler_looks(workspace, day)
            for name in ("refresh_bbb", "refresh_ccc"):
                seen[name] |= ticks(instance, scheduled[name])
            for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED])):
                if run.tags["popcorn/country"] == "ccc":  # whatever it starts fails
                    instance.report_run_failed(run)
        runs = instance.get_runs()
        counts = Counter((run.tags["popcorn/country"], run.job_name) for run in runs)
        with capsys.disabled():
            print(f"\n{len(runs)} runs in a year of three countries: {dict(counts)}")
        assert counts == {
            (country, job): number
            for country in COUNTRIES
            for job, number in (("refresh", 1), ("ingest", 4))
        }

        refreshed = {run.tags["dagster/partition"] for run in runs if run.job_name == "refresh"}
        assert refreshed == {"aaa|2024", "bbb|2024", "ccc|2024"}
        ingested = Counter(
            (run.tags["dagster/partition"], run.tags["popcorn/season"])
            for run in runs
            if run.job_name == "ingest"
        )
        assert ingested == {
            (f"{country}|2024", season): 1
            for country in COUNTRIES
            for season in ("spring", "summer", "autumn", "winter")
        }
        for run in runs:
            made = steps(instance, run)
            assert not any("checkpoints" in step or "train" in step for step in made)
            assert run.tags[REUSE_TAG] == "true"  # what was ingested is not fetched again
            if run.job_name == "ingest":
                season = run.tags["popcorn/season"]
                assert made == {f"s1_{season}", f"s2_{season}"}
            else:
                assert {"s1_winter", "population_map", "hectare_map", "evaluation"} <= made
        assert len({run.tags[WORK_TAG] for run in runs}) == len(runs)

        # A machine that was off on the day makes up for it; a model that comes late is waited for.
        started = {
            record.dagster_run.tags["popcorn/country"]: record.create_timestamp.date()
            for record in instance.get_run_records(dg.RunsFilter(job_name="refresh"))
        }
        back = OFF[1] + timedelta(days=1)
        assert started == {"aaa": back, "bbb": date(2025, 3, 24), "ccc": back}
        skipped = [tick.skip_reason or "" for tick in seen["refresh_bbb"].values()]
        waiting = [reason for reason in skipped if "cannot be refreshed yet" in reason]
        assert len(waiting) == 2  # of the 18th, made up for on the 19th, and of the 21st
        assert "bbb.yaml" in waiting[0]
        assert "`model:" in waiting[0]
        again = [t.skip_reason for t in seen["refresh_ccc"].values() if t.skip_reason]
        assert len(again) == 4
        assert all("FAILURE. It is not started again" in reason for reason in again)

        # The same year once more, with all that the scheduler remembers of its ticks lost.
        instance.schedule_storage.wipe()
        scheduler_looks(workspace, FIRST)
        repeated: dict = {}
        for day in days_of_ticks():
            scheduler_looks(workspace, day)
            repeated |= ticks(instance, scheduled["ingest_aaa"])
        assert len(repeated) == 16
        assert {tick.status for tick in repeated.values()} == {TickStatus.SKIPPED}
        assert len(instance.get_runs()) == len(runs)


@pytest.mark.parametrize(
    ("day", "season", "year"),
    [
        (date(2025, 2, 28), (2024, "autumn"), 2023),
        (date(2025, 3, 1), (2024, "winter"), 2024),
        (date(2025, 6, 1), (2025, "spring"), 2024),
        (date(2025, 12, 31), (2025, "autumn"), 2024),
        (date(2024, 2, 29), (2023, "autumn"), 2022),
    ],
)
def test_the_season_and_the_year_that_closed(day, season, year):
    moment = datetime(day.year, day.month, day.day, tzinfo=UTC)
    assert closed_season(moment) == season
    assert closed_year(moment) == year
