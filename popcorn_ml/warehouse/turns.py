"""The queue for the warehouse's file: who may read it together, who writes it alone.

DuckDB lets one process write or several read, and refuses the others at once; so every connection
first takes a place in a queue of file locks beside the database, for a bounded time.
"""

from __future__ import annotations

import fcntl
import random
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import IO

from popcorn_ml.errors import StoreError, Unread
from popcorn_ml.files import flock


@contextmanager
def turn(path: Path, timeout_s: float, exclusive: bool) -> Iterator[None]:
    """A place in the queue for a warehouse: readers together, a writer alone.

    Two lock files: whoever wants in first takes the gate, waits there for the room, and lets
    go of the gate once inside. A waiting writer thereby keeps later readers out, so that a
    stream of readers cannot starve it.

    Args:
        path: the warehouse's file; the lock files lie beside it.
        timeout_s: how long to wait.
        exclusive: whether to be alone.

    Raises:
        StoreError: no turn in time, or no right to write.
    """
    take = partial(_take, path, timeout_s, time.monotonic() + timeout_s)
    with (
        _lock_file(path, ".gate", exclusive) as gate,
        _lock_file(path, ".lock", exclusive) as room,
    ):
        if gate is None or room is None:  # DuckDB's own lock still keeps a writer out
            yield
            return
        # A file that is open for reading only cannot be locked exclusively everywhere (NFS).
        take(gate, fcntl.LOCK_EX if gate.writable() else fcntl.LOCK_SH)
        try:
            take(room, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        finally:
            fcntl.flock(gate, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(room, fcntl.LOCK_UN)


def _lock_file(
    warehouse: Path, suffix: str, exclusive: bool
) -> AbstractContextManager[IO[str] | None]:
    """A lock file, opened; made where it is missing.

    Who may not write opens it for reading, or has None where that cannot be either.

    Raises:
        StoreError: it cannot be written, and `exclusive` says that somebody wants to.
    """
    path = beside(warehouse, suffix)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, "a")
    except OSError as error:
        if exclusive:
            raise StoreError(
                "the warehouse cannot be written",
                where=warehouse,
                found=str(error),
                remedy="work as the user whom the store belongs to, or make it writable",
            ) from error
    try:
        return open(path)
    except OSError:
        return nullcontext()


def beside(path: Path, suffix: str) -> Path:
    """A file that lies beside a warehouse and is named after it."""
    return path.with_name(path.name + suffix)


def _take(path: Path, timeout_s: float, deadline: float, file: IO[str], how: int) -> None:
    pause = 0.001
    while True:
        try:
            flock(file.fileno(), how | fcntl.LOCK_NB, Path(file.name))
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise Unread(
                    "no turn at the warehouse in time",
                    where=path,
                    expected=f"a turn within {timeout_s:g} s",
                    found=f"other processes hold {file.name}",
                    remedy="see which runs are stuck, or lower how many run at once",
                ) from None
        # Jitter keeps waiting processes from asking in step.
        time.sleep(pause * random.uniform(0.5, 1.5))
        pause = min(pause * 1.3, 0.02)
