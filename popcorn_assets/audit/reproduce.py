"""Making a version again from exactly the versions its manifest names, and comparing the two.

It is made in a process of its own, by the asset's own code, against a store that holds nothing but
what the manifest names; the real store is only read.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from popcorn_assets.assets.builtup import RAN
from popcorn_assets.audit.closeness import PICTURES, TOLERANCE, rasters_apart
from popcorn_assets.audit.trail import Node, walk
from popcorn_assets.country import load_country
from popcorn_assets.promotion.entries import STUDENT
from popcorn_assets.promotion.ledger import DEPLOYED
from popcorn_assets.promotion.students import is_trained
from popcorn_assets.store.manifests import SCHEMA
from popcorn_assets.store.recipe import ROWS
from popcorn_assets.store.sources import kept_source, with_companions
from popcorn_assets.store.versions import LATEST, MANIFEST, Address, Store, Version, sha256
from popcorn_ml.compute.locks import held
from popcorn_ml.errors import ConfigError, StoreError
from popcorn_ml.warehouse.warehouse import Warehouse

MAPS = ("population_map", "adjusted_map", "hectare_map")


@dataclass
class Remade:
    """A version and what was made again from the same inputs.

    Attributes:
        version, again: the two versions; equal when every byte is.
        files: those that differ, or that only one has, and how.
        differences: what else is not as it was: settings, code, libraries, engine.
        apart: how far the rasters that differ are from one another, of their largest values; None
            where anything else differs than rasters and their pictures.
    """

    address: Address
    version: str
    again: str
    files: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    apart: float | None = None

    @property
    def identical(self) -> bool:
        return self.version == self.again

    @property
    def equal(self) -> bool:
        """Whether it is the same but for what another processor or engine rounds differently."""
        return self.identical or (self.apart is not None and self.apart <= TOLERANCE)


def reproduce(store: Store, address: Address) -> Remade:
    """Make an asset's current version again from its manifest.

    Raises:
        StoreError: it is not there, it or what it was made from is not whole, it is a decision
            rather than a result, or making it again failed.
    """
    if address.asset == DEPLOYED:
        raise StoreError(
            f"{address} is a decision, kept in the ledger, and cannot be computed again",
            where=store.root,
            remedy="see popcorn models, and reproduce the maps",
        )
    found = store.find(address) if address.asset == STUDENT else None
    if found is not None and not is_trained(found.path):
        raise StoreError(
            f"{address} holds no student: none was asked for",
            where=found.path,
            remedy="there is nothing to make again; reproduce the checkpoints",
        )
    trail = walk(store, [address])
    node = trail.nodes.get(trail.roots[0]) if trail.roots else None
    if node is not None:
        _require_form(node)
    if node is None or node.manifest is None:
        reasons = [*trail.findings, *(node.findings if node else [])]
        raise StoreError(
            f"{address} has no version that can be made again",
            where=store.folder(address),
            found="; ".join(map(str, reasons)),
            remedy=f"popcorn audit {address.country} {address.year}",
        )
    for other in trail.nodes.values():
        _require_form(other)
    with _bench(store) as root:
        _lay_out(store, list(trail.nodes.values()), node, root)
        unsaid = _grid_of_today(store, node, root)
        made = _make(root, address)
        remade = _compare(node, made)
    remade.differences += [
        f"its manifest does not name {path}, which its grid is taken from: today's was read"
        for path in unsaid
    ]
    return remade


def _require_form(node: Node) -> None:
    """Refuse what cannot be read for its age.

    Raises:
        StoreError: the manifest is not of the form that this code reads.
    """
    schema = None if node.manifest is None else node.manifest.get("schema")
    aged = [one for one in node.findings if one.about == MANIFEST and "older form" in one.message]
    if aged or (node.manifest is not None and schema != SCHEMA):
        raise StoreError(
            f"the manifest of {node.address} is of another form than this code reads, and does not "
            "say all that is needed to make it again",
            where=node.path / MANIFEST,
            expected=f"schema {SCHEMA}",
            found=aged[0].message if aged else f"schema {schema or 'not given: it is older'}",
            remedy=f"materialise {node.address}, and what is made from it, again; or reproduce it "
            "with the version of this project that made it",
        )


def _grid_of_today(store: Store, node: Node, root: Path) -> list[str]:
    """Lay out the file that the country's grid is taken from, where no manifest on the way has it.

    Versions made before it was noted need it too. Their manifest has the grid, which is compared.

    Returns:
        The files, from the store's root.
    """
    country = node.address.country
    try:
        files = load_country(country).grid_files() if country else []
    except ConfigError:
        return []  # making it again says why
    unsaid = []
    for file in (one for path in files if path.is_file() for one in with_companions(path)):
        if not file.is_relative_to(store.root):
            continue
        name = file.relative_to(store.root)
        if not (root / name).exists():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            _have(file, root / name)
            unsaid.append(name.as_posix())
    return unsaid


@contextmanager
def _bench(store: Store) -> Iterator[Path]:
    """An empty folder in the store's work, where files need no copying, or else elsewhere."""
    beside = store.root / ".work" / "reproduce"
    try:
        beside.mkdir(parents=True, exist_ok=True)
        folder: Path | None = beside
    except OSError:
        folder = None  # a store that cannot be written
    try:
        with tempfile.TemporaryDirectory(prefix="remade-", dir=folder) as root, _busy(Path(root)):
            yield Path(root)
    finally:
        with suppress(OSError):  # another may be at it
            beside.rmdir()


@contextmanager
def _busy(root: Path) -> Iterator[None]:
    """Hold the lock by which `popcorn gc` knows that a bench is in use."""
    lock = root.with_name(f"{root.name}.lock")
    with held(lock):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _lay_out(store: Store, nodes: list[Node], node: Node, root: Path) -> None:
    """A store with what a version was made from, all of it as its manifest has it."""
    bench = Store(root)
    for other in nodes:
        if other is node or not other.path.is_dir():
            continue
        target = bench.folder(other.address) / other.version
        named = (other.manifest or {}).get("files", {})
        for name in (*named, MANIFEST):  # not what a viewer left beside them
            if (other.path / name).is_file():
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                _have(other.path / name, target / name)
    for address, version in node.inputs:
        source = store.folder(address) / version
        if not source.is_dir():
            raise StoreError(
                f"{node.address} was made from a version that is no longer in the store",
                where=source,
                remedy="restore it from a backup, or materialise the partition again",
            )
        (bench.folder(address) / LATEST).write_text(f"{version}\n")
    if (node.manifest or {}).get("parameters", {}).get(ROWS):
        for other in nodes:
            if (other.address, other.path.name) in node.inputs:
                _have_rows(store, bench, other)
    for one in node.outside:
        found = one.place
        if not found.is_file() or sha256(found) != one.sha256:
            found = kept_source(store.root, one.path, one.sha256) or found
        if not found.is_file() or sha256(found) != one.sha256:
            raise StoreError(
                f"{node.address} was made from a file that is no longer the same",
                where=one.place,
                expected=f"sha256 {one.sha256}",
                found="another file" if one.place.is_file() else "no file",
                remedy="restore it, or materialise the partition again",
            )
        if one.place.is_relative_to(store.root):
            target = root / one.place.relative_to(store.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                _have(found, target)


def _have_rows(store: Store, bench: Store, node: Node) -> None:
    """Give the bench the warehouse's rows of a version, if they are still those that it wrote.

    Where they are not, what reads them says so.
    """
    manifest, digest = node.manifest or {}, sha256(node.path / MANIFEST)
    tables = manifest.get("tables") or {}
    warehouse, place = Warehouse(store.warehouse), node.address
    owner = (place.asset, place.country or "", place.year or 0)
    if tables and warehouse.digests(*owner, tables) == tables:
        rows = warehouse.rows_of(*owner, tables)
        Warehouse(bench.warehouse).record_publication(manifest, digest, rows)


def _have(source: str | Path, target: str | Path) -> None:
    """The same file under another name, or a copy where the file system cannot."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _make(root: Path, address: Address) -> Version:
    command = [sys.executable, "-m", "popcorn_assets.audit.remake"]
    command += [address.asset, address.country or "", str(address.year or "")]
    environment = {**os.environ, "POPCORN_DATA": str(root)}
    environment.setdefault("POPCORN_LAUNCHER", "inline")
    done = subprocess.run(
        command, env=environment, cwd=root, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise StoreError(
            f"{address} could not be made again",
            where=root,
            found=(done.stderr or done.stdout).strip()[-2000:],
            remedy="see the message above; the store is as it was",
        )
    return Store(root).latest(address)


def _compare(node: Node, made: Version) -> Remade:
    assert node.manifest is not None
    old, new = node.manifest, made.manifest()
    remade = Remade(node.address, node.version, made.version)
    for name in sorted({*old["files"], *new["files"]}):
        if name not in new["files"]:
            remade.files.append(f"{name} was not made again")
        elif name not in old["files"]:
            remade.files.append(f"{name} was not there before")
        elif old["files"][name]["sha256"] != new["files"][name]["sha256"]:
            one, other = old["files"][name], new["files"][name]
            sizes = f"{one['size']} and {other['size']} bytes"
            remade.files.append(f"{name} has other contents ({sizes})")
    remade.apart = _apart(node.path, made.path, old["files"], new["files"])
    if sorted(map(str, old["inputs"])) != sorted(map(str, new["inputs"])):
        remade.differences.append("it read other inputs than its manifest names")
    for title, key in (("setting", "parameters"), ("library", "libraries")):
        remade.differences += [f"{title} {text}" for text in _differing(old[key], new[key], "")]
    ran = [_engines(one) for one in (old, new)]
    if ran[0] != ran[1]:
        remade.differences.append(f"{RAN} {ran[0] or 'torch'}, here by {ran[1] or 'torch'}")
    if old["code"]["version"] != new["code"]["version"]:
        commits = [str(one["code"].get("commit"))[:10] for one in (old, new)]
        remade.differences.append(
            f"code {old['code']['version']} (commit {commits[0]}) was, "
            f"{new['code']['version']} (commit {commits[1]}) is here"
        )
    return remade


def _engines(manifest: dict[str, Any]) -> str:
    """What ran a map's networks; empty where no manifest says, as before there was a choice."""
    ran = manifest.get("facts", {}).get(RAN) or []
    return ", ".join(
        f"{one['engine']} {one['version']} in {one['precision']} on {one['device']}" for one in ran
    )


def _apart(old: Path, new: Path, was: dict[str, Any], now: dict[str, Any]) -> float | None:
    """See `Remade.apart`."""
    if set(was) != set(now):
        return None
    differing = [Path(name) for name in was if was[name]["sha256"] != now[name]["sha256"]]
    rasters = [name for name in differing if name.suffix == ".tif"]
    if not rasters or any(name.suffix not in (".tif", *PICTURES) for name in differing):
        return None
    found = [rasters_apart(old / name, new / name) for name in rasters]
    known = [one for one in found if one is not None]
    return max(known) if len(known) == len(found) else None


def _differing(old: Any, new: Any, where: str) -> list[str]:
    """Leaves of two nested values that differ, as "name was X, is Y"."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new}, key=str)
        nested = [_differing(old.get(k), new.get(k), f"{where}.{k}" if where else k) for k in keys]
        return [text for texts in nested for text in texts]
    return [] if old == new else [f"{where} was {old}, is {new}"]
