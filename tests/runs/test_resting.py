"""A run that waits leaves the machine to others: for a step's next try, for a slot of a pool."""

import shutil
import threading
import time
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.execution.plan.active import ActiveExecution

from popcorn_assets.runs.resting import rest_between_steps
from popcorn_assets.runs.retry import again_later
from popcorn_ml.errors import ProviderDown

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 2.0


@dg.op(pool="stac")
def fetch(context: dg.OpExecutionContext) -> None:
    with again_later(context, 1, WAIT_S):
        if context.retry_number == 0 and context.run.tags.get("down"):
            raise ProviderDown("the provider does not answer")


@dg.job(executor_def=dg.multiprocess_executor)
def season():
    fetch()


@pytest.mark.parametrize("waits_for", ["the next try", "a slot"])
def test_a_run_that_waits_rests(waits_for, tmp_path, monkeypatch):
    """Asked without a pause what may begin, the executor burns a core for as long as it waits."""
    shutil.copyfile(ROOT / "dagster.yaml", tmp_path / "dagster.yaml")
    monkeypatch.chdir(tmp_path)
    rest_between_steps()
    asked: list[float] = []
    original = ActiveExecution.get_steps_to_execute

    def counted(self, limit=None):
        if not self.has_in_flight_steps:
            asked.append(time.time())
        return original(self, limit)

    monkeypatch.setattr(ActiveExecution, "get_steps_to_execute", counted)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        storage = instance.event_log_storage
        storage.set_concurrency_slots("stac", 1)
        if waits_for == "a slot":
            storage.claim_concurrency_slot("stac", "another", "fetch")
            freed = threading.Timer(WAIT_S, storage.free_concurrency_slots_for_run, ["another"])
            freed.start()
        tags = {"down": "yes"} if waits_for == "the next try" else {}
        done = dg.execute_job(dg.reconstructable(season), instance=instance, tags=tags)
        assert done.success
    waited = asked[-1] - asked[0]
    assert waited > WAIT_S - 0.5
    assert len(asked) < 20 + 8 * waited
