"""What `popcorn gc` may remove from the store, why, and how: superseded versions and left-overs.

A version stays while anything that counts needs it: every partition's current versions and its
newest few, whatever a promotion ledger names, what is younger than a stated age or might be in
the hands of a run under way; and, through the inputs in their manifests, earlier manifests
included, all that these were made from. So what is kept can always be traced to its sources.

Nothing here asks or prints; Dagster's own records are `retention`'s business.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from popcorn_assets.ledger import CHECKPOINTS, removing
from popcorn_assets.store import (
    LATEST,
    MANIFEST,
    NAME_PATTERN,
    VERSION_PATTERN,
    Address,
    Store,
)
from popcorn_ml.errors import StoreError
from popcorn_ml.files import sync

DAY_S = 86_400.0
HALF_WRITTEN_S = DAY_S
"""Age at which a file that was being written counts as left by a writer that was killed."""

TRASH = ".trash"
STEPS = "steps"
_YEAR = re.compile(r"\d{4}")

Key = tuple[Address, str]
"""An address and one of its versions."""


@dataclass(frozen=True)
class Kept:
    """One version in the store.

    Attributes:
        made: when its manifest was last written, seconds since 1970.
        superseded: when another version took its place; None for the current one.
        inputs: versions it was made from, by any of its manifests.
        size: bytes.
    """

    address: Address
    version: str
    path: Path
    made: float
    superseded: float | None
    inputs: frozenset[Key]
    size: int

    @property
    def key(self) -> Key:
        return self.address, self.version


@dataclass(frozen=True)
class Removal:
    """One thing that may go.

    Attributes:
        kind: "version", "draft", "work", "steps", "half-written" or "lock".
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


@dataclass(frozen=True)
class Plan:
    """What may be removed, in the order in which it is safe to, and what stays and why.

    Attributes:
        stays: reason -> number of versions and their bytes.
    """

    removals: list[Removal]
    stays: dict[str, tuple[int, int]]

    @property
    def size(self) -> int:
        return sum(removal.size for removal in self.removals)


def plan(
    store: Store,
    *,
    keep: int = 1,
    older_than_days: float = 30.0,
    ledger: Iterable[Key] = (),
    in_use_since: float | None = None,
    unfinished_runs: Iterable[str] = (),
    now: float | None = None,
) -> Plan:
    """What could be removed now; removes nothing.

    Args:
        keep: newest versions of each partition to keep, the current one counted.
        older_than_days: what was superseded, or last used, later than this many days ago stays.
        ledger: versions that promotions name.
        in_use_since: when the oldest run that has not finished began, seconds since 1970: what
            was current or in use since then may be in its hands.
        unfinished_runs: runs, and those they repeat, whose steps' values stay.

    Raises:
        StoreError: something that stays cannot say what it was made from, so that nothing can be
            said to be needless.
    """
    now = time.time() if now is None else now
    horizon = min(now - older_than_days * DAY_S, now if in_use_since is None else in_use_since)
    found = {version.key: version for version in versions(store)}
    reasons = _roots(found, keep, horizon, set(ledger))
    _require_readable(found, reasons)
    for key in _reachable(found, reasons):
        reasons.setdefault(key, "what those were made from")
    going = [version for key, version in found.items() if key not in reasons]
    stays: dict[str, tuple[int, int]] = {}
    for key, reason in reasons.items():
        count, size = stays.get(reason, (0, 0))
        stays[reason] = count + 1, size + found[key].size
    days = {version.key: (now - (version.superseded or version.made)) / DAY_S for version in going}
    removals = [
        Removal(
            "version",
            version.path,
            version.size,
            f"superseded {days[version.key]:.0f} days ago, and nothing that is kept needs it",
            version,
        )
        for version in _dependents_first(going)
    ]
    left = [
        *_drafts(store),
        *_half_written(store, now - HALF_WRITTEN_S),
        *_work(store, horizon),
        *_killed(store, now - HALF_WRITTEN_S),
        *_steps(store, horizon, set(unfinished_runs)),
    ]
    return Plan([*removals, *left], stays)


def apply(store: Store, planned: Plan) -> Iterator[tuple[Removal, str | None]]:
    """Remove what was planned, one thing at a time; each with None, or why it stayed after all.

    A thing is renamed aside first and deleted then, so that a kill leaves it whole or leaves
    something that nothing reads and the next time clears away. A version goes before those it was
    made from, so that no version is ever left without an input that it had.
    """
    _empty_trash(store)
    needed: set[Key] = set()
    found = {
        removal.version.key: removal.version for removal in planned.removals if removal.version
    }
    for removal in planned.removals:
        version = removal.version
        if version is not None:
            problem = "a version that stayed needs it" if version.key in needed else None
            problem = problem or _remove_version(store, version)
            if problem:
                needed |= _reachable(found, {version.key})
        else:
            problem = _remove_other(store, removal)
        yield removal, problem


def versions(store: Store) -> list[Kept]:
    """Every version in the store, current or not."""
    return [version for folder in _folders(store) for version in _versions_in(store, folder)]


def told_size(size: float) -> str:
    """Bytes as a person reads them."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit in ("bytes", "kB") else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


# What is there ------------------------------------------------------------------------------------


def _folders(store: Store) -> Iterator[Address]:
    """Addresses that have a folder with versions, drafts or a LATEST."""
    for asset in _subfolders(store.root, NAME_PATTERN):
        if _is_place(asset):
            yield Address(asset.name)
        for country in _subfolders(asset, NAME_PATTERN):
            for year in _subfolders(country, _YEAR):
                if _is_place(year) and 1900 <= int(year.name) <= 2999:
                    yield Address(asset.name, country.name, int(year.name))


def _subfolders(folder: Path, name: re.Pattern[str]) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if name.fullmatch(path.name) and path.is_dir() and not path.is_symlink()
    )


def _is_place(folder: Path) -> bool:
    return (folder / LATEST).exists() or any(folder.glob(".draft-*"))


def _versions_in(store: Store, address: Address) -> list[Kept]:
    folder = store.folder(address)
    current = store.find(address)  # raises where LATEST points nowhere: nothing is safe to judge
    paths = [path for path in _subfolders(folder, VERSION_PATTERN) if (path / MANIFEST).is_file()]
    made = {path.name: (path / MANIFEST).stat().st_mtime for path in paths}
    switched = (folder / LATEST).stat().st_mtime if current else 0.0
    result = []
    for path in paths:
        later = [m for name, m in made.items() if m > made[path.name] and name != path.name]
        superseded = min(later, default=max(switched, made[path.name]))
        is_current = current is not None and current.version == path.name
        result.append(
            Kept(
                address,
                path.name,
                path,
                made[path.name],
                None if is_current else superseded,
                _inputs(path),
                _size(path),
            )
        )
    return result


def _inputs(path: Path) -> frozenset[Key]:
    """What any manifest of a version names as an input; `_UNREADABLE` where one cannot be read."""
    found: set[Key] = set()
    for manifest in (path / MANIFEST, *sorted(path.glob(".history/*.json"))):
        try:
            entries: list[dict[str, Any]] = json.loads(manifest.read_text("utf-8"))["inputs"]
            found |= {
                (Address(entry["asset"], entry["country"], entry["year"]), str(entry["version"]))
                for entry in entries
            }
        except (OSError, ValueError, KeyError, TypeError, StoreError):
            found.add(_UNREADABLE)
    return frozenset(found)


_UNREADABLE: Key = (Address("unreadable"), "")


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(entry.stat().st_size for entry in path.rglob("*") if entry.is_file())


# What stays ---------------------------------------------------------------------------------------


def _roots(found: dict[Key, Kept], keep: int, horizon: float, ledger: set[Key]) -> dict[Key, str]:
    """Versions that stay for their own sake, and why."""
    reasons: dict[Key, str] = {}
    newest: dict[Address, list[Kept]] = {}
    for version in sorted(found.values(), key=lambda v: v.made, reverse=True):
        newest.setdefault(version.address, []).append(version)
    chosen = {
        version.key
        for those in newest.values()
        for version in sorted(those, key=lambda v: v.superseded is not None)[: max(keep, 1)]
    }
    for key, version in found.items():
        if version.superseded is None:
            reasons[key] = "current"
        elif key in ledger:
            reasons[key] = "named by a promotion"
        elif key in chosen:
            reasons[key] = "among the newest of its partition"
        elif max(version.superseded, version.made) >= horizon:
            reasons[key] = "too young, or in use by a run"
    return reasons


def _reachable(found: dict[Key, Kept], start: Iterable[Key]) -> set[Key]:
    """`start` and all that these were made from, as far as the store has it."""
    seen: set[Key] = set()
    waiting = [key for key in start if key in found]
    while waiting:
        key = waiting.pop()
        if key not in seen:
            seen.add(key)
            waiting += [other for other in found[key].inputs if other in found]
    return seen


def _require_readable(found: dict[Key, Kept], roots: Iterable[Key]) -> None:
    for key in sorted(_reachable(found, roots), key=str):
        if _UNREADABLE in found[key].inputs:
            raise StoreError(
                f"version {key[1]} of {key[0]} does not say what it was made from; "
                "nothing was removed",
                where=found[key].path / MANIFEST,
                expected="a manifest that lists its inputs",
                remedy=f"materialise {key[0]} again, or restore the manifest from a backup",
            )


def _dependents_first(going: list[Kept]) -> list[Kept]:
    """The same, each before those it was made from."""
    among = {version.key: version for version in going}
    ordered: list[Kept] = []
    done: set[Key] = set()
    for start in sorted(among, key=str):
        stack: list[tuple[Key, bool]] = [(start, False)]
        while stack:
            key, expanded = stack.pop()
            if expanded:
                ordered.append(among[key])
            elif key not in done:
                done.add(key)
                stack.append((key, True))
                inputs = sorted(among[key].inputs, key=str)
                stack += [(other, False) for other in inputs if other in among]
    return ordered[::-1]  # inputs come first in `ordered`


# Left-overs ---------------------------------------------------------------------------------------


def _drafts(store: Store) -> Iterator[Removal]:
    for address in _folders(store):
        for path in sorted(store.folder(address).glob(".draft-*")):
            if path.suffix == ".lock":
                if not path.with_suffix("").exists() and _is_free(path):
                    yield Removal("lock", path, 0, "of a draft that is gone")
            elif _is_free(path.with_name(f"{path.name}.lock")):
                yield Removal("draft", path, _size(path), "its writer is gone")


def _half_written(store: Store, before: float) -> Iterator[Removal]:
    for address in _folders(store):
        folder = store.folder(address)
        for path in (*folder.glob(f".{LATEST}.*"), *folder.glob("*/.manifest.*.json")):
            if path.is_file() and path.stat().st_mtime < before:
                yield Removal("half-written", path, _size(path), "its writer is gone")


def _work(store: Store, horizon: float) -> Iterator[Removal]:
    """Half-done work that nobody has touched since."""
    root = store.root / ".work"
    places = [
        place
        for asset in _subfolders(root, NAME_PATTERN)
        if asset.name != STEPS
        for place in (
            asset,
            *(y for c in _subfolders(asset, NAME_PATTERN) for y in _subfolders(c, _YEAR)),
        )
    ]
    for place in places:
        for folder in _subfolders(place, VERSION_PATTERN):
            used = _last_used(folder)
            if used < horizon and all(map(_is_free, _work_locks(folder))):
                yield Removal("work", folder, _size(folder), f"unfinished, last used {_date(used)}")
        for path in sorted(place.glob("*.lock")):
            folder = path.with_name(path.name.partition(".")[0])
            old = not folder.exists() and path.stat().st_mtime < horizon
            if VERSION_PATTERN.fullmatch(folder.name) and old and _is_free(path):
                yield Removal("lock", path, 0, "of work that is gone")


def _killed(store: Store, before: float) -> Iterator[Removal]:
    """What a killed `popcorn reproduce` and a killed look at a cluster's folder leave behind."""
    root = store.root / ".work"
    for folder in sorted(root.glob("reproduce/remade-*")):
        if folder.is_dir() and _is_free(_work_locks(folder)[0]) and _last_used(folder) < before:
            yield Removal("work", folder, _size(folder), "of a reproduction that was killed")
    for path in sorted(root.glob("reproduce/remade-*.lock")):
        if not path.with_suffix("").exists() and path.stat().st_mtime < before and _is_free(path):
            yield Removal("lock", path, 0, "of a reproduction that was killed")
    for path in sorted(root.glob("cluster/.seen-*")):
        if path.is_file() and path.stat().st_mtime < before:
            yield Removal("half-written", path, _size(path), "its writer is gone")


def _work_locks(folder: Path) -> list[Path]:
    """The lock of a work folder, which need not exist, and those of its parts."""
    parts = folder.parent.glob(f"{folder.name}.*.lock")
    return [folder.with_name(f"{folder.name}.lock"), *sorted(parts)]


def _steps(store: Store, horizon: float, unfinished: set[str]) -> Iterator[Removal]:
    """Values that steps of runs handed to each other."""
    root = store.root / ".work" / STEPS
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        used = _last_used(folder) if folder.is_dir() else horizon
        if used < horizon and folder.name not in unfinished:
            yield Removal("steps", folder, _size(folder), f"its run ended; last used {_date(used)}")


def _last_used(folder: Path) -> float:
    times = [path.stat().st_mtime for path in (folder, *folder.rglob("*"))]
    locks = [path.stat().st_mtime for path in _work_locks(folder) if path.exists()]
    return max([*times, *locks])


def _date(when: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(when))


# Removing -----------------------------------------------------------------------------------------


def _remove_version(store: Store, version: Kept) -> str | None:
    """Remove a version, or say why not; no run of its partition publishes meanwhile."""
    folder = store.folder(version.address)
    with _held(folder / ".publishing.lock") as held:
        if not held:
            return "a run is publishing there"
        current = store.find(version.address)
        if current is None or current.version == version.version:
            return "it has become the current version"
        if not version.path.is_dir():
            return None
        if (version.path / MANIFEST).stat().st_mtime != version.made:
            return "it was published again"
        # Only checkpoints are promoted; a decision since the planning may name these.
        promotable = version.address.asset == CHECKPOINTS
        decided: AbstractContextManager[set[Key]] = nullcontext(set())
        with removing(store) if promotable else decided as named:
            if version.key in named:
                return "a promotion names it by now"
            _record_removal(store, version)
            aside = folder / f".draft-{uuid.uuid4().hex}"  # the store clears such away too
            os.replace(version.path, aside)
            sync(folder)
    shutil.rmtree(aside, ignore_errors=True)
    return None


def _record_removal(store: Store, version: Kept) -> None:
    """Tell the warehouse before the folder goes, so that the audit does not miss it."""
    from popcorn_ml.warehouse import Warehouse

    if store.warehouse.exists():
        address = version.address
        Warehouse(store.warehouse).mark_removed(
            [(address.asset, address.country, address.year, version.version)]
        )


def _remove_other(store: Store, removal: Removal) -> str | None:
    path = removal.path
    if removal.kind == "half-written":
        path.unlink(missing_ok=True)
        return None
    if removal.kind == "lock":
        return None if _with_all([path], lambda: path.unlink(missing_ok=True)) else "it is in use"
    if removal.kind == "draft":
        with _held(path.with_name(f"{path.name}.lock")) as held:
            if not held:
                return "its writer is back"
            shutil.rmtree(path, ignore_errors=True)
            path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
        return None
    aside = store.root / ".work" / TRASH / uuid.uuid4().hex
    aside.parent.mkdir(exist_ok=True)
    if removal.kind == "steps":
        _move(path, aside)
    elif not _with_all(locks := _work_locks(path), lambda: _move(path, aside, locks)):
        return "a run works on it"
    shutil.rmtree(aside, ignore_errors=True)
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
    shutil.rmtree(store.root / ".work" / TRASH, ignore_errors=True)


@contextmanager
def _held(path: Path) -> Iterator[bool]:
    """Hold a file's lock if nobody else does; whether it is held."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield os.path.exists(path) and os.path.samestat(os.fstat(descriptor), os.stat(path))
        except BlockingIOError:
            yield False
    finally:
        os.close(descriptor)


def _is_free(path: Path) -> bool:
    """Whether nobody holds a file's lock; makes no file."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
