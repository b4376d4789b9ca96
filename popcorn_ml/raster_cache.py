"""Decoded blocks of rasters, held while neighbouring windows still need them.

Windows that reach beyond their tile, or take one band after the other of a raster that stores them
together, would have each block decoded over and over. While `holding` is on, blocks are decoded
once, by whichever thread comes first, and kept up to a bound; files are opened once. The results
are those of reading without it, to the bit.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from popcorn_ml.grid import Tile, Window
from popcorn_ml.raster_values import Meaning, meaning_of

if TYPE_CHECKING:
    import rasterio

HELD_BYTES = 160 << 20
"""Of decoded blocks: the composites of four seasons over `BAND_PX` columns and four rows of
blocks, so that tiles taken band by band (`in_bands`) have each block decoded once a band."""

BAND_PX = 2048
"""Columns of a band; see `in_bands`."""

FILES_OPEN = 32
"""Rasters kept open at most, each once for every thread that reads it at the same time."""

LARGEST_BLOCK = 1 << 20
"""Pixels; a raster of larger blocks (or of none) is read as it comes."""

GDAL_BYTES = 32 << 20
"""Of GDAL's own cache of blocks, whose default is a share of the machine's memory."""

Opening = Callable[[str], "rasterio.DatasetReader"]

Key = tuple[str, int, int, int]
"""A file's path, inode, size and time of change."""


@lru_cache(maxsize=1)
def keep_gdal_small() -> None:
    """Bound GDAL's cache, for good: whatever is read or written, memory does not grow with it."""
    from rasterio.env import set_gdal_config

    set_gdal_config("GDAL_CACHEMAX", GDAL_BYTES)  # in bytes, though GDAL's option counts in MB


@dataclass(frozen=True)
class _File:
    """An open raster whose blocks can be held.

    Attributes:
        meaning: of its values.
        idle: handles that no thread uses just now.
    """

    path: str
    shape: tuple[int, int]
    block: tuple[int, int]
    count: int
    meaning: Meaning
    idle: list[rasterio.DatasetReader]


class BlockCache:
    """The blocks of a process.

    Args:
        opening: opens a raster.
        size: bytes of blocks at most, besides those that are being decoded.

    Attributes:
        decoded: blocks decoded so far.
    """

    def __init__(self, opening: Opening, size: int = HELD_BYTES) -> None:
        self.size, self.decoded = size, 0
        self._open = opening
        self._files: OrderedDict[Key, _File | None] = OrderedDict()
        self._blocks: OrderedDict[tuple[Key, int, int], Future[np.ndarray]] = OrderedDict()
        self._held = 0
        self._lock = threading.Lock()

    def read(
        self, path: str, index: list[int] | None, window: Window
    ) -> tuple[np.ndarray, list[int], Meaning] | None:
        """Stored values of a window, the numbers of its bands, and what its values mean.

        Args:
            path: the raster.
            index: bands, from 1; None takes all.
            window: of the raster.

        Returns:
            None where nothing is gained: the raster's blocks cannot be held, or whole blocks of all
            bands are asked for, which nobody else will need.

        Raises:
            RasterError, RasterioError: it cannot be opened, or read.
        """
        key, file = self._file(path)
        if file is None or not _inside(window, file.shape):
            return None
        index = list(range(1, file.count + 1)) if index is None else index
        if len(index) == file.count and _whole_blocks(window, file):
            return None
        if not all(1 <= band <= file.count for band in index):
            return None  # which GDAL says better
        dtype = np.dtype(file.meaning.dtype)
        out = np.empty((len(index), window.height, window.width), dtype)
        bands = [band - 1 for band in index]
        every = bands == list(range(file.count))
        height, width = file.block
        for row in range(window.row // height, (window.row + window.height - 1) // height + 1):
            for col in range(window.col // width, (window.col + window.width - 1) // width + 1):
                block = self._block(key, file, row, col)
                top, left = row * height, col * width
                first = max(window.row, top), max(window.col, left)
                last = (
                    min(window.row + window.height, top + block.shape[1]),
                    min(window.col + window.width, left + block.shape[2]),
                )
                there = block[:, first[0] - top : last[0] - top, first[1] - left : last[1] - left]
                out[
                    :,
                    first[0] - window.row : last[0] - window.row,
                    first[1] - window.col : last[1] - window.col,
                ] = there if every else there[bands]
        return out, index, file.meaning

    def _file(self, path: str) -> tuple[Key, _File | None]:
        try:
            at = os.stat(path)
        except OSError:
            return (path, 0, 0, 0), None
        key = path, at.st_ino, at.st_size, at.st_mtime_ns
        with self._lock:
            if key in self._files:
                self._files.move_to_end(key)
                return key, self._files[key]
        dataset = self._open(path)
        file = _of(path, dataset)
        gone = []
        with self._lock:
            if file is None or key in self._files:
                gone.append(dataset)
            else:
                file.idle.append(dataset)
            file = self._files.setdefault(key, file)
            while len(self._files) > FILES_OPEN:
                _, old = self._files.popitem(last=False)
                gone += [] if old is None else old.idle
        for one in gone:
            one.close()
        return key, file

    def _block(self, key: Key, file: _File, row: int, col: int) -> np.ndarray:
        place = key, row, col
        with self._lock:
            future = self._blocks.get(place)
            mine = future is None
            if future is None:
                future = self._blocks[place] = Future()
            self._blocks.move_to_end(place)
        if not mine:
            return future.result()
        try:
            block = self._decode(file, row, col)
        except BaseException as error:
            with self._lock:
                self._blocks.pop(place, None)
            future.set_exception(error)
            raise
        future.set_result(block)
        with self._lock:
            self._held += block.nbytes
            self._forget()
        return block

    def _decode(self, file: _File, row: int, col: int) -> np.ndarray:
        height, width = file.block
        top, left = row * height, col * width
        window = (
            (top, min(top + height, file.shape[0])),
            (left, min(left + width, file.shape[1])),
        )
        with self._lock:
            dataset = file.idle.pop() if file.idle else None
            self.decoded += 1
        dataset = dataset or self._open(file.path)
        try:
            return dataset.read(window=window)
        finally:
            with self._lock:
                file.idle.append(dataset)

    def _forget(self) -> None:
        """Drop blocks that were not asked for longest, until the rest is within the bound."""
        for place in list(self._blocks):
            if self._held <= self.size:
                return
            future = self._blocks[place]
            if future.done():
                del self._blocks[place]
                self._held -= future.result().nbytes

    def close(self) -> None:
        """Forget all, and close the files."""
        with self._lock:
            files = list(self._files.values())
            self._files.clear()
            self._blocks.clear()
            self._held = 0
        for file in files:
            for dataset in file.idle if file is not None else ():
                dataset.close()


def _of(path: str, dataset: rasterio.DatasetReader) -> _File | None:
    """A raster whose blocks can be held; None if it stores them in another way than ours do."""
    meaning = meaning_of(dataset)
    blocks = set(dataset.block_shapes)
    if meaning is None or len(blocks) != 1:
        return None
    block = blocks.pop()
    if block[0] * block[1] > LARGEST_BLOCK:
        return None
    return _File(path, dataset.shape, block, dataset.count, meaning, [])


def _inside(window: Window, shape: tuple[int, int]) -> bool:
    return (
        min(window.row, window.col) >= 0
        and min(window.height, window.width) > 0
        and window.row + window.height <= shape[0]
        and window.col + window.width <= shape[1]
    )


def _whole_blocks(window: Window, file: _File) -> bool:
    ends = (window.row + window.height, window.col + window.width)
    return (
        window.row % file.block[0] == 0
        and window.col % file.block[1] == 0
        and all(
            end % side == 0 or end == size
            for end, side, size in zip(ends, file.block, file.shape, strict=True)
        )
    )


_turn = threading.Lock()
_users = 0
_cache: BlockCache | None = None


@contextmanager
def holding(opening: Opening) -> Iterator[BlockCache]:
    """Hold decoded blocks while any thread of this process is in such a `with`.

    Args:
        opening: opens a raster.
    """
    global _users, _cache
    with _turn:
        _users += 1
        if _cache is None:
            _cache = BlockCache(opening)
        cache = _cache
    try:
        yield cache
    finally:
        with _turn:
            _users -= 1
            done = _users == 0
            if done:
                _cache = None
        if done:
            cache.close()


def current() -> BlockCache | None:
    """The blocks held just now."""
    return _cache


def in_bands(tiles: Iterable[Tile]) -> list[Tile]:
    """Tiles by bands of `BAND_PX` columns, each band from north to south.

    In this order the blocks that two tiles need are still held when the second one comes.
    """
    return sorted(tiles, key=lambda tile: (tile.core.col // BAND_PX, tile.core.row, tile.core.col))
