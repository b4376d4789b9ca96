"""Versions against the records of them: the warehouse's lineage and rows, Dagster's events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from popcorn_assets.audit.findings import Finding, Verdict
from popcorn_assets.audit.recorded import DagsterRecords, Place, Records, address_of, place_of
from popcorn_assets.audit.trail import FORM_ERRORS, Node, Trail
from popcorn_assets.store.versions import HISTORY, MANIFEST, Store
from popcorn_ml.errors import StoreError
from popcorn_ml.warehouse.lineage import chained, lineage_rows, publication_of


def tables_of(node: Node) -> list[str]:
    """The warehouse's tables that a version has rows in."""
    return list(node.manifest["tables"]) if node.manifest else []


def judge_lineage(node: Node, records: Records, *, known: bool) -> None:
    """The manifest, and earlier ones of the same contents, against the warehouse's lineage.

    Args:
        known: whether it is known which version is current.
    """
    assert node.manifest is not None
    place = place_of(node.address)
    on_disk = {**node.history, node.manifest_sha256: node.manifest}
    rows = records.lineage["versions"].get(place, [])
    recorded = {row["manifest_sha256"]: row for row in rows if row["version"] == node.version}
    for digest, row in recorded.items():
        if digest not in on_disk and not row["removed"]:
            message = f"the manifest {digest[:16]}... that the warehouse knows is not here"
            node.find(Verdict.CHANGED, MANIFEST, message)
    for digest, manifest in on_disk.items():
        here = digest == node.manifest_sha256
        name = MANIFEST if here else f"{HISTORY}/{digest}.json"
        if digest not in recorded:
            message = f"the warehouse has no record of a manifest of sha256 {digest}"
            node.find(Verdict.UNRECORDED, name, message)
            continue
        try:
            about = publication_of(manifest, digest)
            expected = lineage_rows(manifest)
        except FORM_ERRORS as error:
            node.find(Verdict.CHANGED, name, f"it is not what was written: {error}")
            continue
        expected["versions"][0]["current"] = here and node.current if known else None
        for table, entries in expected.items():
            there = [
                row
                for row in records.lineage[table].get(place, [])
                if row["version"] == node.version and row["manifest_sha256"] == digest
            ]
            if table == "versions" and not known:
                there = [{**row, "current": None} for row in there]
            wanted = Counter(_plain({**about, **entry}) for entry in entries)
            if wanted != Counter(map(_plain, there)):
                changed = sum((wanted - Counter(map(_plain, there))).values())
                more = sum((Counter(map(_plain, there)) - wanted).values())
                message = f"{changed} of {len(entries)} rows are not as in {name}, {more} others"
                node.find(Verdict.CHANGED, f"warehouse table {table}", message)


def judge_unread(node: Node, records: Records) -> None:
    """A manifest that cannot be read as this code's, against those that the warehouse knows."""
    rows = records.lineage["versions"].get(place_of(node.address), [])
    recorded = {row["manifest_sha256"] for row in rows if row["version"] == node.version}
    if recorded and node.manifest_sha256 and node.manifest_sha256 not in recorded:
        message = "it is not a manifest that the warehouse knows of this version"
        node.find(Verdict.CHANGED, MANIFEST, message)


def _plain(row: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """A row without its nulls, comparable."""
    return tuple(sorted((name, repr(value)) for name, value in row.items() if value is not None))


def judge_rows(node: Node, records: Records) -> None:
    """The rows that the current version wrote."""
    assert node.manifest is not None
    if not node.current:
        return
    there = records.rows.get(place_of(node.address), {})
    for table, told in node.manifest["tables"].items():
        about, found = f"warehouse table {table}", there.get(table)
        if found is None:
            node.find(Verdict.CHANGED, about, "the manifest names a table that is none")
        elif found["rows"] != told["rows"]:
            message = f"{told['rows']} rows were written, {found['rows']} are there"
            node.find(Verdict.CHANGED, about, message)
        elif found["digest"] != told["digest"]:
            node.find(Verdict.CHANGED, about, "its rows are not those that were written")


def judge_records(
    store: Store, trail: Trail, records: Records, country: str, year: int, *, whole: bool
) -> None:
    """Tables and views that are not as they were made, and rows that belong to nothing."""
    for name, message in records.altered.items():
        trail.findings.append(Finding(Verdict.CHANGED, f"warehouse {name}", message))
    if records.schema != list(range(1, len(records.schema) + 1)) or not records.schema:
        message = f"it lists {records.schema}"
        trail.findings.append(Finding(Verdict.CHANGED, "warehouse table schema_versions", message))
    before: dict[str, tuple[int, str]] = {}
    for row in records.received:
        *values, number, chain = row.values()
        last, previous = before.get(row["country"], (0, ""))
        if number is None:
            continue  # received before receipts were chained
        if number != last + 1 or chain != chained(previous, (*values, number)):
            message = f"{row['file']} is not as it was received, or one before it is gone"
            trail.findings.append(Finding(Verdict.CHANGED, "warehouse table received", message))
        before[row["country"]] = (number, chain)
    visited = {place_of(address) for address, _ in trail.nodes}
    closed = {place_of(address) for address in trail.unread}
    places = {("", 0), (country, year)} if whole else set()
    for table, by_place in records.lineage.items():
        for place, rows in by_place.items():
            if place not in visited and place[1:] not in places:
                continue
            versions = records.lineage["versions"].get(place, [])
            known = {(row["version"], row["manifest_sha256"]) for row in versions}
            stray = [row for row in rows if (row["version"], row["manifest_sha256"]) not in known]
            if table == "versions" and place not in visited | closed:
                stray = [row for row in rows if not _elsewhere(store, place, row)]
            if stray:
                message = f"{len(stray)} rows of {_told(place)} belong to no version"
                about = f"warehouse table {table}"
                trail.findings.append(Finding(Verdict.UNRECORDED, about, message))
    wrote: dict[tuple[str, int], dict[str, set[str]]] = {}
    for node in trail.nodes.values():
        if node.current and node.manifest is not None:
            asset, at_country, at_year = place_of(node.address)
            for table in tables_of(node):
                by_table = wrote.setdefault((at_country, at_year), {})
                by_table.setdefault(table, set()).add(asset if table == "sources" else "")
    if whole:
        for table, owners in records.owners.get((country, year), {}).items():
            for owner in sorted(owners - wrote.get((country, year), {}).get(table, set())):
                message = f"rows of {country}|{year} {owner and f'of {owner} '}that nothing wrote"
                about = f"warehouse table {table}"
                trail.findings.append(Finding(Verdict.UNRECORDED, about, message))


def _elsewhere(store: Store, place: Place, row: Mapping[str, Any]) -> bool:
    """Whether a row is of an asset without partitions that this partition does not need (yet)."""
    if place[1]:
        return False
    try:
        path = store.folder(address_of(place)) / str(row["version"]) / MANIFEST
    except StoreError:
        return False
    return bool(row["removed"]) or path.is_file()


def _told(place: Place) -> str:
    asset, country, year = place
    return f"{asset} {country}|{year}" if country else asset


def judge_dagster(node: Node, dagster: DagsterRecords) -> None:
    """Dagster's newest materialisation of a partition against what LATEST names."""
    record = dagster.newest(node.address)
    if record is None:
        message = "it has no materialisation of this asset and partition"
        node.find(Verdict.UNRECORDED, "Dagster", message)
    elif record.version != node.version:
        message = f"its newest materialisation is version {record.version or '(none)'}"
        node.find(Verdict.CHANGED, "Dagster", message)
    elif record.manifest_sha256 not in {node.manifest_sha256, *node.history}:
        # Two runs at once may have told Dagster in another order than they published.
        message = f"it recorded a manifest of sha256 {record.manifest_sha256 or '(none)'}"
        node.find(Verdict.CHANGED, "Dagster", message)
