"""A version's folder: its files and their digests, its manifest and earlier ones of the same.

Plain functions of paths; where a version lies and which is current is `versions`' business.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from popcorn_ml.errors import StoreError
from popcorn_ml.files import protect, remove_tree, sync, write_bytes
from popcorn_ml.published.folders import HISTORY, MANIFEST, failing, manifests_in, sha256

DAMAGED = ".damaged"


def version_of(files: dict[str, dict[str, Any]]) -> str:
    """The version that files of these names and digests make: 16 hexadecimal digits."""
    lines = "".join(f"{name}\0{files[name]['sha256']}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


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


def files_of(draft: Path, owner: str) -> dict[str, dict[str, Any]]:
    """Size and digest of a draft's files.

    Args:
        owner: whose draft it is, for an error.

    Raises:
        StoreError: there are none, or what a version cannot hold.
    """
    files = digests(draft)
    if not files:
        raise StoreError("an asset published no file", where=owner)
    if any(path.is_symlink() for path in draft.rglob("*")):
        raise StoreError("an asset wrote a link; versions hold files", where=owner)
    hidden = [name for name in files if any(p.startswith(".") for p in Path(name).parts)]
    if hidden:  # such as the draft of a file whose writer was killed
        raise StoreError("an asset wrote a hidden file", where=owner, found=", ".join(hidden))
    if (draft / HISTORY).exists():
        raise StoreError(f"an asset wrote {HISTORY}, a name of the store's", where=owner)
    return files


def put(draft: Path, target: Path, *, stays: bool, root: Path) -> str:
    """Give a draft, its manifest in it, the place of its version; the manifest's name there.

    Contents that are there already keep their folder. Manifests that were damaged are set aside.

    Args:
        stays: whether a manifest that is there stays the version's own: the draft's then goes
            among the earlier ones.
        root: the store's.
    """
    files, told = digests(draft), MANIFEST
    for path in manifests_in(target):
        if not is_whole(path, target.name):
            set_aside(path, root)
    if (target / MANIFEST).is_file() and digests(target) == files:
        with _writable(draft), _writable(target):
            if stays:
                told = _add_to_history(draft / MANIFEST, target)
            else:
                _keep_manifests(target, target, draft)
                os.replace(draft / MANIFEST, target / MANIFEST)
            sync(target)
        return told
    if target.exists():  # the same contents once, damaged since
        with _writable(draft):
            _keep_manifests(target, draft, draft)
            if stays:
                told = _add_to_history(draft / MANIFEST, draft)
                first = draft / HISTORY / f"{sha256(target / MANIFEST)}.json"
                os.replace(first, draft / MANIFEST)
        aside = target.with_name(f".draft-{uuid.uuid4().hex}")
        os.replace(target, aside)
        remove_tree(aside)
    os.replace(draft, target)
    sync(target.parent)
    return told


def set_aside(manifest: Path, root: Path) -> None:
    """Keep a damaged manifest where nothing reads it; one of `.history` is there no longer.

    What it says may still help to find out what happened to it.

    Args:
        root: the store's.
    """
    content = manifest.read_bytes()
    version = manifest.parent.parent if manifest.parent.name == HISTORY else manifest.parent
    aside = root / DAMAGED / version.relative_to(root)
    aside.mkdir(parents=True, exist_ok=True)
    write_bytes(aside / f"{hashlib.sha256(content).hexdigest()}.json", content)
    if manifest.parent.name == HISTORY:
        with _writable(version):
            manifest.unlink()
            sync(manifest.parent)


@contextmanager
def _writable(version: Path) -> Iterator[None]:
    """Let a version's own folder take manifests for the block.

    Raises:
        StoreError: it belongs to another user.
    """
    try:
        for folder in (version, version / HISTORY):
            if folder.is_dir():
                folder.chmod(0o700)
    except PermissionError as error:
        raise StoreError(
            "the version belongs to another user, who alone can add to it",
            where=version,
            found=f"it is user {version.stat().st_uid}'s; this is user {os.geteuid()}",
            remedy="work as the user whom the store belongs to",
        ) from error
    try:
        yield
    finally:
        if version.is_dir():
            protect(version)


def _add_to_history(manifest: Path, version: Path) -> str:
    """Move a manifest among a version's earlier ones; its name there."""
    name = f"{HISTORY}/{sha256(manifest)}.json"
    (version / HISTORY).mkdir(exist_ok=True)
    os.replace(manifest, version / name)
    sync(version / HISTORY)
    return name


def _keep_manifests(version: Path, to: Path, scratch: Path) -> None:
    """Keep a version's manifest, and those it kept itself, in the history of `to`.

    They are written in `scratch` and moved, so that a kill leaves nothing half-written. Only those
    that are whole: `publish` has set the others aside.
    """
    kept = [path for path in manifests_in(version) if is_whole(path, version.name)]
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


def is_rejected(version: Path) -> bool:
    """Whether the manifest of a version's folder has a failed check that blocks."""
    try:
        return bool(failing(json.loads((version / MANIFEST).read_text("utf-8"))))
    except (OSError, ValueError):
        return False


def is_whole(manifest: Path, version: str) -> bool:
    """Whether a manifest can be read, is of this version and, an earlier one, has its own name."""
    content = manifest.read_bytes()
    try:
        of_version = json.loads(content)["version"] == version
    except (ValueError, KeyError, TypeError):
        return False
    own = (MANIFEST, f"{hashlib.sha256(content).hexdigest()}.json")
    return of_version and manifest.name in own
