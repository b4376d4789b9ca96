"""Which of Dagster's own records `popcorn gc` may delete: old runs with their events and logs.

A run stays while it is the record of something that is kept: it made a version in the store, or
holds the latest materialisation of a partition, which the UI's asset pages are drawn from. Ticks
of schedules and sensors are dagster.yaml's `retention`.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
from dagster import AssetRecordsFilter, DagsterEventType
from dagster._core.storage.dagster_run import FINISHED_STATUSES, DagsterRun, RunsFilter

from popcorn_assets.store.versions import MANIFEST
from popcorn_assets.upkeep.inventory import Kept
from popcorn_assets.upkeep.plan import DAY_S

BATCH = 500


@dataclass(frozen=True)
class Unfinished:
    """Runs that have not finished.

    Attributes:
        since: when the oldest of them was made, seconds since 1970; None: there are none.
        runs: their ids, and those of the runs that they repeat.
    """

    since: float | None
    runs: frozenset[str]


def unfinished(instance: dg.DagsterInstance) -> Unfinished:
    """What is under way now."""
    statuses = [status for status in dg.DagsterRunStatus if status not in FINISHED_STATUSES]
    records = instance.get_run_records(RunsFilter(statuses=statuses))
    runs: set[str] = set()
    for record in records:
        run = record.dagster_run
        runs |= {r for r in (run.run_id, run.parent_run_id, run.root_run_id) if r}
    since = min((record.create_timestamp.timestamp() for record in records), default=None)
    return Unfinished(since, frozenset(runs))


def old_runs(
    instance: dg.DagsterInstance,
    kept: list[Kept],
    older_than_days: float,
    now: float | None = None,
) -> list[DagsterRun]:
    """Finished runs that ended long ago and are the record of nothing that is kept.

    Args:
        kept: versions that stay in the store.
    """
    horizon = (time.time() if now is None else now) - older_than_days * DAY_S
    needed = makers(kept) | _latest(instance) | unfinished(instance).runs
    records = instance.get_run_records(
        RunsFilter(
            statuses=list(FINISHED_STATUSES), created_before=datetime.fromtimestamp(horizon, UTC)
        )
    )
    return [
        record.dagster_run
        for record in records
        if (record.end_time or record.update_timestamp.timestamp()) < horizon
        and record.dagster_run.run_id not in needed
    ]


def makers(kept: list[Kept]) -> set[str]:
    """The runs that made versions, by any of their manifests."""
    runs = set()
    for version in kept:
        for path in (version.path / MANIFEST, *version.path.glob(".history/*.json")):
            with contextlib.suppress(OSError, ValueError):
                runs.add(str(json.loads(path.read_text("utf-8")).get("run_id")))
    return runs


def _latest(instance: dg.DagsterInstance) -> set[str]:
    """Runs with the latest materialisation of any partition, or of an asset without."""
    runs = set()
    for asset in instance.all_asset_keys():
        event = instance.get_latest_materialization_event(asset)
        if event is not None:
            runs.add(event.run_id)
        ids = instance.event_log_storage.get_latest_storage_id_by_partition(
            asset, DagsterEventType.ASSET_MATERIALIZATION
        ).values()
        for batch in _batches(sorted(ids)):
            found = instance.fetch_materializations(
                AssetRecordsFilter(asset_key=asset, storage_ids=batch), limit=len(batch)
            )
            runs |= {record.run_id for record in found.records}
    return runs


def _batches(ids: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(ids), BATCH):
        yield ids[start : start + BATCH]


def delete_run(instance: dg.DagsterInstance, run_id: str) -> None:
    """Delete a run, its events and its captured logs.

    The run itself goes last, so that after a kill the next time finds it and ends the work.
    """
    with contextlib.suppress(NotImplementedError):
        instance.compute_log_manager.delete_logs(prefix=[run_id])
    instance.event_log_storage.delete_events(run_id)
    _delete_shard(instance, run_id)
    instance.run_storage.delete_run(run_id)


def _delete_shard(instance: dg.DagsterInstance, run_id: str) -> None:
    """SQLite keeps a file a run, which Dagster empties and leaves."""
    storage = instance.event_log_storage
    if hasattr(storage, "path_for_shard"):
        path = Path(storage.path_for_shard(run_id))
        for suffix in ("", "-wal", "-shm", "-journal"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
