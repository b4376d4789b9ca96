"""A run that waits, for a step's next try or for a slot of a pool, without burning a core.

Dagster's executor of processes asks again and again, without a pause, which step may begin; only
its executor in one process sleeps until then. While a step is at work both wait for its events.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from dagster._core.execution.plan import instance_concurrency_context
from dagster._core.execution.plan.active import ActiveExecution
from dagster._core.execution.plan.step import ExecutionStep
from dagster._core.executor import multiprocess

REST_SECONDS = 0.25
"""Between two questions, when no step is at work; a run that is cancelled waits no longer."""


FIRST_WAIT_SECONDS = 0.25
"""Before a taken slot is asked for again, the first time; Dagster's second is longer than a step
takes that finds its work done. It grows with each try, as Dagster has it."""


class Resting(ActiveExecution):
    """The steps of a run, with a pause where none may begin and none is at work."""

    def get_steps_to_execute(self, limit: int | None = None) -> Sequence[ExecutionStep]:
        """The steps that may begin now."""
        steps = super().get_steps_to_execute(limit)
        if not steps and not self.has_in_flight_steps and self._waits():
            time.sleep(REST_SECONDS)
        return steps

    def _waits(self) -> bool:
        slots = self._instance_concurrency_context
        return bool(self._waiting_to_retry) or bool(slots and slots.has_pending_claims())


def rest_between_steps() -> None:
    """Have Dagster's executor rest, and ask soon for a slot; for this whole process."""
    setattr(multiprocess, "ActiveExecution", Resting)  # noqa: B010 (a name of another's module)
    setattr(instance_concurrency_context, "INITIAL_INTERVAL_VALUE", FIRST_WAIT_SECONDS)  # noqa: B010
