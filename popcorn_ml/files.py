"""Files that appear under their name only when they are complete and on disk.

Libraries say in many ways, or not at all, that a disk is full: `naming_the_disk` says it in one.
Who may read a file is what the umask says, of every file alike; what is finished nobody writes.
A file system without locks is told in one error (`flock`); who holds which is `compute.locks`.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from popcorn_ml.errors import NoLocks, StoreError

NUMPY_READS = threading.Lock()
"""To be held where threads read arrays that numpy wrote: it parses their headers as Python, and the
parser of CPython 3.11, which counts for all threads together how deep it is, has been seen to fail
where two did (SystemError: AST constructor recursion depth mismatch)."""

NO_ROOM_BYTES = 1 << 20
"""With less than this left, a failed write is held to have failed for want of room."""

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_WORDS = ("no space left on device", "disk quota exceeded", "disk full")
_READ_ONLY_WORDS = ("read-only file system",)


@contextmanager
def naming_the_disk(path: str | Path) -> Iterator[None]:
    """Turn whatever a full or read-only disk makes of a block into one error that names the path.

    Args:
        path: what is being written.

    Raises:
        StoreError: the block failed, and the disk is full or cannot be written. Any other
            exception goes on as it is.
    """
    try:
        yield
    except Exception as error:
        wrong = _wrong_with_the_disk(Path(path), error)
        if wrong is None or (isinstance(error, StoreError) and error.what == wrong):
            raise
        lines = str(error).splitlines()
        raise StoreError(
            wrong,
            where=path,
            found=f"{type(error).__name__}: {lines[0] if lines else ''}",
            remedy="make room, or make it writable, and run again: what was finished is kept",
        ) from error


def _wrong_with_the_disk(path: Path, error: BaseException) -> str | None:
    numbers, text = set(), ""
    cause: BaseException | None = error
    while cause is not None:
        numbers.add(getattr(cause, "errno", None))
        text += f" {cause}".lower()
        cause = cause.__cause__ or cause.__context__
    if numbers & set(_FULL) or any(words in text for words in _FULL_WORDS):
        return "the disk is full"
    if errno.EROFS in numbers or any(words in text for words in _READ_ONLY_WORDS):
        return "the disk is read-only"
    if "the disk is full" in text:
        return "the disk is full"
    try:
        place = next(folder for folder in (path, *path.parents) if folder.exists())
        left = shutil.disk_usage(place).free
    except (OSError, StopIteration):
        return None
    return "the disk is full" if left < NO_ROOM_BYTES else None


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A draft beside `path`, which takes its name when the block ends without an exception.

    The draft has the same suffix, so that what writes it can tell the format from its name.

    Raises:
        StoreError: the disk is full or read-only.
    """
    path = Path(path)
    with naming_the_disk(path):
        yield from _replacing(path)


def _replacing(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    draft = Path(name)
    try:
        yield draft
        draft.chmod(0o666 & ~umask())  # mkstemp gives it to nobody else, whatever was asked for
        sync(draft)
        os.replace(draft, path)
        sync(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def link_or_copy(source: Path, target: Path) -> None:
    """The same contents under another name; without taking room, where the file system links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    with replacing(path) as draft:
        draft.write_bytes(content)


def write_json(path: str | Path, value: Any, *, sort_keys: bool = False) -> None:
    """Write JSON, whole or not at all; NaN and infinity, which JSON has not, are refused."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False, sort_keys=sort_keys)
    write_bytes(path, f"{text}\n".encode())


def umask() -> int:
    """Permission bits that this process gives to nobody; they say of every file who may read it."""
    try:
        status = Path("/proc/self/status").read_text("ascii", errors="replace")
        return int(status.partition("\nUmask:")[2].split(maxsplit=1)[0], 8)
    except (OSError, IndexError, ValueError):  # not Linux: it can only be asked for by setting it
        mask = os.umask(0o077)
        os.umask(mask)
        return mask


def protect(folder: Path) -> None:
    """Make a finished folder and all in it read-only, for those whom the umask lets read it.

    What belongs to another user stays as it is: only its owner could change that.
    """
    mask = umask()
    for path in (*folder.rglob("*"), folder):
        if not path.is_symlink():
            with suppress(PermissionError):
                path.chmod((0o555 if path.is_dir() else 0o444) & ~mask)


def remove_tree(folder: Path) -> None:
    """Remove a folder, read-only or not; what belongs to another user may stay."""
    for path in (folder, *(p for p in folder.rglob("*") if p.is_dir() and not p.is_symlink())):
        with suppress(OSError):
            path.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
"""What a file system without locks answers; EOPNOTSUPP and ENOTSUP are one on Linux."""


def flock(file: int, operation: int, path: Path) -> None:
    """Lock an open file.

    Args:
        path: its name, for an error.

    Raises:
        BlockingIOError: another has it, and the operation does not wait.
        NoLocks: the file system has no locks.
    """
    try:
        fcntl.flock(file, operation)
    except OSError as error:
        if error.errno in NO_LOCKS:
            raise no_locks(path, error) from error
        raise


def no_locks(path: Path, found: object) -> NoLocks:
    """The error of a file on a file system without locks."""
    return NoLocks(
        "the file system has no file locks, without which two runs could write at once",
        where=path.parent,
        expected="a file system with flock, such as a local disk or NFS 4 with its lock service",
        found=found,
        remedy="put the store there (POPCORN_DATA), or have this one mounted with locks: NFS "
        "without nolock and with its lock service running, Lustre with -o flock",
    )


def require_locks(folder: Path) -> None:
    """Try whether files of a folder can be locked; leaves nothing behind.

    Raises:
        NoLocks: they cannot.
    """
    path = folder / f".lock-{os.getpid()}"
    lock = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, path)
    finally:
        os.close(lock)
        with suppress(OSError):
            path.unlink()
