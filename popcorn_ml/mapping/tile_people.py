"""What a tile's pixels get: people by each member, from composites, built-up score and networks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from popcorn_ml.errors import RasterError
from popcorn_ml.grid import Window
from popcorn_ml.inputs import read_channels
from popcorn_ml.mapping.blocks import around, blocks_of
from popcorn_ml.mapping.engine.api import Bag
from popcorn_ml.mapping.ensemble import SeasonMean, spread_of
from popcorn_ml.mapping.sparing import (
    COMPUTED,
    OCCUPANCY,
    PEOPLE,
    SPARED,
    SPARED_WEIGHT,
    Occupancies,
    TileScores,
    look_through,
)
from popcorn_ml.mapping.spec import MappingSpec, in_season_order
from popcorn_ml.mapping.student import read_together
from popcorn_ml.model.canvas import CanvasTile, occupancy_canvas
from popcorn_ml.sentinel import Season

MEMBERS = "population_members"
_OF_BLOCKS = ("population", "population_std", "occupancy")
"""Layers that blocks are put into, beside the members'."""


@dataclass(frozen=True)
class TilePeople:
    """A tile's values and counts, as `tiles.Computed` has them."""

    values: Mapping[str, np.ndarray]
    counts: Mapping[str, float]
    largest: Mapping[str, float]


def tile_people(spec: MappingSpec, bag: Bag, core: Window) -> TilePeople:
    """One tile, each of its pixels as the whole raster would give it.

    Values are float32 of the core:
        population: people per pixel, mean of the members.
        population_std: standard deviation across members; 0 for one member.
        occupancy: people per fully built-up pixel, mean of members and seasons.
        builtup_score: mean of the seasons, 0..1.
        population_members: people per pixel by each member, (members, rows, columns).

    A season without input or built-up score at a pixel is left out of that pixel's mean, and values
    are NaN where no season has one. A season without any in the tile is not computed. Pixels whose
    score is below `spec.spare_below` in every season are not computed either: no people, and no
    occupancy.

    Raises:
        RasterError: a raster is unreadable, or the score lacks a season.
    """
    scores = _scores_of_core(spec, core)
    seen = ~np.isnan(scores).all(axis=0)
    area_ratio = area_ratio_of(spec, core)
    spared = np.zeros_like(seen)
    if spec.spare_below > 0:
        spared = seen & (np.where(np.isnan(scores), 0, scores).max(axis=0) < spec.spare_below)
    needed = seen & ~spared
    blocks = [core] if needed.all() else blocks_of(needed, core)
    values = {
        name: np.full((*layers, *seen.shape), np.nan, np.float32)
        for name, layers in {**dict.fromkeys(_OF_BLOCKS, ()), MEMBERS: (len(spec.members),)}.items()
    }
    for name in ("population", "population_std", MEMBERS):
        np.copyto(values[name], 0, where=spared)
    largest, sums = 0.0, []
    for block, found in _computed(spec, bag, core, blocks, scores, ~spared):
        inside = block.inside(core)
        wanted = ~spared[inside]
        people = found.people.mean()
        mean = people.mean(axis=0)
        of_block = {
            "population": mean,
            "population_std": spread_of(people),
            "occupancy": found.occupancy.mean(),
            MEMBERS: people,
        }
        for name, one in of_block.items():
            np.copyto(values[name][(..., *inside)], one, casting="same_kind", where=wanted)
        sums.append(float(np.nansum(mean, where=wanted)))
        largest = max(largest, found.largest)
    score = SeasonMean(scores.shape[1:])
    for season in scores:
        score.add(season)
    mean_score = score.mean()
    counts = {
        COMPUTED: float(sum(block.height * block.width for block in blocks)),
        SPARED: float(spared.sum()),
        PEOPLE: math.fsum(sums),
        SPARED_WEIGHT: float((mean_score * area_ratio)[spared].sum()),
    }
    floats = {**values, "builtup_score": mean_score.astype(np.float32)}
    return TilePeople(floats, counts, {OCCUPANCY: largest})


@dataclass
class _Block:
    """What the seasons of a square add up to."""

    people: SeasonMean | _Once
    occupancy: SeasonMean | _Once
    largest: float = 0.0


class _Once:
    """Instead of a `SeasonMean` where the seasons come together: their values, NaN before."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._values: np.ndarray | None = None
        self._shape = shape

    def add(self, values: np.ndarray, seen: np.ndarray) -> None:
        """Take all seasons, which have a value where that says so."""
        self._values = values if seen.all() else np.where(seen, values, np.float32(np.nan))

    def mean(self) -> np.ndarray:
        """The same."""
        return np.full(self._shape, np.nan) if self._values is None else self._values


def _computed(
    spec: MappingSpec,
    bag: Bag,
    core: Window,
    blocks: Sequence[Window],
    scores: np.ndarray,
    wanted: np.ndarray,
) -> list[tuple[Window, _Block]]:
    """Run the networks on squares of a tile, season by season; what they share is read once.

    Args:
        scores: (seasons, rows, columns) of the core; NaN is set where an input is missing.
        wanted: pixels of the core that are to be computed.
    """
    if not blocks:
        return []
    if spec.kind == "student":
        return _computed_together(spec, bag, core, blocks, wanted)
    canvas = occupancy_canvas(*spec.grid.shape)
    source = canvas.tile(around(blocks)).source
    results = [
        (
            block,
            _Block(
                SeasonMean((len(spec.members), block.height, block.width)),
                SeasonMean((block.height, block.width)),
            ),
        )
        for block in blocks
    ]
    for pair, score in zip(in_season_order(spec.composites).values(), scores, strict=True):
        if np.isnan(score).all():
            continue
        channels, observed = read_channels(*pair, source)
        for block, found in results:
            tile = canvas.tile(block)
            here = score[block.inside(core)]
            here[~observed[block.inside(source)]] = np.nan
            valid = ~np.isnan(here) & wanted[block.inside(core)]
            if valid.any():
                _season(
                    spec,
                    bag,
                    tile,
                    channels[(..., *tile.source.inside(source))],
                    here,
                    valid,
                    found,
                )
    return results


def _computed_together(
    spec: MappingSpec, student: Bag, core: Window, blocks: Sequence[Window], wanted: np.ndarray
) -> list[tuple[Window, _Block]]:
    """As `_computed`, by a student: the seasons in one pass."""
    canvas = occupancy_canvas(*spec.grid.shape)
    source = canvas.tile(around(blocks)).source
    seasons = in_season_order(spec.composites)
    seen = read_together(seasons, _scores(spec, source), source, spec.sensors)
    inputs, score = seen.inputs(), seen.score()
    results = []
    for block in blocks:
        tile, shape = canvas.tile(block), (block.height, block.width)
        found = _Block(_Once((1, *shape)), _Once(shape))
        here = score[block.inside(source)]
        valid = ~np.isnan(here) & wanted[block.inside(core)]
        if valid.any():
            channels = inputs[(..., *tile.source.inside(source))]
            _season(spec, student, tile, channels, here, valid, found)
        results.append((block, found))
    return results


def _season(
    spec: MappingSpec,
    bag: Bag,
    tile: CanvasTile,
    channels: np.ndarray,
    score: np.ndarray,
    valid: np.ndarray,
    found: _Block,
) -> None:
    """Add one season of a square, or all of them together."""
    occupancy = bag.occupancy(tile.lay(channels), tile.core_in_window, valid)
    if not valid.all():
        np.copyto(occupancy, 0, where=~valid)
        score = np.where(valid, score, np.float32(0))
    occupancy *= area_ratio_of(spec, tile.core).astype(np.float32)
    mean = occupancy.mean(axis=0, dtype=np.float64) if len(occupancy) > 1 else occupancy[0].copy()
    found.largest = max(found.largest, float(mean.max()))
    found.occupancy.add(mean, valid)
    occupancy *= score  # `model.popcorn.population`
    found.people.add(occupancy, valid)


def scores_of_tile(spec: MappingSpec, core: Window) -> TileScores:
    """What `sparing` is to know of a tile's score."""
    return look_through(_scores(spec, core), area_ratio_of(spec, core), core)


def occupancies_of(spec: MappingSpec, bag: Bag, core: Window) -> Occupancies:
    """What the networks say of a square, every pixel of it."""
    scores = _scores(spec, core)
    seen = look_through(scores, area_ratio_of(spec, core), core)
    every = np.ones(scores.shape[1:], bool)
    ((_, found),) = _computed(spec, bag, core, [core], scores, every)
    people = float(np.nansum(found.people.mean().mean(axis=0)))
    return Occupancies(people, float(seen.sums.sum()), found.largest)


def area_ratio_of(spec: MappingSpec, core: Window) -> np.ndarray:
    """What the occupancy of each row of a tile is multiplied with, (rows, 1)."""
    if spec.trained_pixel_m2 is None:
        return np.full((core.height, 1), spec.pixel_area_ratio)
    mean = spec.grid.pixel_area_m2 / spec.trained_pixel_m2
    return spec.grid.relative_area(core) * (mean * spec.pixel_area_ratio)


def _scores_of_core(spec: MappingSpec, core: Window) -> np.ndarray:
    """As `_scores`; for a student, which needs them beyond the core too, from blocks that are then
    held for it."""
    if spec.kind != "student":
        return _scores(spec, core)
    source = occupancy_canvas(*spec.grid.shape).tile(core).source
    return np.ascontiguousarray(_scores(spec, source)[(..., *core.inside(source))])


def _scores(spec: MappingSpec, core: Window) -> np.ndarray:
    """The built-up score of every season, (seasons, rows, columns)."""
    from popcorn_ml import raster

    bands = season_bands(spec.builtup, tuple(in_season_order(spec.composites)))
    return raster.read_float(spec.builtup, core, bands)


def season_bands(builtup: Path, seasons: Sequence[Season]) -> list[int]:
    """1-based bands of a built-up raster that hold the seasons, found by their names.

    Raises:
        RasterError: a season has no band of its name.
    """
    from popcorn_ml import raster

    with raster.opened(builtup) as dataset:
        names = list(dataset.descriptions)
    missing = [season for season in seasons if season not in names]
    if missing:
        raise RasterError(
            "the built-up score lacks a season",
            where=builtup,
            expected=f"bands named {', '.join(seasons)}",
            found=", ".join(str(name) for name in names),
            remedy="materialise the built-up area from the same composites",
        )
    return [names.index(season) + 1 for season in seasons]
