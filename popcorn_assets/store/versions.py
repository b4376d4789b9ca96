"""Versioned storage: a version of an asset is there whole, or not at all.

Files lie at `<root>/<asset>/<country>/<year>/<version>/`, the version being a hash of the
contents; `LATEST` beside the versions names the current one and is replaced only after everything
is written and synced. Unpartitioned assets have no country and year. A draft is a folder with a
dot in front that its writer holds a lock on; a killed run leaves one that nothing reads and that
the next draft of the same place clears away. Earlier manifests of the same contents lie in
`.history` inside the version, named by their digest; one that was damaged is set aside in
`<root>/.damaged/` when the contents are made again. What a manifest says is `making`'s business.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from popcorn_ml.compute.locks import held, holder, try_lock
from popcorn_ml.errors import StoreError
from popcorn_ml.files import sync, write_bytes, write_json

MANIFEST = "manifest.json"
LATEST = "LATEST"
HISTORY = ".history"
DAMAGED = ".damaged"
WORK_WAIT_S = 600.0
"""How long a run waits for another that works on the same thing before it gives up."""
NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9_]*")
"""Of an asset's and a country's folder."""
VERSION_PATTERN = re.compile(r"[0-9a-f]{16}")
"""Of a version's folder."""


@dataclass(frozen=True)
class Address:
    """Which asset, of which country and year; both None for an unpartitioned asset."""

    asset: str
    country: str | None = None
    year: int | None = None

    def __post_init__(self) -> None:
        for name in (self.asset, self.country):
            if name is not None and not NAME_PATTERN.fullmatch(name):
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
        if not _is_own_file(path, self.path):
            raise StoreError(
                f"version {self.version} of {self.address} has no file {name[:200]}",
                where=self.path,
                remedy=f"materialise {self.address} again",
            )
        return path

    def manifest(self) -> dict[str, Any]:
        """What `making` recorded when the version was made."""
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
    """The versions under one root folder.

    Args:
        root: the folder.
        warehouse: the DuckDB file that publications are recorded in; None for `warehouse.duckdb`
            in the root.
    """

    def __init__(self, root: str | Path, warehouse: str | Path | None = None) -> None:
        self.root = Path(root).absolute()
        self.warehouse = Path(warehouse) if warehouse else self.root / "warehouse.duckdb"

    def folder(self, address: Address) -> Path:
        """Where an asset's versions lie."""
        folder = self.root / address.asset
        return folder if address.country is None else folder / address.country / str(address.year)

    def work(self, address: Address, key: str) -> Path:
        """A folder for half-done work that a later run resumes; never read as a result.

        Args:
            key: hash of what the work depends on, so that other work never resumes it.
        """
        folder = self._work(address, key)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @contextmanager
    def working(
        self,
        address: Address,
        key: str,
        owner: str,
        *,
        part: str = "",
        wait_s: float = WORK_WAIT_S,
        waiting: Callable[[str], None] | None = None,
    ) -> Iterator[Path]:
        """The folder of `work`, to one run at a time; the lock ends with the process at the latest.

        Args:
            owner: who works, such as "run 1f2e"; told to whoever waits.
            part: a name within the work, such as a member's, to lock that part alone.
            wait_s: how long to wait for another run that is at the same work.
            waiting: told who that is, once, when there is one.

        Raises:
            StoreError: it was still at it after `wait_s`.
        """
        folder = self._work(address, key)
        path = folder.with_name(f"{folder.name}{f'.{part}' if part else ''}.lock")
        deadline = time.monotonic() + wait_s
        lock = try_lock(path, owner)
        if lock is None and waiting is not None:
            waiting(holder(path) or "another run")
        while lock is None:
            if time.monotonic() > deadline:
                raise StoreError(
                    f"another run is at work on {address}",
                    where=folder,
                    expected=f"to have it within {wait_s:g} s",
                    found=f"{holder(path) or 'another run'} still works on it",
                    remedy="wait until that run has ended, then run this partition again",
                )
            time.sleep(0.1)
            lock = try_lock(path, owner)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            yield folder
        finally:
            os.close(lock)

    def _work(self, address: Address, key: str) -> Path:
        return self.root / ".work" / self.folder(address).relative_to(self.root) / key[:16]

    def find(self, address: Address) -> Version | None:
        """The current version, or None where none was ever published."""
        folder = self.folder(address)
        try:
            version = (folder / LATEST).read_text("utf-8", errors="replace").strip()
        except FileNotFoundError:
            return None
        if not _is_version(folder, version):
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
        folder = self.folder(address)
        if not _is_version(folder, version):
            raise StoreError(
                f"version {version[:80]} of {address} is not in the store", where=folder
            )
        return Version(address, version, folder / version)

    @contextmanager
    def draft(self, address: Address) -> Iterator[Path]:
        """A folder to write a version into; gone when the `with` ends, published or not."""
        folder = self.folder(address)
        _make_writable(folder)
        _clear_abandoned_drafts(folder)
        draft = folder / f".draft-{uuid.uuid4().hex}"
        with held(_lock_path(draft)):  # before the draft, so that no draft is ever unlocked
            draft.mkdir()
            try:
                yield draft
            finally:
                shutil.rmtree(draft, ignore_errors=True)
                _lock_path(draft).unlink(missing_ok=True)

    def publish(
        self,
        address: Address,
        draft: Path,
        manifest: dict[str, Any],
        record: Callable[[dict[str, Any], str], None] | None = None,
    ) -> Version:
        """Make a draft the current version.

        Args:
            manifest: what to record; `files` and `version` are added here.
            record: told the whole manifest and the digest of its file once the version is the
                current one, before any other run of the partition can publish.

        Contents that are in the store already keep their folder and get the new manifest, since
        the same result may have come from other inputs; the earlier one goes to `.history`, unless
        it was damaged: then it is set aside.
        """
        files = digests(draft)
        if not files:
            raise StoreError("an asset published no file", where=str(address))
        if any(path.is_symlink() for path in draft.rglob("*")):
            raise StoreError("an asset wrote a link; versions hold files", where=str(address))
        hidden = [name for name in files if any(p.startswith(".") for p in Path(name).parts)]
        if hidden:  # such as the draft of a file whose writer was killed
            raise StoreError(
                "an asset wrote a hidden file", where=str(address), found=", ".join(hidden)
            )
        if (draft / HISTORY).exists():
            raise StoreError(f"an asset wrote {HISTORY}, a name of the store's", where=str(address))
        version = version_of(files)
        manifest = {**manifest, "version": version, "files": files}
        folder, target = self.folder(address), self.folder(address) / version
        write_json(draft / MANIFEST, manifest, sort_keys=True)
        written = sha256(draft / MANIFEST)
        for path in sorted(draft.rglob("*")):
            sync(path)
        sync(draft)
        with held(folder / ".publishing.lock"):  # two runs of one partition take turns
            for path in _manifests_in(target):
                if not _is_whole(path, version):
                    self.set_aside(path)
            if (target / MANIFEST).is_file() and digests(target) == files:
                _keep_manifests(target, target, draft)
                os.replace(draft / MANIFEST, target / MANIFEST)
                sync(target)
            else:
                if target.exists():  # the same contents once, damaged since
                    _keep_manifests(target, draft, draft)
                    aside = folder / f".draft-{uuid.uuid4().hex}"
                    os.replace(target, aside)
                    shutil.rmtree(aside, ignore_errors=True)
                os.replace(draft, target)
                sync(folder)
            write_bytes(folder / LATEST, f"{version}\n".encode())
            if record is not None:
                record(manifest, written)
        return Version(address, version, target)

    def manifests(self, address: Address) -> Iterator[tuple[str, Path]]:
        """Every manifest of an asset's partition, earlier ones too, with its version."""
        for folder in sorted(self.folder(address).glob("*")):
            if VERSION_PATTERN.fullmatch(folder.name):
                for path in _manifests_in(folder):
                    yield folder.name, path

    def set_aside(self, manifest: Path) -> None:
        """Keep a damaged manifest where nothing reads it; one of `.history` is there no longer.

        What it says may still help to find out what happened to it.
        """
        content = manifest.read_bytes()
        version = manifest.parent.parent if manifest.parent.name == HISTORY else manifest.parent
        aside = self.root / DAMAGED / version.relative_to(self.root)
        aside.mkdir(parents=True, exist_ok=True)
        write_bytes(aside / f"{hashlib.sha256(content).hexdigest()}.json", content)
        if manifest.parent.name == HISTORY:
            manifest.unlink()
            sync(manifest.parent)


def _keep_manifests(version: Path, to: Path, scratch: Path) -> None:
    """Keep a version's manifest, and those it kept itself, in the history of `to`.

    They are written in `scratch` and moved, so that a kill leaves nothing half-written. Only those
    that are whole: `publish` has set the others aside.
    """
    kept = [path for path in _manifests_in(version) if _is_whole(path, version.name)]
    for path in kept:
        content = path.read_bytes()
        target = to / HISTORY / f"{hashlib.sha256(content).hexdigest()}.json"
        if target.exists():
            continue
        target.parent.mkdir(exist_ok=True)
        copy = scratch / f".kept-{uuid.uuid4().hex}"
        copy.write_bytes(content)
        sync(copy)
        os.replace(copy, target)
    if kept:
        sync(to / HISTORY)
        sync(to)


def _manifests_in(version: Path) -> list[Path]:
    """A version's manifest and its earlier ones; none where it is not there."""
    paths = (version / MANIFEST, *sorted(version.glob(f"{HISTORY}/*")))
    return [path for path in paths if path.is_file()]


def _is_whole(manifest: Path, version: str) -> bool:
    """Whether a manifest can be read, is of this version and, an earlier one, has its own name."""
    content = manifest.read_bytes()
    try:
        of_version = json.loads(content)["version"] == version
    except (ValueError, KeyError, TypeError):
        return False
    own = (MANIFEST, f"{hashlib.sha256(content).hexdigest()}.json")
    return of_version and manifest.name in own


def digests(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and sha256 of every file of a version, by relative name, without the manifests.

    A link is no file of the version, wherever it leads.
    """
    return {
        path.relative_to(folder).as_posix(): {
            "size": path.stat().st_size,
            "sha256": sha256(path),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not path.is_symlink()
        and path != folder / MANIFEST
        and folder / HISTORY not in path.parents
    }


def version_of(files: dict[str, dict[str, Any]]) -> str:
    """The version that files of these names and digests make: 16 hexadecimal digits."""
    lines = "".join(f"{name}\0{files[name]['sha256']}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def sha256(path: str | Path) -> str:
    """Digest of a file's contents, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_version(folder: Path, version: str) -> bool:
    """Whether a text, which may be anything, names a version in a folder that lies there itself."""
    if not VERSION_PATTERN.fullmatch(version) or (folder / version).is_symlink():
        return False
    return _is_own_file(folder / version / MANIFEST, folder / version)


def _is_own_file(path: Path, folder: Path) -> bool:
    """Whether there is a file that lies in the folder, neither outside nor behind a link out."""
    try:
        return path.is_file() and path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError):  # a name that no file can have
        return False


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


def _clear_abandoned_drafts(folder: Path) -> None:
    """Remove drafts whose writer is gone: its lock went with it."""
    for draft in [p for p in folder.glob(".draft-*") if p.is_dir()]:
        lock = try_lock(_lock_path(draft))
        if lock is None:
            continue  # its writer lives
        try:
            shutil.rmtree(draft, ignore_errors=True)
            _lock_path(draft).unlink(missing_ok=True)
        finally:
            os.close(lock)
