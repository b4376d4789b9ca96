"""Locks between processes: a file, held for as long as its holder lives, naming who holds it.

The kernel gives a lock back when the last process that inherited it ends, however it ends. The
file system has to support flock (NFS 4 does, Lustre where it is mounted so); on one that does not,
every lock ends in one error that says so.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from popcorn_ml.files import flock


def try_lock(path: Path, note: str = "") -> int | None:
    """Take the lock if it is free.

    Args:
        path: the lock's file; made where it is not there. Nobody but its holder may remove it.
        note: who takes it, for others to read (`holder`).

    Returns:
        A file descriptor; closing it gives the lock back. None: somebody else holds it.
    """
    return _take(path, note, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_free(path: Path) -> bool:
    """Whether nobody holds the lock; makes no file."""
    try:
        lock = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return True
    except PermissionError:
        return False  # whoever may not have it cannot know
    try:
        flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, path)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(lock)


def holder(path: Path) -> str:
    """What the present or last holder said of itself; empty where nobody ever did."""
    try:
        return path.read_text("utf-8").strip()
    except OSError:
        return ""


@contextmanager
def held(
    path: Path,
    note: str = "",
    waiting: Callable[[str], None] | None = None,
    *,
    shared: bool = False,
) -> Iterator[None]:
    """Hold the lock for the block, after waiting for whoever has it.

    Args:
        waiting: called once with the holder's note if there is somebody to wait for.
        shared: others who share may hold it too; who wants it alone waits for all of them.
    """
    operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    lock = _take(path, note, operation | fcntl.LOCK_NB)
    if lock is None and waiting is not None:
        waiting(holder(path))
    while lock is None:
        lock = _take(path, note, operation)
    try:
        yield
    finally:
        os.close(lock)


def _take(path: Path, note: str, operation: int) -> int | None:
    """The lock, or None where it is taken or its file was removed while we waited."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    taken = False
    try:
        flock(lock, operation, path)
        taken = os.path.samestat(os.fstat(lock), path.stat())
        if taken:
            os.ftruncate(lock, 0)
            os.pwrite(lock, note.encode(), 0)
    except (BlockingIOError, FileNotFoundError):
        taken = False
    finally:
        if not taken:
            os.close(lock)
    return lock if taken else None
