"""Pools: who holds their slots, and a slot for a step whose asset cannot say which it needs.

A pool is the asset's, the same for every partition; the source of imagery is the country's. So a
season has the pool `imagery`, which bounds how many are at work on this machine, and takes a slot
of its source's pool, which bounds how many ask that provider, for as long as it fetches. Both are
Dagster's own pools: seen and set in the UI, freed when a run ends, however it ends.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import dagster as dg
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext
from dagster._core.storage.dagster_run import FINISHED_STATUSES, RunsFilter

SOURCES = {"earthengine": "earth-engine", "stac": "stac"}
"""Imagery source -> pool; files on disk have none."""

_POLL_SECONDS = 1.0
_SETTLED_SECONDS = 0.3
"""After which a slot that two runs took at the same moment belongs to one of them."""

_RUNNING = [
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@contextmanager
def source_slot(context: dg.AssetExecutionContext, source: str) -> Iterator[None]:
    """A slot of a source's pool for the block, after waiting for one; none for files on disk."""
    pool = SOURCES.get(source)
    if pool is None:
        yield
        return
    with slot(context, pool):
        yield


@contextmanager
def slot(context: dg.AssetExecutionContext | dg.OpExecutionContext, pool: str) -> Iterator[None]:
    """A slot of a pool for the block, beside the one that the step itself may hold."""
    # Dagster frees a step's slots by the step's name; under another, ours and its stay apart.
    name = f"{context.get_step_execution_context().step.key} ({pool})"
    with InstanceConcurrencyContext(context.instance, context.run) as slots:
        told = False
        while True:
            if slots.claim(pool, name):
                if _kept(context, pool, name):
                    break
                slots.free_step(name)
            if not told:
                context.log.info(f"waiting for a slot of the pool {pool}")
                told = True
            time.sleep(_POLL_SECONDS)
        try:
            yield
        finally:
            slots.free_step(name)


_in_turn: set[str] = set()


@contextmanager
def in_turn(run_id: str) -> Iterator[None]:
    """For the block, a run's steps are worked on in this very process, one after another."""
    _in_turn.add(run_id)
    try:
        yield
    finally:
        _in_turn.discard(run_id)


def _alone(context: dg.AssetExecutionContext | dg.OpExecutionContext) -> bool:
    """Whether no other step can have asked for a slot at the same moment as this one did.

    Runs that begin from now on find it taken.
    """
    if context.run_id not in _in_turn:
        return False
    running = context.instance.get_runs(RunsFilter(statuses=_RUNNING), limit=2)
    return [run.run_id for run in running] == [context.run_id]


def _kept(context: dg.AssetExecutionContext | dg.OpExecutionContext, pool: str, name: str) -> bool:
    """Whether a slot just claimed is still ours: SQLite lets two runs claim one at once.

    The later writer has it then; the other finds out here, and waits like everybody else.
    """
    if not _alone(context):
        time.sleep(_SETTLED_SECONDS)
    claimed = context.instance.event_log_storage.get_concurrency_info(pool).claimed_slots
    return any((one.run_id, one.step_key) == (context.run_id, name) for one in claimed)


@dataclass(frozen=True)
class Slot:
    """One claimed slot of a pool.

    Attributes:
        status: of the run that holds it; None where Dagster knows no such run.
    """

    pool: str
    run_id: str
    step: str
    status: dg.DagsterRunStatus | None

    def __str__(self) -> str:
        state = self.status.value.lower() if self.status else "unknown"
        return f"{self.step} of run {self.run_id[:8]} ({state})"


@dataclass(frozen=True)
class Pool:
    """One pool: how many steps may be at work at once, which are, and how many wait."""

    name: str
    limit: int | None
    slots: list[Slot]
    waiting: int


def pools(instance: dg.DagsterInstance) -> Iterator[Pool]:
    """Every pool that a step has ever asked a slot of, or that was given a limit."""
    storage = instance.event_log_storage
    for name in sorted(storage.get_concurrency_keys()):
        yield pool(instance, name)


def pool(instance: dg.DagsterInstance, name: str) -> Pool:
    """A pool as it is now."""
    info = instance.event_log_storage.get_concurrency_info(name)
    slots = []
    for claimed in info.claimed_slots:
        run = instance.get_run_by_id(claimed.run_id)
        slots.append(Slot(name, claimed.run_id, claimed.step_key, run.status if run else None))
    return Pool(name, info.limit, slots, info.pending_step_count)


def stuck_slots(instance: dg.DagsterInstance) -> list[Slot]:
    """Slots held by runs that have finished, or that there are no longer."""
    held = [slot for found in pools(instance) for slot in found.slots]
    return [slot for slot in held if slot.status is None or slot.status in FINISHED_STATUSES]
