"""Intervals of every hectare of both maps, and where a hectare says too little to be used.

One pass over the pixels in blocks of whole hectares: memory is that of a few blocks, whatever the
country's size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from popcorn_ml.grid import PIXELS_PER_HECTARE_SIDE, Grid, Window
from popcorn_ml.intervals.law import QUANTILES
from popcorn_ml.intervals.measures import Measured, cell_areas, crowding
from popcorn_ml.intervals.model import ErrorModel
from popcorn_ml.intervals.parts import adjusted_variance, parts_of
from popcorn_ml.mapping.aggregate import cell_sums
from popcorn_ml.zones import BLOCK_PX

INTERVALS = "intervals.tif"
RELIABILITY = "reliability.tif"

USE, NOT_AT_THIS_SCALE, NO_DATA = 1, 0, 255

FEW_PEOPLE = 10.0
"""Width in people up to which an interval is of use however few people are estimated: that a place
is nearly empty is known well enough."""

RULE = (
    "1: use at this scale; 0: not to be used at this scale: the 80 % interval (p10 to p90) is "
    f"wider than the estimate and wider than {FEW_PEOPLE:g} people, or is not known; 255: no data"
)


@dataclass(frozen=True)
class Written:
    """What the rasters hold.

    Attributes:
        usable: share of the people, in hectares that are of use at this scale.
        cells, usable_cells: hectares with a value, and those of use.
        not_known: hectares with people and without an interval: a fallback placed them.
        relative_width: p90 - p10 over the estimate, float32 (rows, columns) of the hectares; NaN
            where less than one person is estimated or nothing is known.
    """

    usable: float
    cells: int
    usable_cells: int
    not_known: int
    relative_width: np.ndarray


def reliability(people: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """Where an estimate is of use at its own scale, uint8; see `RULE`.

    Args:
        people: estimates, NaN where there is none.
        quantiles: of them, (4, ...), in the order of `law.QUANTILES`.
    """
    width = quantiles[2] - quantiles[1]
    use = width <= np.maximum(people, FEW_PEOPLE)  # False for NaN
    return np.where(np.isnan(people), NO_DATA, np.where(use, USE, NOT_AT_THIS_SCALE)).astype(
        np.uint8
    )


def write_intervals(
    model: ErrorModel,
    grid: Grid,
    out: Path,
    *,
    population: Path,
    adjusted: Path,
    units: Path,
    unit_measures: Measured,
    method: np.ndarray,
    tags: Mapping[str, object] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Written:
    """Write `intervals.tif`, `unadjusted/intervals.tif` and `reliability.tif` (adjusted).

    Args:
        grid: of the rasters read; hectares are its cells of 10 x 10 pixels.
        out: the hectare map's folder.
        population, adjusted: people per pixel of both maps.
        units: numbers of the units that the map is adjusted to.
        unit_measures: those units in the adjusted map.
        method: of each unit 0..n, how its people were placed.
        tags: what the rasters say about themselves.
        progress: called with (blocks done, blocks).

    Raises:
        GridMismatch, RasterError: a raster lies elsewhere or is unreadable.
    """
    from popcorn_ml import raster
    from popcorn_ml.raster import bounded_cache

    for path in (population, adjusted, units):
        raster.check(path, grid)
    cells = grid.hectares()
    told = {"basis": model.basis.told, **(tags or {})}
    tally = _Tally(cells)
    windows = [tile.core for tile in grid.tiles(BLOCK_PX)]
    with bounded_cache(), ExitStack() as stack:

        def writer(name: str, bands: list[str], dtype: str, nodata: float, **more: object):
            return stack.enter_context(
                raster.CogWriter(
                    out / name,
                    cells,
                    bands,
                    dtype,
                    nodata,
                    tags={**told, **more},
                    resampling="average" if dtype == "float32" else "nearest",
                )
            )

        bands = list(QUANTILES)
        unit = f"people per {grid.cell_name}"
        of_map = writer(
            f"unadjusted/{INTERVALS}", bands, "float32", np.nan, unit=unit, adjusted_to_census="no"
        )
        of_adjusted = writer(
            INTERVALS, bands, "float32", np.nan, unit=unit, adjusted_to_census="yes"
        )
        use = writer(RELIABILITY, ["1 = use at this scale"], "uint8", NO_DATA, rule=RULE)
        for done, window in enumerate(windows, start=1):
            areas = cell_areas(grid, window)
            target = _cells_of(window)
            people = cell_sums(raster.read_float(population, window, 1))
            of_map.write(_of_map(model, people, areas), target)
            placed = raster.read_float(adjusted, window, 1)
            numbers = raster.read(units, window, 1)
            people, spread = adjusted_variances(
                model, placed, numbers, areas, unit_measures, method
            )
            found = model.quantiles(people, spread)
            of_adjusted.write(found, target)
            usable = reliability(people, found)
            use.write(usable, target)
            tally.add(people, found, usable, target)
            if progress is not None:
                progress(done, len(windows))
    return tally.result()


def map_variances(model: ErrorModel, people: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """Variance of cells of the map; NaN where it has none."""
    found = model.map_variance(people, people**2 / areas)
    return np.where(np.isnan(people), np.nan, found)


def adjusted_variances(
    model: ErrorModel,
    placed: np.ndarray,
    units: np.ndarray,
    areas: np.ndarray,
    unit_measures: Measured,
    method: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """People of the cells of a block of the adjusted map, and their variance.

    Args:
        placed, units: people and unit numbers of its pixels.
        areas: of its rows of cells, hectares.
        unit_measures, method: as for `write_intervals`.
    """
    people = cell_sums(placed)
    numbers = np.arange(1, people.size + 1).reshape(people.shape)
    side = PIXELS_PER_HECTARE_SIDE
    each = np.repeat(np.repeat(numbers, side, axis=0), side, axis=1)
    zones = each[: placed.shape[0], : placed.shape[1]]
    parts = parts_of(zones, units, placed, crowding(placed, areas))
    found = adjusted_variance(model, parts, unit_measures, method, people.size)
    return people, np.where(np.isnan(people), np.nan, found[1:].reshape(people.shape))


def _of_map(model: ErrorModel, people: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """Quantiles of cells of the map, NaN where it has none."""
    return model.quantiles(people, map_variances(model, people, areas))


def _cells_of(window: Window) -> Window:
    """The hectares of a window of pixels that begins with whole ones."""
    side = PIXELS_PER_HECTARE_SIDE
    return Window(
        window.row // side, window.col // side, -(-window.height // side), -(-window.width // side)
    )


class _Tally:
    """What the blocks add up to."""

    def __init__(self, cells: Grid) -> None:
        self.people = np.zeros(2)
        self.cells = np.zeros(2, np.int64)
        self.not_known = 0
        self.width = np.full(cells.shape, np.nan, np.float32)

    def add(
        self, people: np.ndarray, quantiles: np.ndarray, usable: np.ndarray, target: Window
    ) -> None:
        for index, chosen in enumerate((usable != NO_DATA, usable == USE)):
            self.people[index] += float(people[chosen].sum())
            self.cells[index] += int(chosen.sum())
        self.not_known += int((~np.isnan(people) & np.isnan(quantiles[0])).sum())
        wide = np.where(people >= 1, (quantiles[2] - quantiles[1]) / np.maximum(people, 1), np.nan)
        self.width[target.slices] = wide

    def result(self) -> Written:
        return Written(
            usable=float(self.people[1] / max(self.people[0], 1e-9)),
            cells=int(self.cells[0]),
            usable_cells=int(self.cells[1]),
            not_known=self.not_known,
            relative_width=self.width,
        )
