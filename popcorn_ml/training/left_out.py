"""Pixels whose built-up score is next to nothing: not trained on, and no one lives there.

People are occupancy times score, so what such pixels could add to a unit's sum is at most their
score times the largest occupancy there is. Mapping learns that from its members
(`mapping.sparing`); before a training there is none, so it is taken to be `LARGEST` times the mean,
which is what all counted people over all score say, and mapping's margin on top.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from popcorn_ml import raster
from popcorn_ml.grid import Grid, Window
from popcorn_ml.mapping.blocks import blocks_of
from popcorn_ml.mapping.sparing import (
    CELL_PX,
    MARGIN,
    Occupancies,
    TileScores,
    look_through,
    score_to_spare,
)
from popcorn_ml.training.spec import TrainingSpec
from popcorn_ml.training.units import STRIP_PX, Unit, season_bands

LARGEST = 3.0
"""Largest occupancy of a pixel over the mean: 1.6 to 1.8 in maps of simulated countries."""

LEFT_OUT = "pixels left out"
"""In a member's card: `LeftOutPixels` as plain values, and the share that was allowed."""


@dataclass(frozen=True)
class LeftOutPixels:
    """What is not trained on.

    Attributes:
        below: score below which, in every season, a pixel is left out; 0 leaves out none.
        of_score: their share of all score, mean of the seasons.
        of_pixels: their share of all pixels with a score, and so of the pixels that the mean
            occupancy in the loss is taken over: they count as 0 there.
        of_people: the share of the people that they hold at the most, were no occupancy above
            `MARGIN` times `LARGEST` times the mean.
    """

    below: float = 0.0
    of_score: float = 0.0
    of_pixels: float = 0.0
    of_people: float = 0.0


def pixels_left_out(spec: TrainingSpec, grid: Grid, builtup: str = "") -> LeftOutPixels:
    """Look through the built-up score of a country once, if anything may be left out.

    Args:
        spec: `leave_out` is the share of the people that pixels left out may hold together.
        grid: of the score.
        builtup: the score, where it is not that of the training's first country.
    """
    if not spec.leave_out:
        return LeftOutPixels()
    path = builtup or spec.builtup
    tiles = [
        look_through(scores, grid.relative_area(strip), strip)
        for strip, scores in _strips(path, spec.seasons, grid)
    ]
    below = score_to_spare(tiles, [Occupancies(1.0, 1.0, LARGEST)], spec.leave_out)
    if not below:
        return LeftOutPixels()
    share = _share_below(tiles, below)
    seen = stay = 0
    for _, scores in _strips(path, spec.seasons, grid):
        seen += int(np.isfinite(scores).any(axis=0).sum())
        stay += int(kept(scores, below).sum())
    return LeftOutPixels(below, share, 1 - stay / seen, share * MARGIN * LARGEST)


def _strips(
    builtup: str, seasons: Sequence[str], grid: Grid
) -> Iterator[tuple[Window, np.ndarray]]:
    """The score of every season, (seasons, rows, columns), a strip of the grid at a time."""
    bands = season_bands(builtup, seasons)
    height = max(STRIP_PX // grid.width // CELL_PX, 1) * CELL_PX
    for row in range(0, grid.height, height):
        strip = Window(row, 0, min(height, grid.height - row), grid.width)
        yield strip, raster.read_float(builtup, strip, bands)


def _share_below(tiles: list[TileScores], below: float) -> float:
    """Of the score, in pixels whose largest score is below one of the sizes that are counted."""
    by_size = np.sum([tile.weight for tile in tiles], axis=0)
    return float(by_size[round(-2 * math.log2(below)) :].sum() / by_size.sum())


def worked_on(spec: TrainingSpec, unit: Unit, below: float) -> list[Window]:
    """Rectangles of a unit's bounding box that hold all its pixels that are not left out."""
    if not below:
        return [unit.box]
    place = spec.places[unit.place]
    bands = season_bands(place.builtup, spec.seasons)
    scores = raster.read_float(place.builtup, unit.box, bands)
    own = raster.read(place.units, unit.box, bands=1) == unit.number
    blocks = blocks_of(own & kept(scores, below), unit.box)
    return blocks or [Window(unit.box.row, unit.box.col, 1, 1)]


def kept(scores: np.ndarray, below: float) -> np.ndarray:
    """Which pixels are not left out, (rows, columns), by their score in each season."""
    return np.where(np.isnan(scores), 0, scores).max(axis=0) >= below
