"""A version's record in the warehouse: written when it is published, asked when it is reused."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from popcorn_assets.store.manifests import SCHEMA
from popcorn_assets.store.versions import Address, Store, Version, sha256
from popcorn_ml.published.folders import failing
from popcorn_ml.warehouse.warehouse import Warehouse


class Records:
    """What the warehouse knows of one asset's partition.

    Args:
        log: told what was not as recorded.
    """

    def __init__(self, store: Store, address: Address, log: logging.Logger) -> None:
        self.store, self.address, self.log = store, address, log
        self.warehouse = Warehouse(store.warehouse)

    def prepared(self, tables: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Rows as the warehouse will take them, and what the manifest says of them.

        Tried against the tables' rules here, before anything is published.
        """
        from popcorn_ml.warehouse.rows import prepared

        rows, told = {}, {}
        for table, given in tables.items():
            rows[table], told[table] = prepared(
                table,
                given,
                asset=self.address.asset,
                country=self.address.country or "",
                year=self.address.year or 0,
            )
        return rows, told

    def rows_held(self, found: Version) -> bool:
        """Whether the warehouse holds the rows that belong to a version, if it has any."""
        tables = found.manifest()["tables"]
        if not tables:
            return True
        address, warehouse = found.address, self.warehouse
        if not warehouse.records(found.manifest(), found.manifest_sha256()):
            return False
        place = (address.asset, address.country or "", address.year or 0)
        return warehouse.digests(*place, tables) == tables

    def altered(self, found: Version) -> bool:
        """Whether a version's manifest has taken the place of one that the warehouse knows."""
        warehouse, address = self.warehouse, found.address
        if warehouse.records(found.manifest(), found.manifest_sha256()):
            return False
        known = warehouse.manifests_of(address.asset, address.country, address.year)
        there = {sha256(path) for _, path in self.store.manifests(address)}
        return any(v == found.version and told not in there for told, v in known.items())

    def record_if_missing(self, found: Version) -> None:
        """Record the lineage of a version whose run was killed before it could.

        Only a version without rows comes here unrecorded: others are made again.
        """
        manifest, digest = found.manifest(), found.manifest_sha256()
        if not self.warehouse.records(manifest, digest):
            self.record(manifest, digest, {})

    def record(self, manifest: dict[str, Any], digest: str, rows: dict[str, Any]) -> None:
        """Record a version, and earlier ones whose runs died before they could.

        It is the current one, with its rows, unless it failed a check that blocks: then what is
        current stays so, with its own rows.

        An earlier manifest of the partition that the warehouse does not know was whole when it
        was written: only the record of it is missing. But where one that the warehouse knows is
        gone, this is what became of it: it is set aside, now that the contents are made again.
        """
        warehouse = self.warehouse
        known = warehouse.manifests_of(self.address.asset, manifest["country"], manifest["year"])
        there: dict[str, dict[str, Path]] = defaultdict(dict)
        for version, path in self.store.manifests(self.address):
            there[version][sha256(path)] = path
        earlier: dict[str, Any] = {}
        lost: set[str] = set()
        for version, paths in there.items():
            gone = {told for told, of in known.items() if of == version} - paths.keys()
            unknown = {t: p for t, p in paths.items() if t != digest and t not in known}
            if version == manifest["version"]:
                lost = gone
            if not gone:
                earlier |= _readable(unknown, version)
            elif version == manifest["version"]:
                for told, path in unknown.items():
                    self.store.set_aside(path)
                    self.log.warning(f"manifest {told} of {version} was not as recorded")
        accepted = not failing(manifest)
        warehouse.record_publication(manifest, digest, rows, earlier, lost, current=accepted)


def _readable(manifests: Mapping[str, Path], version: str) -> dict[str, Any]:
    """Digest -> manifest, of those that this code can record; the audit tells of the others."""
    readable = {}
    for told, path in manifests.items():
        try:
            found = json.loads(path.read_text("utf-8"))
            if found["schema"] == SCHEMA and found["version"] == version:
                readable[told] = found
        except (ValueError, KeyError, TypeError):
            continue
    return readable
