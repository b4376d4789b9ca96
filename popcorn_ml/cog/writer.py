"""Rasters written block by block by those who make them, and there when they are whole."""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from popcorn_ml.cog.blocks import crc32
from popcorn_ml.cog.layout import Entry, Layout, described, laid_out
from popcorn_ml.cog.parts import Kept, Parts, in_file_order
from popcorn_ml.cog.profile import BLOCK_PX, Place, Profile
from popcorn_ml.cog.pyramid import Pyramid
from popcorn_ml.cog.statistics import BandStatistics
from popcorn_ml.errors import RasterError
from popcorn_ml.files import naming_the_disk, sync, umask
from popcorn_ml.grid import Grid, Window

COPY_BYTES = 4 << 20
"""Read and written at once while blocks are put in order."""


@dataclass(frozen=True)
class Share:
    """A worker's part of a raster: where its blocks are, and what waits for pixels of others.

    Attributes:
        files: that the worker wrote.
        blocks: place and whereabouts of each finished block.
        begun: level, first row, first column, rows and columns of windows that no block was
            complete with, and where their pixels are.
    """

    files: tuple[Path, ...]
    blocks: tuple[tuple[Place, Kept], ...]
    begun: tuple[tuple[tuple[int, int, int, int, int], Kept], ...]


@dataclass(frozen=True)
class Desk:
    """What a worker elsewhere needs, to write its share of a raster: plain values.

    Attributes:
        profile: of the raster.
        folder: of the drafts, which all machines see.
    """

    profile: Profile
    folder: Path

    @contextmanager
    def share(self) -> Iterator[ShareWriter]:
        """Write a share, beside those of others."""
        with naming_the_disk(self.folder):
            handle, name = tempfile.mkstemp(prefix="share-", dir=self.folder)
            os.close(handle)
            parts = Parts(self.folder, Path(name).name)
            try:
                yield ShareWriter(self.profile, parts)
            finally:
                parts.close()


class ShareWriter:
    """A share that is being written; its name is its own, whoever else tries the same."""

    def __init__(self, profile: Profile, parts: Parts) -> None:
        self._profile, self._parts = profile, parts
        self._pyramid = Pyramid(profile, parts.keep)

    def write(self, values: np.ndarray, window: Window) -> None:
        """As `CogWriter.write`."""
        self._pyramid.add(0, window.row, window.col, shaped(values, window, self._profile))

    def finish(self) -> Share:
        """All of it is on disk; where."""
        begun = tuple(
            ((level, row, col, *values.shape[1:]), self._parts.append(values.tobytes()))
            for level, row, col, values in self._pyramid.begun()
        )
        return Share(tuple(self._parts.files), tuple(self._parts.index.items()), begun)


def shaped(values: np.ndarray, window: Window, profile: Profile) -> np.ndarray:
    """Values of a window as they are stored, (bands, rows, columns).

    Raises:
        ValueError: they are not the window's.
    """
    if values.ndim == 2:
        values = values[None]
    expected = (profile.bands, window.height, window.width)
    if values.shape != expected:
        raise ValueError(f"writing {values.shape} into a window of {expected}")
    if (
        min(window.row, window.col) < 0
        or window.row + window.height > profile.height
        or window.col + window.width > profile.width
    ):
        raise ValueError(f"{window} is not inside {profile.height} x {profile.width} pixels")
    return values.astype(profile.numpy_dtype, copy=False)


class CogWriter:
    """Write a raster window by window; on leaving the `with` it is a COG under its name.

    Args:
        path: where the COG will be. Nothing is there until all is written and synced, and on an
            exception nothing ever is.
        grid: the raster's grid.
        bands: one description a band.
        dtype: numpy name of the stored type.
        nodata: stored value that means "no value"; NaN for floats. Pixels never written have it.
        scale: value of one stored unit, where the stored value is not the value.
        tags: what the file says about itself.
        resampling: of the overviews; "nearest" for identifiers.
        units: unit of each band's values; empty says none.
        statistics: count the values while they are written, and have each band say its smallest,
            largest and mean value, so that no program has to read it through to draw it. Not for
            shares that others write.

    Each pixel is written once, in windows of any size, in any order, by any number of threads: who
    brings a block's last pixel encodes it. The file's bytes depend on the pixels alone. Machines
    that see the same folder write their shares themselves (`desk`, `take`).

    Memory stays at the blocks that have begun; see `pyramid`.
    """

    def __init__(
        self,
        path: str | Path,
        grid: Grid,
        bands: Sequence[str],
        dtype: str,
        nodata: float,
        *,
        scale: float = 1.0,
        tags: dict[str, Any] | None = None,
        resampling: str = "average",
        units: Sequence[str] = (),
        statistics: bool = False,
    ) -> None:
        self.path, self.grid, self.bands = Path(path), grid, tuple(bands)
        self.profile = Profile(grid.height, grid.width, len(self.bands), dtype, nodata, resampling)
        self.scale = scale
        self.tags = {k: str(v) for k, v in (tags or {}).items()}
        self.units = tuple(units)
        self._seen: dict[Window, list[BandStatistics]] | None = {} if statistics else None

    def __enter__(self) -> CogWriter:
        self._told = self._describe()
        with naming_the_disk(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            drafts = tempfile.mkdtemp(
                prefix=f".{self.path.stem}.", suffix=".partial", dir=self.path.parent
            )
        self._drafts = Path(drafts)
        self._whole = self._drafts / f"whole{self.path.suffix}"
        self._prepared = False
        self._parts = Parts(self._drafts)
        self._pyramid = Pyramid(self.profile, self._parts.keep)
        return self

    def write(self, values: np.ndarray, window: Window | None = None) -> None:
        """Write stored values, (bands, rows, columns) or, for one band, (rows, columns)."""
        window = window or self.grid.whole()
        kept = shaped(values, window, self.profile)
        if self._seen is not None:
            self._seen[window] = [BandStatistics.of(band, self.profile.nodata) for band in kept]
        with naming_the_disk(self.path):
            self._pyramid.add(0, window.row, window.col, kept)

    @property
    def statistics(self) -> list[BandStatistics]:
        """Of each band, of what has been written; none where they are not counted."""
        if self._seen is None:
            return []
        found = [BandStatistics() for _ in self.bands]
        # In one order, whichever thread was first: the last digits depend on it.
        for window in sorted(self._seen, key=lambda window: (window.row, window.col)):
            for band, seen in zip(found, self._seen[window], strict=True):
                band.add(seen)
        return found

    def _describe(self) -> dict[int, Entry]:
        said = [seen.tags() for seen in self.statistics]
        return described(
            self.profile, self.grid, self.bands, self.scale, self.tags, self.units, said
        )

    @property
    def desk(self) -> Desk:
        """For a worker that writes its share itself."""
        return Desk(self.profile, self._drafts)

    def take(self, share: Share) -> None:
        """Take a share over; whatever another try of the same worker left is ignored."""
        with naming_the_disk(self.path):
            first = self._parts.add(share.files, share.blocks)
            for (level, row, col, height, width), kept in share.begun:
                moved = Kept(kept.file + first, kept.offset, kept.size, kept.crc)
                values = np.frombuffer(self._parts.read(moved), self.profile.numpy_dtype)
                self._pyramid.add(level, row, col, values.reshape(-1, height, width))

    def __exit__(self, kind, error, trace) -> None:
        try:
            if kind is None:
                self.prepare()
                with naming_the_disk(self.path):
                    os.replace(self._whole, self.path)
                    sync(self.path.parent)
        finally:
            self._parts.close()
            shutil.rmtree(self._drafts, ignore_errors=True)

    def prepare(self) -> None:
        """Put the file together beside its place, as leaving the `with` does first.

        Raises:
            StoreError: the disk is full or read-only.
            RasterError: it could not be written for another reason.
        """
        if self._prepared:
            return
        try:
            self._put_together()
        except Exception as failure:
            with naming_the_disk(self.path):
                raise RasterError(
                    "the raster could not be written",
                    where=self.path,
                    found=str(failure),
                    remedy="see whether there is room on the disk, and whether it can be written",
                ) from failure
        self._prepared = True

    def _put_together(self) -> None:
        if self._seen is not None:
            self._told = self._describe()
        self._pyramid.complete(self._parts.index.__contains__)
        index = self._parts.index
        sizes = [
            np.array(
                [index[Place(level, row, col)].size for row in range(rows) for col in range(cols)],
                np.uint64,
            )
            for level, (rows, cols) in enumerate(self.profile.blocks)
        ]
        layout = laid_out(self.profile, self._told, sizes)
        checksum = self._join(layout, self._whole)
        sync(self._whole)
        _check_written(self._whole, layout, checksum, self.profile)
        self._whole.chmod(0o666 & ~umask())

    def _join(self, layout: Layout, whole: Path) -> int:
        """Put the blocks in their order into one file; its CRC-32."""
        checksum = crc32(layout.head)
        with open(whole, "wb", buffering=COPY_BYTES) as out:
            out.write(layout.head)
            for place in in_file_order(self.profile):
                kept = self._parts.index[place]
                data = self._parts.read(kept)
                framed = struct.pack("<I", kept.size) + data + data[-4:]
                checksum = crc32(framed, checksum)
                out.write(framed)
                self._parts.release(kept)
        return checksum


@contextmanager
def together(*writers: CogWriter) -> Iterator[tuple[CogWriter, ...]]:
    """Writers whose files appear when all of them are whole, and none of them if one fails."""
    with ExitStack() as stack:
        for writer in writers:
            stack.enter_context(writer)
        yield writers
        with ThreadPoolExecutor(len(writers) or 1) as pool:
            for _ in pool.map(CogWriter.prepare, writers):
                pass


def _check_written(path: Path, layout: Layout, checksum: int, profile: Profile) -> None:
    """Hold what is on disk against what was made, without decoding it all.

    The file's length and checksum are those of the blocks as they left their threads; that GDAL
    understands the head, and the first and last block of each level, is tried.

    Raises:
        RasterError: something differs.
    """
    import rasterio

    found, size = 0, 0
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(COPY_BYTES):
            found, size = crc32(chunk, found), size + len(chunk)
    if (size, found) != (layout.total, checksum):
        raise RasterError(
            "the raster on disk is not what was written",
            where=path,
            expected=f"{layout.total} bytes with checksum {checksum:08x}",
            found=f"{size} bytes with checksum {found:08x}",
        )
    for level, shape in enumerate(profile.shapes):
        options = {} if level == 0 else {"overview_level": level - 1}
        with rasterio.open(path, driver="GTiff", **options) as dataset:
            if dataset.shape != shape or dataset.count != profile.bands:
                raise RasterError(
                    "the raster's head does not say what was written",
                    where=path,
                    expected=f"{profile.bands} bands of {shape}",
                    found=f"{dataset.count} bands of {dataset.shape}",
                )
            rows, cols = (-(-side // BLOCK_PX) for side in shape)
            for row, col in {(0, 0), (rows - 1, cols - 1)}:
                dataset.read(window=dataset.block_window(1, row, col))
