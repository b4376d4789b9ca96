"""Runs and the processes behind them: which run has lost its process.

A run whose process was killed stays "started" in Dagster's tables and keeps its pool slots, so
that later runs wait for ever. Here such runs are recognised, reported as failed, and their slots
given back. Only runs that say which machine they are on are judged, and only on that machine; of
the others it is said what they last told, and how to end them.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import psutil
from dagster import DagsterEventType
from dagster._core.storage.dagster_run import FINISHED_STATUSES, DagsterRun, RunsFilter

from popcorn_assets.runs.pools import stuck_slots
from popcorn_ml.errors import ConfigError

OWNER_TAG = "popcorn/process"
"""`host:pid` of a run that has begun: of the process that does its steps, or starts theirs."""

LAUNCHED_TAG = "popcorn/launched_on"
"""Host of a run that a code server started in a process of its own."""

BEGUN_TAG = "popcorn/process_begun"
"""`boot:seconds:run` of when a run's process was there already: the machine's boot, the seconds
since then, and the run, since tags are copied to runs that repeat it."""

LOST = "the process of this run ended before the run did"

_PID = re.compile(r"^Started process for run \(pid: (\d+)\)")
_EXECUTING = re.compile(r"^Executing steps .*\(pid: (\d+)\)")
_CLOCK_SECONDS = 5.0
_BEGUN = [
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def owner_tags(run_id: str) -> dict[str, str]:
    """The tags of a run that works in this very process."""
    return {OWNER_TAG: f"{socket.gethostname()}:{os.getpid()}", **begun_tag(run_id)}


def begun_tag(run_id: str) -> dict[str, str]:
    """The tag of a run whose process has just been started; none where the kernel is not Linux.

    It goes by the seconds since boot, which stay when the clock is set; containers share them.
    """
    boot = _boot()
    if boot is None:
        return {}
    return {BEGUN_TAG: f"{boot}:{time.clock_gettime(time.CLOCK_BOOTTIME):.2f}:{run_id}"}


def _boot() -> str | None:
    """Which boot of the machine this is."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return None


def lost_its_process(instance: dg.DagsterInstance, run: DagsterRun) -> bool:
    """Whether a run that has not finished was at work on this machine and its process is gone.

    False where that cannot be known: runs of other machines, and runs that have not started.
    """
    if run.status in FINISHED_STATUSES:
        return False
    process = _process(instance, run)
    return process is not None and not _lives(*process, _begun(run))


def command_of(instance: dg.DagsterInstance, run: DagsterRun) -> int | None:
    """The living process of this machine that carries out a run which no code server started."""
    if run.status in FINISHED_STATUSES or LAUNCHED_TAG in run.tags:
        return None
    process = _process(instance, run)
    return process[0] if process is not None and _lives(*process, _begun(run)) else None


def _process(instance: dg.DagsterInstance, run: DagsterRun) -> tuple[int, float] | None:
    """Number of the run's process, and a time (seconds since 1970) when it was there already."""
    here = socket.gethostname()
    if LAUNCHED_TAG in run.tags:  # the other tag may have been copied from the run it repeats
        if run.tags[LAUNCHED_TAG] != here:
            return None
        if (launched := _launched(instance, run)) is not None:
            return launched
    host, pid = _owner(run)
    record = instance.get_run_record_by_id(run.run_id)
    if host != here or not pid.isdigit() or record is None:
        return None
    return int(pid), record.start_time or record.create_timestamp.timestamp()


def _owner(run: DagsterRun) -> tuple[str, str]:
    """Host and process that the run's own tag names; empty where it may be of another run."""
    of_run = run.tags.get(BEGUN_TAG, "").rpartition(":")[2]
    if of_run != run.run_id and "dagster/parent_run_id" in run.tags:
        return "", ""
    host, _, pid = run.tags.get(OWNER_TAG, "").rpartition(":")
    return host, pid


def _launched(instance: dg.DagsterInstance, run: DagsterRun) -> tuple[int, float] | None:
    """The process that a code server says it started for the run, and when it said so.

    Not when the run's record was made: that may have waited in the queue for hours.
    """
    for entry in instance.all_logs(run.run_id, of_type=DagsterEventType.ENGINE_EVENT):
        found = _PID.match(entry.get_dagster_event().message or "")
        if found:
            return int(found[1]), entry.timestamp
    return None


def _begun(run: DagsterRun) -> float | None:
    """Seconds after this very boot when the run's process was there already; None if unknown."""
    boot, _, rest = run.tags.get(BEGUN_TAG, "").partition(":")
    seconds, _, run_id = rest.partition(":")
    return float(seconds) if boot and boot == _boot() and run_id == run.run_id else None


def _lives(pid: int, told: float, begun: float | None) -> bool:
    """Whether the process is there, and is the one that was there when the run began.

    Args:
        told: seconds since 1970 when it was there; held against only where `begun` is unknown,
            since a process is dated anew when the clock is set.
        begun: seconds since boot when it was there.
    """
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        # A number that was given away again belongs to a younger process.
        if begun is not None:
            return _seconds_after_boot(pid) <= begun
        return process.create_time() <= told + _CLOCK_SECONDS
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return False
    except psutil.AccessDenied:  # somebody else's: it lives
        return True


def _seconds_after_boot(pid: int) -> float:
    """When a process was started, as the kernel keeps it."""
    after_the_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(after_the_name[19]) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Unjudged:
    """A run that has begun, of which it cannot be known here whether its process lives.

    Attributes:
        host: where it says it works; empty where it does not say.
        pid: the process that its log names, which need not be one of this machine.
        silent: seconds since it last told anything.
    """

    run: DagsterRun
    host: str
    pid: int | None
    silent: float


def unjudged_runs(instance: dg.DagsterInstance) -> Iterator[Unjudged]:
    """Every run that has begun and that only a person can judge."""
    for run in instance.get_runs(RunsFilter(statuses=_BEGUN)):
        if _process(instance, run) is not None:
            continue
        pid = None
        for entry in instance.all_logs(run.run_id, of_type=DagsterEventType.ENGINE_EVENT):
            if found := _EXECUTING.match(entry.get_dagster_event().message or ""):
                pid = int(found[1])
        record = instance.get_run_record_by_id(run.run_id)
        last = instance.get_records_for_run(run.run_id, limit=1, ascending=False).records
        begun = record.create_timestamp.timestamp() if record else time.time()
        told = last[0].event_log_entry.timestamp if last else begun
        host = run.tags.get(LAUNCHED_TAG) or _owner(run)[0]
        yield Unjudged(run, host, pid, time.time() - told)


def end_run(instance: dg.DagsterInstance, name: str) -> DagsterRun:
    """Report a run as failed because a person says that it is gone, and free its slots.

    Args:
        name: its id, or how that begins.

    Raises:
        ConfigError: there is no such unfinished run, or it is at work on this machine.
    """
    unfinished = [status for status in dg.DagsterRunStatus if status not in FINISHED_STATUSES]
    runs = instance.get_runs(RunsFilter(statuses=unfinished))
    named = [run for run in runs if name and run.run_id.startswith(name)]
    if len(named) != 1:
        raise ConfigError(
            f"{len(named) or 'no'} unfinished runs begin with {name!r}",
            expected="one of: " + (", ".join(run.run_id for run in runs) or "(there are none)"),
        )
    (run,) = named
    process = _process(instance, run)
    if process is not None and _lives(*process, _begun(run)):
        raise ConfigError(
            f"run {run.run_id} is at work, in process {process[0]}",
            remedy="terminate it in the UI, on its page",
        )
    instance.report_run_failed(run, "an operator says that the process of this run is gone")
    instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    return run


def end_lost_runs(instance: dg.DagsterInstance) -> list[DagsterRun]:
    """Report runs whose process is gone as failed, and give back the pool slots they hold.

    Slots that finished runs have kept, because they were killed outright, are given back too.
    """
    unfinished = [status for status in dg.DagsterRunStatus if status not in FINISHED_STATUSES]
    lost = [
        run
        for run in instance.get_runs(RunsFilter(statuses=unfinished))
        if lost_its_process(instance, run)
    ]
    for run in lost:
        instance.report_run_failed(run, LOST)
    for slot in stuck_slots(instance):
        instance.event_log_storage.free_concurrency_slots_for_run(slot.run_id)
    return lost
