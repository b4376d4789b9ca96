"""Runs of popcorn's own commands belong to their code location, their job and its partitions."""

import shutil
import uuid

import dagster as dg
import pytest
from dagster._core.storage.tags import PARTITION_SET_TAG, REPOSITORY_LABEL_TAG

from popcorn_assets.partitions import COUNTRY_YEAR, partition_key
from popcorn_assets.runs.in_process import job_origin, run_here
from popcorn_assets.runs.lost import OWNER_TAG
from tests.platforms import REPOSITORY


@dg.op
def count(context: dg.OpExecutionContext) -> None:
    if context.partition_key == "demo|2017":
        raise RuntimeError("nobody is there")


@dg.job(partitions_def=COUNTRY_YEAR, tags={"of": "the job"})
def counting():
    count()


@pytest.fixture
def instance(place):
    with dg.DagsterInstance.get() as instance:
        yield instance


def test_a_run_is_where_the_web_server_looks_for_it(instance):
    run_id = str(uuid.uuid4())
    result = run_here(
        instance, counting, run_id=run_id, partition=partition_key("demo", 2020), tags={"a": "b"}
    )
    assert result.success
    run = instance.get_run_by_id(run_id)
    assert run.remote_job_origin == job_origin("counting")
    assert run.remote_job_origin.location_name == "popcorn"
    assert run.tags[PARTITION_SET_TAG] == "counting_partition_set"
    assert (run.tags["dagster/partition"], run.tags["a"], run.tags["of"]) == (
        "demo|2020", "b", "the job",
    )  # fmt: skip
    assert OWNER_TAG in run.tags
    label = {REPOSITORY_LABEL_TAG: "__repository__@popcorn"}
    found = instance.get_runs(dg.RunsFilter(job_name="counting", tags=label))
    assert [one.run_id for one in found] == [run_id]


def test_a_failure_is_a_result_and_on_record(instance):
    run_id = str(uuid.uuid4())
    result = run_here(instance, counting, run_id=run_id, partition=partition_key("demo", 2017))
    assert not result.success
    assert instance.get_run_by_id(run_id).status == dg.DagsterRunStatus.FAILURE


def test_a_partition_that_there_is_not_starts_nothing(instance):
    with pytest.raises(dg.DagsterUnknownPartitionError):
        run_here(instance, counting, run_id=str(uuid.uuid4()), partition="demo|1999")
    assert instance.get_runs_count() == 0


@pytest.mark.parametrize("workspace", ["systemd", None])
def test_the_location_is_the_workspaces(instance, place, workspace):
    (place.home / "workspace.yaml").unlink()
    if workspace:
        source = REPOSITORY / "deploy" / workspace / "workspace.yaml"
        shutil.copyfile(source, place.home / "workspace.yaml")
    assert job_origin("census").repository_origin.get_label() == "__repository__@popcorn"
