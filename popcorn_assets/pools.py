"""Slots of pools that a step asks for while it works, where the asset cannot say which it needs.

A pool is the asset's, the same for every partition; the source of imagery is the country's. So a
season has the pool `imagery`, which bounds how many are at work on this machine, and takes a slot
of its source's pool, which bounds how many ask that provider, for as long as it fetches. Both are
Dagster's own pools: seen and set in the UI, freed when a run ends, however it ends.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext

SOURCES = {"earthengine": "earth-engine", "stac": "stac"}
"""Imagery source -> pool; files on disk have none."""

_POLL_SECONDS = 1.0
_SETTLED_SECONDS = 0.3
"""After which a slot that two runs took at the same moment belongs to one of them."""


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


def _kept(context: dg.AssetExecutionContext | dg.OpExecutionContext, pool: str, name: str) -> bool:
    """Whether a slot just claimed is still ours: SQLite lets two runs claim one at once.

    The later writer has it then; the other finds out here, and waits like everybody else.
    """
    time.sleep(_SETTLED_SECONDS)
    claimed = context.instance.event_log_storage.get_concurrency_info(pool).claimed_slots
    return any((one.run_id, one.step_key) == (context.run_id, name) for one in claimed)
