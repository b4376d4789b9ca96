"""Who decided, as the ledger says it: somebody at a terminal, or a run and what launched it."""

from __future__ import annotations

import getpass
import os

import dagster as dg

LAUNCHERS = {
    "dagster/schedule_name": "schedule",
    "dagster/sensor_name": "sensor",
    "dagster/backfill": "backfill",
    "user": "user",
}
"""Tags of a run that say what launched it."""


def os_user() -> str:
    """Who runs this process, as the ledger says it."""
    try:
        return f"user {getpass.getuser()}"
    except (KeyError, OSError):  # an id without a name, as in some containers
        return f"user {os.getuid()}"


def launched_by(run: dg.DagsterRun) -> str:
    """Who decided, of a decision taken in a run: the run, and what launched it."""
    said = [f"{name} {run.tags[tag]}" for tag, name in LAUNCHERS.items() if run.tags.get(tag)]
    return ", ".join([f"run {run.run_id}", *said])
