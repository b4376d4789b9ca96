"""Runs and the processes behind them: which run has lost its process.

A run whose process was killed stays "started" in Dagster's tables and keeps its pool slots, so
that later runs wait for ever. Here such runs are recognised, reported as failed, and their slots
given back. Only runs that say which machine they are on are judged, and only on that machine.
"""

from __future__ import annotations

import os
import re
import socket
import time
from pathlib import Path

import dagster as dg
import psutil
from dagster import DagsterEventType
from dagster._core.storage.dagster_run import FINISHED_STATUSES, DagsterRun, RunsFilter

from popcorn_assets.runs.pools import stuck_slots

OWNER_TAG = "popcorn/process"
"""`host:pid` of a run that works in the process that started it."""

LAUNCHED_TAG = "popcorn/launched_on"
"""Host of a run that a code server started in a process of its own."""

BEGUN_TAG = "popcorn/process_begun"
"""`boot:seconds:run` of when a run's process was there already: the machine's boot, the seconds
since then, and the run, since tags are copied to runs that repeat it."""

LOST = "the process of this run ended before the run did"

_PID = re.compile(r"^Started process for run \(pid: (\d+)\)")
_CLOCK_SECONDS = 5.0
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


def _process(instance: dg.DagsterInstance, run: DagsterRun) -> tuple[int, float] | None:
    """Number of the run's process, and a time (seconds since 1970) when it was there already."""
    here = socket.gethostname()
    if LAUNCHED_TAG in run.tags:  # the other tag may have been copied from the run it repeats
        return _launched(instance, run) if run.tags[LAUNCHED_TAG] == here else None
    host, _, pid = run.tags.get(OWNER_TAG, "").partition(":")
    record = instance.get_run_record_by_id(run.run_id)
    if host != here or not pid.isdigit() or "dagster/parent_run_id" in run.tags or record is None:
        return None
    return int(pid), record.create_timestamp.timestamp()


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
