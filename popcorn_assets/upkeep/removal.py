"""One thing that may go, and taking it away so that a kill at any moment leaves a sound store."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from popcorn_assets.promotion.entries import MODELS
from popcorn_assets.promotion.ledger import removing
from popcorn_assets.store.versions import LATEST, Address, Store, sha256
from popcorn_assets.upkeep.inventory import Kept, Key, made_at, reachable
from popcorn_ml.compute.locks import try_lock
from popcorn_ml.errors import StoreError
from popcorn_ml.files import remove_tree, sync

TRASH = ".trash"


@dataclass(frozen=True)
class Removal:
    """One thing that may go.

    Attributes:
        kind: "version", "draft", "work", "steps", "half-written", "damaged" or "lock".
        why: half a sentence.
        version: the version it is, if it is one.
    """

    kind: str
    path: Path
    size: int
    why: str
    version: Kept | None = None

    def __str__(self) -> str:
        name = f"{self.version.address} {self.version.version}" if self.version else str(self.path)
        return f"{self.kind} {name}, {told_size(self.size)}: {self.why}"


def require_writable(store: Store) -> None:
    """Refuse, before anything is removed, what this user may not do.

    Raises:
        StoreError: the store or the warehouse cannot be written.
    """
    for path in (store.root, store.warehouse):
        if path.exists() and not os.access(path, os.W_OK, effective_ids=True):
            raise StoreError(
                "nothing can be removed: this user may not write here",
                where=path,
                found=f"it belongs to user {path.stat().st_uid}; this is user {os.geteuid()}",
                remedy="work as the user whom the store belongs to",
            )


def apply(store: Store, removals: Sequence[Removal]) -> Iterator[tuple[Removal, str | None]]:
    """Remove what was planned, one thing at a time; each with None, or why it stayed after all.

    A thing is renamed aside first and deleted then, so that a kill leaves it whole or leaves
    something that nothing reads and the next time clears away. A version goes before those it was
    made from, so that no version is ever left without an input that it had.
    """
    _empty_trash(store)
    _correct_marks(store, {removal.version.key for removal in removals if removal.version})
    needed: set[Key] = set()
    found = {removal.version.key: removal.version for removal in removals if removal.version}
    for removal in removals:
        version = removal.version
        if version is not None and version.key in needed:
            problem: str | None = "a version that stayed needs it"
        else:
            problem = _remove(store, removal)
        if problem and version is not None:
            needed |= reachable(found, {version.key})
        yield removal, problem


def _remove(store: Store, removal: Removal) -> str | None:
    """Remove one thing, or say why not."""
    try:
        if removal.version is not None:
            return _remove_version(store, removal.version)
        return _remove_other(store, removal)
    except OSError as error:  # such as a folder behind a link to another disk, or another user's
        return f"{error.filename or removal.path}: {error.strerror}"


def _remove_version(store: Store, version: Kept) -> str | None:
    """Remove a version, or say why not; no run of its partition publishes meanwhile."""
    folder = store.folder(version.address)
    with _held(folder / ".publishing.lock") as held:
        if not held:
            return "a run is publishing there"
        current = store.find(version.address)
        if current is None and not version.rejected:
            return f"its partition has lost its {LATEST}"
        if current is not None and current.version == version.version:
            return "it has become the current version"
        if not version.path.is_dir():
            return None
        if os.geteuid() not in (0, owner := version.path.stat().st_uid):
            return f"it belongs to another user, number {owner}"
        if made_at(version.path) != version.made:
            return "it was published again"
        # Only models are promoted; a decision since the planning may name this one.
        promotable = version.address.asset in MODELS.values()
        decided: AbstractContextManager[set[Key]] = nullcontext(set())
        with removing(store) if promotable else decided as named:
            if version.key in named:
                return "a promotion names it by now"
            _record_removal(store, version)
            aside = folder / f".draft-{uuid.uuid4().hex}"  # the store clears such away too
            os.replace(version.path, aside)
            sync(folder)
    remove_tree(aside)
    return None


def _record_removal(store: Store, version: Kept) -> None:
    """Tell the warehouse before the folder goes, so that the audit does not miss it."""
    from popcorn_ml.warehouse.warehouse import Warehouse

    if store.warehouse.exists():
        address = version.address
        Warehouse(store.warehouse).mark_removed(
            [(address.asset, address.country, address.year, version.version)]
        )


def _correct_marks(store: Store, going: set[Key]) -> None:
    """Tell the warehouse of versions that stay after all: a killed gc said they were removed."""
    from popcorn_ml.warehouse.warehouse import Warehouse

    if not store.warehouse.exists():
        return
    warehouse = Warehouse(store.warehouse)
    marked: dict[Key, set[str]] = {}
    for asset, country, year, version, digest in warehouse.query(
        "SELECT asset, country, year, version, manifest_sha256 FROM versions WHERE removed"
    ):
        address = Address(asset, country, year) if country else Address(asset)
        marked.setdefault((address, version), set()).add(digest)
    for (address, version), digests in marked.items():
        folder = store.folder(address)
        if (address, version) in going or not (folder / version).is_dir():
            continue
        with _held(folder / ".publishing.lock") as held:
            there = {sha256(path) for of, path in store.manifests(address) if of == version}
            if held and there & digests:
                warehouse.mark_there(there & digests)


def _remove_other(store: Store, removal: Removal) -> str | None:
    path = removal.path
    if removal.kind in ("half-written", "damaged"):
        path.unlink(missing_ok=True)
        return None
    if removal.kind == "lock":
        return None if _with_all([path], lambda: path.unlink(missing_ok=True)) else "it is in use"
    if removal.kind == "draft":
        with _held(path.with_name(f"{path.name}.lock")) as held:
            if not held:
                return "its writer is back"
            remove_tree(path)
            path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
        return None
    aside = store.root / ".work" / TRASH / uuid.uuid4().hex
    aside.parent.mkdir(exist_ok=True)
    if removal.kind == "steps":
        _move(path, aside)
    elif not _with_all(locks := work_locks(path), lambda: _move(path, aside, locks)):
        return "a run works on it"
    remove_tree(aside)
    return None


def _move(path: Path, aside: Path, locks: Iterable[Path] = ()) -> None:
    """Move a folder aside, and remove its locks, which we hold: who waits for one makes it anew."""
    if path.exists():
        os.replace(path, aside)
        sync(path.parent)
    for lock in locks:
        lock.unlink(missing_ok=True)


def _with_all(locks: list[Path], act: Callable[[], None]) -> bool:
    """Act while holding every lock; False where one is another's."""
    if not locks:
        act()
        return True
    with _held(locks[0]) as held:
        return held and _with_all(locks[1:], act)


def _empty_trash(store: Store) -> None:
    remove_tree(store.root / ".work" / TRASH)


@contextmanager
def _held(path: Path) -> Iterator[bool]:
    """Hold a lock if nobody else does; whether it is held."""
    lock = try_lock(path)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            os.close(lock)


def work_locks(folder: Path) -> list[Path]:
    """The lock of a work folder, which need not exist, and those of its parts."""
    parts = folder.parent.glob(f"{folder.name}.*.lock")
    return [folder.with_name(f"{folder.name}.lock"), *sorted(parts)]


def told_size(size: float) -> str:
    """Bytes as a person reads them."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit in ("bytes", "kB") else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
