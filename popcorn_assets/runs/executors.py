"""Where the steps of a run work: processes of this machine, or pods of a Kubernetes cluster.

What a step does with its device is `launch`'s business; how many may work at once, the pools'.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import dagster as dg
import yaml
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.execution.retries import RetryMode
from dagster._core.execution.step_dependency_config import StepDependencyConfig

from popcorn_assets.resources import steps_at_once
from popcorn_assets.runs.lost import owner_tags
from popcorn_assets.runs.resting import rest_between_steps
from popcorn_assets.runs.sqlite import kept_open
from popcorn_ml.errors import ConfigError

if TYPE_CHECKING:
    from dagster._core.execution.context.system import PlanOrchestrationContext
    from dagster._core.execution.plan.plan import ExecutionPlan

EXECUTOR_VARIABLE = "POPCORN_EXECUTOR"
KUBERNETES_VARIABLE = "POPCORN_KUBERNETES_STEPS"
"""File with the configuration of dagster-k8s's executor: nodes and resources of each step."""

AHEAD = ("__main__", "popcorn_assets.ahead")
"""What the server that forks the steps' processes imports before, so that they need not: the
program that the run was started by, which every one of them would load again, and the definitions.
"""

GPU_STEPS = ("builtup_area", "train_member", "student", "population_map")
"""Steps that work on a GPU: those of the pool `gpu`."""

ONE_GPU = {"container_config": {"resources": {"limits": {"nvidia.com/gpu": "1"}}}}
WITHOUT_FILE: dict[str, Any] = {"per_step_k8s_config": dict.fromkeys(GPU_STEPS, ONE_GPU)}


def executor() -> dg.ExecutorDefinition:
    """The executor that POPCORN_EXECUTOR names: `processes`, the default, or `kubernetes`.

    Raises:
        ConfigError: another name; the extra is not installed; a file that is not its
            configuration.
    """
    name = os.environ.get(EXECUTOR_VARIABLE) or "processes"
    makers = {"processes": _processes, "kubernetes": _kubernetes}
    if name not in makers:
        raise ConfigError(
            "there is no such executor",
            where=EXECUTOR_VARIABLE,
            expected=" or ".join(makers),
            found=name,
        )
    return _noting(makers[name]())


_foreground: set[str] = set()


@contextmanager
def in_foreground(run_id: str) -> Iterator[None]:
    """For as long as the block, who interrupts this process wants the run to end.

    Elsewhere an interruption that nobody asked Dagster for is a machine that goes down, say, and
    the run has failed.
    """
    _foreground.add(run_id)
    try:
        yield
    finally:
        _foreground.discard(run_id)


class _Noting(dg.Executor):
    """An executor that first notes on the run which process works on it.

    However a run was started, by the daemon, the web server, `dagster job execute` or a program,
    its executor is the first of us that works in its process. One in the foreground that is
    interrupted is noted as being cancelled, which is what it then becomes.
    """

    def __init__(self, executor: dg.Executor) -> None:
        self.executor = executor

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[dg.DagsterEvent]:
        run_id = plan_context.run_id
        plan_context.instance.add_run_tags(run_id, owner_tags(run_id))
        try:
            with kept_open():
                yield from self.executor.execute(plan_context, execution_plan)
        except (KeyboardInterrupt, DagsterExecutionInterruptedError):
            if run_id in _foreground:
                plan_context.instance.report_run_canceling(plan_context.dagster_run)
            raise

    @property
    def retries(self) -> RetryMode:
        return self.executor.retries

    @property
    def step_dependency_config(self) -> StepDependencyConfig:
        return self.executor.step_dependency_config


def cancelled_when_interrupted(made: dg.ExecutorDefinition) -> dg.ExecutorDefinition:
    """The executor, for a run `in_foreground`."""
    return _noting(made)


def _noting(made: dg.ExecutorDefinition) -> dg.ExecutorDefinition:
    create = made.executor_creation_fn
    assert create is not None
    return dg.ExecutorDefinition(
        name=made.name,
        config_schema=cast(Any, made.config_schema),  # as Dagster itself copies one
        requirements=made.get_requirements,
        executor_creation_fn=lambda context: _Noting(create(context)),
        description=made.description,
    )


def _processes() -> dg.ExecutorDefinition:
    """A process a step; in the run's own process where a run is small and asks for it."""
    rest_between_steps()
    return dg.multi_or_in_process_executor.configured(
        {
            "multiprocess": {
                "max_concurrent": steps_at_once(),
                "start_method": {"forkserver": {"preload_modules": list(AHEAD)}},
            }
        }
    )


def _kubernetes() -> dg.ExecutorDefinition:
    """A pod a step, members of an ensemble included, each GPU step with a GPU of its own."""
    try:
        from dagster_k8s import k8s_job_executor
    except ImportError as error:
        raise ConfigError(
            "the executor for Kubernetes is not installed",
            where=EXECUTOR_VARIABLE,
            found=str(error),
            remedy=f"pip install 'popcorn-assets[kubernetes]', or unset {EXECUTOR_VARIABLE}",
        ) from error
    named = os.environ.get(KUBERNETES_VARIABLE)
    configuration = _read(Path(named)) if named else WITHOUT_FILE
    _check(k8s_job_executor, configuration, named)
    return k8s_job_executor.configured(configuration, name="kubernetes")


def _read(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(
            "the file with the steps' Kubernetes configuration cannot be read",
            where=path,
            found=str(error),
            remedy=f"correct it, or the path in {KUBERNETES_VARIABLE}",
        ) from error
    if not isinstance(found, dict):
        raise ConfigError("the file is not a mapping", where=path, found=type(found).__name__)
    return found


def _check(made: dg.ExecutorDefinition, configuration: dict[str, Any], where: str | None) -> None:
    """Refuse a configuration now, not when the first run starts."""
    from dagster._config import process_config

    checked = process_config(made.config_schema.as_field().config_type, configuration)
    if not checked.success:
        raise ConfigError(
            "the steps' Kubernetes configuration cannot be used",
            where=where,
            expected="the configuration of dagster_k8s.k8s_job_executor",
            found="; ".join(error.message for error in checked.errors or ())[:2000],
        )
