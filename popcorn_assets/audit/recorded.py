"""What the warehouse and Dagster have on record of the versions in the store."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import dagster as dg

from popcorn_assets.audit.findings import Verdict
from popcorn_assets.partitions import partition_key
from popcorn_assets.runs.home import HOME_VARIABLE
from popcorn_assets.show import MANIFEST_SHA256, REJECTED
from popcorn_assets.store.versions import Address, Store
from popcorn_ml.errors import StoreError, Unread

DATA_VERSION_TAG = "dagster/data_version"

Place = tuple[str, str, int]
"""Asset, country and year as the warehouse has them: "" and 0 for an asset without partitions."""


def place_of(address: Address) -> Place:
    """An address as the warehouse has it."""
    return address.asset, address.country or "", address.year or 0


def address_of(place: Place) -> Address:
    """The address of a place in the warehouse.

    Raises:
        StoreError: no asset can have that name.
    """
    asset, country, year = place
    return Address(asset, country, year) if country else Address(asset)


@dataclass
class Records:
    """The warehouse's lineage and rows of some partitions.

    Attributes:
        problem: why it could not be read; everything else is empty then.
        verdict: what that says of it.
        lineage: table -> asset's partition -> rows, as dictionaries.
        rows: asset's partition -> table -> number and digest of the rows it has now.
        owners: country and year -> table -> whose rows lie there ("" where nobody is named).
        schema: the versions that `schema_versions` lists.
        licences: digest of a file from outside -> its licence and where it was found, as stated.
        altered: table or view -> how it is not what the migrations make.
    """

    problem: str = ""
    verdict: Verdict = Verdict.OK
    lineage: dict[str, dict[Place, list[dict[str, Any]]]] = field(default_factory=dict)
    rows: dict[Place, dict[str, dict[str, Any]]] = field(default_factory=dict)
    owners: dict[tuple[str, int], dict[str, set[str]]] = field(default_factory=dict)
    received: list[dict[str, Any]] = field(default_factory=list)
    schema: list[int] = field(default_factory=list)
    licences: dict[str, tuple[str, str]] = field(default_factory=dict)
    altered: dict[str, str] = field(default_factory=dict)

    def places(self, country: str, year: int) -> set[Place]:
        """Every asset that any lineage table has a row of, in a partition."""
        return {
            place
            for by_place in self.lineage.values()
            for place in by_place
            if place[1:] == (country, year)
        }


def read_warehouse(
    store: Store, partitions: Iterable[tuple[str, int]], tables: dict[Place, list[str]]
) -> Records:
    """What the warehouse has of some partitions, in one look.

    Args:
        partitions: country and year; ("", 0) for assets without partitions.
        tables: asset's partition -> the tables that its version wrote.
    """
    import duckdb

    from popcorn_ml.warehouse.rows import digest, partition_of
    from popcorn_ml.warehouse.schema import LINEAGE_TABLES, ROW_TABLES, identifier
    from popcorn_ml.warehouse.warehouse import Warehouse

    try:
        if not store.warehouse.is_file():
            return Records("there is no warehouse", Verdict.MISSING)
    except OSError as error:
        return Records(str(error), Verdict.NOT_JUDGED)
    records = Records()

    def rows(connection: Any, sql: str, parameters: list[Any]) -> list[dict[str, Any]]:
        found = connection.execute(sql, parameters)
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    wanted = sorted(set(partitions))
    condition = " OR ".join(["(country = ? AND year = ?)"] * len(wanted)) or "false"
    values = [value for partition in wanted for value in partition]
    try:
        with Warehouse(store.warehouse).reading() as connection:
            for table in ("versions", *LINEAGE_TABLES):
                by_place: dict[Place, list[dict[str, Any]]] = defaultdict(list)
                sql = f"SELECT * FROM {identifier(table)} WHERE {condition}"
                for row in rows(connection, sql, values):
                    by_place[row["asset"], row["country"], row["year"]].append(row)
                records.lineage[table] = by_place
            for (asset, country, year), names in tables.items():
                records.rows[asset, country, year] = {}
                for table in sorted(set(names) & set(ROW_TABLES)):
                    owner = partition_of(table, asset, country, year)
                    where = " AND ".join(f"{identifier(name)} = ?" for name in owner)
                    data = connection.sql(
                        f"SELECT * FROM {identifier(table)} WHERE {where}",
                        params=list(owner.values()),
                    ).to_arrow_table()
                    told = {"rows": data.num_rows, "digest": digest(data)}
                    records.rows[asset, country, year][table] = told
            for country, year in wanted:
                found = records.owners.setdefault((country, year), {})
                for table in ROW_TABLES:
                    name = "asset" if table == "sources" else "''"
                    sql = f"SELECT DISTINCT {name} FROM {identifier(table)} "
                    sql += "WHERE country = ? AND year = ?"
                    found[table] = {
                        a for (a,) in connection.execute(sql, [country, year]).fetchall()
                    }
            sql = f"SELECT sha256, licence, url FROM sources WHERE {condition}"
            records.licences = {
                sha256: (licence or "not stated", url or "")
                for sha256, licence, url in connection.execute(sql, values).fetchall()
            }
            sql = "SELECT * FROM received WHERE country IN (SELECT unnest(?)) ORDER BY number"
            records.received = rows(connection, sql, [[country for country, _ in wanted]])
            sql = "SELECT version FROM schema_versions ORDER BY version"
            records.schema = [version for (version,) in connection.execute(sql).fetchall()]
            records.altered = altered(connection)
    except (Unread, OSError) as error:  # which says nothing of what is in it
        return Records(f"it could not be read: {_why(error)}", Verdict.NOT_JUDGED)
    except (StoreError, duckdb.Error) as error:
        return Records(str(error).splitlines()[0], Verdict.CHANGED)
    return records


def _why(error: Exception) -> str:
    what, found = getattr(error, "what", str(error)), getattr(error, "found", None)
    return f"{what} ({found})" if found else what


_DEFINITIONS = """
    SELECT 'table ' || table_name, sql FROM duckdb_tables()
    WHERE database_name = current_database() AND schema_name = current_schema()
    UNION ALL
    SELECT 'view ' || view_name, sql FROM duckdb_views()
    WHERE database_name = current_database() AND schema_name = current_schema() AND NOT internal
    UNION ALL
    SELECT 'macro ' || function_name, macro_definition FROM duckdb_functions()
    WHERE database_name = current_database() AND NOT internal
"""
_EXCLUDED = re.compile(r"EXCLUDE \(([^)]*)\)")


def altered(connection: Any) -> dict[str, str]:
    """Tables and views of a warehouse that are not what the migrations make, and how.

    Tables and views of other names are their owner's; a macro can take the place of any function
    that a view or a question calls, so every one is told.
    """
    made, there = _made(), _definitions(connection)
    found = {
        name: "it is not defined as the project defines it" if name in there else "it is gone"
        for name in made
        if there.get(name) != made[name]
    }
    macros = [name for name in there if name.startswith("macro ")]
    return {**found, **dict.fromkeys(macros, "the project defines no macros")}


@cache
def _made() -> dict[str, str]:
    """The definitions in a warehouse that was migrated just now."""
    import duckdb

    from popcorn_ml.warehouse.schema import MIGRATIONS

    with duckdb.connect(":memory:", config={"threads": 1}) as connection:
        for statement in (one for step in MIGRATIONS for one in step):
            connection.execute(statement)
        return _definitions(connection)


def _definitions(connection: Any) -> dict[str, str]:
    def ordered(match: re.Match[str]) -> str:  # DuckDB writes these in any order
        return f"EXCLUDE ({', '.join(sorted(match[1].split(', ')))})"

    rows = connection.execute(_DEFINITIONS).fetchall()
    return {name: _EXCLUDED.sub(ordered, sql or "") for name, sql in rows}


@dataclass(frozen=True)
class Materialised:
    """A materialisation that Dagster has on record of an asset's partition.

    Attributes:
        when: seconds since 1970.
    """

    version: str
    manifest_sha256: str
    run_id: str
    when: float


def newest_accepted(instance: dg.DagsterInstance, address: Address) -> Materialised | None:
    """The newest materialisation of an asset's partition that became the current version."""
    country, year = address.country, address.year
    partitions = [partition_key(country, year)] if country and year else None
    wanted = dg.AssetRecordsFilter(dg.AssetKey(address.asset), asset_partitions=partitions)
    cursor = None
    while True:
        page = instance.fetch_materializations(wanted, limit=10, cursor=cursor)
        for record in page.records:
            event = record.asset_materialization
            if event is None or REJECTED in event.metadata:
                continue
            digest = event.metadata.get(MANIFEST_SHA256)
            return Materialised(
                (event.tags or {}).get(DATA_VERSION_TAG, ""),
                str(digest.value) if digest else "",
                record.run_id,
                record.timestamp,
            )
        if not page.has_more:
            return None
        cursor = page.cursor


class DagsterRecords:
    """What an instance has on record of assets."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance

    def newest(self, address: Address) -> Materialised | None:
        """The newest materialisation of an asset's partition, those that were rejected apart."""
        with reading_dagster():
            return newest_accepted(self.instance, address)

    def there(self, country: str, year: int) -> list[Address]:
        """The assets that have a materialisation in a partition."""
        key = partition_key(country, year)
        with reading_dagster():
            return [
                Address(asset.path[-1], country, year)
                for asset in self.instance.all_asset_keys()
                if key in self.instance.get_materialized_partitions(asset)
            ]


@contextmanager
def reading_dagster(
    remedy: str = "leave them out with --without-dagster, or audit as the user who runs Dagster",
) -> Iterator[None]:
    """Turn what hinders from reading Dagster's records into an error that says what else to do.

    SQLite writes where others would only read: who may not write there cannot read them.

    Args:
        remedy: what else to do.

    Raises:
        StoreError: the files or the database of the records cannot be opened.
    """
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (OSError, SQLAlchemyError) as error:
        raise StoreError(
            "Dagster's records cannot be read or written by this user",
            where=os.environ.get(HOME_VARIABLE),
            found=f"{type(error).__name__}: {str(error).splitlines()[0]}",
            remedy=remedy,
        ) from error
