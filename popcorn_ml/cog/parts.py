"""Finished blocks, kept in files beside the raster until all are there and can be put in order.

The files are of a few dozen megabytes and are removed one by one while their blocks are copied, so
that a raster and its drafts together take little more room than the raster. The coarser levels
have files of their own: they come first in a raster.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from popcorn_ml.cog.blocks import crc32
from popcorn_ml.cog.profile import Place, Profile
from popcorn_ml.errors import RasterError

FILE_BYTES = 32 << 20
"""A file of blocks is closed at this size, and another begun."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Where a block lies.

    Attributes:
        file: number of the file, of those that a `Parts` knows.
        offset, size: of its bytes.
        crc: their CRC-32, taken before they were written.
    """

    file: int
    offset: int
    size: int
    crc: int


class Parts:
    """Blocks on disk. Threads may keep blocks at the same time.

    Args:
        folder: where the files are; it has to exist.
        name: what their names begin with.
    """

    def __init__(self, folder: Path, name: str = "blocks") -> None:
        self.folder, self.name = folder, name
        self.files: list[Path] = []
        self.index: dict[Place, Kept] = {}
        self._open: dict[bool, tuple[int, int, int]] = {}
        self._holding: dict[int, int] = {}
        self._reading: dict[int, int] = {}
        self._lock = threading.Lock()

    def keep(self, place: Place, data: bytes) -> None:
        """Write a block down."""
        crc = crc32(data)
        with self._lock:
            self._note(place, self._append(place.level > 0, data, crc))

    def append(self, data: bytes) -> Kept:
        """Write down something that is no block; it is found by what is returned."""
        with self._lock:
            return self._append(True, data, crc32(data))

    def _append(self, coarse: bool, data: bytes, crc: int) -> Kept:
        number, file, size = self._open.get(coarse, (0, -1, FILE_BYTES))
        if size >= FILE_BYTES:
            if file >= 0:
                os.close(file)
            number, size = len(self.files), 0
            path = self.folder / f"{self.name}-{number:06d}"
            self.files.append(path)
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        offset, rest = size, memoryview(data)
        self._open[coarse] = number, file, size + len(data)
        while rest:
            rest = rest[os.write(file, rest) :]
        return Kept(number, offset, len(data), crc)

    def _note(self, place: Place, kept: Kept) -> None:
        if place in self.index:
            raise ValueError(f"block {tuple(place)} was written twice")
        self.index[place] = kept
        self._holding[kept.file] = self._holding.get(kept.file, 0) + 1

    def add(self, files: Iterable[Path], blocks: Iterable[tuple[Place, Kept]]) -> int:
        """Take over blocks that others wrote; `file` counts their files.

        Returns:
            What has to be added to their numbers of files.
        """
        with self._lock:
            first = len(self.files)
            self.files += files
            for place, kept in blocks:
                moved = Kept(kept.file + first, kept.offset, kept.size, kept.crc)
                self._note(place, moved)
            return first

    def close(self) -> None:
        """Nothing more is to be written or read."""
        for _, file, _ in self._open.values():
            os.close(file)
        for file in self._reading.values():
            os.close(file)
        self._open, self._reading = {}, {}

    def read(self, kept: Kept) -> bytes:
        """A block's bytes.

        Raises:
            RasterError: they are not those that were written.
        """
        if kept.file not in self._reading:
            self._reading[kept.file] = os.open(self.files[kept.file], os.O_RDONLY)
        data = os.pread(self._reading[kept.file], kept.size, kept.offset)
        if len(data) != kept.size or crc32(data) != kept.crc:
            raise RasterError(
                "a block of the raster was not written as it was made",
                where=self.files[kept.file],
                expected=f"{kept.size} bytes with checksum {kept.crc:08x}",
                found=f"{len(data)} bytes with checksum {crc32(data):08x}",
                remedy="see whether the disk is failing, and run again",
            )
        return data

    def release(self, kept: Kept) -> None:
        """A block is needed no more; a file without any that is goes."""
        self._holding[kept.file] -= 1
        if not self._holding[kept.file]:
            if kept.file in self._reading:
                os.close(self._reading.pop(kept.file))
            self.files[kept.file].unlink(missing_ok=True)


def in_file_order(profile: Profile) -> Iterable[Place]:
    """Every block of a raster in the order of the file: coarsest level first, rows of blocks."""
    for level in reversed(range(len(profile.shapes))):
        rows, cols = profile.blocks[level]
        for row in range(rows):
            for col in range(cols):
                yield Place(level, row, col)
