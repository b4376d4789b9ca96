"""The files of versions, and those from outside, against what manifests say of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from popcorn_assets.audit.findings import Finding, Verdict
from popcorn_assets.audit.recorded import Records, place_of
from popcorn_assets.audit.trail import FORM_ERRORS, Node, Trail
from popcorn_assets.store import catalogue
from popcorn_assets.store.sources import kept_source
from popcorn_assets.store.versions import (
    HISTORY,
    LATEST,
    MANIFEST,
    Address,
    Store,
    sha256,
    version_of,
)

Hasher = Callable[[Path], tuple[int, str]]
"""A file's size and sha256."""


def size_and_digest(path: Path) -> tuple[int, str]:
    """Of a file as it is now."""
    return path.stat().st_size, sha256(path)


def judge_files(store: Store, nodes: Iterable[Node], hasher: Hasher) -> int:
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


def judge_folder(store: Store, trail: Trail, address: Address, records: Records) -> None:
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
