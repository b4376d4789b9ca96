"""Copying a country-year's files into a folder that people are given, whole or not at all.

Every file is read once, held against the digest it was published with while it is copied, and takes
its name only when all are there. A folder of ours has a note in it (`NOTE`) of what was written;
one that is not empty and has no such note is somebody else's and is left alone. Several
country-years share a folder, its catalogue and its page.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from popcorn_ml.compute.locks import held
from popcorn_ml.errors import ExportError
from popcorn_ml.files import naming_the_disk, sync, umask, write_json
from popcorn_ml.publishing.folder import finish
from popcorn_ml.publishing.names import CATALOGUE, NOTE, Names

_LOCK = ".popcorn-export.lock"
_STAGING = ".popcorn-export-"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes:
        folder: where.
        files: of the country-year.
        size: bytes of these.
        removed: names of files of an earlier export of it that there are no more.
    """

    folder: Path
    files: int
    size: int
    removed: tuple[str, ...]


def export(
    source: Path, files: Mapping[str, str], names: Names, version: str, target: Path
) -> Exported:
    """Copy a country-year's files and bring the folder's catalogue up to date.

    Args:
        source: the folder that they are in.
        files: name -> sha256 that it was published with; those that are not the country-year's
            own (`Names.own`) are made in the target.
        names: of the country-year.
        version: of the publication, for the note.
        target: a folder that is not there, is empty, or was exported to before.

    Raises:
        ExportError: the target is something else, or a file is not as it was published. Nothing
            of the target has changed then.
        StoreError: the disk is full or read-only.
    """
    own = {name: digest for name, digest in files.items() if names.own(name)}
    with naming_the_disk(target), _ours(target), _staging(target) as staging:
        size = sum(_copied(source / name, staging / name, digest) for name, digest in own.items())
        note = _read_note(target)
        before = note["country_years"].get(names.stem, {}).get("files", {})
        gone = tuple(sorted(name for name in before if name not in own and names.own(name)))
        # Until all is in place, the note says that it is not.
        note["country_years"][names.stem] = {"version": version, "files": own, "whole": False}
        write_json(target / NOTE, note)
        for name in gone:
            (target / name).unlink(missing_ok=True)
        for name in sorted(own, key=lambda name: (name == names.item, name)):
            os.replace(staging / name, target / name)
        sync(target)
        finish(target)
        note["country_years"][names.stem]["whole"] = True
        write_json(target / NOTE, note)
    return Exported(target, len(own), size, gone)


def _copied(source: Path, target: Path, digest: str) -> int:
    """Copy a file and compare what was copied with its digest; its bytes.

    Raises:
        ExportError: they differ, or the file is not there.
    """
    seen, size = hashlib.sha256(), 0
    try:
        with open(source, "rb") as read, open(target, "wb") as write:
            while chunk := read.read(_CHUNK):
                seen.update(chunk)
                write.write(chunk)
                size += len(chunk)
            write.flush()
            os.fsync(write.fileno())
    except FileNotFoundError as error:
        if error.filename != str(source):
            raise
        raise _altered(source, digest, "it is not there") from error
    if seen.hexdigest() != digest:
        raise _altered(source, digest, f"sha256 {seen.hexdigest()}")
    target.chmod(0o666 & ~umask())
    return size


def _altered(path: Path, digest: str, found: str) -> ExportError:
    return ExportError(
        "the file is not as it was published, and nothing was exported",
        where=path,
        expected=f"sha256 {digest}",
        found=found,
        remedy="see what else is not as recorded with popcorn audit, then materialise the "
        "publication again",
    )


@contextmanager
def _ours(target: Path) -> Iterator[None]:
    """Have a folder to ourselves, and refuse one that is not ours.

    Raises:
        ExportError: it is no folder, or holds something and was never exported to.
    """
    if target.exists() and not target.is_dir():
        raise ExportError(
            "the target is no folder",
            where=target,
            expected="a folder that is empty, was exported to before, or is not there yet",
            found="a file",
            remedy="name another one with --to",
        )
    made = not target.exists()
    if not made:
        _require_ours(target)
    target.mkdir(parents=True, exist_ok=True)
    with held(target / _LOCK):
        _require_ours(target)
        for left in target.glob(f"{_STAGING}*"):
            shutil.rmtree(left, ignore_errors=True)
        try:
            yield
        except BaseException:
            if made and not (target / NOTE).exists():  # leave nothing where nothing was
                shutil.rmtree(target, ignore_errors=True)
            raise


def _require_ours(target: Path) -> None:
    there = [path.name for path in target.iterdir() if not path.name.startswith((_LOCK, _STAGING))]
    if there and NOTE not in there:
        raise ExportError(
            "the target holds something and is no former export",
            where=target,
            expected=f"an empty folder, or one with {NOTE} in it",
            found=", ".join(sorted(there)[:5]) + (" and more" if len(there) > 5 else ""),
            remedy="name another folder with --to, or empty this one",
        )


@contextmanager
def _staging(target: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=_STAGING, dir=target))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _read_note(target: Path) -> dict[str, Any]:
    """The folder's note; a new one where there is none.

    Raises:
        ExportError: it is not what an export writes.
    """
    path = target / NOTE
    if not path.exists():
        return {"schema": 1, "catalogue": CATALOGUE, "country_years": {}}
    try:
        note = json.loads(path.read_text("utf-8"))
        if note["schema"] == 1 and all(isinstance(y, dict) for y in note["country_years"].values()):
            return note
        found = f"schema {note['schema']}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        found = f"{type(error).__name__}: {error}"
    raise ExportError(
        "the note of earlier exports cannot be read",
        where=path,
        expected="what an export of this version writes",
        found=found,
        remedy="export to another folder",
    )
