"""Pixels that are not worth the networks: too little built up to hold people that matter.

People in a pixel are occupancy times built-up score, so where the score is next to nothing the
people are, too. Before a map is made its score is looked through once, and the networks are run on
a few small squares, to learn how many people a score stands for at the most. From both follows the
score below which pixels can be left out, and hold no one, such that all of them together would have
held no more than the stated share of the country's people.

This is an estimate with a margin, not a proof: nothing but running the networks tells what they
would have said. What was left out is therefore bounded again after the map is made, by the largest
occupancy of any pixel that was computed, and recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from popcorn_ml.grid import Window

CELL_PX = 64
"""Side of the squares that a tile is looked at in, and that occupancy is learnt on."""

PILOT_CELLS = 8
"""Half of them those with the most score; the others spread over all that have any."""

MARGIN = 2.0
"""How many times as large as any occupancy learnt one of the pixels left out is taken to be."""

WORTH_IT = 0.9
"""Share of the squares that must be computed above which nothing is left out at all."""

COMPUTED, SPARED, PEOPLE, SPARED_WEIGHT, OCCUPANCY = (
    "pixels computed",
    "pixels left out",
    "people",
    "score left out",
    "largest occupancy",
)
"""What tiles count: pixels, people, and the score, mean of the seasons, of the pixels left out
times their area's ratio; and the largest occupancy of any pixel in any season, mean of the
members."""

SPARE_BELOW = "score left out below"
"""Among what is said of a map: `MappingSpec.spare_below`."""

_STEPS = 120
_BINS = 0.5 ** (np.arange(_STEPS + 1) / 2)
"""Scores between which pixels are counted, from 1 down by factors of the root of two."""


@dataclass(frozen=True)
class TileScores:
    """What a tile's built-up score says.

    Attributes:
        weight: sum of its pixels' score, mean of the seasons, times their area's ratio, by how
            large the largest of the seasons is: the last of those below `_BINS[i]`.
        cells: the tile's squares of `CELL_PX`, in raster coordinates.
        sums, peaks: of each, its weight and its largest score.
    """

    weight: np.ndarray
    cells: tuple[Window, ...]
    sums: np.ndarray
    peaks: np.ndarray


@dataclass(frozen=True)
class Occupancies:
    """What the networks said of a square.

    Attributes:
        people: of all its pixels.
        weight: as in `TileScores`, of all its pixels.
        largest: largest occupancy of any pixel in any season, mean of the members.
    """

    people: float
    weight: float
    largest: float


def look_through(scores: np.ndarray, area_ratio: np.ndarray, core: Window) -> TileScores:
    """A tile's scores, summed up.

    Args:
        scores: (seasons, rows, columns), NaN where a season has none.
        area_ratio: what occupancy is multiplied with, (rows, 1).
        core: the tile, in raster coordinates.
    """
    seen = ~np.isnan(scores)
    known = np.where(seen, scores, 0)
    weight = known.sum(axis=0, dtype=np.float64) / np.maximum(seen.sum(axis=0), 1) * area_ratio
    peak = known.max(axis=0)
    with np.errstate(divide="ignore"):
        place = np.clip(np.floor(-2 * np.log2(peak)), 0, _STEPS)
    by_size = np.bincount(place.astype(int).ravel(), weight.ravel(), minlength=_STEPS + 1)
    cells, sums, peaks = [], [], []
    for row in range(0, core.height, CELL_PX):
        for col in range(0, core.width, CELL_PX):
            inside = slice(row, row + CELL_PX), slice(col, col + CELL_PX)
            height, width = peak[inside].shape
            cells.append(Window(core.row + row, core.col + col, height, width))
            sums.append(weight[inside].sum())
            peaks.append(peak[inside].max())
    return TileScores(by_size, tuple(cells), np.array(sums), np.array(peaks))


def pilot_cells(tiles: Sequence[TileScores]) -> list[Window]:
    """The squares on which to learn how many people a score stands for."""
    cells = [cell for tile in tiles for cell in tile.cells]
    sums = np.concatenate([tile.sums for tile in tiles])
    order = np.flatnonzero(sums > 0)[np.argsort(-sums[sums > 0], kind="stable")]
    if not len(order):
        return []
    most = order[: PILOT_CELLS // 2]
    spread = order[np.linspace(0, len(order) - 1, PILOT_CELLS // 2 + 1).round().astype(int)[1:]]
    return [cells[i] for i in dict.fromkeys([*most.tolist(), *spread.tolist()])]


def score_to_spare(
    tiles: Sequence[TileScores], learnt: Iterable[Occupancies], share: float
) -> float:
    """The score below which, in every season, a pixel is left out; 0 leaves out none.

    Args:
        tiles: all tiles of the map.
        learnt: of the squares of `pilot_cells`.
        share: of all people that those left out may be.
    """
    learnt = list(learnt)
    people, weight = sum(one.people for one in learnt), sum(one.weight for one in learnt)
    if not share or people <= 0:
        return 0.0
    # People left out: at most MARGIN x largest x their weight. All people: about mean x weight.
    allowed = share * people / weight / (MARGIN * max(one.largest for one in learnt))
    by_size = np.sum([tile.weight for tile in tiles], axis=0)
    smaller = by_size[::-1].cumsum()[::-1]  # weight of the pixels below `_BINS[i]`, for each i
    fitting = np.flatnonzero(smaller <= allowed * by_size.sum())
    if not len(fitting):
        return 0.0
    below = float(_BINS[fitting[0]])
    needed = np.mean(np.concatenate([tile.peaks for tile in tiles]) >= below)
    return below if needed <= WORTH_IT else 0.0
