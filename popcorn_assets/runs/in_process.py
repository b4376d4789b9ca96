"""Runs that a command starts and carries out, as `popcorn run`, `demo` and `record` do.

Such a run ends with the command: asked to end it is cancelled, and killed it is lost. They
belong to the code location of the workspace and to their job like any other, so that the timeline,
the job's page and its partitions show them, and sensors that watch runs see them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.definitions.executor_definition import execute_in_process_executor
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.definitions.partitions.context import partition_loading_context
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.definitions.repository_definition import SINGLETON_REPOSITORY_NAME
from dagster._core.execution.api import execute_run, execute_run_iterator
from dagster._core.remote_origin import (
    CodeLocationOrigin,
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)

from popcorn_assets.runs.executors import cancelled_when_interrupted, in_foreground
from popcorn_assets.runs.followed import followed
from popcorn_assets.runs.home import WORKSPACE, home
from popcorn_assets.runs.lost import owner_tags
from popcorn_assets.runs.pools import in_turn
from popcorn_assets.runs.sqlite import kept_open

if TYPE_CHECKING:
    from dagster._core.execution.job_execution_result import JobExecutionResult

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
"""Keeps Dagster's own log off the terminal; the instance has it all."""

INLINE = {"resources": {"compute": {"config": {"launcher": "inline"}}}}
"""Everything in this one process, which is quicker for something small."""

LOCATION = "popcorn"
"""Name of the code location, as workspace.yaml has it."""

DEFINITIONS = "popcorn_assets.definitions"
"""Where a step's own process finds its job."""


def run_here(
    instance: dg.DagsterInstance,
    job: dg.JobDefinition,
    *,
    run_id: str,
    partition: str | None = None,
    run_config: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
) -> JobExecutionResult:
    """Run a job in this process to its end; what failed is in the result, not raised.

    Raises:
        DagsterInvalidConfigError, DagsterUnknownPartitionError: nothing has run.
    """
    # Whatever executor the deployment has, and its configuration, is for runs of their own.
    local = job.with_executor_def(cancelled_when_interrupted(execute_in_process_executor))
    with kept_open(), in_turn(run_id), in_foreground(run_id):
        run = _created(instance, local, run_id, partition, run_config, tags)
        return execute_run(InMemoryJob(local), run, instance)


def run_from_here(
    instance: dg.DagsterInstance,
    job: dg.JobDefinition,
    *,
    run_id: str,
    partition: str,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Run a job of the definitions to its end, its steps where the deployment's executor has them.

    What became of it is on record. With this process all of the run ends.

    Raises:
        DagsterUnknownPartitionError: nothing has run.
    """
    found = ReconstructableRepository.for_module(DEFINITIONS, "defs", str(home()))
    with kept_open(), in_foreground(run_id), followed():
        run = _created(instance, job, run_id, partition, QUIET, tags)
        for _ in execute_run_iterator(found.get_reconstructable_job(job.name), run, instance):
            pass


def _created(
    instance: dg.DagsterInstance,
    job: dg.JobDefinition,
    run_id: str,
    partition: str | None,
    run_config: Mapping[str, Any] | None,
    tags: Mapping[str, str] | None,
) -> dg.DagsterRun:
    """A run's record, as the web server would make it, with this process as whose it is."""
    own: dict[str, str] = {}
    if partition is not None:
        with partition_loading_context(dynamic_partitions_store=instance) as loading:
            job.validate_partition_key(partition, selected_asset_keys=None, context=loading)
        own = dict(job.get_tags_for_partition_key(partition, selected_asset_keys=None))
    return instance.create_run_for_job(
        job,
        run_id=run_id,
        run_config=dict(run_config or {}),
        tags={**job.run_tags, **own, **(tags or {}), **owner_tags(run_id)},
        remote_job_origin=job_origin(job.name),
    )


def job_origin(job: str) -> RemoteJobOrigin:
    """Where a job belongs for the web server and the daemon."""
    return RemoteRepositoryOrigin(_location(), SINGLETON_REPOSITORY_NAME).get_job_origin(job)


def _location() -> CodeLocationOrigin:
    """The code location of the home's workspace; one known by its name where there is none."""
    from dagster._core.workspace.load import location_origins_from_yaml_paths

    workspace = home() / WORKSPACE
    if workspace.is_file():
        origins = location_origins_from_yaml_paths([str(workspace)])
        for origin in origins:
            if origin.location_name == LOCATION:
                return origin
    return RegisteredCodeLocationOrigin(LOCATION)
