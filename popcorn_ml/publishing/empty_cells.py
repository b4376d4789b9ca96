"""A map in which empty cells are empty, with every person still in the census unit they are in.

The networks give a little to every pixel: a cell far from any house holds tenths of a person, and
such cells, most of a country, hold one or two in a hundred people. The rule: a cell with fewer than
`FEWEST` people is empty. Its pixels' people go to the other pixels of their census unit, in
proportion to what those hold, so that the sum of each unit stays what it is. A unit with such cells
alone keeps them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from popcorn_ml import raster
from popcorn_ml.grid import PIXELS_PER_HECTARE_SIDE, Grid, Window
from popcorn_ml.mapping.aggregate import cell_sums
from popcorn_ml.zones import BLOCK_PX, ZoneSums, zone_table

if TYPE_CHECKING:
    from popcorn_ml.publishing.products import Source

FEWEST = 1.0
"""People in a cell below which it is taken to be empty. In the demo country half of the cells: four
in five of those that truly are, and with them 0.3 % of the people."""

RULE = (
    f"A cell with fewer than {FEWEST:g} person is taken to be empty; its people are given to the "
    "other pixels of the same census unit, in proportion to what these hold. A unit with such "
    "cells alone keeps them."
)


@dataclass(frozen=True)
class Plan:
    """How a map is masked.

    Attributes:
        factor: that the people of the kept pixels of units 0..n are multiplied by.
        moved: people who were in empty cells.
        empty: cells that are empty, and `cells` of all that have a value.
    """

    factor: np.ndarray
    moved: float
    empty: int
    cells: int

    def as_fact(self) -> dict[str, object]:
        """Plain values for the facts."""
        return {
            "rule": RULE,
            "empty_cells": self.empty,
            "cells": self.cells,
            "people_moved": self.moved,
        }


def plan(population: Path, units: Path, count: int, grid: Grid) -> Plan:
    """Find the empty cells, and what becomes of the people in them.

    Args:
        population: people per pixel, adjusted.
        units: unit numbers 0..count; what lies in none is treated as a unit of its own.
        count: the number of units.
        grid: on which both lie.

    Raises:
        GridMismatch, RasterError: a raster lies elsewhere or is unreadable.
    """
    raster.check(population, grid)
    raster.check(units, grid)
    sums = ZoneSums.none(2, count)
    empty = cells = 0
    with raster.bounded_cache():
        for tile in grid.tiles(BLOCK_PX):
            people = raster.read_float(population, tile.core, 1)
            by_cell = cell_sums(people)
            bare = by_cell < FEWEST
            empty, cells = empty + int(bare.sum()), cells + int((~np.isnan(by_cell)).sum())
            drop = _of_pixels(bare, people.shape)
            parts = [np.where(drop, 0, people), np.where(drop, people, 0)]
            sums += zone_table(raster.read(units, tile.core, 1), parts, count)
    kept, dropped = sums.sums
    factor = np.where(kept > 0, (kept + dropped) / np.where(kept > 0, kept, 1), np.nan)
    return Plan(factor, float(dropped[kept > 0].sum()), empty, cells)


def masked(population: Path, units: Path, grid: Grid, made: Plan) -> Source:
    """What reads people per cell of a window of `grid.hectares()`, empty cells 0.

    Args: as `plan`, and what it gave.
    """
    side = PIXELS_PER_HECTARE_SIDE

    def read(window: Window) -> np.ndarray:
        row, col = window.row * side, window.col * side
        pixels = Window(
            row, col, min(window.height * side, grid.height - row),
            min(window.width * side, grid.width - col),
        )  # fmt: skip
        people = raster.read_float(population, pixels, 1)
        drop = _of_pixels(cell_sums(people) < FEWEST, people.shape)
        factor = made.factor[raster.read(units, pixels, 1)]
        alone = np.isnan(factor)  # a unit with nothing else
        return cell_sums(
            np.where(alone, people, np.where(drop, people * 0, people * np.where(alone, 1, factor)))
        )

    return read


def _of_pixels(cells: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    side = PIXELS_PER_HECTARE_SIDE
    return cells.repeat(side, 0).repeat(side, 1)[: shape[0], : shape[1]]
