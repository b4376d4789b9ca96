"""The warehouse's file on a connection: attached for a moment, its schema brought up to date."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from popcorn_ml.errors import StoreError, Unread
from popcorn_ml.files import no_locks
from popcorn_ml.warehouse.comments import write_comments
from popcorn_ml.warehouse.schema import MIGRATIONS

if TYPE_CHECKING:
    import duckdb

CATALOG = "popcorn_warehouse"
"""Name under which a connection knows the file."""

_thread = threading.local()
"""The DuckDB instance, with nothing attached, that a thread has ready, and its process."""


@contextmanager
def instance() -> Iterator[duckdb.DuckDBPyConnection]:
    """An empty DuckDB in memory, which the file is attached to when our turn comes.

    Starting DuckDB takes ten times as long as attaching a file, so each thread keeps its own
    for the next time; a forked child starts afresh, and so does what follows an exception.
    """
    import duckdb

    # A parent's instance stays in the list, untouched: closing it here could hang.
    idle: dict[int, duckdb.DuckDBPyConnection] = _thread.__dict__.setdefault("idle", {})
    connection = idle.pop(os.getpid(), None)
    if connection is None:
        connection = duckdb.connect(":memory:", config={"threads": 1})
    try:
        yield connection
    except BaseException:
        connection.close()
        raise
    idle[os.getpid()] = connection


@contextmanager
def attached(
    connection: duckdb.DuckDBPyConnection, path: Path, timeout_s: float, read_only: bool
) -> Iterator[None]:
    """Attach the file; one that another program holds is waited for.

    Raises:
        Unread: it could not be opened in time, or by this user, or by this version.
        StoreError: it is no database, or a damaged one.
    """
    import duckdb

    deadline = time.monotonic() + timeout_s
    pause = 0.01
    mode = "READ_ONLY" if read_only else "READ_WRITE"
    statement = f"ATTACH ? AS {CATALOG} ({mode})"
    while True:
        try:
            connection.execute(statement, [str(path)])
            break
        except duckdb.Error as error:
            said = str(error).splitlines()[0]
            if "conflicting lock" not in said.lower() or time.monotonic() > deadline:
                raise _not_opened(path, said) from error
        time.sleep(pause * random.uniform(0.5, 1.5))
        pause = min(pause * 1.5, 0.25)
    try:
        connection.execute(f"USE {CATALOG}")
        yield
    finally:
        connection.execute("USE memory")
        connection.execute(f"DETACH {CATALOG}")


def _not_opened(path: Path, said: str) -> StoreError:
    """The error of a file that DuckDB does not open.

    Args:
        said: what it says of it; it raises one class for all of this.
    """
    if "could not set lock" in said.lower() and "conflicting" not in said.lower():
        return no_locks(path, said)
    if path.is_file() and path.stat().st_size == 0:
        return StoreError(
            "the warehouse's file is empty",
            where=path,
            expected="a DuckDB database",
            remedy="restore it from a backup; or remove it and materialise the census, the maps "
            "and the evaluation again",
        )
    for words, what, remedy in _NOT_READ:
        if any(word in said.lower() for word in words):
            return Unread(what, where=path, found=said, remedy=remedy)
    return StoreError(
        "the warehouse cannot be opened",
        where=path,
        found=said,
        remedy="restore the file, or remove it and materialise the census again",
    )


_NOT_READ = (
    (
        ("conflicting lock",),
        "another program holds the warehouse",
        "close the program that has it open, such as a DuckDB shell",
    ),
    (
        ("permission denied", "operation not permitted"),
        "this user may not read the warehouse",
        "work as the user whom the store belongs to, or let this one read it",
    ),
    (
        ("input/output error", "stale file handle", "too many open files", "cannot allocate"),
        "the warehouse cannot be read now",
        "see what is wrong with the disk or the machine, then try again",
    ),
    (
        ("newer version of duckdb", "storage version"),
        "the warehouse was written by another version of DuckDB",
        "install the versions that constraints.txt names",
    ),
)
"""Words of DuckDB's that say that a file could not be read, with what it means and what to do."""


def is_current(connection: duckdb.DuckDBPyConnection, path: Path) -> bool:
    """Whether an attached file is of the newest schema.

    Raises:
        StoreError: it is of a newer version than this code.
    """
    return _version(connection, path) == len(MIGRATIONS)


def migrated(connection: duckdb.DuckDBPyConnection, path: Path) -> int:
    """Bring an attached file's schema to the newest version; the version.

    Raises:
        StoreError: it is of a newer version than this code.
    """
    version = _version(connection, path)
    if version < 0:
        connection.execute(
            "CREATE TABLE schema_versions "
            "(version INTEGER PRIMARY KEY, applied_at VARCHAR NOT NULL)"
        )
        version = 0
    for number in range(version + 1, len(MIGRATIONS) + 1):
        connection.execute("BEGIN")
        try:
            for statement in MIGRATIONS[number - 1]:
                connection.execute(statement)
            now = datetime.now(UTC).isoformat(timespec="seconds")
            connection.execute("INSERT INTO schema_versions VALUES (?, ?)", [number, now])
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
    write_comments(connection)
    return len(MIGRATIONS)


def _version(connection: duckdb.DuckDBPyConnection, path: Path) -> int:
    """The schema's version, -1 for a database that has none yet."""
    import duckdb

    try:
        # All rows: a result not read to its end keeps the connection to itself.
        (row,) = connection.execute("SELECT max(version) FROM schema_versions").fetchall()
    except duckdb.CatalogException:
        return -1
    version = int(row[0] or 0)
    if version > len(MIGRATIONS):
        raise Unread(
            "the warehouse was made by a newer version of this project",
            where=path,
            expected=f"schema version {len(MIGRATIONS)} or older",
            found=version,
            remedy="update the project, or name another warehouse file",
        )
    return version
