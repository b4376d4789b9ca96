"""The one loop over a country's tiles: each is read and computed, its arrays are written in order.

Built-up score and population map differ in what they compute of a tile and in the rasters that
they write; which threads, processes or machines do the work, how many tiles are held, and who
writes is the same for both and said here.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from popcorn_ml.grid import Grid, Tile
from popcorn_ml.mapping.engine.api import Ran
from popcorn_ml.parallel import Pool, in_order
from popcorn_ml.raster import bounded_cache

if TYPE_CHECKING:
    import numpy as np

TILES_ON_A_GPU = 4
"""Tiles at work with a GPU, whatever the cores: one is computed, three are read meanwhile."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Layer:
    """A raster that tiles are written into: float32, NaN where there is no value.

    Attributes:
        name: of its values among those of a tile.
        path: the file.
        bands: one description a band.
        tags: what it says about itself.
    """

    name: str
    path: Path
    bands: tuple[str, ...]
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Computed:
    """What came of a tile.

    Attributes:
        values: layer -> float32 (bands, rows, columns), or (rows, columns) of one band, of its
            core.
        ran: what ran the networks.
        counts: numbers that add up over tiles.
    """

    values: Mapping[str, np.ndarray]
    ran: Ran
    counts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Written:
    """What is to be said of rasters that have been written.

    Attributes:
        ran: what ran the networks; several on a cluster whose workers are not alike.
        counts: those of the tiles, added up in the tiles' order.
    """

    ran: tuple[Ran, ...]
    counts: Mapping[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"ran": [ran.as_dict() for ran in self.ran], "counts": dict(self.counts)}


def write_tiles(
    work: Callable[[Tile], Computed],
    layers: Sequence[Layer],
    grid: Grid,
    tile_px: int,
    *,
    threads: int,
    pool: Pool | None = None,
    on_gpu: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Written:
    """Compute every tile and write its layers, in the tiles' order.

    Args:
        work: what a tile gives; with a pool of processes it must be importable there.
        layers: the rasters to write.
        grid: on which they lie.
        tile_px: side of a tile.
        threads, pool, on_gpu: as in `each_tile`.
        progress: called with (tiles done, tiles).

    Returns:
        What the tiles said of themselves.
    """
    from popcorn_ml import raster

    tiles = list(grid.tiles(tile_px))
    counts: Counter[str] = Counter()
    ran: dict[Ran, None] = {}
    with ExitStack() as stack:
        sinks = {
            layer.name: stack.enter_context(
                raster.CogWriter(
                    layer.path, grid, layer.bands, "float32", float("nan"), tags=dict(layer.tags)
                )
            )
            for layer in layers
        }
        results = stack.enter_context(closing(each_tile(work, tiles, threads, pool, on_gpu)))
        for tile, found in zip(tiles, results, strict=True):
            for name, sink in sinks.items():
                sink.write(found.values[name], tile.core)
            counts.update(found.counts)
            ran[found.ran] = None
            if progress is not None:
                progress(tile.index + 1, len(tiles))
    return Written(tuple(ran), dict(counts))


def each_tile(
    work: Callable[[Item], Result],
    tiles: Iterable[Item],
    threads: int,
    pool: Pool | None = None,
    on_gpu: bool = False,
) -> Generator[Result, None, None]:
    """`work` of every tile, in the tiles' order, `threads` of them at once.

    One tile is worked on by one thread of the CPU; several tiles at once use several. That is
    faster than sharing a tile among threads, and leaves each tile's numbers the same whatever the
    number.

    Args:
        work: called with one tile.
        tiles: pieces of work.
        threads: 0 takes all cores. With a GPU at most `TILES_ON_A_GPU`: more cores would only
            hold more tiles in memory.
        pool: an executor elsewhere (processes, dask) to use instead of threads here; then
            `threads` says how many tiles it is given at once.
        on_gpu: whether `work` computes on this machine's GPU.

    GDAL's cache is kept small meanwhile: memory is bounded by the tiles at work.
    """
    threads = threads or os.cpu_count() or 1
    if pool is None and on_gpu:
        threads = min(threads, TILES_ON_A_GPU)
    with ExitStack() as stack:
        stack.enter_context(bounded_cache())
        if pool is None and threads > 1:
            pool = stack.enter_context(ThreadPoolExecutor(threads))
        yield from in_order(work, tiles, pool, threads + 1)
