"""Dagster's records in SQLite as this project opens them: Dagster's own files, only sooner."""

from __future__ import annotations

import os
import sqlite3
import uuid

import dagster as dg
import pytest
import sqlalchemy
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage

from popcorn_assets.runs.in_process import run_here
from popcorn_assets.runs.sqlite import Events, SqliteStorage, connected, engine, kept_open


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


def test_a_file_stays_open_between_two_uses_while_a_run_works(tmp_path):
    """Its journal is not put away each time; afterwards it is, and others may write throughout."""
    path = tmp_path / "runs.db"
    address = f"sqlite:///{path}"
    insert = sqlalchemy.text("INSERT INTO thing VALUES (1)")

    def files() -> set[str]:
        return {one.name for one in tmp_path.iterdir()}

    with connected(address) as connection:
        connection.execute(sqlalchemy.text("PRAGMA journal_mode=WAL"))
    with connected(address) as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE thing (number INTEGER)"))
    assert files() == {"runs.db"}
    with kept_open():
        with kept_open(), connected(address) as connection:
            connection.execute(insert)
        assert "runs.db-wal" in files()
        with sqlite3.connect(path, timeout=1) as other:
            other.execute("INSERT INTO thing VALUES (2)")
        other.close()
        assert "runs.db-wal" in files()
        with connected(address) as connection:
            found = connection.execute(sqlalchemy.text("SELECT number FROM thing")).scalars()
            assert sorted(found) == [1, 2]
        with pytest.raises(RuntimeError), connected(address) as connection:
            connection.execute(insert)
            raise RuntimeError("taken back")
    assert files() == {"runs.db"}
    with connected(address) as connection:
        count = connection.execute(sqlalchemy.text("SELECT count(*) FROM thing")).scalar()
    assert count == 2


def test_a_run_keeps_its_files_open(place):
    wals = []

    @dg.op
    def look() -> None:
        wals.extend(sorted(p.name for p in (place.data / "dagster").rglob("*.db-wal")))

    @dg.job
    def looking():
        look()

    with place.instance() as instance:
        run_id = str(uuid.uuid4())
        assert run_here(instance, looking, run_id=run_id).success
    assert {f"{run_id}.db-wal", "index.db-wal", "runs.db-wal"} <= set(wals)
    assert list((place.data / "dagster").rglob("*.db-wal")) == []
