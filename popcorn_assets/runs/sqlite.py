"""Dagster's records in SQLite files, with what SQLAlchemy knows of a file kept from use to use.

Dagster makes a new engine at every use of a file, several of them an event, and with it SQLAlchemy
compiles every statement anew: a good third of the time of a run that finds everything made. Tables,
files and the moments at which something is on disk are Dagster's own; a connection still lives as
long as its use, so that nothing is held open over a fork.

Whoever closes a file last has SQLite copy its journal into it and remove it, which waits for the
disk three times; an event that is written waits once. While a run's process works (`kept_open`) an
idle connection to each file it has used spares it, and all processes of its steps, the former.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache

import sqlalchemy
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.runs import SqliteRunStorage
from dagster._core.storage.schedules import SqliteScheduleStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._core.storage.sqlite_storage import (
    DagsterSqliteStorage,
    _event_logs_directory,
    _runs_directory,
    _schedule_directory,
)
from dagster._serdes import ConfigurableClassData


@lru_cache(maxsize=128)  # every run has a file of its own, and the daemon sees many runs
def engine(address: str) -> sqlalchemy.Engine:
    """The engine of a file; it knows how to connect and what it has compiled, no more."""
    return sqlalchemy.create_engine(
        address,
        poolclass=sqlalchemy.NullPool,
        connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS},
    )


@contextmanager
def connected(address: str) -> Iterator[sqlalchemy.Connection]:
    """A connection with a transaction begun, which ends with the block."""
    with engine(address).connect() as connection:
        _keep_open(address)
        with connection.begin():
            yield connection


_lock = threading.Lock()
_users = 0
_idle: dict[str, sqlite3.Connection | None] = {}


@contextmanager
def kept_open() -> Iterator[None]:
    """For the block, files that this process uses are not closed between two uses."""
    global _users
    with _lock:
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            done = [] if _users else [one for one in _idle.values() if one is not None]
            if not _users:
                _idle.clear()
        for connection in done:
            connection.close()


def _keep_open(address: str) -> None:
    """Have an idle connection to a file that is open already, once a `kept_open`."""
    with _lock:
        if not _users or address in _idle:
            return
        _idle[address] = None
        path = sqlalchemy.make_url(address).database
        with suppress(sqlite3.Error):  # nothing depends on it
            kept = sqlite3.connect(str(path), check_same_thread=False)
            # It holds the journal from its first look on, and no lock that a writer waits for.
            kept.execute("SELECT count(*) FROM sqlite_master").fetchone()
            _idle[address] = kept


class Runs(SqliteRunStorage):
    @contextmanager
    def connect(self) -> Iterator[sqlalchemy.Connection]:
        with connected(self._conn_string) as connection:
            yield connection


class Events(SqliteEventLogStorage):
    @contextmanager
    def _connect(self, shard: str) -> Iterator[sqlalchemy.Connection]:
        with self._db_lock:
            address = self.conn_string_for_shard(shard)
            if shard not in self._initialized_dbs:
                self._initdb(engine(address))
                self._initialized_dbs.add(shard)
            with connected(address) as connection:
                yield connection


class Schedules(SqliteScheduleStorage):
    @contextmanager
    def connect(self) -> Iterator[sqlalchemy.Connection]:
        with connected(self._conn_string) as connection:
            yield connection


class SqliteStorage(DagsterSqliteStorage):
    """Dagster's own files in Dagster's own folders."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self.base_dir = base_dir
        self._inst_data = inst_data
        self._run_storage = Runs.from_local(_runs_directory(base_dir))
        self._event_log_storage = Events(_event_logs_directory(base_dir))
        self._schedule_storage = Schedules.from_local(_schedule_directory(base_dir))
        super(DagsterSqliteStorage, self).__init__()  # not what it makes itself
