"""Arrays put aside on disk while a process works, for what memory cannot hold.

The file has no name, so nothing of it is left when the process ends, however it ends.
"""

from __future__ import annotations

import math
import os
import tempfile
import threading
from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np

LEFT_FREE = 0.5
"""Of the disk's space that is free when a scratch is made: it stops growing where less is, whoever
took the rest. Several trainings on one disk so never fill it together."""

Place = tuple[int, list[tuple[np.dtype, tuple[int, ...]]]]
"""Where arrays lie in the file, and what they are."""


class Scratch:
    """Arrays by key, written once; used by several threads at the same time.

    Args:
        folder: on the disk that is to hold them; made where it is missing.
    """

    def __init__(self, folder: str | Path) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder, prefix=".scratch-")  # noqa: SIM115
        self._least_free = LEFT_FREE * self._free()
        self._places: dict[Hashable, Place | None] = {}  # None while they are being written
        self._end = 0
        self._full = False
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        """Of the disk that are taken."""
        return self._end

    def put(self, key: Hashable, arrays: Sequence[np.ndarray]) -> None:
        """Put arrays aside, where there is room for them; a key that is known stays as it is."""
        size = sum(array.nbytes for array in arrays)
        with self._lock:
            if self._full or key in self._places:
                return
            if self._free() - size < self._least_free:
                self._full = True
                return
            start = self._end
            self._end += size
            self._places[key] = None
        try:
            at = start
            for array in arrays:
                _write(self._file.fileno(), np.ascontiguousarray(array), at)
                at += array.nbytes
        except OSError:  # a disk that is full after all, or a quota: what is there is still good
            self._full = True
            return
        with self._lock:
            self._places[key] = start, [(array.dtype, array.shape) for array in arrays]

    def get(self, key: Hashable) -> list[np.ndarray] | None:
        """The arrays of a key; None where they are not here, or the disk does not give them."""
        with self._lock:
            place = self._places.get(key)
        if place is None:
            return None
        at, kinds = place
        found = []
        try:
            for dtype, shape in kinds:
                array = np.empty(math.prod(shape), dtype)
                _read(self._file.fileno(), array, at)
                at += array.nbytes
                found.append(array.reshape(shape))
        except OSError:
            return None
        return found

    def close(self) -> None:
        """Give the space back."""
        self._file.close()

    def _free(self) -> int:
        disk = os.fstatvfs(self._file.fileno())
        return disk.f_bavail * disk.f_frsize


def _write(file: int, array: np.ndarray, at: int) -> None:
    left = _bytes_of(array)
    while left:
        done = os.pwrite(file, left, at)
        left, at = left[done:], at + done


def _read(file: int, array: np.ndarray, at: int) -> None:
    left = _bytes_of(array)
    while left:
        done = os.preadv(file, [left], at)
        if not done:
            raise OSError("the scratch file ends before its arrays do")
        left, at = left[done:], at + done


def _bytes_of(array: np.ndarray) -> memoryview:
    return array.reshape(-1).data.cast("B") if array.size else memoryview(b"")
