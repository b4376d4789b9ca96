"""The one loop over a country's tiles: each is read, computed and written by one thread.

Built-up score and population map differ in what they compute of a tile and in the rasters that
they write; which threads, processes or machines do the work and in what order, how many tiles are
held, and who writes is the same for both and said here.

Tiles are taken in bands of columns, each from north to south: so the blocks that neighbouring tiles
both need are still held when the second one comes. Whoever computes a tile also encodes its blocks:
a thread puts them into the rasters itself; other processes and machines are given squares of tiles,
keep their blocks beside the rasters, and send back where they are.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from popcorn_ml import raster
from popcorn_ml.cog.writer import Desk, Share
from popcorn_ml.grid import Grid, Tile, Window
from popcorn_ml.mapping.engine.api import Ran
from popcorn_ml.mapping.precision import rounded
from popcorn_ml.model.canvas import ALIGN_PX
from popcorn_ml.parallel import Pool, in_order
from popcorn_ml.raster import bounded_cache
from popcorn_ml.raster_cache import in_bands

if TYPE_CHECKING:
    import numpy as np

TILES_ON_A_GPU = 4
"""Tiles at work with a GPU, whatever the cores: one is computed, three are read meanwhile."""

SQUARES = (4, 2, 1)
"""Tiles along the side of the squares that others are given; the first that makes enough of them.
The larger, the fewer of a raster's coarser levels are left for whoever puts it together."""

SQUARES_EACH = 6
"""At least so many squares for each tile that is at work at once, lest one wait for the last."""

REGULAR_RUNS = 40
"""Windows of one shape for which a graph that knows no other pays."""

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
        step: what values are rounded to multiples of (`precision`); None leaves them as they are.
    """

    name: str
    path: Path
    bands: tuple[str, ...]
    tags: Mapping[str, str] = field(default_factory=dict)
    step: float | None = None

    def stored(self, values: np.ndarray, core: Window) -> np.ndarray:
        """A tile's values as they are stored."""
        return values if self.step is None else rounded(values, self.step, core.row, core.col)


@dataclass(frozen=True)
class Computed:
    """What came of a tile.

    Attributes:
        values: layer -> float32 (bands, rows, columns), or (rows, columns) of one band, of its
            core.
        ran: what ran the networks.
        counts: numbers that add up over tiles.
        largest: numbers of which the largest of all tiles is wanted.
    """

    values: Mapping[str, np.ndarray]
    ran: Ran
    counts: Mapping[str, float] = field(default_factory=dict)
    largest: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Written:
    """What is to be said of rasters that have been written.

    Attributes:
        ran: what ran the networks; several on a cluster whose workers are not alike.
        counts: those of the tiles, added up.
        largest: those of the tiles, the largest each.
    """

    ran: tuple[Ran, ...]
    counts: Mapping[str, float]
    largest: Mapping[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        counts = {**self.counts, **self.largest}
        return {"ran": [ran.as_dict() for ran in self.ran], "counts": counts}


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
    """Compute every tile and write its layers. The files depend on what the tiles hold alone.

    Args:
        work: what a tile gives; with a pool of processes it must be importable there.
        layers: the rasters to write. Other machines have to see their folders.
        grid: on which they lie.
        tile_px: side of a tile.
        threads, pool, on_gpu: as in `each_tile`.
        progress: called with (tiles done, tiles).

    Returns:
        What the tiles said of themselves.
    """
    tiles = in_bands(grid.tiles(tile_px))
    counts: dict[str, list[float]] = {}
    ran: dict[Ran, None] = {}
    largest: dict[str, float] = {}
    done = 0
    sinks = [
        raster.CogWriter(
            layer.path, grid, layer.bands, "float32", float("nan"), tags=dict(layer.tags)
        )
        for layer in layers
    ]
    with raster.together(*sinks):
        if pool is None:
            here = functools.partial(_write_here, work, layers, sinks)
            pieces: list[Any] = tiles
        else:
            desks = [sink.desk for sink in sinks]
            here = functools.partial(write_elsewhere, work, tuple(layers), tuple(desks))
            pieces = squares(tiles, tile_px, threads)
        with closing(each_tile(here, pieces, threads, pool, on_gpu)) as results:
            for said in results:
                for sink, share in zip(sinks, said.shares, strict=False):
                    sink.take(share)
                listed(counts, said.counts)
                ran.update(said.ran)
                larger_of(largest, said.largest)
                done += said.tiles
                if progress is not None:
                    progress(done, len(tiles))
    # Rounded once, so that the sum does not depend on who computed which tile first.
    return Written(tuple(ran), {name: math.fsum(of) for name, of in counts.items()}, largest)


@dataclass
class Said:
    """What comes back of tiles whose pixels are written.

    Attributes:
        tiles: how many.
        ran, largest: as of `Written`.
        counts: one number a tile.
        shares: of each layer, where others wrote it.
    """

    tiles: int = 0
    ran: dict[Ran, None] = field(default_factory=dict)
    counts: dict[str, list[float]] = field(default_factory=dict)
    largest: dict[str, float] = field(default_factory=dict)
    shares: list[Share] = field(default_factory=list)

    def add(self, found: Computed) -> None:
        """Count a tile in."""
        self.tiles += 1
        self.ran[found.ran] = None
        listed(self.counts, {name: [value] for name, value in found.counts.items()})
        larger_of(self.largest, found.largest)


def listed(counts: dict[str, list[float]], found: Mapping[str, list[float]]) -> None:
    """Put each tile's numbers beside those of the others."""
    for name, values in found.items():
        counts.setdefault(name, []).extend(values)


def larger_of(largest: dict[str, float], found: Mapping[str, float]) -> None:
    """Keep the larger of each value."""
    for name, value in found.items():
        largest[name] = max(value, largest.get(name, value))


def _write_here(
    work: Callable[[Tile], Computed],
    layers: Sequence[Layer],
    sinks: Sequence[raster.CogWriter],
    tile: Tile,
) -> Said:
    """Compute a tile and put it into the rasters, in the thread that calls."""
    said, found = Said(), work(tile)
    for layer, sink in zip(layers, sinks, strict=True):
        sink.write(layer.stored(found.values[layer.name], tile.core), tile.core)
    said.add(found)
    return said


def write_elsewhere(
    work: Callable[[Tile], Computed],
    layers: Sequence[Layer],
    desks: Sequence[Desk],
    tiles: Sequence[Tile],
) -> Said:
    """Compute a square of tiles in a process of another, and keep its blocks beside the rasters."""
    said = Said()
    with bounded_cache(), ExitStack() as stack:
        shares = [stack.enter_context(desk.share()) for desk in desks]
        for tile in tiles:
            found = work(tile)
            for layer, share in zip(layers, shares, strict=True):
                share.write(layer.stored(found.values[layer.name], tile.core), tile.core)
            said.add(found)
        said.shares = [share.finish() for share in shares]
    return said


def regular_core(grid: Grid, tile_px: int, seasons: int) -> int:
    """Side of the tiles that lie amidst others, if they and their seasons are many; else 0.

    Said of the whole raster, so that whoever computes a tile of it computes it alike.
    """
    amidst = max(grid.height // tile_px - 2, 0) * max(grid.width // tile_px - 2, 0)
    often = tile_px % ALIGN_PX == 0 and amidst * seasons >= REGULAR_RUNS
    return tile_px if often else 0


def squares(tiles: Sequence[Tile], tile_px: int, at_once: int) -> list[tuple[Tile, ...]]:
    """Tiles in squares, for `at_once` workers; in the order of their first tiles."""
    for side in SQUARES:
        found: dict[tuple[int, int], list[Tile]] = {}
        for tile in tiles:
            square = tile.core.row // (side * tile_px), tile.core.col // (side * tile_px)
            found.setdefault(square, []).append(tile)
        if len(found) >= SQUARES_EACH * at_once:
            break
    return [tuple(square) for square in found.values()]


def each_tile(
    work: Callable[[Item], Result],
    tiles: Iterable[Item],
    threads: int,
    pool: Pool | None = None,
    on_gpu: bool = False,
) -> Generator[Result, None, None]:
    """`work` of every piece, in the pieces' order, `threads` of them at once.

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

    Decoded blocks are held meanwhile; memory is bounded by them and the tiles at work.
    """
    threads = threads or os.cpu_count() or 1
    if pool is None and on_gpu:
        threads = min(threads, TILES_ON_A_GPU)
    with ExitStack() as stack:
        stack.enter_context(bounded_cache())
        if pool is None and threads > 1:
            pool = stack.enter_context(ThreadPoolExecutor(threads))
        yield from in_order(work, tiles, pool, threads + 1)
