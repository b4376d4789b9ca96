"""The files of versions, and those from outside, against what manifests say of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from popcorn_assets.audit.findings import Finding, Verdict
from popcorn_assets.audit.recorded import Records, place_of
from popcorn_assets.audit.sidecars import of_a_viewer
from popcorn_assets.audit.trail import FORM_ERRORS, Node, Trail, is_there
from popcorn_assets.store import catalogue
from popcorn_assets.store.sources import kept_source
from popcorn_assets.store.versions import (
    HISTORY,
    LATEST,
    MANIFEST,
    REJECTED,
    Address,
    Store,
    failed_checks,
    sha256,
    version_of,
)
from popcorn_ml.errors import StoreError, Unread

OURS = (LATEST, REJECTED, ".publishing.lock")
"""What lies in a partition's folder beside its versions."""

Found = tuple[int, str] | OSError
"""A file's size and sha256, or why it could not be read."""

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

    def read(path: Path) -> Found:
        try:
            return hasher(path)
        except OSError as error:
            return error

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing lets other threads go on
        found = dict(zip(paths, pool.map(read, paths), strict=True))
    for node in nodes:
        if node.manifest is not None:
            _judge_contents(node, listed[node.key], found)
        for outside in node.outside:
            expected = (outside.size, outside.sha256)
            about = f"{outside.path} (from outside)"
            there = found[outside.place]
            if there == expected:
                continue
            later = Verdict.OLDER if node.current else Verdict.OK
            kept = kept_source(store.root, outside.path, outside.sha256)
            if kept is not None and read(kept) == expected:
                place = kept.relative_to(store.root)
                node.find(later, about, f"superseded by a later file; it is kept at {place}")
            elif isinstance(there, OSError):
                node.find(*_unread(there, "it is no longer there", about))
            elif catalogue.holds(node.manifest, outside.path, outside.place):
                message = (
                    "the catalogue changed; the items that this was made from are as they were"
                )
                node.find(later, about, message)
            else:
                node.find(Verdict.CHANGED, about, _differs(expected, there))
    return sum(not isinstance(digest, OSError) for digest in found.values())


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


def _judge_contents(node: Node, listed: list[str], found: Mapping[Path, Found]) -> None:
    assert node.manifest is not None
    expected = node.manifest["files"]
    for name in sorted({*expected, *listed}):
        if name not in expected and (viewer := of_a_viewer(node.path / name)):
            node.find(Verdict.OK, name, viewer)
        elif name not in expected:
            node.find(Verdict.UNRECORDED, name, "the manifest does not name this file")
        elif name not in listed:
            node.find(*_unread(_why_not(node.path / name), "the manifest names this file", name))
        else:
            told = (expected[name]["size"], expected[name]["sha256"])
            there = found[node.path / name]
            if isinstance(there, OSError):
                node.find(*_unread(there, "the manifest names this file", name))
            elif there != told:
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


def _why_not(path: Path) -> OSError:
    """Why a file was not among those of its folder: it is gone, or the folder is closed to us."""
    try:
        path.lstat()
    except OSError as error:
        return error
    return FileNotFoundError(str(path))


def _unread(error: OSError, missing: str, about: str) -> tuple[Verdict, str, str]:
    """The finding of a file that could not be read: it is gone, or nothing can be said of it."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return Verdict.MISSING, about, missing
    return Verdict.NOT_JUDGED, about, f"it could not be read: {error.strerror}"


def _differs(expected: tuple[int, str], found: tuple[int, str]) -> str:
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
    except FileNotFoundError:
        return
    except OSError as error:
        message = f"it could not be read: {error.strerror}"
        trail.findings.append(Finding(Verdict.NOT_JUDGED, f"folder of {address}", message))
        return
    for entry in entries:
        name = entry.name
        ours = name in OURS or name.startswith((".draft-", f".{LATEST}.", f".{REJECTED}."))
        ours = ours or bool(of_a_viewer(entry))
        if ours or (address, name) in trail.nodes:
            continue
        about = f"{address}/{name}"
        if not is_there(entry / MANIFEST):
            message = "this is no version, and nothing of the store's"
            trail.findings.append(Finding(Verdict.UNRECORDED, about, message))
        elif not records.problem and name not in known:
            message = "a version that the warehouse does not know"
            trail.findings.append(Finding(Verdict.UNRECORDED, about, message))
    for row in lineage:
        version = str(row["version"])
        if not row["removed"] and not is_there(folder / version / MANIFEST):
            if (address, version) in trail.nodes:
                continue  # said of it already
            message = "the warehouse knows this version, the store no longer has it"
            trail.findings.append(Finding(Verdict.MISSING, f"{address}/{version}", message))


def tell_rejected(store: Store, trail: Trail, address: Address) -> None:
    """Remark on a version that was made after the current one and failed its checks."""
    try:
        rejected = store.rejected(address)
        if rejected is None:
            return
        failed = ", ".join(check["name"] for check in failed_checks(rejected))
    except StoreError as error:
        verdict = Verdict.NOT_JUDGED if isinstance(error, Unread) else Verdict.CHANGED
        told = Finding(verdict, f"{REJECTED} of {address}", error.what)
    else:
        stays = trail.latest.get(address) or "none"
        message = f"made since, it failed {failed} and did not become current; current is {stays}"
        told = Finding(Verdict.OK, f"{address} {rejected.version}", message)
    trail.findings.append(told)
