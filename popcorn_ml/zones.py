"""Sums over zones (census units, hectares) in one pass over the pixels, with no loop over zones.

Along a row, neighbours mostly lie in one zone: each run of equal numbers is summed first, and only
the runs' sums, far fewer than the pixels, are counted into zones. Rasters are read in blocks, in
threads (numpy lets them run side by side), and added up in the blocks' order, so that the result
does not depend on the number of threads.

What a census unit is, and how its pixels were chosen, is `census`'s matter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from popcorn_ml.errors import RasterError
from popcorn_ml.grid import Grid, Window
from popcorn_ml.parallel import in_order

CHUNK_PIXELS = 1 << 21
"""Pixels of an array summed at once: their copies in float64 stay small beside the array."""

BLOCK_PX = 1280
"""Side of a raster's block: whole blocks of our rasters (256) and whole hectares (10)."""


class ZoneNumberError(ValueError):
    """A zone number that is negative, or above the number of zones."""


@dataclass(frozen=True)
class ZoneSums:
    """Sums of K value rasters over zones 0..count; item 0 is what lies in no zone.

    Attributes:
        pixels: int64 of shape (count + 1,), pixels of each zone.
        sums: float64 of shape (K, count + 1), NaN counted as nothing.
        missing: int64 of shape (K, count + 1), pixels whose value is NaN.
    """

    pixels: np.ndarray
    sums: np.ndarray
    missing: np.ndarray

    @property
    def valid(self) -> np.ndarray:
        """Pixels that have a value, int64 of shape (K, count + 1)."""
        return self.pixels - self.missing

    @classmethod
    def none(cls, rasters: int, count: int) -> ZoneSums:
        """The sums over no pixel at all."""
        return cls(
            np.zeros(count + 1, np.int64),
            np.zeros((rasters, count + 1)),
            np.zeros((rasters, count + 1), np.int64),
        )

    def __add__(self, other: ZoneSums) -> ZoneSums:
        return ZoneSums(
            self.pixels + other.pixels, self.sums + other.sums, self.missing + other.missing
        )


def zone_sums(zones: np.ndarray, values: np.ndarray | None, count: int) -> np.ndarray:
    """Sum of `values` in each zone.

    Args:
        zones: zone numbers 0..count, any shape; 0 means no zone.
        values: of the same shape; NaN counts as nothing. None counts pixels.
        count: the number of zones.

    Returns:
        float64 of shape (count + 1,); item 0 is what lies in no zone.

    Raises:
        ZoneNumberError: a zone number above `count` or negative.
        ValueError: values of another shape.
    """
    table = zone_table(zones, [] if values is None else [values], count)
    return table.pixels.astype(np.float64) if values is None else table.sums[0]


def zone_table(zones: np.ndarray, values: Sequence[np.ndarray], count: int) -> ZoneSums:
    """Sums, pixels and missing pixels of several value arrays in each zone.

    Args:
        zones: integer zone numbers 0..count, any shape; 0 means no zone.
        values: K arrays of that shape, any real type; NaN counts as nothing, and is counted.
        count: the number of zones.

    Raises:
        ZoneNumberError: a zone number above `count` or negative.
        ValueError: zones that are not integers, or values of another shape.
    """
    if zones.dtype.kind not in "ui":
        raise ValueError(f"zone numbers are {zones.dtype}, not integers")
    for value in values:
        if value.shape != zones.shape:
            raise ValueError(f"values of shape {value.shape} over zones of shape {zones.shape}")
    total = ZoneSums.none(len(values), count)
    flat = zones.reshape(-1)
    flats = [value.reshape(-1) for value in values]
    for start in range(0, flat.size, CHUNK_PIXELS):
        part = slice(start, start + CHUNK_PIXELS)
        total += _block(flat[part], [value[part] for value in flats], count)
    return total


def _block(zones: np.ndarray, values: Sequence[np.ndarray], count: int) -> ZoneSums:
    starts = np.flatnonzero(zones[1:] != zones[:-1]) + 1
    starts = np.concatenate((np.zeros(1, starts.dtype), starts))
    numbers = zones[starts].astype(np.int64)
    if numbers.min() < 0 or numbers.max() > count:
        wrong = numbers[(numbers < 0) | (numbers > count)][0]
        raise ZoneNumberError(f"zone number {wrong} is outside 0..{count}")
    lengths = np.diff(starts, append=zones.size)
    result = ZoneSums.none(len(values), count)
    result.pixels[:] = _scatter(numbers, lengths, count)
    for k, value in enumerate(values):
        weights = value.astype(np.float64)
        holes = np.isnan(weights)
        if holes.any():
            weights[holes] = 0.0
            result.missing[k] = np.bincount(zones[holes].astype(np.int64), minlength=count + 1)
        result.sums[k] = _scatter(numbers, np.add.reduceat(weights, starts), count)
    return result


def _scatter(numbers: np.ndarray, amounts: np.ndarray, count: int) -> np.ndarray:
    return np.bincount(numbers, weights=amounts, minlength=count + 1)


def raster_zone_sums(
    zones_path: str | Path,
    value_paths: Sequence[str | Path | tuple[str | Path, int]],
    grid: Grid,
    count: int,
    *,
    by_area: bool = False,
    block_px: int = BLOCK_PX,
    threads: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> ZoneSums:
    """Sums of several rasters over the zones of another, in one pass and in blocks.

    Args:
        zones_path: raster of zone numbers 0..count (uint32), 0 = no zone.
        value_paths: K rasters, or pairs of a raster and its 1-based band; a raster alone means
            its first band. Values are decoded (scale, nodata as NaN).
        grid: the grid that all of them must lie on.
        count: the number of zones.
        by_area: values are of a pixel of the grid's mean area: each counts as its own area.
        block_px: side of a block; a multiple of the rasters' own blocks (256) is fastest.
        threads: blocks in work at once. The result does not depend on it.
        progress: called with (blocks done, blocks).

    Memory: about `threads` x (2 + K) blocks, and (2 K + 1) x (count + 1) numbers a block in work.

    Raises:
        GridMismatch: a raster lies elsewhere.
        RasterError: a raster is unreadable, or holds a zone number above `count`.
    """
    from popcorn_ml import raster

    layers = [item if isinstance(item, tuple) else (item, 1) for item in value_paths]
    for path in (zones_path, *(path for path, _ in layers)):
        raster.check(path, grid)

    def read(window: Window) -> tuple[np.ndarray, list[np.ndarray]]:
        values = [raster.read_float(path, window, band) for path, band in layers]
        if by_area and grid.is_geographic:
            values = [value * grid.relative_area(window) for value in values]
        return raster.read(zones_path, window, 1), values

    try:
        return blockwise_zone_sums(
            read,
            [tile.core for tile in grid.tiles(block_px)],
            len(layers),
            count,
            threads=threads,
            progress=progress,
        )
    except ZoneNumberError as error:
        raise RasterError(
            "the raster does not hold the units it is said to",
            where=zones_path,
            expected=f"unit numbers 0..{count}",
            found=str(error),
            remedy="rasterise the units again, together with their counts",
        ) from error


def blockwise_zone_sums(
    read: Callable[[Window], tuple[np.ndarray, Sequence[np.ndarray]]],
    windows: Sequence[Window],
    rasters: int,
    count: int,
    *,
    threads: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> ZoneSums:
    """Sums over what `read` returns, where the values are made while reading.

    Args:
        read: the zone numbers and the K value arrays of a window; called in threads.
        windows: in the order in which they are added up.
        rasters: K.
        count: the number of zones.
        threads: windows in work at once. The result does not depend on it.
        progress: called with (windows done, windows).

    Raises:
        ZoneNumberError: a zone number above `count` or negative.
    """

    def work(window: Window) -> ZoneSums:
        zones, values = read(window)
        return zone_table(zones, values, count)

    total = ZoneSums.none(rasters, count)
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(threads)) if threads > 1 else None
        for done, part in enumerate(in_order(work, windows, pool, threads + 1), start=1):
            total += part
            if progress is not None:
                progress(done, len(windows))
    return total
