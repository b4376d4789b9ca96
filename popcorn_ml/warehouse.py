"""The warehouse: one DuckDB file of units, counts, sources, evaluation and lineage, and its views.

The only module that writes it. A publication is one transaction: a partition's old rows out, its
new rows in, with the lineage of the version they belong to; connections are short. DuckDB lets
one process write or several read, and refuses the others at once; so every connection first takes
a place in a queue of file locks beside the database, and retries for a bounded time. Tables and
views are described in docs/warehouse.md.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import random
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from popcorn_ml.errors import StoreError
from popcorn_ml.files import naming_the_disk
from popcorn_ml.warehouse_rows import arrow_rows, broken, columns_of, digest, insert, partition_of
from popcorn_ml.warehouse_schema import (
    MIGRATIONS,
    ROW_TABLES,
    TABLES,
    VIEWS,
    identifier,
)

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import pyarrow as pa

__all__ = ["TABLES", "VIEWS", "Warehouse", "remove"]

CATALOG = "popcorn_warehouse"
"""Name under which a connection knows the file."""
LOCK_TIMEOUT_S = 60.0
"""How long a connection waits for its turn before it gives up."""

_thread = threading.local()
"""The DuckDB instance, with nothing attached, that a thread has ready, and its process."""


class Warehouse:
    """The DuckDB file, for reading and for writing whole partitions.

    Args:
        path: the file; made, with its folder, when it is first used.
        timeout_s: how long to wait for a turn.

    Cheap to make and to send to another process; every method opens and closes its own connection.
    """

    def __init__(self, path: str | Path, timeout_s: float = LOCK_TIMEOUT_S) -> None:
        self.path, self.timeout_s = Path(path), timeout_s

    # Reading ------------------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A read-only connection; keep it short, writers wait for it.

        Raises:
            StoreError: no turn in time, or no warehouse of this schema.
        """
        if not self.path.exists():
            self.migrate()
        with self._instance() as connection:
            with self._turn(exclusive=False), self._attached(connection, read_only=True):
                current = self._version(connection) == len(MIGRATIONS)
                if current:
                    yield connection
            if not current:
                self.migrate()
                with self._turn(exclusive=False), self._attached(connection, read_only=True):
                    yield connection

    def query(self, sql: str, parameters: Sequence[object] | Mapping[str, object] = ()) -> list:
        """All rows of a query, as tuples.

        Args:
            sql: one statement; values go into `parameters` (`?` or `$name`), never into the text.
            parameters: the values.
        """
        with self.reading() as connection:
            return connection.execute(sql, parameters or None).fetchall()

    def frame(
        self, sql: str, parameters: Sequence[object] | Mapping[str, object] = ()
    ) -> pd.DataFrame:
        """As `query`, as a DataFrame."""
        with self.reading() as connection:
            return connection.execute(sql, parameters or None).df()

    # Writing ------------------------------------------------------------------------------------

    def migrate(self) -> int:
        """Bring the schema to the newest version; the version.

        Raises:
            StoreError: the file is no DuckDB database, or of a newer version than this code.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with (
            self._instance() as connection,
            self._turn(exclusive=True),
            self._attached(connection, read_only=False),
        ):
            return self._migrated(connection)

    def register_received(
        self, country: str, file: str, sha256: str, size: int, levels: Sequence[str],
        years: Sequence[int],
    ) -> None:  # fmt: skip
        """Note a file that the inbox took in; each receipt counts, also of the same file."""
        values = (
            country, file, sha256, size, datetime.now(UTC).isoformat(timespec="seconds"),
            ", ".join(levels), ", ".join(map(str, years)),
        )  # fmt: skip
        with self._writing() as connection:
            row = connection.execute(
                "SELECT number, chain FROM received WHERE country = ? AND number IS NOT NULL "
                "ORDER BY number DESC LIMIT 1",
                [country],
            ).fetchone()
            number, chain = (row[0] + 1, row[1]) if row else (1, "")
            connection.execute(
                "INSERT INTO received VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*values, number, chained(chain, (*values, number))),
            )

    def record_publication(
        self,
        manifest: Mapping[str, Any],
        manifest_sha256: str,
        rows: Mapping[str, pa.Table],
        earlier: Mapping[str, Mapping[str, Any]] | None = None,
        lost: Iterable[str] = (),
    ) -> None:
        """Make a published version the current one here: its rows and its lineage, or neither.

        Args:
            manifest: the version's, as `popcorn_assets.store.making` writes it.
            manifest_sha256: of the manifest's file.
            rows: table -> rows as `warehouse_rows.prepared` gave them; they replace those of the
                asset's partition.
            earlier: digest -> manifest of further publications of the same partition to record,
                none of them current. They are in the store, whatever was said of them before.
            lost: digests of the version's manifests that are recorded here and were found damaged
                or gone: they count as removed, and keep their lineage.

        Raises:
            StoreError: a row breaks a table's rules, or no turn in time; nothing is changed then.
        """
        import duckdb

        address = address_of(manifest)
        try:
            with self._writing() as connection:
                for table, data in rows.items():
                    _delete(connection, table, partition_of(table, **address))
                    insert(connection, table, data)
                for digest, other in (earlier or {}).items():
                    _note(connection, other, digest, current=False)
                connection.execute(
                    "UPDATE versions SET current = false "
                    "WHERE asset = ? AND country = ? AND year = ? AND current",
                    list(address.values()),
                )
                for digest in lost:
                    about = publication_of(manifest, digest)
                    condition = " AND ".join(f"{identifier(name)} = ?" for name in about)
                    statement = f"UPDATE versions SET removed = true WHERE {condition}"
                    connection.execute(statement, list(about.values()))
                _note(connection, manifest, manifest_sha256, current=True)
        except (duckdb.ConstraintException, duckdb.ConversionException) as error:
            raise broken(", ".join(rows), f"{self.path}, {address}", error) from error

    def manifests_of(self, asset: str, country: str | None, year: int | None) -> dict[str, str]:
        """Digest -> version, of the manifests that an asset's partition should have.

        Those that were removed are not among them.
        """
        if not self.path.exists():
            return {}
        rows = self.query(
            "SELECT manifest_sha256, version FROM versions "
            "WHERE asset = ? AND country = ? AND year = ? AND NOT removed",
            [asset, country or "", year or 0],
        )
        return dict(rows)

    def records(self, manifest: Mapping[str, Any], manifest_sha256: str) -> bool:
        """Whether this very manifest's version is the current one here."""
        if not self.path.exists():
            return False
        found = self.query(
            "SELECT version, manifest_sha256 FROM versions "
            "WHERE asset = ? AND country = ? AND year = ? AND current",
            list(address_of(manifest).values()),
        )
        return found == [(manifest["version"], manifest_sha256)]

    def digests(
        self, asset: str, country: str, year: int, tables: Iterable[str]
    ) -> dict[str, dict[str, Any]]:
        """Number and digest of the rows that an asset's partition has now, by table."""
        found = {}
        with self.reading() as connection:
            for table in tables:
                if table not in ROW_TABLES:
                    raise ValueError(f"no table of rows {table!r}")
                owner = partition_of(table, asset, country, year)
                condition = " AND ".join(f"{identifier(name)} = ?" for name in owner)
                data = connection.sql(
                    f"SELECT * FROM {identifier(table)} WHERE {condition}",
                    params=list(owner.values()),
                ).to_arrow_table()
                found[table] = {"rows": data.num_rows, "digest": digest(data)}
        return found

    def mark_removed(self, versions: Iterable[tuple[str, str | None, int | None, str]]) -> None:
        """Note that versions were taken out of the store on purpose; their lineage stays.

        Args:
            versions: asset, country, year (both None for an asset without partitions), version.
        """
        with self._writing() as connection:
            for asset, country, year, version in versions:
                connection.execute(
                    "UPDATE versions SET removed = true WHERE asset = ? AND country = ? "
                    "AND year = ? AND version = ?",
                    [asset, country or "", year or 0, version],
                )

    def mark_there(self, manifests: Iterable[str]) -> None:
        """Note that manifests of these digests are in the store, whatever was said of them."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE versions SET removed = false WHERE manifest_sha256 IN (SELECT unnest(?))",
                [list(manifests)],
            )

    # Within -------------------------------------------------------------------------------------

    @contextmanager
    def _writing(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection within one transaction, rolled back on an exception.

        Raises:
            StoreError: the disk is full or read-only; nothing is changed then.
        """
        import duckdb

        with (
            naming_the_disk(self.path),
            self._instance() as connection,
            self._turn(exclusive=True),
            self._attached(connection, read_only=False),
        ):
            self._migrated(connection)
            connection.execute("BEGIN")
            try:
                yield connection
            except BaseException:
                with suppress(duckdb.Error):  # what went wrong first is what is told
                    connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def _migrated(self, connection: duckdb.DuckDBPyConnection) -> int:
        version = self._version(connection)
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
        return len(MIGRATIONS)

    def _version(self, connection: duckdb.DuckDBPyConnection) -> int:
        """The schema's version, -1 for a database that has none yet."""
        import duckdb

        try:
            # All rows: a result not read to its end keeps the connection to itself.
            (row,) = connection.execute("SELECT max(version) FROM schema_versions").fetchall()
        except duckdb.CatalogException:
            return -1
        version = int(row[0] or 0)
        if version > len(MIGRATIONS):
            raise StoreError(
                "the warehouse was made by a newer version of this project",
                where=self.path,
                expected=f"schema version {len(MIGRATIONS)} or older",
                found=version,
                remedy="update the project, or name another warehouse file",
            )
        return version

    @contextmanager
    def _instance(self) -> Iterator[duckdb.DuckDBPyConnection]:
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
    def _attached(self, connection: duckdb.DuckDBPyConnection, read_only: bool) -> Iterator[None]:
        """Attach the file; one that another program holds is waited for."""
        import duckdb

        deadline = time.monotonic() + self.timeout_s
        pause = 0.01
        mode = "READ_ONLY" if read_only else "READ_WRITE"
        statement = f"ATTACH ? AS {CATALOG} ({mode})"
        while True:
            try:
                connection.execute(statement, [str(self.path)])
                break
            except duckdb.Error as error:
                busy = "could not set lock" in str(error).lower()
                if not busy or time.monotonic() > deadline:
                    raise StoreError(
                        "another program holds the warehouse"
                        if busy
                        else "the warehouse cannot be opened",
                        where=self.path,
                        found=str(error).splitlines()[0],
                        remedy="close the program that has it open, such as a DuckDB shell"
                        if busy
                        else "restore the file, or remove it and materialise the census again",
                    ) from error
            time.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(pause * 1.5, 0.25)
        try:
            connection.execute(f"USE {CATALOG}")
            yield
        finally:
            connection.execute("USE memory")
            connection.execute(f"DETACH {CATALOG}")

    @contextmanager
    def _turn(self, exclusive: bool) -> Iterator[None]:
        """A place in the queue: readers together, a writer alone.

        Two lock files: whoever wants in first takes the gate, waits there for the room, and lets
        go of the gate once inside. A waiting writer thereby keeps later readers out, so that a
        stream of readers cannot starve it.
        """
        deadline = time.monotonic() + self.timeout_s
        with (
            self._lock_file(".gate", exclusive) as gate,
            self._lock_file(".lock", exclusive) as room,
        ):
            if gate is None or room is None:  # DuckDB's own lock still keeps a writer out
                yield
                return
            # A file that is open for reading only cannot be locked exclusively everywhere (NFS).
            self._take(gate, fcntl.LOCK_EX if gate.writable() else fcntl.LOCK_SH, deadline)
            try:
                self._take(room, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH, deadline)
            finally:
                fcntl.flock(gate, fcntl.LOCK_UN)
            try:
                yield
            finally:
                fcntl.flock(room, fcntl.LOCK_UN)

    def _lock_file(self, suffix: str, exclusive: bool) -> AbstractContextManager[IO[str] | None]:
        """A lock file, opened; made where it is missing.

        Who may not write opens it for reading, or has None where that cannot be either.

        Raises:
            StoreError: it cannot be written, and `exclusive` says that somebody wants to.
        """
        path = self._beside(suffix)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return open(path, "a")
        except OSError as error:
            if exclusive:
                raise StoreError(
                    "the warehouse cannot be written",
                    where=self.path,
                    found=str(error),
                    remedy="work as the user whom the store belongs to, or make it writable",
                ) from error
        try:
            return open(path)
        except OSError:
            return nullcontext()

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)

    def _take(self, file, how: int, deadline: float) -> None:
        pause = 0.001
        while True:
            try:
                fcntl.flock(file, how | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StoreError(
                        "no turn at the warehouse in time",
                        where=self.path,
                        expected=f"a turn within {self.timeout_s:g} s",
                        found=f"other processes hold {file.name}",
                        remedy="see which runs are stuck, or lower how many run at once",
                    ) from None
            # Jitter keeps waiting processes from asking in step.
            time.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(pause * 1.3, 0.02)


def _delete(connection: duckdb.DuckDBPyConnection, table: str, where: Mapping[str, object]) -> None:
    condition = " AND ".join(f"{identifier(name)} = ?" for name in where)
    statement = f"DELETE FROM {identifier(table)} WHERE {condition}"
    connection.execute(statement, list(where.values()))


def address_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Asset, country and year of a manifest or of one of its inputs; "" and 0 if unpartitioned."""
    return {
        "asset": entry["asset"],
        "country": entry["country"] or "",
        "year": entry["year"] or 0,
    }


def _note(
    connection: duckdb.DuckDBPyConnection,
    manifest: Mapping[str, Any],
    manifest_sha256: str,
    *,
    current: bool,
) -> None:
    """Write a publication's lineage, in place of what there was of it."""
    about = publication_of(manifest, manifest_sha256)
    for table, entries in lineage_rows(manifest).items():
        if table != "versions":
            _delete(connection, table, about)
            if entries:
                insert(connection, table, arrow_rows(columns_of(table), table, entries, about))
            continue
        data = arrow_rows(columns_of(table), table, entries, about)
        names = ", ".join(map(identifier, data.column_names))
        connection.register("incoming", data)
        connection.execute(
            f"INSERT INTO versions ({names}) SELECT {names} FROM incoming "
            "ON CONFLICT DO UPDATE SET removed = false"
        )
        connection.unregister("incoming")
        condition = " AND ".join(f"{identifier(name)} = ?" for name in about)
        connection.execute(
            f"UPDATE versions SET current = ? WHERE {condition}", [current, *about.values()]
        )


def publication_of(manifest: Mapping[str, Any], manifest_sha256: str) -> dict[str, Any]:
    """What the rows of a publication start with in every lineage table."""
    return {
        **address_of(manifest),
        "version": manifest["version"],
        "manifest_sha256": manifest_sha256,
    }


def lineage_rows(manifest: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """A manifest's rows of `versions` and the lineage tables, without what `publication_of` says.

    `versions` says `current`, which only the newest publication of a partition is.
    """
    code = manifest["code"]
    facts = manifest["facts"]
    other = facts.get("other_orbit") or {}
    scenes = [*(facts.get("scenes") or []), *(other.get("scenes") or [])]
    return {
        "versions": [
            {
                **{name: manifest[name] for name in ("recipe", "run_id", "started", "finished")},
                "code_version": code["version"],
                "code_commit": code.get("commit"),
                "code_modified": code.get("modified"),
                "current": True,
                "removed": False,
            }
        ],
        "version_inputs": [
            {
                **{f"input_{name}": value for name, value in address_of(entry).items()},
                "input_version": entry["version"],
            }
            for entry in manifest["inputs"]
        ],
        "version_sources": [
            {
                "path": source["path"],
                "file": os.path.basename(source["path"]),
                "bytes": source["size"],
                "sha256": source["sha256"],
            }
            for source in (*manifest["sources"], *facts.get("scene_files", ()))
        ],
        "version_files": [
            {"file": name, "bytes": entry["size"], "sha256": entry["sha256"]}
            for name, entry in manifest["files"].items()
        ],
        "version_scenes": [
            {
                "scene": scene["id"],
                "taken": scene.get("datetime"),
                "platform": scene.get("platform"),
                "href": scene.get("href"),
            }
            for scene in scenes
        ],
        "version_tables": [
            {"name": name, "row_count": entry["rows"], "digest": entry["digest"]}
            for name, entry in manifest["tables"].items()
        ],
    }


def chained(previous: str, values: Sequence[object]) -> str:
    """What a receipt's row keeps of itself and of the one before it, so that a change shows."""
    text = json.dumps([previous, *values], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def remove(path: str | Path) -> None:
    """Remove a warehouse and what lies beside it (its log and lock files)."""
    for suffix in ("", ".wal", ".gate", ".lock"):
        target = Path(str(path) + suffix)
        if target.exists():
            os.unlink(target)
