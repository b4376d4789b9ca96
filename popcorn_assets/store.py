"""Versioned storage: a version of an asset is there whole, or not at all.

Files lie at `<root>/<asset>/<country>/<year>/<version>/`, the version being a hash of the
contents; `LATEST` beside the versions names the current one and is replaced only after everything
is written and synced. Unpartitioned assets have no country and year. A draft is a folder with a
dot in front that its writer holds a lock on; a killed run leaves one that nothing reads and that
the next draft of the same place clears away. What a manifest says is `lineage`'s business.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from popcorn_ml.errors import StoreError
from popcorn_ml.files import sync, write_bytes, write_json

MANIFEST = "manifest.json"
LATEST = "LATEST"
_NAME = re.compile(r"[a-z0-9][a-z0-9_]*")
_VERSION = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Address:
    """Which asset, of which country and year; both None for an unpartitioned asset."""

    asset: str
    country: str | None = None
    year: int | None = None

    def __post_init__(self) -> None:
        for name in (self.asset, self.country):
            if name is not None and not _NAME.fullmatch(name):
                raise StoreError(
                    "the name cannot be a folder of the store",
                    found=repr(name),
                    expected="lower-case letters, digits and _",
                )
        if (self.country is None) != (self.year is None):
            raise StoreError("an address has both country and year, or neither", found=str(self))
        if self.year is not None and not 1900 <= self.year <= 2999:
            raise StoreError("the year is out of range", found=self.year)

    def __str__(self) -> str:
        return self.asset if self.country is None else f"{self.asset} {self.country}|{self.year}"


@dataclass(frozen=True)
class Version:
    """One whole version of an asset, on disk."""

    address: Address
    version: str
    path: Path

    def file(self, name: str) -> Path:
        """A file of this version.

        Raises:
            StoreError: there is none of that name.
        """
        path = self.path / name
        if not path.is_file():
            raise StoreError(
                f"version {self.version} of {self.address} has no file {name}",
                where=self.path,
                remedy=f"materialise {self.address} again",
            )
        return path

    def manifest(self) -> dict[str, Any]:
        """What `lineage` recorded when the version was made."""
        try:
            return json.loads(self.file(MANIFEST).read_text("utf-8"))
        except ValueError as error:
            raise StoreError(
                "the manifest is not readable JSON",
                where=self.path / MANIFEST,
                found=str(error),
                remedy=f"materialise {self.address} again",
            ) from error


class Store:
    """The versions under one root folder."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).absolute()

    def folder(self, address: Address) -> Path:
        """Where an asset's versions lie."""
        folder = self.root / address.asset
        return folder if address.country is None else folder / address.country / str(address.year)

    def work(self, address: Address, key: str) -> Path:
        """A folder for half-done work that a later run resumes; never read as a result.

        Args:
            key: hash of what the work depends on, so that other work never resumes it.
        """
        folder = self.root / ".work" / self.folder(address).relative_to(self.root) / key[:16]
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def find(self, address: Address) -> Version | None:
        """The current version, or None where none was ever published."""
        folder = self.folder(address)
        try:
            version = (folder / LATEST).read_text("utf-8").strip()
        except FileNotFoundError:
            return None
        if not _VERSION.fullmatch(version) or not (folder / version / MANIFEST).is_file():
            raise StoreError(
                f"{LATEST} names a version that is not there",
                where=folder / LATEST,
                found=version[:80],
                remedy=f"materialise {address} again",
            )
        return Version(address, version, folder / version)

    def latest(self, address: Address) -> Version:
        """The current version.

        Raises:
            StoreError: there is none, or `LATEST` points nowhere.
        """
        version = self.find(address)
        if version is None:
            raise StoreError(
                f"{address} has not been materialised",
                where=self.folder(address),
                remedy=f"materialise {address} first",
            )
        return version

    def version(self, address: Address, version: str) -> Version:
        """A given version, current or not.

        Raises:
            StoreError: it is not in the store.
        """
        path = self.folder(address) / version
        if not _VERSION.fullmatch(version) or not (path / MANIFEST).is_file():
            raise StoreError(f"version {version[:80]} of {address} is not in the store", where=path)
        return Version(address, version, path)

    @contextmanager
    def draft(self, address: Address) -> Iterator[Path]:
        """A folder to write a version into; gone when the `with` ends, published or not."""
        folder = self.folder(address)
        _make_writable(folder)
        _clear_abandoned_drafts(folder)
        draft = folder / f".draft-{uuid.uuid4().hex}"
        with _locked(_lock_path(draft)):  # before the draft, so that no draft is ever unlocked
            draft.mkdir()
            try:
                yield draft
            finally:
                shutil.rmtree(draft, ignore_errors=True)
                _lock_path(draft).unlink(missing_ok=True)

    def publish(self, address: Address, draft: Path, manifest: dict[str, Any]) -> Version:
        """Make a draft the current version.

        Args:
            manifest: what to record; `files` and `version` are added here.

        Contents that are in the store already keep their folder and get the new manifest, since
        the same result may have come from other inputs.
        """
        files = digests(draft)
        if not files:
            raise StoreError("an asset published no file", where=str(address))
        version = version_of(files)
        manifest = {**manifest, "version": version, "files": files}
        folder, target = self.folder(address), self.folder(address) / version
        write_json(draft / MANIFEST, manifest, sort_keys=True)
        for path in sorted(draft.rglob("*")):
            sync(path)
        sync(draft)
        with _locked(folder / ".publishing.lock"):  # two runs of one partition take turns
            if (target / MANIFEST).is_file() and digests(target) == files:
                write_json(target / MANIFEST, manifest, sort_keys=True)
            else:
                if target.exists():  # the same contents once, damaged since
                    aside = folder / f".draft-{uuid.uuid4().hex}"
                    os.replace(target, aside)
                    shutil.rmtree(aside, ignore_errors=True)
                os.replace(draft, target)
                sync(folder)
            write_bytes(folder / LATEST, f"{version}\n".encode())
        return Version(address, version, target)


def digests(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and sha256 of every file of a version, by relative name, without the manifest."""
    return {
        path.relative_to(folder).as_posix(): {
            "size": path.stat().st_size,
            "sha256": sha256(path),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MANIFEST
    }


def version_of(files: dict[str, dict[str, Any]]) -> str:
    """The version that files of these names and digests make: 16 hexadecimal digits."""
    lines = "".join(f"{name}\0{files[name]['sha256']}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def sha256(path: str | Path) -> str:
    """Digest of a file's contents, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _lock_path(draft: Path) -> Path:
    return draft.with_name(f"{draft.name}.lock")


def _make_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"no permission to write in {folder}")
    except OSError as error:
        raise StoreError(
            "the store cannot be written",
            where=folder,
            found=str(error),
            remedy="make it writable, or point POPCORN_DATA to a folder that is",
        ) from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file; it ends with the process at the latest."""
    while True:
        lock = os.open(path, os.O_CREAT | os.O_RDWR)
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            if os.path.samestat(os.fstat(lock), path.stat()):
                break
        except FileNotFoundError:  # somebody removed it while we waited
            pass
        os.close(lock)
    try:
        yield
    finally:
        os.close(lock)


def _clear_abandoned_drafts(folder: Path) -> None:
    """Remove drafts whose writer is gone: its lock went with it."""
    for draft in [p for p in folder.glob(".draft-*") if p.is_dir()]:
        try:
            lock = os.open(_lock_path(draft), os.O_RDWR)
        except FileNotFoundError:
            shutil.rmtree(draft, ignore_errors=True)
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue  # its writer lives
        else:
            shutil.rmtree(draft, ignore_errors=True)
            _lock_path(draft).unlink(missing_ok=True)
        finally:
            os.close(lock)
