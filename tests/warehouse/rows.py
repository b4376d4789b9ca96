"""Publications for tests: a manifest, and rows recorded under one as a run of an asset does."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from popcorn_ml.warehouse.rows import arrow_rows, columns_of, digest, partition_of
from popcorn_ml.warehouse.warehouse import Warehouse


def manifest(asset: str, version: str, year: int | None = 2020, **given: Any) -> dict[str, Any]:
    made = {
        "asset": asset,
        "country": "rwa" if year else None,
        "year": year,
        "version": version,
        "recipe": "r" * 64,
        "run_id": "run",
        "started": "2024-01-01T00:00:00+00:00",
        "finished": "2024-01-01T00:01:00+00:00",
        "code": {"version": "c0de", "commit": None, "modified": None},
        "inputs": [],
        "sources": [],
        "files": {"a.tif": {"size": 3, "sha256": "f" * 64}},
        "facts": {},
        "tables": {},
    }
    return {**made, **given}


def sha(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def publish(
    warehouse: Warehouse, table: str, country: str, year: int, rows: Any, asset: str = ""
) -> int:
    """Record a version that is these rows of one table; how many there are.

    Unlike in a run, the rows have not been tried before: the warehouse itself has to refuse them.
    """
    asset = asset or table
    data = arrow_rows(columns_of(table), table, rows, partition_of(table, asset, country, year))
    told = {"rows": data.num_rows, "digest": digest(data)}
    made = manifest(asset, told["digest"][:16], year, country=country, tables={table: told})
    warehouse.record_publication(made, sha(made), {table: data})
    return int(data.num_rows)
