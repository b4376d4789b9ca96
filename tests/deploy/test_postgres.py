"""Dagster's records in a real Postgres server, switched by the environment alone."""

from __future__ import annotations

import builtins
import time
import traceback

import dagster as dg
import pytest

from popcorn_assets.runs.instance import POSTGRES_VARIABLE
from popcorn_assets.runs.pools import pools
from popcorn_assets.upkeep.plan import DAY_S
from popcorn_assets.upkeep.retention import delete_run, old_runs
from popcorn_ml.errors import ConfigError
from tests.platforms import tiny_spec, write_demo_file

from .postgres import DATABASE, PASSWORD, PASSWORD_ESCAPED, Server, serving, why_not

pytestmark = pytest.mark.long(30)

needs_postgres = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")


@pytest.fixture(scope="module")
def server():
    with serving() as server:
        yield server


def table_rows(server: Server, table: str) -> int:
    import psycopg2

    connection = psycopg2.connect(server.url())
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {table}")
        (count,) = cursor.fetchone()
    connection.close()
    return count


@needs_postgres
def test_a_country_year_is_recorded_in_postgres_and_nowhere_else(server, place, monkeypatch):
    from popcorn_assets.definitions import defs
    from popcorn_assets.partitions import partition_key
    from popcorn_ml.simulate.country import write_country

    write_demo_file(place, tiny_spec())
    write_country(place.data / "demo", tiny_spec(), [2020])
    monkeypatch.setenv(POSTGRES_VARIABLE, server.url())
    with dg.DagsterInstance.get() as instance:
        result = defs.resolve_job_def("census").execute_in_process(
            instance=instance, partition_key=partition_key("demo", 2020)
        )
        assert result.success
    with dg.DagsterInstance.get() as other:  # what another process would see
        assert other.get_run_by_id(result.run_id).status == dg.DagsterRunStatus.SUCCESS
        event = other.get_latest_materialization_event(dg.AssetKey("census_units"))
        assert event.asset_materialization.partition == "demo|2020"
        assert {pool.name: (pool.limit, pool.slots) for pool in pools(other)} == {"duckdb": (1, [])}
        said = other.info_str()
    assert PASSWORD not in said
    assert PASSWORD_ESCAPED not in said
    assert table_rows(server, "runs") == 1
    assert not list(place.data.rglob("runs.db"))


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["a"]))
def thing():
    return dg.MaterializeResult()


@needs_postgres
def test_old_runs_are_deleted_from_postgres_and_the_latest_record_stays(server, place, monkeypatch):
    monkeypatch.setenv(POSTGRES_VARIABLE, server.url())
    with dg.DagsterInstance.get() as instance:
        first, last = (
            dg.materialize([thing], instance=instance, partition_key="a").run_id for _ in range(2)
        )
        old = {run.run_id for run in old_runs(instance, [], 1, now=time.time() + 2 * DAY_S)}
        assert first in old
        assert last not in old
        delete_run(instance, first)
        assert instance.get_run_by_id(first) is None
        assert instance.all_logs(first) == []
        assert instance.get_materialized_partitions(dg.AssetKey("thing")) == {"a"}
        assert instance.get_latest_materialization_event(dg.AssetKey("thing")).run_id == last


@needs_postgres
def test_without_the_variable_the_same_file_means_sqlite(place, monkeypatch):
    monkeypatch.delenv(POSTGRES_VARIABLE, raising=False)
    with dg.DagsterInstance.get() as instance:
        assert instance.get_runs() == []
    assert list(place.data.rglob("runs.db"))


def refusal(url: str, monkeypatch) -> str:
    """All that an operator is shown of an address that cannot be used, traceback included."""
    monkeypatch.setenv(POSTGRES_VARIABLE, url)
    with pytest.raises(ConfigError) as caught:
        dg.DagsterInstance.get()
    assert POSTGRES_VARIABLE in str(caught.value)
    return "".join(traceback.format_exception(caught.value))


@needs_postgres
@pytest.mark.parametrize(("what", "said"), [
    ("password", "authentication failed"), ("database", "does not exist"),
])  # fmt: skip
def test_a_server_that_does_not_let_us_in_is_named_without_the_password(
    what, said, server, place, monkeypatch
):
    right = {"password": "another%2Fsecret"} if what == "password" else {"database": "nothing"}
    shown = refusal(server.url(**right), monkeypatch)
    assert said in shown
    assert f"127.0.0.1:{server.port}/" in shown
    assert not any(word in shown for word in ("another", PASSWORD, PASSWORD_ESCAPED))


def test_a_server_that_is_not_there_is_an_error_without_the_password(place, monkeypatch):
    shown = refusal("postgresql://me:hidden@127.0.0.1:1/dagster", monkeypatch)
    assert "Connection refused" in shown
    assert "hidden" not in shown


@pytest.mark.parametrize("url", [
    "mysql://me:hidden@host/db", "me:hidden", "postgresql://me:hid@den@host/db",
    "postgresql://me:hidden@host:port/db", "postgresql://me:hidden@host", "postgresql://me:hid/den@h/d",
])  # fmt: skip
def test_an_address_that_is_none_is_refused_without_showing_it(url, place, monkeypatch):
    shown = refusal(url, monkeypatch)
    assert "postgresql://USER:PASSWORD@" in shown
    assert "hid" not in shown
    assert "den" not in shown


def test_a_missing_extra_says_what_to_install(place, monkeypatch):
    real = builtins.__import__

    def without_postgres(name, *args, **kwargs):
        if name == "dagster_postgres":
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_postgres)
    shown = refusal(f"postgresql://me:hidden@127.0.0.1/{DATABASE}", monkeypatch)
    assert "pip install 'popcorn-assets[postgres]'" in shown
    assert "hidden" not in shown
