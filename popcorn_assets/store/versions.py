"""Versioned storage: a version of an asset is there whole, or not at all.

Files lie at `<root>/<asset>/<country>/<year>/<version>/`, the version being a hash of the
contents; `LATEST` beside the versions names the current one and is replaced only after everything
is written and synced. A version that failed a check that blocks is kept to be looked at and never
becomes current: `REJECTED` names it until a better one is published. Versions are read-only.
Unpartitioned assets have no country and year. A draft is a folder with a dot in front that its
writer holds a lock on; a killed run leaves one that nothing reads and that the next draft of the
same place clears away. Earlier manifests of the same contents lie in `.history` inside the version,
named by their digest; one that was damaged is set aside in `<root>/.damaged/` when the contents are
made again (`contents`). What a manifest says is `making`'s business.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from popcorn_assets.store.contents import (
    DAMAGED,
    digests,
    files_of,
    is_rejected,
    is_whole,
    put,
    set_aside,
    version_of,
)
from popcorn_ml.compute.locks import held, holder, try_lock
from popcorn_ml.errors import StoreError
from popcorn_ml.files import protect, remove_tree, sync, write_bytes, write_json
from popcorn_ml.published.folders import HISTORY, MANIFEST, VERSION_PATTERN, failing, sha256
from popcorn_ml.published.versions import (
    LATEST,
    NAME_PATTERN,
    REJECTED,
    Address,
    Published,
    Version,
    failed_checks,
    not_passed,
)

__all__ = [
    "DAMAGED",
    "HISTORY",
    "LATEST",
    "MANIFEST",
    "NAME_PATTERN",
    "REJECTED",
    "VERSION_PATTERN",
    "Address",
    "Store",
    "Version",
    "digests",
    "failed_checks",
    "not_passed",
    "sha256",
    "version_of",
]

WORK_WAIT_S = 600.0
"""How long a run waits for another that works on the same thing before it gives up."""


class Store(Published):
    """The versions under one root folder.

    Args:
        root: the folder.
        warehouse: the DuckDB file that publications are recorded in; None for `warehouse.duckdb`
            in the root.
    """

    def __init__(self, root: str | Path, warehouse: str | Path | None = None) -> None:
        super().__init__(root)
        self.warehouse = Path(warehouse) if warehouse else self.root / "warehouse.duckdb"

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

    def settle(self, address: Address) -> None:
        """Forget that a later version was rejected: the current one is what was asked for again."""
        path = self.folder(address) / REJECTED
        if path.exists():
            with held(path.with_name(".publishing.lock")):
                path.unlink(missing_ok=True)

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
                remove_tree(draft)
                _lock_path(draft).unlink(missing_ok=True)

    def publish(
        self,
        address: Address,
        draft: Path,
        manifest: dict[str, Any],
        record: Callable[[dict[str, Any], str], None] | None = None,
    ) -> Version:
        """Make a draft the current version, unless its manifest has a failed check that blocks.

        Args:
            manifest: what to record; `files` and `version` are added here.
            record: told the whole manifest and the digest of its file once the version is the
                current one, or is rejected, before any other run of the partition can publish.

        Contents that are in the store already keep their folder and get the new manifest, since
        the same result may have come from other inputs; the earlier one goes to `.history`, unless
        it was damaged: then it is set aside. What is current is not touched by a version that is
        rejected: of equal contents, the new manifest goes to `.history`.
        """
        files = files_of(draft, str(address))
        version = version_of(files)
        manifest = {**manifest, "version": version, "files": files}
        accepted = not failing(manifest)
        folder, target = self.folder(address), self.folder(address) / version
        write_json(draft / MANIFEST, manifest, sort_keys=True)
        written = sha256(draft / MANIFEST)
        for path in sorted(draft.rglob("*")):
            sync(path)
        sync(draft)
        protect(draft)
        with held(folder / ".publishing.lock"):  # two runs of one partition take turns
            stays = not accepted and self._stands(target)
            told = put(draft, target, stays=stays, root=self.root)
            if accepted:
                write_bytes(folder / LATEST, f"{version}\n".encode())
                (folder / REJECTED).unlink(missing_ok=True)
            else:
                write_bytes(folder / REJECTED, f"{version} {written}\n".encode())
            if record is not None:
                record(manifest, written)
        return Version(address, version, target, told)

    def _stands(self, target: Path) -> bool:
        """Whether there is a version whose manifest no rejected one may take the place of."""
        if not (target / MANIFEST).is_file() or not is_whole(target / MANIFEST, target.name):
            return False
        try:
            current = (target.parent / LATEST).read_text("utf-8", errors="replace").strip()
        except FileNotFoundError:
            current = ""
        return target.name == current or not is_rejected(target)

    def set_aside(self, manifest: Path) -> None:
        """Keep a damaged manifest where nothing reads it."""
        set_aside(manifest, self.root)


def _lock_path(draft: Path) -> Path:
    return draft.with_name(f"{draft.name}.lock")


def _make_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK, effective_ids=True):
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
            remove_tree(draft)
            _lock_path(draft).unlink(missing_ok=True)
        finally:
            os.close(lock)
