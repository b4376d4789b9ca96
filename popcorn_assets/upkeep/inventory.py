"""The versions that are in a store, current or not, and what each was made from."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from popcorn_assets.paths import DATA_VARIABLE
from popcorn_assets.store.contents import is_rejected
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

YEAR_PATTERN = re.compile(r"[0-9]{4}")

WAREHOUSE = "warehouse.duckdb"
"""By this file of its root a store is known."""

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
        rejected: whether it failed a check that blocks, and so never became current.
        attempt: whether it is, rejected or not by now, what its partition's newest run made.
    """

    address: Address
    version: str
    path: Path
    made: float
    superseded: float | None
    inputs: frozenset[Key]
    size: int
    rejected: bool = False
    attempt: bool = False

    @property
    def key(self) -> Key:
        return self.address, self.version


def versions(store: Store) -> list[Kept]:
    """Every version in the store, current or not."""
    return [version for folder in folders_of(store) for version in _versions_in(store, folder)]


def folders_of(store: Store) -> Iterator[Address]:
    """Addresses that have a folder with versions, drafts or a LATEST, also behind links.

    A folder of an asset, a country or a year may be a link to another disk, as for whoever writes
    and reads the store. A version's folder may not.

    Raises:
        StoreError: a link that leads nowhere, to a folder of another address, or into another
            store, so that it cannot be said what is needed; a folder that cannot be read.
    """
    seen: dict[Path, Address] = {}
    for address in _places(store):
        folder = store.folder(address)
        real = folder.resolve()
        if real in seen:
            raise StoreError(
                f"{seen[real]} and {address} have one and the same folder; nothing was removed",
                where=folder,
                found=real,
                remedy="remove the link that is too many",
            )
        seen[real] = address
        _refuse_foreign(store, folder, real)
        yield address


def _places(store: Store) -> Iterator[Address]:
    for asset in subfolders(store.root, NAME_PATTERN):
        if _is_place(asset):
            yield Address(asset.name)
        for country in subfolders(asset, NAME_PATTERN):
            for year in subfolders(country, YEAR_PATTERN):
                if 1900 <= int(year.name) <= 2999 and _is_place(year):
                    yield Address(asset.name, country.name, int(year.name))


def linked_folders(store: Store) -> list[Path]:
    """Folders of assets, countries and years that are links, or mounted there.

    Raises:
        StoreError: as `folders_of`, of links that lead nowhere.
    """
    folders = []
    for asset in subfolders(store.root, NAME_PATTERN):
        countries = subfolders(asset, NAME_PATTERN)
        years = [year for country in countries for year in subfolders(country, YEAR_PATTERN)]
        folders += [asset, *countries, *years]
    return [folder for folder in folders if folder.is_symlink() or folder.is_mount()]


def _refuse_foreign(store: Store, folder: Path, real: Path) -> None:
    """What another store's maps rest on is not known here."""
    root = store.root.resolve()
    for parent in real.parents:
        if parent == root:
            return
        if (parent / WAREHOUSE).exists():
            raise StoreError(
                "a folder lies in another store, whose needs are not known; nothing was removed",
                where=folder,
                found=f"it leads to {real}, in the store {parent}",
                remedy=f"run popcorn gc with {DATA_VARIABLE}={parent}, and give this store a "
                "folder of its own",
            )


def subfolders(folder: Path, name: re.Pattern[str], *, follow: bool = True) -> list[Path]:
    """Folders of such names, links to folders among them unless those are not to be followed.

    Raises:
        StoreError: a link leads nowhere, or the folder cannot be read.
    """
    found = []
    try:
        for path in folder.iterdir() if folder.is_dir() else ():
            if not name.fullmatch(path.name):
                continue
            link = path.is_symlink()
            if path.is_dir() and (follow or not link):
                found.append(path)
            elif link and follow and not path.exists():
                raise StoreError(
                    "a link of the store leads nowhere; nothing was removed",
                    where=path,
                    found=f"it leads to {os.readlink(path)}",
                    remedy="mount the disk that it leads to; if that is gone for good, remove "
                    "the link",
                )
    except OSError as error:
        raise StoreError(
            "a folder of the store cannot be read; nothing was removed",
            where=folder,
            found=error.strerror,
            remedy="run it as the user that the store belongs to",
        ) from error
    return sorted(found)


def _is_place(folder: Path) -> bool:
    """LATEST alone does not tell: versions whose LATEST was lost need what they were made from."""
    return (
        (folder / LATEST).exists() or any(folder.glob(".draft-*")) or any(_version_folders(folder))
    )


def _version_folders(folder: Path) -> list[Path]:
    """Also those that have lost their manifest, where they cannot be a country's folder."""
    of_a_year = YEAR_PATTERN.fullmatch(folder.name) is not None
    found = subfolders(folder, VERSION_PATTERN)
    versions = [path for path in found if of_a_year or (path / MANIFEST).is_file()]
    for path in versions:
        if path.is_symlink():  # no reader takes it for a version, but what it names may be needed
            raise StoreError(
                "a version's folder is a link; nothing was removed",
                where=path,
                expected="a folder; those of assets, countries and years may be links",
                found=f"it leads to {os.readlink(path)}",
                remedy="move the version back to where the link is",
            )
    return versions


def made_at(version: Path) -> float:
    """When a version's manifest was last written, or its folder where there is none."""
    manifest = version / MANIFEST
    return (manifest if manifest.is_file() else version).stat().st_mtime


def _versions_in(store: Store, address: Address) -> list[Kept]:
    folder = store.folder(address)
    current = store.find(address)  # raises where LATEST points nowhere: nothing is safe to judge
    now = current.path if current else None
    paths = _version_folders(folder)
    made = {path.name: made_at(path) for path in paths}
    rejected = {path.name for path in paths if path != now and is_rejected(path)}
    attempt = _attempt(store, address)
    switched = (folder / LATEST).stat().st_mtime if current else 0.0
    result = []
    for path in paths:
        later = [m for name, m in made.items() if m > made[path.name] and name not in rejected]
        superseded = min(later, default=max(switched, made[path.name]))
        if path.name in rejected:  # it never was current
            superseded = made[path.name]
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
                path.name in rejected,
                path.name == attempt,
            )
        )
    return result


def _attempt(store: Store, address: Address) -> str | None:
    try:
        rejected = store.rejected(address)
    except StoreError:  # it names nothing: nothing stays for its sake
        return None
    return rejected.version if rejected else None


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
