"""From an asset's version back to everything it was made from, as the manifests say it.

What is read here is not believed: a manifest may have been altered in any way, so whatever is not
of the expected form ends the trail there with a finding.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from popcorn_assets.audit.findings import Finding, Verdict
from popcorn_assets.store.manifests import SCHEMA
from popcorn_assets.store.sources import place_of_source
from popcorn_assets.store.versions import HISTORY, LATEST, MANIFEST, REJECTED, Address, Store
from popcorn_ml.errors import StoreError, Unread
from popcorn_ml.warehouse.lineage import lineage_rows, publication_of

Key = tuple[Address, str]
"""An asset's partition and a version of it."""

FORM_ERRORS = (KeyError, TypeError, ValueError, AttributeError, StoreError)
"""What reading a manifest of another form raises."""


@dataclass(frozen=True)
class Outside:
    """A file from outside the store that a version was made from.

    Attributes:
        path: as the manifest has it; from the store's root where it is below it.
        place: where that is.
        scene: the satellite image it belongs to, if it does.
    """

    path: str
    place: Path
    size: int
    sha256: str
    scene: str = ""


@dataclass
class Node:
    """One version on the trail.

    Attributes:
        manifest: None where it is missing or unreadable.
        manifest_sha256: of its file; empty where there is none.
        current: whether LATEST names it.
        history: digest -> earlier manifest of the same contents.
        findings: what is wrong with it so far.
    """

    address: Address
    version: str
    path: Path
    current: bool
    manifest: dict[str, Any] | None = None
    manifest_sha256: str = ""
    inputs: list[Key] = field(default_factory=list)
    outside: list[Outside] = field(default_factory=list)
    history: dict[str, dict[str, Any]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def key(self) -> Key:
        return self.address, self.version

    def find(self, verdict: Verdict, about: str, message: str) -> None:
        """Add a finding."""
        self.findings.append(Finding(verdict, about, message))


@dataclass
class Trail:
    """All versions on the way, those asked for first.

    Attributes:
        latest: what LATEST names, for every partition that was looked at.
        unread: partitions whose LATEST could not be read: which version is current is not known.
        findings: of places where there is no version to say it of.
    """

    nodes: dict[Key, Node] = field(default_factory=dict)
    roots: list[Key] = field(default_factory=list)
    latest: dict[Address, str | None] = field(default_factory=dict)
    unread: set[Address] = field(default_factory=set)
    findings: list[Finding] = field(default_factory=list)

    def join(self, other: Trail) -> None:
        """Take over what another trail has that this one has not."""
        self.nodes.update({k: v for k, v in other.nodes.items() if k not in self.nodes})
        self.latest.update(other.latest)
        self.unread |= other.unread
        self.findings += other.findings
        self.roots += other.roots

    def tops(self) -> list[Key]:
        """The roots that nothing else on the trail was made from."""
        used = {key for node in self.nodes.values() for key in node.inputs}
        tops = [key for key in self.roots if key not in used] or self.roots
        return sorted(tops, key=lambda key: not key[0].asset.endswith("map"))


def walk(store: Store, roots: Iterable[Address | Key]) -> Trail:
    """Follow manifests from the roots to their ends.

    Args:
        roots: partitions, of which LATEST is taken, or given versions.
    """
    trail = Trail()
    todo: list[Key] = []
    for root in roots:
        key = root if isinstance(root, tuple) else _current(store, trail, root)
        if key is not None and key not in todo:
            todo.append(key)
    trail.roots = list(todo)
    while todo:
        key = todo.pop(0)
        if key not in trail.nodes:
            node = read_node(store, trail, key)
            trail.nodes[key] = node
            todo += node.inputs
    return trail


def latest_of(store: Store, trail: Trail, address: Address) -> str | None:
    """What LATEST of a partition names; None where it is missing or names nothing whole."""
    if address not in trail.latest:
        path = store.folder(address) / LATEST
        try:
            found = store.find(address)
            trail.latest[address] = found.version if found else None
            if found and path.read_bytes() != f"{found.version}\n".encode():
                message = "has more in it than a version"
                trail.findings.append(Finding(Verdict.CHANGED, f"{LATEST} of {address}", message))
        except (StoreError, OSError, ValueError) as error:
            trail.latest[address] = None
            what = getattr(error, "what", str(error))
            verdict = Verdict.CHANGED
            if isinstance(error, OSError | Unread):
                trail.unread.add(address)
                verdict = Verdict.NOT_JUDGED
            trail.findings.append(Finding(verdict, f"{LATEST} of {address}", f"{what}: {path}"))
    return trail.latest[address]


def _current(store: Store, trail: Trail, address: Address) -> Key | None:
    version = latest_of(store, trail, address)
    if version is None:
        told = any(str(address) in finding.about for finding in trail.findings)
        if not told and not (store.folder(address) / REJECTED).is_file():
            message = "there is none, though this was published once"
            trail.findings.append(Finding(Verdict.MISSING, f"{LATEST} of {address}", message))
        return None
    return address, version


def read_node(store: Store, trail: Trail, key: Key) -> Node:
    """A version with what its manifest says, or with a finding of why it cannot be read."""
    address, version = key
    path = store.folder(address) / version
    node = Node(address, version, path, current=latest_of(store, trail, address) == version)
    if not is_there(path):
        node.find(Verdict.MISSING, "version", f"it is not in the store: {path}")
        return node
    try:
        content = (path / MANIFEST).read_bytes()
        node.manifest_sha256 = hashlib.sha256(content).hexdigest()
        manifest = json.loads(content)
        node.inputs = [
            (Address(entry["asset"], entry["country"], entry["year"]), _version(entry))
            for entry in manifest["inputs"]
        ]
        node.outside = _outside(store, manifest)
        _whole(manifest)
    except FileNotFoundError:
        node.find(Verdict.MISSING, MANIFEST, f"it is not in {path}")
        return node
    except OSError as error:
        node.find(Verdict.NOT_JUDGED, MANIFEST, f"it could not be read: {error.strerror}")
        node.inputs, node.outside = [], []
        return node
    except FORM_ERRORS as error:
        told = f"{type(error).__name__}: {error}"
        if age := older_form(content):
            node.find(Verdict.NOT_JUDGED, MANIFEST, f"{age}: materialise {address} again")
        else:
            node.find(Verdict.CHANGED, MANIFEST, f"it is not what was written: {told[:200]}")
        node.inputs, node.outside = [], []
        return node
    node.manifest = manifest
    for kept in sorted((path / HISTORY).glob("*")):
        _read_history(node, kept)
    return node


def is_there(path: Path) -> bool:
    """Whether something is there, also where this user may not look into it."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def older_form(content: bytes) -> str:
    """How old a manifest is that an earlier version of this project wrote in another form."""
    try:
        schema = json.loads(content).get("schema")
    except (ValueError, AttributeError):
        return ""
    if isinstance(schema, int) and not schema < SCHEMA:
        return ""
    number = f"has schema {schema}" if isinstance(schema, int) else "has no schema number"
    return f"it is of an older form ({number}; this code reads {SCHEMA})"


def _read_history(node: Node, kept: Path) -> None:
    try:
        content = kept.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if kept.name != f"{digest}.json":
            node.find(Verdict.CHANGED, f"{HISTORY}/{kept.name}", "its name is not its digest")
            return
        manifest = json.loads(content)
        _whole(manifest)
        node.history[digest] = manifest
    except OSError as error:
        message = f"it could not be read: {error.strerror}"
        node.find(Verdict.NOT_JUDGED, f"{HISTORY}/{kept.name}", message)
    except FORM_ERRORS as error:
        node.find(Verdict.CHANGED, f"{HISTORY}/{kept.name}", f"it cannot be read: {error}")


def _whole(manifest: dict[str, Any]) -> None:
    """Raise one of FORM_ERRORS for a manifest that lacks what an audit reads."""
    lineage_rows(manifest), publication_of(manifest, "")
    Address(manifest["asset"], manifest["country"] or None, manifest["year"] or None)
    for name, entry in manifest["files"].items():
        if not isinstance(name, str) or name.startswith("/") or ".." in name.split("/"):
            raise ValueError(f"a file is named {name!r}")
        int(entry["size"]), str(entry["sha256"])
    manifest["code"]["version"], manifest["libraries"].items(), manifest["parameters"].items()
    for title, _ in manifest["shown"]:
        title.lower()
    for check in manifest["checks"]:
        check["name"], check["passed"], check["message"], check["severity"]


def _version(entry: dict[str, Any]) -> str:
    version = entry["version"]
    if not isinstance(version, str) or len(version) != 16 or not version.isalnum():
        raise ValueError(f"an input has version {version!r}")
    return version


def _outside(store: Store, manifest: dict[str, Any]) -> list[Outside]:
    entries = [*manifest["sources"], *manifest["facts"].get("scene_files", ())]
    return [
        Outside(
            entry["path"],
            place_of_source(store.root, entry["path"]),
            entry["size"],
            entry["sha256"],
            entry.get("scene", ""),
        )
        for entry in entries
    ]


def scenes_of(node: Node) -> list[dict[str, Any]]:
    """The satellite images that left a pixel in a version."""
    if node.manifest is None:
        return []
    facts = node.manifest["facts"]
    other = facts.get("other_orbit") or {}
    return [*(facts.get("scenes") or []), *(other.get("scenes") or [])]
