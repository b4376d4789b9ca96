"""The versions that are in a store, current or not, and what each was made from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from popcorn_assets.store.versions import (
    HISTORY,
    LATEST,
    MANIFEST,
    NAME_PATTERN,
    VERSION_PATTERN,
    Address,
    Store,
)
from popcorn_ml.errors import StoreError

YEAR_PATTERN = re.compile(r"\d{4}")

Key = tuple[Address, str]
"""An address and one of its versions."""

UNREADABLE: Key = (Address("unreadable"), "")
"""Stands among the inputs of a version that cannot say what it was made from."""


@dataclass(frozen=True)
class Kept:
    """One version in the store.

    Attributes:
        made: when its manifest was last written, seconds since 1970, as `made_at` has it.
        superseded: when another version took its place; None for the current one.
        inputs: versions it was made from, by any of its manifests that can be read.
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


def versions(store: Store) -> list[Kept]:
    """Every version in the store, current or not."""
    return [version for folder in folders_of(store) for version in _versions_in(store, folder)]


def folders_of(store: Store) -> Iterator[Address]:
    """Addresses that have a folder with versions, drafts or a LATEST."""
    for asset in subfolders(store.root, NAME_PATTERN):
        if _is_place(asset):
            yield Address(asset.name)
        for country in subfolders(asset, NAME_PATTERN):
            for year in subfolders(country, YEAR_PATTERN):
                if _is_place(year) and 1900 <= int(year.name) <= 2999:
                    yield Address(asset.name, country.name, int(year.name))


def subfolders(folder: Path, name: re.Pattern[str]) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if name.fullmatch(path.name) and path.is_dir() and not path.is_symlink()
    )


def _is_place(folder: Path) -> bool:
    """LATEST alone does not tell: versions whose LATEST was lost need what they were made from."""
    return (
        (folder / LATEST).exists() or any(folder.glob(".draft-*")) or any(_version_folders(folder))
    )


def _version_folders(folder: Path) -> list[Path]:
    """Also those that have lost their manifest, where they cannot be a country's folder."""
    of_a_year = YEAR_PATTERN.fullmatch(folder.name) is not None
    found = subfolders(folder, VERSION_PATTERN)
    return [path for path in found if of_a_year or (path / MANIFEST).is_file()]


def made_at(version: Path) -> float:
    """When a version's manifest was last written, or its folder where there is none."""
    manifest = version / MANIFEST
    return (manifest if manifest.is_file() else version).stat().st_mtime


def _versions_in(store: Store, address: Address) -> list[Kept]:
    folder = store.folder(address)
    current = store.find(address)  # raises where LATEST points nowhere: nothing is safe to judge
    paths = _version_folders(folder)
    made = {path.name: made_at(path) for path in paths}
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
                size_of(path),
            )
        )
    return result


def _inputs(path: Path) -> frozenset[Key]:
    """What any manifest of a version names as an input; `UNREADABLE` where its own cannot be read.

    One of its history that cannot be read says nothing: the same contents came from what the
    others name.
    """
    found: set[Key] = set()
    for manifest in (path / MANIFEST, *sorted(path.glob(f"{HISTORY}/*.json"))):
        try:
            entries: list[dict[str, Any]] = json.loads(manifest.read_text("utf-8"))["inputs"]
            found |= {
                (Address(entry["asset"], entry["country"], entry["year"]), str(entry["version"]))
                for entry in entries
            }
        except (OSError, ValueError, KeyError, TypeError, StoreError):
            if manifest.name == MANIFEST:
                found.add(UNREADABLE)
    return frozenset(found)


def size_of(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(entry.stat().st_size for entry in path.rglob("*") if entry.is_file())


def reachable(found: dict[Key, Kept], start: Iterable[Key]) -> set[Key]:
    """`start` and all that these were made from, as far as the store has it."""
    seen: set[Key] = set()
    waiting = [key for key in start if key in found]
    while waiting:
        key = waiting.pop()
        if key not in seen:
            seen.add(key)
            waiting += [other for other in found[key].inputs if other in found]
    return seen
