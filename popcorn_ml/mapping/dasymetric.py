"""Dasymetric adjustment: scale each census unit's pixels until their sum is the unit's count.

Every person counted ends up on a pixel of their unit. Where the model sees a unit as empty, its
people are spread by built-up score, and failing that by area; a unit without any pixel is named
with its people as unplaced. A unit that nobody counted keeps what the model predicts, the best that
is known of it. Whatever lies outside all units becomes NaN. The uncertainty is scaled by the same
factor; it is NaN where a fallback placed the people, for there the members say nothing about how
sure that is. Inputs are never changed.

Factors are kept in float64; a raster stored as float32 keeps a unit's sum to about 1e-7 of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from popcorn_ml.errors import CensusError
from popcorn_ml.grid import Grid, Window
from popcorn_ml.zones import (
    BLOCK_PX,
    ZoneNumberError,
    ZoneSums,
    blockwise_zone_sums,
    zone_table,
)

Method = Literal["model", "builtup", "area", "all_pixels", "unplaced", "uncounted"]

METHODS: tuple[Method, ...] = (
    "model", "builtup", "area", "all_pixels", "unplaced", "uncounted",
)  # fmt: skip
"""How a unit's people are placed, in order of preference.

model: in proportion to the predicted population. builtup: to the built-up score. area: evenly over
the pixels that have a prediction. all_pixels: evenly over all pixels, none having a prediction.
unplaced: nowhere, the unit has no pixel. uncounted: the unit has pixels and no count, and keeps the
prediction as it is.
"""

_MODEL, _BUILTUP, _AREA, _ALL_PIXELS, _UNPLACED, _UNCOUNTED = range(len(METHODS))

MAX_FACTOR = 1e4
"""A unit predicted below 1 / MAX_FACTOR of its people counts as seen empty: that small, the pattern
of its pixels is no longer the model's opinion but its rounding."""

BUILTUP_FLOOR = 1e-6
"""Mean built-up score below which a unit has no built-up area to spread people over."""


@dataclass(frozen=True)
class Adjustment:
    """How each unit's people are placed. Arrays have an item per unit 0..n; item 0 is "no unit".

    Attributes:
        people: counted, float64; NaN for a unit without a count of its own.
        predicted: sum of the predicted population, float64; item 0 is what lies outside all units
            and is left out of the adjusted map.
        pixels, valid: pixels of the unit, and those with a prediction.
        method: number of each unit's method in `METHODS`, int8; item 0 is 0 and means nothing.
        factor: what the method's weight is multiplied with to give people, float64; 0 for a unit
            without people, 1 for one that keeps its prediction, NaN for one without pixels and for
            item 0.
    """

    people: np.ndarray
    predicted: np.ndarray
    pixels: np.ndarray
    valid: np.ndarray
    method: np.ndarray
    factor: np.ndarray

    @property
    def unplaced(self) -> list[tuple[int, float]]:
        """Counted units without any pixel: number and people. Their people are not in the map."""
        return [
            (int(unit), float(self.people[unit]))
            for unit in np.flatnonzero((self.method == _UNPLACED) & ~np.isnan(self.people))
        ]

    @property
    def uncounted(self) -> list[tuple[int, float]]:
        """Units with pixels and without a count: number, and the people predicted there."""
        return [
            (int(unit), float(self.predicted[unit]))
            for unit in np.flatnonzero(self.method == _UNCOUNTED)
        ]

    @property
    def fallbacks(self) -> list[tuple[int, float, Method]]:
        """Units that the model sees as empty though they have people: number, people, method."""
        chosen = (self.method > 0) & (self.people > 0)
        return [
            (int(unit), float(self.people[unit]), METHODS[self.method[unit]])
            for unit in np.flatnonzero(chosen)
        ]

    @property
    def placed_people(self) -> float:
        """Counted people that the adjusted map holds."""
        return float(np.nansum(self.people[self.method != _UNPLACED]))

    def as_dict(self) -> dict[str, object]:
        """For a report: totals, the units that fell back, and every unit's factor.

        `units` has one entry a unit, in order of their numbers: number, people (null where there is
        no count), predicted, pixels, valid pixels, method, factor (null where there is none).
        """
        return {
            "people": float(np.nansum(self.people[1:])),
            "placed_people": self.placed_people,
            "predicted_people": float(self.predicted[1:].sum()),
            "predicted_outside_units": float(self.predicted[0]),
            "unplaced": [{"unit": unit, "people": people} for unit, people in self.unplaced],
            "fallbacks": [
                {"unit": unit, "people": people, "method": method}
                for unit, people, method in self.fallbacks
            ],
            "uncounted": [{"unit": unit, "predicted": people} for unit, people in self.uncounted],
            "units": [
                {
                    "unit": unit,
                    "people": _or_none(self.people[unit]),
                    "predicted": float(self.predicted[unit]),
                    "pixels": int(self.pixels[unit]),
                    "valid_pixels": int(self.valid[unit]),
                    "method": METHODS[self.method[unit]],
                    "factor": _or_none(self.factor[unit]),
                }
                for unit in range(1, len(self.people))
            ],
        }


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def plan(sums: ZoneSums, people: np.ndarray | Sequence[float]) -> Adjustment:
    """Choose each unit's method and factor from what its pixels sum to.

    Args:
        sums: over the units, of two rasters: predicted population, built-up score where the
            population has a value.
        people: counted in units 1..n, in this order; NaN for a unit without a count of its own.

    Raises:
        CensusError: another number of counts than units, or a count infinite or negative.
    """
    counted = _checked_people(people, sums.pixels.size - 1)
    pixels, valid = sums.pixels, sums.valid[0]
    predicted, builtup = sums.sums
    uncounted = np.isnan(counted)
    choices = [
        (predicted > 0) & (predicted * MAX_FACTOR >= counted),
        (builtup > 0) & (builtup >= BUILTUP_FLOOR * valid),
        valid > 0,
        pixels > 0,
    ]
    # without people, any method gives zero: keep to the model where it has a value at all
    choices[0] |= (counted == 0) & (valid > 0)
    weights = [predicted, builtup, valid.astype(np.float64), pixels.astype(np.float64)]
    method = np.select(choices, [0, 1, 2, 3], default=_UNPLACED).astype(np.int8)
    method[uncounted & (pixels > 0)] = _UNCOUNTED
    method[0] = 0
    weight = np.select(choices, weights, default=np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.where(counted == 0, np.where(pixels > 0, 0.0, np.nan), counted / weight)
    factor[method == _UNCOUNTED] = 1.0
    factor[0] = np.nan
    return Adjustment(counted, predicted.copy(), pixels.copy(), valid.copy(), method, factor)


def _checked_people(people: np.ndarray | Sequence[float], units: int) -> np.ndarray:
    counted = np.asarray(people, dtype=np.float64)
    if counted.shape != (units,):
        raise CensusError(
            "there are not as many counts as units",
            expected=f"{units} counts, of units 1..{units}",
            found=f"an array of shape {counted.shape}",
            remedy="prepare the units and their counts together",
        )
    wrong = np.flatnonzero(np.isinf(counted) | (counted < 0))
    if wrong.size:
        raise CensusError(
            "a census count is infinite or negative",
            where="unit " + ", ".join(str(unit + 1) for unit in wrong[:10]),
            expected="a finite number of people, zero or more",
            found=", ".join(str(counted[unit]) for unit in wrong[:10]),
            remedy="correct the counts; NaN says that there is none",
        )
    return np.concatenate(([0.0], counted))


def apply(
    adjustment: Adjustment,
    units: np.ndarray,
    population: np.ndarray,
    builtup: np.ndarray,
    spread: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Adjusted values of some pixels.

    Args:
        adjustment: the plan of all units.
        units: unit numbers, any shape.
        population: predicted people per pixel, NaN where there is none; same shape. Units without
            a count keep it and its spread as they are.
        builtup: built-up score; same shape.
        spread: standard deviation of `population`, in people per pixel; same shape, or None.

    Returns:
        Adjusted people per pixel, its standard deviation (None without `spread`), and the factor
        that prediction and spread were multiplied with, NaN where a fallback placed the people.
        New float64 arrays; NaN outside all units.
    """
    method, factor = adjustment.method[units], adjustment.factor[units]
    valid = ~np.isnan(population)
    weight = population.astype(np.float64)
    # a pixel without a score takes no one, but is no hole in the map either
    np.copyto(weight, np.nan_to_num(builtup, nan=0.0), where=valid & (method == _BUILTUP))
    weight[valid & (method == _AREA)] = 1.0
    weight[method == _ALL_PIXELS] = 1.0
    model_factor = np.where((method == _MODEL) | (method == _UNCOUNTED), factor, np.nan)
    scaled = None if spread is None else spread.astype(np.float64) * model_factor
    return weight * factor, scaled, model_factor


def adjust(
    population: np.ndarray,
    units: np.ndarray,
    people: np.ndarray | Sequence[float],
    builtup: np.ndarray,
    spread: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray | None, Adjustment]:
    """Adjust a map that is in memory.

    Args:
        population: predicted people per pixel (rows, columns), NaN where there is none.
        units: unit numbers 0..n of that shape, 0 = no unit.
        people: counted in units 1..n; NaN for a unit without a count of its own.
        builtup: built-up score of that shape.
        spread: standard deviation of `population` of that shape, or None.

    Returns:
        Adjusted population and its standard deviation (float64, new), and how it was done. Units
        without any pixel are in its `unplaced`, those without a count in its `uncounted`.

    Raises:
        CensusError: counts that are infinite, negative, or not one a unit.
        ValueError: shapes differ, or a unit number is above n.
    """
    for name, values in (("units", units), ("builtup", builtup), ("spread", spread)):
        if values is not None and values.shape != population.shape:
            raise ValueError(
                f"{name} of shape {values.shape}, population of shape {population.shape}"
            )
    count = np.asarray(people).shape[0]
    plan_ = plan(zone_table(units, [population, _where_valid(builtup, population)], count), people)
    adjusted, scaled, _ = apply(plan_, units, population, builtup, spread)
    return adjusted, scaled, plan_


def _where_valid(builtup: np.ndarray, population: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(population), np.float32(np.nan), builtup)


@contextmanager
def _naming_the_units(units: Path, counts: int) -> Iterator[None]:
    """Say which file's numbers and counts do not fit each other.

    Raises:
        CensusError: see there.
    """
    try:
        yield
    except ZoneNumberError as error:
        raise CensusError(
            "the raster holds a unit that has no count",
            where=units,
            expected=f"unit numbers 0..{counts}",
            found=str(error),
            remedy="prepare the units and their counts together",
        ) from error


def adjust_map(
    population: Path,
    spread: Path | None,
    builtup: Path,
    units: Path,
    people: np.ndarray | Sequence[float],
    grid: Grid,
    out: Path,
    *,
    threads: int = 2,
    tags: dict[str, object] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Adjustment:
    """Adjust a map on disk, in two passes of blocks of rows: sums over the units, then scaling.

    Args:
        population, spread: of the map, people per pixel (float32, NaN nodata).
        builtup: the map's built-up score.
        units: raster of unit numbers 0..n (uint32).
        people: counted in units 1..n; NaN for a unit without a count of its own.
        grid: on which all of them lie.
        out: folder for `population.tif`, `population_std.tif` (with `spread`), `factor.tif` (what
            the prediction was multiplied with: 1 in a unit without a count, NaN outside units and
            where a fallback placed the people) and `adjustment.json` (`Adjustment.as_dict`).
        threads: of the first pass.
        tags: what the rasters say about themselves.
        progress: called with (blocks done, blocks), both passes together.

    Raises:
        CensusError: counts infinite or negative, or fewer than units in the raster.
        GridMismatch: a raster lies elsewhere.
        RasterError: a raster is unreadable.
    """
    from contextlib import ExitStack

    from popcorn_ml import raster
    from popcorn_ml.files import write_json
    from popcorn_ml.raster import bounded_cache

    for path in (population, builtup, units, *([] if spread is None else [spread])):
        raster.check(path, grid)
    windows = [tile.core for tile in grid.tiles(BLOCK_PX)]

    def read(window: Window) -> tuple[np.ndarray, list[np.ndarray]]:
        predicted = raster.read_float(population, window, 1)
        score = raster.read_float(builtup, window, 1)
        return raster.read(units, window, 1), [predicted, _where_valid(score, predicted)]

    def report(done: int) -> None:
        if progress is not None:
            progress(done, 2 * len(windows))

    with bounded_cache(), ExitStack() as stack:
        with _naming_the_units(units, len(people)):
            sums = blockwise_zone_sums(
                read, windows, 2, len(people), threads=threads,
                progress=lambda done, _: report(done),
            )  # fmt: skip
        adjustment = plan(sums, people)

        def writer(name: str, band: str) -> raster.CogWriter:
            sink = raster.CogWriter(out / f"{name}.tif", grid, [band], "float32", np.nan, tags=tags)
            return stack.enter_context(sink)

        writers = [
            writer("population", "people per pixel, adjusted to the census"),
            writer("factor", "counted people over predicted people of the unit"),
        ]
        if spread is not None:
            writers.append(writer("population_std", "standard deviation across members, people"))
        for done, window in enumerate(windows, start=len(windows) + 1):
            numbers, (predicted, score) = read(window)
            deviation = None if spread is None else raster.read_float(spread, window, 1)
            adjusted, scaled, factor = apply(adjustment, numbers, predicted, score, deviation)
            layers = [adjusted, factor] if scaled is None else [adjusted, factor, scaled]
            for sink, values in zip(writers, layers, strict=True):
                sink.write(values, window)
            report(done)
    write_json(out / "adjustment.json", adjustment.as_dict())
    return adjustment
