"""Dagster's records in SQLite as this project opens them: Dagster's own files, only sooner."""

from __future__ import annotations

import os

import dagster as dg
import pytest
import sqlalchemy
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage

from popcorn_assets.runs.sqlite import Events, SqliteStorage, engine


@dg.asset(check_specs=[dg.AssetCheckSpec("whole", asset="thing")])
def thing():
    return dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=True)])


def made(instance: dg.DagsterInstance) -> str:
    return dg.materialize([thing], instance=instance).run_id


def test_what_either_writes_the_other_reads(place):
    """A home goes on with whichever opens it: no table and no file is another."""
    with place.instance() as instance:
        assert isinstance(instance.event_log_storage, Events)
        run = made(instance)
        assert instance.get_run_by_id(run).status == dg.DagsterRunStatus.SUCCESS
        events = [entry.dagster_event_type for entry in instance.all_logs(run)]
        checks = instance.event_log_storage.get_asset_check_execution_history(
            dg.AssetCheckKey(dg.AssetKey("thing"), "whole"), limit=5
        )
        assert [check.run_id for check in checks] == [run]
    plain = DagsterSqliteStorage.from_local(str(place.data / "dagster"))
    assert [r.run_id for r in plain.run_storage.get_runs()] == [run]
    logs = plain.event_log_storage.get_logs_for_run(run)
    assert [entry.dagster_event_type for entry in logs] == events
    assert (
        plain.run_storage.alembic_version()
        == SqliteStorage.from_local(str(place.data / "dagster")).run_storage.alembic_version()
    )


def test_a_statement_is_compiled_once(place, monkeypatch):
    """A run makes an engine a file, not one an event; a second run makes one for its own file."""
    made_engines = []
    create = sqlalchemy.create_engine
    monkeypatch.setattr(
        sqlalchemy, "create_engine", lambda *a, **k: made_engines.append(a) or create(*a, **k)
    )
    with place.instance() as instance:
        made(instance)
        before = len(made_engines)
        run = made(instance)
        events = len(instance.all_logs(run))
    assert events > 10
    assert [str(address) for (address,) in made_engines[before:]] == [
        instance.event_log_storage.conn_string_for_shard(run)
    ]


def test_a_forked_process_records_beside_this_one(place):
    """The engine holds no connection that two processes could write through."""
    with place.instance() as instance:
        first = made(instance)
        child = os.fork()
        if child == 0:
            try:
                made(instance)
                os._exit(0)
            finally:
                os._exit(1)
        second = made(instance)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        runs = instance.get_runs()
        assert len(runs) == 3
        assert {first, second} < {run.run_id for run in runs}
        assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}
        pool = engine(instance.event_log_storage.conn_string_for_shard("index")).pool
        assert isinstance(pool, sqlalchemy.NullPool)


def test_a_failure_leaves_no_transaction(place):
    with place.instance() as instance:
        with pytest.raises(RuntimeError), instance.run_storage.connect() as connection:
            connection.execute(sqlalchemy.text("CREATE TABLE left_over (x)"))
            connection.execute(sqlalchemy.text("INSERT INTO left_over VALUES (1)"))
            raise RuntimeError
        with instance.run_storage.connect() as connection:
            connection.execute(sqlalchemy.text("CREATE TABLE IF NOT EXISTS left_over (x)"))
            assert connection.execute(sqlalchemy.text("SELECT * FROM left_over")).all() == []
        made(instance)
