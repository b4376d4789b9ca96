"""The units of every country that a training has, in one list each: trained on, held out, left out.

Each country is surveyed, dealt into folds and held out by itself, so that every fold has its share
of every country. What is counted in pixels is then counted in those of the first country.
"""

from __future__ import annotations

from dataclasses import replace

from popcorn_ml import raster
from popcorn_ml.grid import Grid
from popcorn_ml.training.folds import Fold
from popcorn_ml.training.places import TrainingPlace, qualified, require_like_pixels
from popcorn_ml.training.spec import TrainingSpec
from popcorn_ml.training.units import LeftOut, Unit, Units, find_units


def units_of(spec: TrainingSpec) -> tuple[Grid, Units]:
    """The units of all of a training's countries, in the order of these and of their numbers.

    Returns:
        The grid of the first country, and the units.

    Raises:
        CensusError, RasterError, GridMismatch: as `units.find_units`; also where one of the
            countries has no unit to train on.
        ConfigError: the countries' pixels are too different in size.
    """
    found = [_of_place(spec, index, place) for index, place in enumerate(spec.places)]
    areas = {p.code: grid.pixel_area_m2 for p, (grid, _) in zip(spec.places, found, strict=True)}
    require_like_pixels(areas)
    first, units = found[0]
    if not spec.place:
        return first, units
    trained: list[Unit] = []
    held_out: list[Unit] = []
    left_out: list[LeftOut] = []
    for index, (place, (grid, one)) in enumerate(zip(spec.places, found, strict=True)):
        scale = area_over(grid, first)
        trained += [_named(unit, place, index, scale) for unit in one.trained]
        held_out += [_named(unit, place, index, scale) for unit in one.held_out]
        left_out += [replace(unit, id=qualified(place.code, unit.id)) for unit in one.left_out]
    return first, Units(tuple(trained), tuple(held_out), tuple(left_out))


def area_over(grid: Grid, first: Grid) -> float:
    """Mean area of a grid's pixels over that of the first country's; exactly 1 for itself."""
    return grid.pixel_area_m2 / first.pixel_area_m2


def grids_of(spec: TrainingSpec, first: Grid) -> tuple[Grid, ...]:
    """The grid of every country of a training."""
    return first, *(raster.grid_of(place.units) for place in spec.further)


def _of_place(spec: TrainingSpec, index: int, place: TrainingPlace) -> tuple[Grid, Units]:
    """One country's units, as if it were trained on alone.

    The first fold of each country goes to another member, so that countries with fewer units than
    folds are not all held out by the first ones.
    """
    fold = spec.own_fold
    if fold is not None:
        fold = Fold((fold.index - index) % fold.count, fold.count)
    return find_units(
        place.units, place.builtup, place.counts, spec.seasons, spec.share_held_out, fold
    )


def _named(unit: Unit, place: TrainingPlace, index: int, scale: float) -> Unit:
    return replace(
        unit,
        id=qualified(place.code, unit.id),
        place=index,
        score_sum=tuple(score * scale for score in unit.score_sum),
    )
