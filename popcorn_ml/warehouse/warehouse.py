"""Reading the warehouse, and writing whole partitions of it.

The only module that writes it. A publication is one transaction: a partition's old rows out, its
new rows in, with the lineage of the version they belong to; connections are short.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popcorn_ml.files import naming_the_disk
from popcorn_ml.warehouse.lineage import address_of, chained, lineage_rows, publication_of
from popcorn_ml.warehouse.opening import attached, instance, is_current, migrated
from popcorn_ml.warehouse.rows import arrow_rows, broken, columns_of, digest, insert, partition_of
from popcorn_ml.warehouse.schema import ROW_TABLES, identifier
from popcorn_ml.warehouse.turns import beside, turn

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import pyarrow as pa

LOCK_TIMEOUT_S = 60.0
"""How long a connection waits for its turn before it gives up."""


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
        with instance() as connection:
            with self._opened(connection, exclusive=False):
                current = is_current(connection, self.path)
                if current:
                    yield connection
            if not current:
                self.migrate()
                with self._opened(connection, exclusive=False):
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
            instance() as connection,
            self._opened(connection, exclusive=True),
        ):
            return migrated(connection, self.path)

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
        *,
        current: bool = True,
    ) -> None:
        """Make a published version the current one here: its rows and its lineage, or neither.

        Args:
            manifest: the version's, as `popcorn_assets.lineage` writes it.
            manifest_sha256: of the manifest's file.
            rows: table -> rows as `rows.prepared` gave them; they replace those of the
                asset's partition.
            earlier: digest -> manifest of further publications of the same partition to record,
                none of them current. They are in the store, whatever was said of them before.
            lost: digests of the version's manifests that are recorded here and were found damaged
                or gone: they count as removed, and keep their lineage.
            current: False for a version that was rejected: only its lineage is recorded, and what
                is current stays so with its rows.

        Raises:
            StoreError: a row breaks a table's rules, or no turn in time; nothing is changed then.
        """
        import duckdb

        address = address_of(manifest)
        try:
            with self._writing() as connection:
                for table, data in rows.items() if current else ():
                    _delete(connection, table, partition_of(table, **address))
                    insert(connection, table, data)
                for digest, other in (earlier or {}).items():
                    _note(connection, other, digest, current=False)
                if current:
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
                _note(connection, manifest, manifest_sha256, current=current)
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
        return {
            table: {"rows": data.num_rows, "digest": digest(data)}
            for table, data in self.rows_of(asset, country, year, tables).items()
        }

    def rows_of(
        self, asset: str, country: str, year: int, tables: Iterable[str]
    ) -> dict[str, pa.Table]:
        """The rows that an asset's partition has now, by table, in an order of their own."""
        found = {}
        with self.reading() as connection:
            for table in tables:
                if table not in ROW_TABLES:
                    raise ValueError(f"no table of rows {table!r}")
                owner = partition_of(table, asset, country, year)
                condition = " AND ".join(f"{identifier(name)} = ?" for name in owner)
                found[table] = connection.sql(
                    f"SELECT * FROM {identifier(table)} WHERE {condition} ORDER BY ALL",
                    params=list(owner.values()),
                ).to_arrow_table()
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
    def _opened(self, connection: duckdb.DuckDBPyConnection, exclusive: bool) -> Iterator[None]:
        """The file, attached when our turn comes: for writing where it is ours alone."""
        with (
            turn(self.path, self.timeout_s, exclusive),
            attached(connection, self.path, self.timeout_s, read_only=not exclusive),
        ):
            yield

    @contextmanager
    def _writing(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection within one transaction, rolled back on an exception.

        Raises:
            StoreError: the disk is full or read-only; nothing is changed then.
        """
        import duckdb

        with (
            naming_the_disk(self.path),
            instance() as connection,
            self._opened(connection, exclusive=True),
        ):
            migrated(connection, self.path)
            connection.execute("BEGIN")
            try:
                yield connection
            except BaseException:
                with suppress(duckdb.Error):  # what went wrong first is what is told
                    connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")


def _delete(connection: duckdb.DuckDBPyConnection, table: str, where: Mapping[str, object]) -> None:
    condition = " AND ".join(f"{identifier(name)} = ?" for name in where)
    statement = f"DELETE FROM {identifier(table)} WHERE {condition}"
    connection.execute(statement, list(where.values()))


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


def remove(path: str | Path) -> None:
    """Remove a warehouse and what lies beside it (its log and lock files)."""
    for suffix in ("", ".wal", ".gate", ".lock"):
        target = beside(Path(path), suffix)
        if target.exists():
            os.unlink(target)
