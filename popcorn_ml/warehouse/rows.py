"""Rows on their way into the warehouse: typed, tried against the tables' rules, and digested.

What is written when, and by whom, is the warehouse's business.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from popcorn_ml.errors import StoreError
from popcorn_ml.warehouse.schema import MIGRATIONS, RENAMED, ROW_TABLES, identifier

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import pyarrow as pa

    Rows = pd.DataFrame | Sequence[Mapping[str, object]]

Column = tuple[str, str, bool]
"""A column's name, its type, and whether it may be null."""

_TYPES = {
    "VARCHAR": lambda pa: pa.string(),
    "INTEGER": lambda pa: pa.int32(),
    "BIGINT": lambda pa: pa.int64(),
    "DOUBLE": lambda pa: pa.float64(),
    "BLOB": lambda pa: pa.binary(),
    "BOOLEAN": lambda pa: pa.bool_(),
}


def partition_of(table: str, asset: str, country: str, year: int) -> dict[str, Any]:
    """The columns, and their values, that say which rows of a table an asset's partition owns."""
    owner: dict[str, Any] = {"country": country, "year": year}
    return {**owner, "asset": asset} if table == "sources" else owner


def prepared(
    table: str, rows: Rows, *, asset: str, country: str, year: int
) -> tuple[pa.Table, dict[str, Any]]:
    """Rows of an asset's partition as they will be written, and what a manifest keeps of them.

    Args:
        table: one of ROW_TABLES.
        rows: with the names of the table's columns, or those of the reports that make them.

    Returns:
        The rows, and their number ("rows") and digest ("digest").

    Raises:
        StoreError: a column is missing, or a row breaks the table's rules.
    """
    import duckdb

    if table not in ROW_TABLES:
        raise ValueError(f"no table of rows {table!r}")
    owner = partition_of(table, asset, country, year)
    data = arrow_rows(columns_of(table), table, rows, owner)
    with duckdb.connect(":memory:", config={"threads": 1}) as connection:
        _migrated(connection)
        try:
            insert(connection, table, data)
        except (duckdb.ConstraintException, duckdb.ConversionException) as error:
            raise broken(table, f"{asset} {country}|{year}", error) from error
    return data, {"rows": data.num_rows, "digest": digest(data)}


def broken(table: str, where: str, error: Exception) -> StoreError:
    """The error of rows that a table refuses."""
    return StoreError(
        f"rows for the table {table} break its rules; nothing was changed",
        where=where,
        found=str(error).splitlines()[0],
        remedy="see the checks of the asset that made them",
    )


def insert(connection: duckdb.DuckDBPyConnection, table: str, data: pa.Table) -> None:
    """Add rows to a table."""
    names = ", ".join(map(identifier, data.column_names))
    connection.register("incoming", data)
    connection.execute(f"INSERT INTO {identifier(table)} ({names}) SELECT {names} FROM incoming")
    connection.unregister("incoming")  # the instance outlives these rows


def digest(data: pa.Table) -> str:
    """Sha256 over the values of all rows, whatever their order and that of the columns.

    A column that is null counts like one that is not there, so that a column added to a table
    later leaves the digests of its older rows as they were.
    """
    names = sorted(data.column_names)
    columns = [data.column(name).to_pylist() for name in names]
    lines = []
    for values in zip(*columns, strict=True):
        row = {n: _canonical(v) for n, v in zip(names, values, strict=True) if v is not None}
        lines.append(hashlib.sha256(json.dumps(row, sort_keys=True).encode()).digest())
    return hashlib.sha256(b"".join(sorted(lines))).hexdigest()


def _canonical(value: Any) -> Any:
    if isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        return value.hex()
    return ["sha256", hashlib.sha256(bytes(value)).hexdigest()]


@cache
def columns_of(table: str) -> tuple[Column, ...]:
    """The columns of a table, as the newest schema has them."""
    import duckdb

    with duckdb.connect(":memory:", config={"threads": 1}) as connection:
        _migrated(connection)
        return described(connection, table)


def described(connection: duckdb.DuckDBPyConnection, table: str) -> tuple[Column, ...]:
    """The columns of a table, as a database has them."""
    found = connection.execute(f"DESCRIBE {identifier(table)}").fetchall()
    return tuple((name, str(kind), null == "YES") for name, kind, null, *_ in found)


def _migrated(connection: duckdb.DuckDBPyConnection) -> None:
    for step in MIGRATIONS:
        for statement in step:
            connection.execute(statement)


def arrow_rows(
    columns: Sequence[Column], table: str, rows: Rows, fixed: Mapping[str, object]
) -> pa.Table:
    """Rows as an Arrow table with the columns of a warehouse table, fixed values added.

    Raises:
        StoreError: a column that may not be null is missing.
    """
    import pyarrow as pa

    rename = RENAMED.get(table, {})
    given: dict[str, list[Any]]
    if isinstance(rows, Sequence):
        names = dict.fromkeys(name for row in rows for name in row)
        given = {name: [row.get(name) for row in rows] for name in names}
    else:
        given = {str(name): list(rows[name]) for name in rows.columns}
    count = len(rows)
    given = {rename.get(name, name): values for name, values in given.items()}
    arrays, fields = [], []
    for name, kind, may_be_null in columns:
        if name in fixed:
            values: list[Any] = [fixed[name]] * count
        elif name in given:
            values = given[name]
        elif may_be_null or count == 0:
            values = [None] * count
        else:
            raise StoreError(
                f"rows for the table {table} lack a column",
                where=", ".join(map(str, fixed.values())),
                expected=name,
                found=", ".join(sorted(given)),
                remedy="this is a fault of the asset that wrote them: report it",
            )
        arrow_type = _TYPES[kind](pa)
        arrays.append(pa.array([_plain(v, name) for v in values], arrow_type, from_pandas=True))
        fields.append(pa.field(name, arrow_type))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def _plain(value: Any, name: str) -> Any:
    """A value that Arrow takes: NaN as null, numpy scalars as Python's, JSON as text."""
    if value is None or (isinstance(value, float) and value != value):
        return None
    if name == "details" and not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    return value.item() if hasattr(value, "item") else value
