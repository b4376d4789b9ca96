"""The audit itself: every version on the trail against files, warehouse, Dagster and code.

Each comparison has a module of its own: `files`, `records`, `age`, `code`.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from popcorn_assets.audit.about import About, Read, about, files_read, licences
from popcorn_assets.audit.age import judge_age, read_ledgers
from popcorn_assets.audit.code import CHECKOUT, judge_code
from popcorn_assets.audit.files import (
    Hasher,
    judge_files,
    judge_folder,
    size_and_digest,
    tell_rejected,
)
from popcorn_assets.audit.findings import Finding, Verdict, verdict_of
from popcorn_assets.audit.recorded import (
    DagsterRecords,
    Records,
    address_of,
    place_of,
    read_warehouse,
)
from popcorn_assets.audit.records import (
    judge_dagster,
    judge_lineage,
    judge_records,
    judge_rows,
    judge_unread,
    tables_of,
)
from popcorn_assets.audit.trail import Key, Node, Trail, is_there, walk
from popcorn_assets.store.contents import is_rejected
from popcorn_assets.store.versions import LATEST, MANIFEST, REJECTED, Address, Store
from popcorn_ml.errors import StoreError


@dataclass
class Report:
    """What an audit found.

    Attributes:
        general: findings of places where there is no version to say them of.
        files: how many files were read and compared.
        compared: which of "files", "warehouse", "Dagster", "code" was compared.
        about: when, where and by what it was made.
        read: every file from outside, once.
        licences: of what the versions were made from.
    """

    country: str
    year: int
    trail: Trail
    general: list[Finding]
    files: int
    compared: list[str]
    about: About
    read: list[Read] = field(default_factory=list)
    licences: list[dict[str, str]] = field(default_factory=list)

    def findings(self) -> list[tuple[Node | None, Finding]]:
        """Every finding, with the version it is of."""
        general: list[tuple[Node | None, Finding]] = [(None, one) for one in self.general]
        return general + [(n, one) for n in self.trail.nodes.values() for one in n.findings]

    def counts(self) -> dict[Verdict, int]:
        """How many versions and places have which verdict."""
        verdicts = [verdict_of(node.findings) for node in self.trail.nodes.values()]
        beside = [one.verdict for one in self.general if one.verdict is not Verdict.OK]
        return Counter([*verdicts, *beside])

    def passed(self, strict: bool = False) -> bool:
        """Whether all was judged and nothing is wrong; with `strict`, nor doubtful."""
        return self.exit_code(strict) == 0

    def exit_code(self, strict: bool = False) -> int:
        """0: passed. 1: something is wrong, or with `strict` doubtful. 2: not all was judged."""
        doubts = {one.verdict for _, one in self.findings()} - {Verdict.OK}
        if any(verdict.wrong for verdict in doubts):
            return 1
        if Verdict.NOT_JUDGED in doubts:
            return 2
        return int(strict and bool(doubts))


def audit(
    store: Store,
    country: str,
    year: int,
    *,
    asset: str | None = None,
    dagster: DagsterRecords | None = None,
    repository: Path | None = CHECKOUT,
    hasher: Hasher = size_and_digest,
    command: str = "",
) -> Report:
    """Compare a country-year, and everything it was made from, with what is recorded of it.

    Args:
        asset: only this one and what it was made from.
        dagster: what Dagster has on record; None leaves it out.
        repository: the checkout that the code should be in.
        hasher: how files are read.
        command: as it was typed, for the report.
    """
    of_this = about(store, command)
    Address("any", country, year)  # refuse a name that no country can have
    if asset:
        roots = [Address(asset, country, year)]
    else:
        roots = _published(store, country, year, dagster)
    trail = walk(store, roots)
    _go_on_without_latest(store, trail)
    nodes = trail.nodes
    partitions = {("", 0), (country, year), *(place_of(a)[1:] for a, _ in nodes)}
    tables = {place_of(n.address): tables_of(n) for n in nodes.values() if n.current}
    records = read_warehouse(store, partitions, tables)
    if not asset:
        added = _known_to_the_warehouse(store, trail, records, country, year)
        if added:
            more = {place_of(nodes[key].address): tables_of(nodes[key]) for key in added}
            records = read_warehouse(store, partitions, {**tables, **more})

    if not nodes and not trail.findings and not records.problem:
        raise StoreError(
            f"nothing of {country}|{year} has been published",
            where=store.root,
            remedy="materialise it first, or set POPCORN_DATA to the store's root",
        )
    compared = ["files", "warehouse", "code"]
    report = Report(country, year, trail, trail.findings, 0, compared, of_this)
    report.read = files_read(trail, records)
    report.licences = licences(trail)
    report.files = judge_files(store, nodes.values(), hasher)
    if records.problem:
        trail.findings.append(Finding(records.verdict, "warehouse", records.problem))
    ledgers = read_ledgers(store, trail, {a.country for a, _ in nodes if a.country} | {country})
    for node in nodes.values():
        if node.manifest is not None:
            if not records.problem:
                judge_lineage(node, records, known=node.address not in trail.unread)
                judge_rows(node, records)
            node.findings += judge_code(node.manifest["code"], repository)
            judge_age(store, trail, node, ledgers)
        elif not records.problem:
            judge_unread(node, records)
    if not records.problem:
        judge_records(store, trail, records, country, year, whole=asset is None)
    for address in dict.fromkeys([*(node.address for node in nodes.values()), *trail.latest]):
        judge_folder(store, trail, address, records)
        if address not in trail.unread:
            tell_rejected(store, trail, address)
    if dagster is not None:
        report.compared.append("Dagster")
        for node in nodes.values():
            if node.current:
                judge_dagster(node, dagster)
    trail.findings[:] = list(dict.fromkeys(trail.findings))
    return report


# What to look at ----------------------------------------------------------------------------------


def _published(
    store: Store, country: str, year: int, dagster: DagsterRecords | None
) -> list[Address]:
    """Every asset that was ever published in a partition, as the store or Dagster know."""
    names = {
        path.parents[2].name
        for pointer in (LATEST, REJECTED)
        for path in store.root.glob(f"*/{country}/{year}/{pointer}")
    }
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
            trail.join(walk(store, [address]))
    return [key for key in trail.nodes if key not in before]


def _go_on_without_latest(store: Store, trail: Trail) -> None:
    """Where there is no LATEST, go on from the newest version there is, rejected or not."""
    for address, version in list(trail.latest.items()):
        if version is not None or any(key[0] == address for key in trail.nodes):
            continue
        kept = [path for path in store.folder(address).glob("[!.]*") if is_there(path / MANIFEST)]
        kept = [path for path in kept if os.access(path, os.X_OK, effective_ids=True)]
        good = [path for path in kept if not is_rejected(path)]
        if kept:
            newest = max(good or kept, key=lambda path: (path / MANIFEST).stat().st_mtime)
            trail.join(walk(store, [(address, newest.name)]))
