"""A country-year made by a job, from this terminal: waited for, carried out, followed to its end.

It is an ordinary run of the persistent instance, which `popcorn ui` shows as any other. While
another run is at work on the same country-year it waits, and then makes what that one has not; two
commands take turns by a lock, which ends with its holder.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import dagster as dg
from dagster._core.storage.dagster_run import RunsFilter
from dagster._utils.interrupts import setup_interrupt_handlers
from rich.console import Console

from popcorn_assets.commands.progress import following, printing
from popcorn_assets.partitions import partition_key
from popcorn_assets.paths import data_root
from popcorn_assets.runs.in_process import INLINE, QUIET, run_from_here, run_here
from popcorn_assets.runs.lost import end_lost_runs
from popcorn_assets.store.making import REUSE_TAG
from popcorn_ml.compute.locks import held

AT_WORK = [
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
WAIT_SECONDS = 1.0
LOST_SECONDS = 10.0
"""After which a run that is waited for is asked for its process again."""

ASKED_AGAIN_SECONDS = 30.0
"""Long enough for a run to be cancelled in that was asked to end and has heard it."""


@dataclass(frozen=True)
class Worked:
    """A run that has ended.

    Attributes:
        seconds: that it took, without what it waited for before it began.
    """

    run_id: str
    status: dg.DagsterRunStatus
    seconds: float

    @property
    def made(self) -> bool:
        """Whether it made all that it was to make."""
        return self.status == dg.DagsterRunStatus.SUCCESS

    @property
    def interrupted(self) -> bool:
        """Whether somebody ended it."""
        return self.status == dg.DagsterRunStatus.CANCELED


def work(
    instance: dg.DagsterInstance,
    job: str,
    country: str,
    year: int,
    console: Console,
    *,
    small: bool = False,
) -> Worked:
    """Make a country-year with a job; what is current is taken from the store.

    Args:
        small: all of it in this very process, which is quicker where the work is small.

    Raises:
        KeyboardInterrupt: before the run began. One that has begun is cancelled instead.
    """
    from popcorn_assets.definitions import defs

    made, run_id = defs.resolve_job_def(job), str(uuid.uuid4())
    partition, tags = partition_key(country, year), {REUSE_TAG: "true"}
    with _turn(country, year, job, console):
        wait_for_others(instance, country, year, console)
        began = time.monotonic()
        with _ended(instance, run_id):
            if small:
                with printing(instance, run_id, console):
                    config = {**QUIET, **INLINE}
                    run_here(
                        instance,
                        made,
                        run_id=run_id,
                        partition=partition,
                        run_config=config,
                        tags=tags,
                    )
            else:
                with following(instance, run_id, console):
                    run_from_here(instance, made, run_id=run_id, partition=partition, tags=tags)
    run = instance.get_run_by_id(run_id)
    if run is None:  # nothing was started yet
        raise KeyboardInterrupt
    return Worked(run_id, run.status, time.monotonic() - began)


@contextmanager
def _turn(country: str, year: int, job: str, console: Console) -> Iterator[None]:
    """This country-year to one command at a time."""

    def waiting(who: str) -> None:
        console.print(f"{who or 'another popcorn run'} has {country}|{year}: waiting for its end")

    path = data_root() / ".work" / "runs" / f"{country}-{year}.lock"
    with held(path, f"popcorn run {country} {year} --job {job}", waiting):
        yield


def wait_for_others(
    instance: dg.DagsterInstance, country: str, year: int, console: Console
) -> None:
    """Wait until no run is at work on a country-year, showing what each does."""
    end_lost_runs(instance)
    while runs := at_work(instance, country, year):
        run, looked = runs[0], time.monotonic()
        console.print(
            f"[yellow]Run {run.run_id[:8]} ({run.job_name}) has {country}|{year}.[/yellow] "
            "This one begins when it has ended, and takes over what it made; Ctrl-C ends only the "
            "waiting"
        )
        with following(instance, run.run_id, console):
            while (now := instance.get_run_by_id(run.run_id)) and now.status in AT_WORK:
                time.sleep(WAIT_SECONDS)
                if time.monotonic() - looked > LOST_SECONDS:
                    end_lost_runs(instance)
                    looked = time.monotonic()


def at_work(instance: dg.DagsterInstance, country: str, year: int) -> list[dg.DagsterRun]:
    """Runs of a country-year that have begun and not ended, the oldest first."""
    wanted = RunsFilter(
        tags={"dagster/partition": str(partition_key(country, year))}, statuses=AT_WORK
    )
    return list(reversed(instance.get_runs(wanted)))


@contextmanager
def _ended(instance: dg.DagsterInstance, run_id: str) -> Iterator[None]:
    """The run is on record as ended when the block is left, however it is left."""
    try:
        yield
    except KeyboardInterrupt:  # before its first step, or behind its last
        run = instance.get_run_by_id(run_id)
        if run is not None and not run.is_finished:
            instance.report_run_canceled(run)
    finally:
        run = instance.get_run_by_id(run_id)
        if run is not None and not run.is_finished:
            instance.report_run_failed(run)


@contextmanager
def ending_when_asked() -> Iterator[None]:
    """Take a request to end, also of a terminal that is closed, as Ctrl-C, for the block.

    Python loses what is raised while it calls back, as when something is disposed of. Whoever sits
    at a terminal presses Ctrl-C again; for one that is closed it is asked again until the end.
    """
    kept = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    left = threading.Event()

    def ask_again() -> None:
        while not left.wait(ASKED_AGAIN_SECONDS):
            os.kill(os.getpid(), signal.SIGINT)

    asking = threading.Thread(target=ask_again, name="ask again", daemon=True)

    def hung_up(*_: object) -> None:
        if not asking.is_alive():
            asking.start()
        signal.raise_signal(signal.SIGINT)

    setup_interrupt_handlers()
    if kept[signal.SIGHUP] != signal.SIG_IGN:  # nohup
        signal.signal(signal.SIGHUP, hung_up)
    try:
        yield
    finally:
        left.set()
        for one, handler in kept.items():
            signal.signal(one, handler)
