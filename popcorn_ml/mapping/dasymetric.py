"""Dasymetric adjustment: scale each census unit's pixels until their sum is the unit's count.

Every person counted ends up on a pixel of their unit. Where the model sees a unit as empty, its
people are spread by built-up score, and failing that by area; a unit without any pixel is named
with its people as unplaced. A unit that nobody counted keeps what the model predicts, the best that
is known of it. Whatever lies outside all units becomes NaN. Inputs are never changed.

The uncertainty is the spread of the members, each of them adjusted to the census by its own sums:
what the census has settled, they do not differ in. It is NaN where a fallback placed the people of
the map, for there the members say nothing about how sure that is.

Factors are kept in float64; a raster stored as float32 keeps a unit's sum to about 1e-7 of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from popcorn_ml.errors import CensusError
from popcorn_ml.grid import Grid, Window
from popcorn_ml.mapping.placing import UNCOUNTED, Adjustment, Area, adjusted_members, apply, plan
from popcorn_ml.parallel import in_threads
from popcorn_ml.zones import (
    BLOCK_PX,
    ZoneNumberError,
    ZoneSums,
    blockwise_zone_sums,
    zone_table,
)

ADJUSTMENT_FILE = "adjustment.json"

WRITTEN_PX = 512
"""Side of the blocks of the second pass: whole blocks of our rasters."""

BLOCKS_HELD = 64
"""Blocks of single rasters in memory at once: of many members, fewer threads read."""


def adjust(
    population: np.ndarray,
    units: np.ndarray,
    people: np.ndarray | Sequence[float],
    builtup: np.ndarray,
    members: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray | None, Adjustment]:
    """Adjust a map that is in memory, of pixels of one area.

    Args:
        population: predicted people per pixel (rows, columns), NaN where there is none.
        units: unit numbers 0..n of that shape, 0 = no unit.
        people: counted in units 1..n; NaN for a unit without a count of its own.
        builtup: built-up score of that shape.
        members: what each member predicts, (members, rows, columns), or None.

    Returns:
        Adjusted population and its standard deviation across members (float64, new), and how it
        was done. Units without any pixel are in its `unplaced`, those without a count in its
        `uncounted`.

    Raises:
        CensusError: counts that are infinite, negative, or not one a unit.
        ValueError: shapes differ, or a unit number is above n.
    """
    by_member = () if members is None else tuple(members)
    given = [("units", units), ("builtup", builtup), *(("member", one) for one in by_member)]
    for name, values in given:
        if values.shape != population.shape:
            raise ValueError(
                f"{name} of shape {values.shape}, population of shape {population.shape}"
            )
    layers = [population, _where_valid(builtup, population), *by_member]
    plan_ = plan(zone_table(units, layers, np.asarray(people).shape[0]), people)
    adjusted, spread, _ = apply(
        plan_, units, population, builtup, None if members is None else by_member
    )
    return adjusted, spread, plan_


def _where_valid(builtup: np.ndarray, population: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(population), np.float32(np.nan), builtup)


@dataclass(frozen=True)
class Layers:
    """The rasters that an adjustment reads, block by block.

    Attributes:
        population: of the map, people per pixel (float32, NaN nodata).
        members: by each of its members, a band each; None where their spread is not asked for.
        builtup: the map's built-up score.
        units: unit numbers 0..n (uint32).
        grid: on which all of them lie.
        spread: the map's own standard deviation, which units without a count keep to the bit;
            without it they have what the members give.
        bands: of `population`, whose mean is the map: of several members' people, some of them.
    """

    population: Path
    members: Path | None
    builtup: Path
    units: Path
    grid: Grid
    spread: Path | None = None
    bands: tuple[int, ...] = (1,)

    def check(self) -> None:
        """Refuse rasters that lie elsewhere.

        Raises:
            GridMismatch, RasterError: one does, or is unreadable.
        """
        from popcorn_ml import raster

        for path in (self.population, self.builtup, self.units, self.members, self.spread):
            if path is not None:
                raster.check(path, self.grid)

    def area(self, window: Window) -> Area:
        """Of a window's pixels."""
        return self.grid.relative_area(window) if self.grid.is_geographic else 1.0

    def predicted(self, window: Window) -> np.ndarray:
        """People per pixel of a window, before the adjustment."""
        from popcorn_ml import raster

        if len(self.bands) == 1:
            return raster.read_float(self.population, window, self.bands[0])
        return raster.read_float(self.population, window, self.bands).mean(axis=0)

    def by_member(self, window: Window) -> list[np.ndarray]:
        """People per pixel of a window, by each member."""
        from popcorn_ml import raster

        return [] if self.members is None else list(raster.read_float(self.members, window))

    def summed(self, window: Window) -> tuple[np.ndarray, list[np.ndarray]]:
        """Units of a window, and what `plan` needs the sums of; the land, if uneven, at the end."""
        from popcorn_ml import raster

        numbers = raster.read(self.units, window, 1)
        predicted = self.predicted(window)
        area = self.area(window)
        score = _where_valid(raster.read_float(self.builtup, window, 1), predicted)
        layers = [predicted, score, *self.by_member(window)]
        if isinstance(area, np.ndarray):
            land = np.broadcast_to(area, numbers.shape)
            layers[1] = score * area
            layers += [_where_valid(land, predicted), land]
        return numbers, layers

    def adjusted(self, adjustment: Adjustment, window: Window) -> list[np.ndarray]:
        """People of a window, the factor, and with members the spread; see `apply`."""
        from popcorn_ml import raster

        numbers = raster.read(self.units, window, 1)
        people, spread, factor = apply(
            adjustment,
            numbers,
            self.predicted(window),
            raster.read_float(self.builtup, window, 1),
            None if self.members is None else self.by_member(window),
            self.area(window),
        )
        if spread is None:
            return [people, factor]
        if self.spread is not None and adjustment.uncounted:
            kept = (adjustment.method == UNCOUNTED)[numbers]
            np.copyto(spread, raster.read_float(self.spread, window, 1), where=kept)
        return [people, factor, spread]


@dataclass(frozen=True)
class AdjustedMembers:
    """The members of a map on disk, each adjusted to the census by its own sums."""

    adjustment: Adjustment
    layers: Layers

    def read(self, window: Window) -> Iterator[np.ndarray]:
        """`adjusted_members` of a window."""
        from popcorn_ml import raster

        layers = self.layers
        return adjusted_members(
            self.adjustment,
            raster.read(layers.units, window, 1),
            layers.by_member(window),
            raster.read_float(layers.builtup, window, 1),
            layers.area(window),
        )


def plan_of_map(
    layers: Layers,
    people: np.ndarray | Sequence[float],
    *,
    threads: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Adjustment:
    """`plan` of a map on disk.

    Args:
        people: counted in units 1..n; NaN for a unit without a count of its own.
        threads: blocks at once. The result does not depend on it.
        progress: called with (blocks done, blocks).

    Raises:
        CensusError: counts infinite or negative, or fewer than units in the raster.
        RasterError: a raster is unreadable.
    """
    from popcorn_ml import raster

    members = 0
    if layers.members is not None:
        with raster.opened(layers.members) as dataset:
            members = dataset.count
    uneven = layers.grid.is_geographic
    count = 2 + members + (2 if uneven else 0)
    try:
        sums = blockwise_zone_sums(
            layers.summed,
            [tile.core for tile in layers.grid.tiles(BLOCK_PX)],
            count,
            len(people),
            threads=max(min(threads, BLOCKS_HELD // count), 1),
            progress=progress,
        )
    except ZoneNumberError as error:
        raise CensusError(
            "the raster holds a unit that has no count",
            where=layers.units,
            expected=f"unit numbers 0..{len(people)}",
            found=str(error),
            remedy="prepare the units and their counts together",
        ) from error
    if not uneven:
        return plan(sums, people)
    own = ZoneSums(sums.pixels, sums.sums[:-2], sums.missing[:-2])
    return plan(own, people, (sums.sums[-2], sums.sums[-1]))


def read_adjustment(path: Path) -> Adjustment:
    """What `adjust_map` wrote of how it was done; without members where an older one did.

    Raises:
        CensusError: it cannot be read.
    """
    try:
        return Adjustment.from_dict(json.loads(path.read_text("utf-8")))
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CensusError(
            "it cannot be read how the map was adjusted",
            where=path,
            found=repr(error),
            remedy="adjust the map again",
        ) from error


def adjust_map(
    population: Path,
    members: Path | None,
    builtup: Path,
    units: Path,
    people: np.ndarray | Sequence[float],
    grid: Grid,
    out: Path,
    *,
    spread: Path | None = None,
    threads: int = 2,
    tags: dict[str, object] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Adjustment:
    """Adjust a map on disk, in two passes of blocks: sums over the units, then scaling.

    Args:
        population, members, builtup, units, grid, spread: see `Layers`.
        people: counted in units 1..n; NaN for a unit without a count of its own.
        out: folder for `population.tif`, `population_std.tif` (with `members`), `factor.tif` (what
            the prediction was multiplied with: 1 in a unit without a count, NaN outside units and
            where a fallback placed the people) and `adjustment.json` (`Adjustment.as_dict`).
        threads: blocks at once. The result does not depend on it.
        tags: what the rasters say about themselves.
        progress: called with (blocks done, blocks), both passes together.

    Memory: some blocks of all members, whatever the country's size.

    Raises:
        CensusError: counts infinite or negative, or fewer than units in the raster.
        GridMismatch: a raster lies elsewhere.
        RasterError: a raster is unreadable.
    """
    from popcorn_ml import raster
    from popcorn_ml.files import write_json
    from popcorn_ml.raster import bounded_cache

    layers = Layers(population, members, builtup, units, grid, spread)
    layers.check()
    first = grid.tile_count(BLOCK_PX)
    windows = [tile.core for tile in grid.tiles(WRITTEN_PX)]

    def report(done: int) -> None:
        if progress is not None:
            progress(done, first + len(windows))

    def writer(name: str, band: str) -> raster.CogWriter:
        return raster.CogWriter(out / f"{name}.tif", grid, [band], "float32", np.nan, tags=tags)

    writers = [
        writer("population", "people per pixel, adjusted to the census"),
        writer("factor", "counted people over predicted people of the unit"),
    ]
    if members is not None:
        writers.append(writer("population_std", "standard deviation across members, people"))

    def work(window: Window) -> None:
        for sink, values in zip(writers, layers.adjusted(adjustment, window), strict=True):
            sink.write(values, window)

    with bounded_cache():
        adjustment = plan_of_map(
            layers, people, threads=threads, progress=lambda done, _: report(done)
        )
        with raster.together(*writers):
            for done, _ in enumerate(in_threads(work, windows, threads), start=first + 1):
                report(done)
    write_json(out / ADJUSTMENT_FILE, adjustment.as_dict())
    return adjustment
