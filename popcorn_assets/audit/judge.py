"""The audit itself: every version on the trail against files, warehouse, Dagster and code."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from popcorn_assets.audit.code import CHECKOUT, judge_code
from popcorn_assets.audit.findings import Finding, Verdict, verdict_of
from popcorn_assets.audit.recorded import (
    DagsterRecords,
    Place,
    Records,
    address_of,
    place_of,
    read_warehouse,
)
from popcorn_assets.audit.trail import FORM_ERRORS, Key, Node, Trail, latest_of, walk
from popcorn_assets.promotion.ledger import (
    CHECKPOINTS,
    Ledger,
    ledger_countries,
    read_ledger,
    verify,
)
from popcorn_assets.store import catalogue
from popcorn_assets.store.making import kept_source
from popcorn_assets.store.versions import (
    HISTORY,
    LATEST,
    MANIFEST,
    Address,
    Store,
    sha256,
    version_of,
)
from popcorn_ml.errors import StoreError
from popcorn_ml.warehouse import chained, lineage_rows, publication_of

Hasher = Callable[[Path], tuple[int, str]]
"""A file's size and sha256."""


def size_and_digest(path: Path) -> tuple[int, str]:
    """Of a file as it is now."""
    return path.stat().st_size, sha256(path)


@dataclass
class Report:
    """What an audit found.

    Attributes:
        general: findings of places where there is no version to say them of.
        files: how many files were read and compared.
        compared: which of "files", "warehouse", "Dagster", "code" was compared.
    """

    country: str
    year: int
    trail: Trail
    general: list[Finding]
    files: int
    compared: list[str]

    def findings(self) -> list[tuple[Node | None, Finding]]:
        """Every finding, with the version it is of."""
        general: list[tuple[Node | None, Finding]] = [(None, one) for one in self.general]
        return general + [(n, one) for n in self.trail.nodes.values() for one in n.findings]

    def counts(self) -> dict[Verdict, int]:
        """How many versions and places have which verdict."""
        verdicts = [verdict_of(node.findings) for node in self.trail.nodes.values()]
        return Counter([*verdicts, *(finding.verdict for finding in self.general)])

    def passed(self, strict: bool = False) -> bool:
        """Whether nothing is wrong; with `strict`, whether nothing is doubtful either."""
        doubts = [one.verdict for _, one in self.findings() if one.verdict is not Verdict.OK]
        return not any(strict or verdict.wrong for verdict in doubts)


def audit(
    store: Store,
    country: str,
    year: int,
    *,
    asset: str | None = None,
    dagster: DagsterRecords | None = None,
    repository: Path | None = CHECKOUT,
    hasher: Hasher = size_and_digest,
) -> Report:
    """Compare a country-year, and everything it was made from, with what is recorded of it.

    Args:
        asset: only this one and what it was made from.
        dagster: what Dagster has on record; None leaves it out.
        repository: the checkout that the code should be in.
        hasher: how files are read.
    """
    Address("any", country, year)  # refuse a name that no country can have
    if asset:
        roots = [Address(asset, country, year)]
    else:
        roots = _published(store, country, year, dagster)
    trail = walk(store, roots)
    _go_on_without_latest(store, trail)
    nodes = trail.nodes
    partitions = {("", 0), (country, year), *(place_of(a)[1:] for a, _ in nodes)}
    tables = {place_of(n.address): _tables(n) for n in nodes.values() if n.current}
    records = read_warehouse(store, partitions, tables)
    if not asset:
        added = _known_to_the_warehouse(store, trail, records, country, year)
        if added:
            more = {place_of(nodes[key].address): _tables(nodes[key]) for key in added}
            records = read_warehouse(store, partitions, {**tables, **more})

    if not nodes and not trail.findings and not records.problem:
        raise StoreError(
            f"nothing of {country}|{year} has been published",
            where=store.root,
            remedy="materialise it first, or set POPCORN_DATA to the store's root",
        )
    report = Report(country, year, trail, trail.findings, 0, ["files", "warehouse", "code"])
    report.files = _judge_files(store, nodes.values(), hasher)
    if records.problem:
        about = "warehouse"
        verdict = Verdict.CHANGED if store.warehouse.exists() else Verdict.MISSING
        trail.findings.append(Finding(verdict, about, records.problem))
    ledgers = _ledgers(store, trail, {a.country for a, _ in nodes if a.country} | {country})
    for node in nodes.values():
        if node.manifest is not None:
            if not records.problem:
                _judge_lineage(node, records)
                _judge_rows(node, records)
            node.findings += judge_code(node.manifest["code"], repository)
            _judge_age(store, trail, node, ledgers)
    if not records.problem:
        _judge_records(store, trail, records, country, year, whole=asset is None)
    for address in dict.fromkeys(node.address for node in nodes.values()):
        _judge_folder(store, trail, address, records)
    if dagster is not None:
        report.compared.append("Dagster")
        for node in nodes.values():
            if node.current:
                _judge_dagster(node, dagster)
    trail.findings[:] = list(dict.fromkeys(trail.findings))
    return report


# What to look at ----------------------------------------------------------------------------------


def _published(
    store: Store, country: str, year: int, dagster: DagsterRecords | None
) -> list[Address]:
    """Every asset that was ever published in a partition, as the store or Dagster know."""
    names = {path.parents[2].name for path in store.root.glob(f"*/{country}/{year}/{LATEST}")}
    found = {Address(name, country, year) for name in names if not name.startswith(".")}
    if dagster is not None:
        found |= set(dagster.there(country, year))
    return sorted(found, key=str)


def _known_to_the_warehouse(
    store: Store, trail: Trail, records: Records, country: str, year: int
) -> list[Key]:
    """Walk on from versions that only the warehouse knows to be current; those added."""
    before = set(trail.nodes)
    seen = {node.address for node in trail.nodes.values()} | set(trail.latest)
    for place in sorted(records.places(country, year)):
        try:
            address = address_of(place)
        except StoreError:
            continue  # its rows are reported as nobody's
        if address not in seen:
            more = walk(store, [address])
            trail.nodes.update({k: v for k, v in more.nodes.items() if k not in trail.nodes})
            trail.latest.update(more.latest)
            trail.findings += more.findings
            trail.roots += more.roots
    return [key for key in trail.nodes if key not in before]


def _go_on_without_latest(store: Store, trail: Trail) -> None:
    """Where LATEST is lost, go on from the newest version there is."""
    for address, version in list(trail.latest.items()):
        if version is not None or any(key[0] == address for key in trail.nodes):
            continue
        kept = [path for path in store.folder(address).glob("*") if (path / MANIFEST).is_file()]
        kept = [path for path in kept if not path.name.startswith(".")]
        if kept:
            newest = max(kept, key=lambda path: (path / MANIFEST).stat().st_mtime)
            more = walk(store, [(address, newest.name)])
            trail.nodes.update({k: v for k, v in more.nodes.items() if k not in trail.nodes})
            trail.findings += more.findings
            trail.roots += more.roots


def _tables(node: Node) -> list[str]:
    return list(node.manifest["tables"]) if node.manifest else []


# Files --------------------------------------------------------------------------------------------


def _judge_files(store: Store, nodes: Iterable[Node], hasher: Hasher) -> int:
    """Read every file of every version, and every file from outside, and compare."""
    nodes = list(nodes)
    listed = {node.key: _listed(node) for node in nodes}
    paths = {node.path / name for node in nodes for name in listed[node.key]}
    paths |= {outside.place for node in nodes for outside in node.outside}

    def read(path: Path) -> tuple[int, str] | None:
        try:
            return hasher(path)
        except OSError:
            return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing lets other threads go on
        found = dict(zip(paths, pool.map(read, paths), strict=True))
    for node in nodes:
        if node.manifest is not None:
            _judge_contents(node, listed[node.key], found)
        for outside in node.outside:
            expected = (outside.size, outside.sha256)
            about = f"{outside.path} (from outside)"
            if found[outside.place] == expected:
                continue
            later = Verdict.OLDER if node.current else Verdict.OK
            kept = kept_source(store.root, outside.path, outside.sha256)
            if kept is not None and read(kept) == expected:
                there = kept.relative_to(store.root)
                node.find(later, about, f"superseded by a later file; it is kept at {there}")
            elif found[outside.place] is None:
                node.find(Verdict.MISSING, about, "it is no longer there, or cannot be read")
            elif catalogue.holds(node.manifest, outside.path, outside.place):
                message = (
                    "the catalogue changed; the items that this was made from are as they were"
                )
                node.find(later, about, message)
            else:
                node.find(Verdict.CHANGED, about, _differs(expected, found[outside.place]))
    return sum(1 for digest in found.values() if digest is not None)


def _listed(node: Node) -> list[str]:
    """Names of a version's files, its manifests apart; links are no files of a version."""
    names = []
    for folder, folders, files in os.walk(node.path):
        here = Path(folder)
        if here == node.path and HISTORY in folders:
            folders.remove(HISTORY)
        for name in [*folders, *files]:
            if (here / name).is_symlink():
                about = (here / name).relative_to(node.path).as_posix()
                node.find(Verdict.CHANGED, about, "it is a link, not a file of the version")
        names += [(here / name).relative_to(node.path).as_posix() for name in files]
    return [name for name in names if name != MANIFEST]


def _judge_contents(
    node: Node, listed: list[str], found: Mapping[Path, tuple[int, str] | None]
) -> None:
    assert node.manifest is not None
    expected = node.manifest["files"]
    for name in sorted({*expected, *listed}):
        if name not in expected:
            node.find(Verdict.UNRECORDED, name, "the manifest does not name this file")
        elif name not in listed:
            node.find(Verdict.MISSING, name, "the manifest names this file")
        else:
            told = (expected[name]["size"], expected[name]["sha256"])
            there = found[node.path / name]
            if there != told:
                node.find(Verdict.CHANGED, name, _differs(told, there))
    try:
        made = version_of(expected)
    except FORM_ERRORS as error:
        made = f"nothing ({error})"
    if made != node.version or node.manifest["version"] != node.version:
        message = f"its files make version {made}, its manifest says {node.manifest['version']}"
        node.find(Verdict.CHANGED, "version", message)
    said = (node.manifest["asset"], node.manifest["country"] or None, node.manifest["year"] or None)
    if said != (node.address.asset, node.address.country, node.address.year):
        node.find(Verdict.CHANGED, MANIFEST, f"it is the manifest of {said}")


def _differs(expected: tuple[int, str], found: tuple[int, str] | None) -> str:
    if found is None:
        return "it cannot be read"
    if expected[0] != found[0]:
        return f"{expected[0]} bytes were recorded, {found[0]} are there"
    return f"sha256 {expected[1]} was recorded, {found[1]} is there"


def _judge_folder(store: Store, trail: Trail, address: Address, records: Records) -> None:
    """What lies beside the versions on the trail: other versions, and what does not belong."""
    folder = store.folder(address)
    lineage = records.lineage.get("versions", {}).get(place_of(address), [])
    known = {row["version"] for row in lineage}
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    for entry in entries:
        name = entry.name
        ours = name in (LATEST, ".publishing.lock") or name.startswith((".draft-", f".{LATEST}."))
        if ours or (address, name) in trail.nodes:
            continue
        about = f"{address}/{name}"
        if not (entry / MANIFEST).is_file():
            message = "this is no version, and nothing of the store's"
            trail.findings.append(Finding(Verdict.UNRECORDED, about, message))
        elif not records.problem and name not in known:
            message = "a version that the warehouse does not know"
            trail.findings.append(Finding(Verdict.UNRECORDED, about, message))
    for row in lineage:
        version = str(row["version"])
        if not row["removed"] and not (folder / version / MANIFEST).is_file():
            if (address, version) in trail.nodes:
                continue  # said of it already
            message = "the warehouse knows this version, the store no longer has it"
            trail.findings.append(Finding(Verdict.MISSING, f"{address}/{version}", message))


# Records ------------------------------------------------------------------------------------------


def _judge_lineage(node: Node, records: Records) -> None:
    """The manifest, and earlier ones of the same contents, against the warehouse's lineage."""
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
        expected["versions"][0]["current"] = here and node.current
        for table, entries in expected.items():
            there = [
                row
                for row in records.lineage[table].get(place, [])
                if row["version"] == node.version and row["manifest_sha256"] == digest
            ]
            wanted = Counter(_plain({**about, **entry}) for entry in entries)
            if wanted != Counter(map(_plain, there)):
                changed = sum((wanted - Counter(map(_plain, there))).values())
                more = sum((Counter(map(_plain, there)) - wanted).values())
                message = f"{changed} of {len(entries)} rows are not as in {name}, {more} others"
                node.find(Verdict.CHANGED, f"warehouse table {table}", message)


def _plain(row: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """A row without its nulls, comparable."""
    return tuple(sorted((name, repr(value)) for name, value in row.items() if value is not None))


def _judge_rows(node: Node, records: Records) -> None:
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


def _judge_records(
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
    places = {("", 0), (country, year)} if whole else set()
    for table, by_place in records.lineage.items():
        for place, rows in by_place.items():
            if place not in visited and place[1:] not in places:
                continue
            versions = records.lineage["versions"].get(place, [])
            known = {(row["version"], row["manifest_sha256"]) for row in versions}
            stray = [row for row in rows if (row["version"], row["manifest_sha256"]) not in known]
            if table == "versions" and place not in visited:
                stray = [row for row in rows if not _elsewhere(store, place, row)]
            if stray:
                message = f"{len(stray)} rows of {_told(place)} belong to no version"
                about = f"warehouse table {table}"
                trail.findings.append(Finding(Verdict.UNRECORDED, about, message))
    wrote: dict[tuple[str, int], dict[str, set[str]]] = {}
    for node in trail.nodes.values():
        if node.current and node.manifest is not None:
            asset, at_country, at_year = place_of(node.address)
            for table in _tables(node):
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


def _judge_dagster(node: Node, dagster: DagsterRecords) -> None:
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


# Age and decisions --------------------------------------------------------------------------------


def _ledgers(store: Store, trail: Trail, countries: Iterable[str]) -> dict[str, Ledger]:
    """The ledgers of deployed models, with findings of those that are not whole."""
    ledgers = {}
    for country in sorted(set(countries)):
        about = f"deployments/{country}.json"
        try:
            problems = verify(store, country)
        except FORM_ERRORS as error:
            problems = [f"it cannot be compared with the deployed models: {error}"]
        trail.findings += [Finding(Verdict.CHANGED, about, problem) for problem in problems]
        if country in ledger_countries(store):
            try:
                ledgers[country] = read_ledger(store, country)
            except StoreError:
                continue  # verify said why
    return ledgers


def _judge_age(store: Store, trail: Trail, node: Node, ledgers: Mapping[str, Ledger]) -> None:
    """Whether a current version was made from versions that are no longer current."""
    assert node.manifest is not None
    if not node.current:
        return
    for entry, (address, version) in zip(node.manifest["inputs"], node.inputs, strict=True):
        latest = latest_of(store, trail, address)
        if latest is None or latest == version:
            continue
        if _same_files(store, address, latest, entry.get("files")):
            continue
        ledger = ledgers.get(node.address.country or "")
        if address.asset == CHECKPOINTS and ledger is not None:
            use = ledger.in_use(node.address.year or 0)
            if use and (use.model.address, use.model.version) == (address, version):
                continue  # a newer model was trained and not put in use
        message = f"it was made from version {version}, the current one is {latest}"
        node.find(Verdict.OLDER, str(address), message)


def _same_files(store: Store, address: Address, version: str, files: dict[str, str] | None) -> bool:
    """Whether the only files of an input that matter are the same in another version."""
    if files is None:
        return False
    try:
        manifest = store.version(address, version).manifest()
        return all(manifest["files"][name]["sha256"] == told for name, told in files.items())
    except FORM_ERRORS:
        return False
