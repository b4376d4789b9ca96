"""The warehouse: one DuckDB file of units, counts, sources and evaluation, and its views.

The only module that writes it. A partition is written in one transaction (its old rows out, its
new rows in); connections are short. DuckDB lets one process write or several read, and refuses
the others at once; so every connection first takes a place in a queue of file locks beside the
database, and retries for a bounded time. Tables and views are described in docs/warehouse.md.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popcorn_ml.errors import StoreError

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import pyarrow as pa

CATALOG = "popcorn_warehouse"
"""Name under which a connection knows the file."""
LOCK_TIMEOUT_S = 60.0
"""How long a connection waits for its turn before it gives up."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE units (
            country VARCHAR NOT NULL,
            year INTEGER NOT NULL,
            level VARCHAR NOT NULL,
            unit_id VARCHAR NOT NULL,
            number INTEGER NOT NULL,
            name VARCHAR NOT NULL,
            parent VARCHAR NOT NULL,
            geometry BLOB,
            crs VARCHAR NOT NULL,
            vintage INTEGER,
            area_ha DOUBLE NOT NULL,
            pixels BIGINT NOT NULL,
            pixel_area_ha DOUBLE NOT NULL,
            status VARCHAR NOT NULL,
            merged_into VARCHAR NOT NULL,
            file VARCHAR NOT NULL,
            PRIMARY KEY (country, year, level, unit_id)
        )
        """,
        """
        CREATE TABLE counts (
            country VARCHAR NOT NULL,
            level VARCHAR NOT NULL,
            unit_id VARCHAR NOT NULL,
            year INTEGER NOT NULL,
            people DOUBLE NOT NULL CHECK (people >= 0),
            kind VARCHAR NOT NULL CHECK (kind IN ('census', 'projection', 'estimate')),
            method VARCHAR NOT NULL,
            base_year INTEGER NOT NULL,
            source VARCHAR NOT NULL,
            source_sha256 VARCHAR NOT NULL,
            retrieved VARCHAR,
            PRIMARY KEY (country, year, level, unit_id)
        )
        """,
        """
        CREATE TABLE sources (
            country VARCHAR NOT NULL,
            year INTEGER NOT NULL,
            asset VARCHAR NOT NULL,
            file VARCHAR NOT NULL,
            sha256 VARCHAR NOT NULL,
            bytes BIGINT NOT NULL,
            licence VARCHAR,
            url VARCHAR,
            retrieved VARCHAR,
            PRIMARY KEY (country, year, asset, file, sha256)
        )
        """,
        """
        CREATE TABLE received (
            country VARCHAR NOT NULL,
            file VARCHAR NOT NULL,
            sha256 VARCHAR NOT NULL,
            bytes BIGINT NOT NULL,
            received_at VARCHAR NOT NULL,
            levels VARCHAR NOT NULL,
            years VARCHAR NOT NULL,
            PRIMARY KEY (country, file, sha256)
        )
        """,
        """
        CREATE TABLE map_sums (
            country VARCHAR NOT NULL,
            year INTEGER NOT NULL,
            level VARCHAR NOT NULL,
            unit_id VARCHAR NOT NULL,
            product VARCHAR NOT NULL,
            people DOUBLE NOT NULL,
            people_std DOUBLE,
            PRIMARY KEY (country, year, level, unit_id, product)
        )
        """,
        """
        CREATE TABLE evaluation (
            country VARCHAR NOT NULL,
            year INTEGER NOT NULL,
            product VARCHAR NOT NULL,
            level VARCHAR NOT NULL,
            metric VARCHAR NOT NULL,
            value DOUBLE,
            n BIGINT,
            details VARCHAR,
            PRIMARY KEY (country, year, product, level, metric)
        )
        """,
        """
        CREATE VIEW people_per_unit AS
        SELECT c.country, c.year, c.level, c.unit_id, u.name, u.parent, c.people, c.kind,
               c.method, c.base_year, u.area_ha, u.pixels, u.status, u.merged_into
        FROM counts c JOIN units u USING (country, year, level, unit_id)
        """,
        """
        CREATE VIEW density AS
        SELECT country, year, level, unit_id, name, parent, people, area_ha,
               people / nullif(area_ha, 0) AS people_per_ha,
               100 * people / nullif(area_ha, 0) AS people_per_km2
        FROM people_per_unit
        """,
        """
        CREATE VIEW change AS
        SELECT country, level, unit_id, name, year, people,
               lag(year) OVER w AS from_year,
               people - lag(people) OVER w AS people_added,
               CASE WHEN lag(people) OVER w > 0 AND people > 0
                    THEN pow(people / lag(people) OVER w, 1.0 / (year - lag(year) OVER w)) - 1
               END AS growth_a_year,
               kind
        FROM people_per_unit
        WINDOW w AS (PARTITION BY country, level, unit_id ORDER BY year)
        """,
        """
        CREATE VIEW map_against_census AS
        WITH hosts AS (
            SELECT country, year, level,
                   CASE WHEN merged_into = '' THEN unit_id ELSE merged_into END AS unit_id,
                   sum(people) AS people
            FROM people_per_unit GROUP BY ALL
        )
        SELECT m.country, m.year, m.level, m.unit_id, u.name, m.product,
               h.people AS census_people, m.people AS map_people, m.people_std AS map_std,
               m.people - h.people AS difference,
               (m.people - h.people) / nullif(h.people, 0) AS relative_difference
        FROM map_sums m
        JOIN hosts h USING (country, year, level, unit_id)
        JOIN units u USING (country, year, level, unit_id)
        """,
        """
        CREATE VIEW totals AS
        SELECT country, year, level, count(*) AS units, sum(people) AS people,
               sum(area_ha) AS area_ha, string_agg(DISTINCT kind, ', ' ORDER BY kind) AS kinds
        FROM people_per_unit GROUP BY ALL
        """,
    ),
)
"""Statements that take the schema from one version to the next; never edited, only added to."""

_thread = threading.local()
"""The DuckDB instance, with nothing attached, that a thread has ready, and its process."""

TABLES = ("units", "counts", "sources", "received", "map_sums", "evaluation")
VIEWS = ("people_per_unit", "density", "change", "map_against_census", "totals")


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

    def holds(self, table: str, country: str, year: int) -> bool:
        """Whether a table has rows of a partition.

        Raises:
            ValueError: there is no such table.
        """
        if table not in TABLES or table == "received":
            raise ValueError(f"no partitioned table {table!r}")
        if not self.path.exists():
            return False
        sql = f"SELECT count(*) FROM {table} WHERE country = ? AND year = ?"
        return self.query(sql, [country, year])[0][0] > 0

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

    def replace_units(self, country: str, year: int, units: pd.DataFrame) -> int:
        """Replace a partition's units.

        Args:
            country, year: the partition.
            units: `UnitsReport.units`: level, number, id, name, parent, geometry_wkb, crs, vintage,
                area_ha, pixels, pixel_area_ha, status, merged_into, file.

        Returns:
            The number of rows.

        Raises:
            StoreError: a column is missing, a row breaks the table's rules, or no turn in time; the
                partition is then as it was.
        """
        rename = {"id": "unit_id", "geometry_wkb": "geometry"}
        return self._replace("units", country, year, units, rename)

    def replace_counts(self, country: str, year: int, counts: pd.DataFrame) -> int:
        """Replace a partition's counts.

        Args:
            country, year: the partition.
            counts: `CountsReport.counts`: level, id, people, kind, method, base_year, source,
                source_sha256, retrieved.

        Returns, raises: as `replace_units`.
        """
        return self._replace("counts", country, year, counts, {"id": "unit_id"})

    def replace_sources(self, country: str, year: int, asset: str, sources: Sequence[Any]) -> int:
        """Replace the list of files that an asset's partition was made from.

        Args:
            country, year: the partition.
            asset: such as "census_units".
            sources: `readers.Source` items, or mappings with their fields.

        Returns, raises: as `replace_units`.
        """
        rows = [dict(s) if isinstance(s, Mapping) else vars(s) for s in sources]
        rows = [{**row, "asset": asset} for row in rows]
        return self._replace("sources", country, year, rows, {}, {"asset": asset})

    def replace_map_sums(
        self, country: str, year: int, rows: pd.DataFrame | Sequence[Mapping[str, object]]
    ) -> int:
        """Replace a partition's sums of the maps over census units.

        Args:
            country, year: the partition.
            rows: level, unit_id, product ("map", "adjusted", ...), people, people_std.

        Returns, raises: as `replace_units`.
        """
        return self._replace("map_sums", country, year, rows, {})

    def replace_evaluation(
        self, country: str, year: int, rows: pd.DataFrame | Sequence[Mapping[str, object]]
    ) -> int:
        """Replace a partition's evaluation.

        Args:
            country, year: the partition.
            rows: product ("uniform", "builtup", "map", "adjusted"), level ("hectare" or a level's
                name), metric ("r2", "mae", ...), value (None or NaN where undefined), and
                optionally n (how many were compared) and details (any JSON value).

        Returns, raises: as `replace_units`.
        """
        return self._replace("evaluation", country, year, rows, {})

    def register_received(
        self, country: str, file: str, sha256: str, size: int, levels: Sequence[str],
        years: Sequence[int],
    ) -> None:  # fmt: skip
        """Note a file that the inbox took in; the same file again changes nothing."""
        values = (
            country, file, sha256, size, datetime.now(UTC).isoformat(timespec="seconds"),
            ", ".join(levels), ", ".join(map(str, years)),
        )  # fmt: skip
        with self._writing() as connection:
            connection.execute(
                "INSERT INTO received VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", values
            )

    def forget(self, country: str, year: int) -> None:
        """Remove all rows of a partition."""
        with self._writing() as connection:
            for table in TABLES:
                if table != "received":
                    connection.execute(
                        f"DELETE FROM {table} WHERE country = ? AND year = ?", [country, year]
                    )

    # Within -------------------------------------------------------------------------------------

    def _replace(
        self,
        table: str,
        country: str,
        year: int,
        rows: pd.DataFrame | Sequence[Mapping[str, object]],
        rename: Mapping[str, str],
        also: Mapping[str, str] | None = None,
    ) -> int:
        import duckdb

        also = {"country": country, "year": year, **(also or {})}  # type: ignore[dict-item]
        condition = " AND ".join(f"{name} = ?" for name in also)
        try:
            with self._writing() as connection:
                data = _arrow(connection, table, rows, rename, also)
                connection.execute(f"DELETE FROM {table} WHERE {condition}", list(also.values()))
                connection.register("incoming", data)
                names = ", ".join(data.column_names)
                connection.execute(f"INSERT INTO {table} ({names}) SELECT {names} FROM incoming")
                connection.unregister("incoming")  # the instance outlives this partition
                return data.num_rows
        except (duckdb.ConstraintException, duckdb.ConversionException) as error:
            raise StoreError(
                f"rows for the table {table} break its rules; nothing was changed",
                where=f"{self.path}, {country}|{year}",
                found=str(error).splitlines()[0],
                remedy="see the checks of the asset that made them",
            ) from error

    @contextmanager
    def _writing(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection within one transaction, rolled back on an exception."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with (
            self._instance() as connection,
            self._turn(exclusive=True),
            self._attached(connection, read_only=False),
        ):
            self._migrated(connection)
            connection.execute("BEGIN")
            try:
                yield connection
            except BaseException:
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
            row = connection.execute("SELECT max(version) FROM schema_versions").fetchone()
        except duckdb.CatalogException:
            return -1
        version = int(row[0] or 0) if row else 0
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
        path = str(self.path).replace("'", "''")
        statement = f"ATTACH '{path}' AS {CATALOG} ({'READ_ONLY' if read_only else 'READ_WRITE'})"
        while True:
            try:
                connection.execute(statement)
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
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._beside(".gate"), "a") as gate, open(self._beside(".lock"), "a") as room:
            self._take(gate, fcntl.LOCK_EX, deadline)
            try:
                self._take(room, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH, deadline)
            finally:
                fcntl.flock(gate, fcntl.LOCK_UN)
            try:
                yield
            finally:
                fcntl.flock(room, fcntl.LOCK_UN)

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


def _arrow(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    rows: pd.DataFrame | Sequence[Mapping[str, object]],
    rename: Mapping[str, str],
    also: Mapping[str, object],
) -> pa.Table:
    """Rows as an Arrow table with the columns of a warehouse table, fixed values added."""
    import pyarrow as pa

    described = connection.execute(f"DESCRIBE {table}").fetchall()
    columns: dict[str, list[Any]]
    if isinstance(rows, Sequence):
        names = dict.fromkeys(name for row in rows for name in row)
        columns = {name: [row.get(name) for row in rows] for name in names}
    else:
        columns = {str(name): list(rows[name]) for name in rows.columns}
    count = len(rows)
    columns = {rename.get(name, name): values for name, values in columns.items()}
    arrays, fields = [], []
    for name, kind, null, *_ in described:
        if name in also:
            values: list[Any] = [also[name]] * count
        elif name in columns:
            values = columns[name]
        elif null == "YES" or count == 0:
            values = [None] * count
        else:
            raise StoreError(
                f"rows for the table {table} lack a column",
                where=f"{', '.join(map(str, also.values()))}",
                expected=name,
                found=", ".join(sorted(columns)),
                remedy="this is a fault of the asset that wrote them: report it",
            )
        arrow_type = ARROW_TYPES[str(kind)](pa)
        arrays.append(pa.array([_plain(v, name) for v in values], arrow_type, from_pandas=True))
        fields.append(pa.field(name, arrow_type))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


ARROW_TYPES = {
    "VARCHAR": lambda pa: pa.string(),
    "INTEGER": lambda pa: pa.int32(),
    "BIGINT": lambda pa: pa.int64(),
    "DOUBLE": lambda pa: pa.float64(),
    "BLOB": lambda pa: pa.binary(),
}


def _plain(value: Any, name: str) -> Any:
    """A value that Arrow takes: NaN as null, numpy scalars as Python's, JSON as text."""
    if value is None or (isinstance(value, float) and value != value):
        return None
    if name == "details" and not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    return value.item() if hasattr(value, "item") else value


def remove(path: str | Path) -> None:
    """Remove a warehouse and what lies beside it (its log and lock files)."""
    for suffix in ("", ".wal", ".gate", ".lock"):
        target = Path(str(path) + suffix)
        if target.exists():
            os.unlink(target)
