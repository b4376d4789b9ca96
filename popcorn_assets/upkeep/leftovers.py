"""What writers that were killed left in a store, and work that nobody has touched for long."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from popcorn_assets.store.versions import (
    DAMAGED,
    LATEST,
    NAME_PATTERN,
    REJECTED,
    VERSION_PATTERN,
    Store,
)
from popcorn_assets.upkeep.inventory import YEAR_PATTERN, folders_of, size_of, subfolders
from popcorn_assets.upkeep.removal import Removal, work_locks
from popcorn_ml.compute.locks import is_free

HALF_WRITTEN_S = 86_400.0
"""Age at which a file that was being written counts as left by a writer that was killed."""

STEPS = "steps"


def leftovers(store: Store, now: float, horizon: float, unfinished_runs: set[str]) -> list[Removal]:
    """All of it.

    Args:
        horizon: what was used since then, seconds since 1970, stays.
        unfinished_runs: runs whose steps' values stay.
    """
    return [
        *_drafts(store),
        *_half_written(store, now - HALF_WRITTEN_S),
        *_work(store, horizon),
        *_killed(store, now - HALF_WRITTEN_S),
        *_steps(store, horizon, unfinished_runs),
        *_damaged(store, horizon),
    ]


def _drafts(store: Store) -> Iterator[Removal]:
    for address in folders_of(store):
        for path in sorted(store.folder(address).glob(".draft-*")):
            if path.suffix == ".lock":
                if not path.with_suffix("").exists() and is_free(path):
                    yield Removal("lock", path, 0, "of a draft that is gone")
            elif is_free(path.with_name(f"{path.name}.lock")):
                yield Removal("draft", path, size_of(path), "its writer is gone")


def _half_written(store: Store, before: float) -> Iterator[Removal]:
    for address in folders_of(store):
        folder = store.folder(address)
        patterns = (f".{LATEST}.*", f".{REJECTED}.*", "*/.manifest.*.json")
        for path in (path for pattern in patterns for path in folder.glob(pattern)):
            if path.is_file() and path.stat().st_mtime < before:
                yield Removal("half-written", path, size_of(path), "its writer is gone")


def _work(store: Store, horizon: float) -> Iterator[Removal]:
    """Half-done work that nobody has touched since."""
    root = store.root / ".work"
    # What lies behind a link within it stays: it could not be moved aside in one step.
    within = partial(subfolders, follow=False)
    places = [
        place
        for asset in within(root, NAME_PATTERN)
        if asset.name != STEPS
        for place in (
            asset,
            *(y for c in within(asset, NAME_PATTERN) for y in within(c, YEAR_PATTERN)),
        )
    ]
    for place in places:
        for folder in within(place, VERSION_PATTERN):
            used = _last_used(folder)
            if used < horizon and all(map(is_free, work_locks(folder))):
                yield Removal(
                    "work", folder, size_of(folder), f"unfinished, last used {_date(used)}"
                )
        for path in sorted(place.glob("*.lock")):
            folder = path.with_name(path.name.partition(".")[0])
            old = not folder.exists() and path.stat().st_mtime < horizon
            if VERSION_PATTERN.fullmatch(folder.name) and old and is_free(path):
                yield Removal("lock", path, 0, "of work that is gone")


def _killed(store: Store, before: float) -> Iterator[Removal]:
    """What a killed `popcorn reproduce` and a killed look at a cluster's folder leave behind."""
    root = store.root / ".work"
    for folder in sorted(root.glob("reproduce/remade-*")):
        if folder.is_dir() and is_free(work_locks(folder)[0]) and _last_used(folder) < before:
            yield Removal("work", folder, size_of(folder), "of a reproduction that was killed")
    for path in sorted(root.glob("reproduce/remade-*.lock")):
        if not path.with_suffix("").exists() and path.stat().st_mtime < before and is_free(path):
            yield Removal("lock", path, 0, "of a reproduction that was killed")
    for path in sorted(root.glob("cluster/.seen-*")):
        if path.is_file() and path.stat().st_mtime < before:
            yield Removal("half-written", path, size_of(path), "its writer is gone")


def _steps(store: Store, horizon: float, unfinished: set[str]) -> Iterator[Removal]:
    """Values that steps of runs handed to each other."""
    root = store.root / ".work" / STEPS
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        used = _last_used(folder) if folder.is_dir() else horizon
        if used < horizon and folder.name not in unfinished:
            yield Removal(
                "steps", folder, size_of(folder), f"its run ended; last used {_date(used)}"
            )


def _damaged(store: Store, horizon: float) -> Iterator[Removal]:
    """Damaged manifests that nobody has looked into for long."""
    for path in sorted((store.root / DAMAGED).rglob("*.json")):
        aside = path.stat().st_mtime
        if path.is_file() and aside < horizon:
            yield Removal("damaged", path, size_of(path), f"set aside {_date(aside)}")


def _last_used(folder: Path) -> float:
    times = [path.stat().st_mtime for path in (folder, *folder.rglob("*"))]
    locks = [path.stat().st_mtime for path in work_locks(folder) if path.exists()]
    return max([*times, *locks])


def _date(when: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(when))
