"""How census units' people are placed: methods and factors from sums, and what they do to pixels.

The arithmetic of `dasymetric`, which says what it is for and reads the rasters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from popcorn_ml.errors import CensusError
from popcorn_ml.mapping.ensemble import SpreadAcross
from popcorn_ml.zones import ZoneSums

Method = Literal["model", "builtup", "area", "all_pixels", "unplaced", "uncounted"]

METHODS: tuple[Method, ...] = (
    "model", "builtup", "area", "all_pixels", "unplaced", "uncounted",
)  # fmt: skip
"""How a unit's people are placed, in order of preference.

model: in proportion to the predicted population. builtup: to the built-up area. area: evenly over
the land that has a prediction. all_pixels: evenly over all of it, none having a prediction.
unplaced: nowhere, the unit has no pixel. uncounted: the unit has pixels and no count, and keeps the
prediction as it is.
"""

MODEL, BUILTUP, AREA, ALL_PIXELS, UNPLACED, UNCOUNTED = range(len(METHODS))

MAX_FACTOR = 1e4
"""A unit predicted below 1 / MAX_FACTOR of its people counts as seen empty: that small, the pattern
of its pixels is no longer the model's opinion but its rounding."""

BUILTUP_FLOOR = 1e-6
"""Mean built-up score below which a unit has no built-up area to spread people over."""

Area = float | np.ndarray
"""Area of pixels over the grid's mean, as `Grid.relative_area` gives it; 1.0 where all are equal.
"""


@dataclass(frozen=True)
class Placing:
    """How one prediction places each unit's people. Arrays have an item per unit 0..n.

    Attributes:
        method: number of each unit's method in `METHODS`, int8; item 0, "no unit", means nothing.
        factor: what the method's weight is multiplied with to give people, float64; 0 for a unit
            without people, 1 for one that keeps its prediction, NaN for one without pixels and for
            item 0.
    """

    method: np.ndarray
    factor: np.ndarray

    def placed(
        self, units: np.ndarray, population: np.ndarray, builtup: np.ndarray, area: Area = 1.0
    ) -> np.ndarray:
        """People per pixel, new, float64, NaN outside all units; arguments as for `apply`."""
        method = self.method[units]
        valid = ~np.isnan(population)
        weight = population.astype(np.float64)
        # a pixel without a score takes no one, but is no hole in the map either
        score = np.nan_to_num(builtup, nan=0.0) * area
        np.copyto(weight, score, where=valid & (method == BUILTUP))
        np.copyto(weight, area, where=(valid & (method == AREA)) | (method == ALL_PIXELS))
        return weight * self.factor[units]


@dataclass(frozen=True, kw_only=True)
class Adjustment(Placing):
    """How a map places each unit's people, and how each of its members would.

    Attributes:
        people: counted, float64; NaN for a unit without a count of its own.
        predicted: sum of the predicted population, float64; item 0 is what lies outside all units
            and is left out of the adjusted map.
        pixels, valid: pixels of the unit, and those with a prediction.
        members: of each member by its own sums; empty where they were not looked at.
    """

    people: np.ndarray
    predicted: np.ndarray
    pixels: np.ndarray
    valid: np.ndarray
    members: tuple[Placing, ...] = ()

    @property
    def unplaced(self) -> list[tuple[int, float]]:
        """Counted units without any pixel: number and people. Their people are not in the map."""
        return [
            (int(unit), float(self.people[unit]))
            for unit in np.flatnonzero((self.method == UNPLACED) & ~np.isnan(self.people))
        ]

    @property
    def uncounted(self) -> list[tuple[int, float]]:
        """Units with pixels and without a count: number, and the people predicted there."""
        return [
            (int(unit), float(self.predicted[unit]))
            for unit in np.flatnonzero(self.method == UNCOUNTED)
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
        return float(np.nansum(self.people[self.method != UNPLACED]))

    def as_dict(self) -> dict[str, object]:
        """For a report: totals, the units that fell back, and every unit's factor.

        `units` has one entry a unit, in order of their numbers: number, people (null where there is
        no count), predicted, pixels, valid pixels, method, factor (null where there is none), the
        factor of each member, and the members' methods where one has another than the unit.
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
                    **self._told_of_members(unit),
                }
                for unit in range(1, len(self.people))
            ],
        }

    def _told_of_members(self, unit: int) -> dict[str, object]:
        told: dict[str, object] = {}
        if self.members:
            told["member_factors"] = [_or_none(member.factor[unit]) for member in self.members]
        if any(member.method[unit] != self.method[unit] for member in self.members):
            told["member_methods"] = [METHODS[member.method[unit]] for member in self.members]
        return told

    @classmethod
    def from_dict(cls, told: dict[str, Any]) -> Adjustment:
        """What `as_dict` gave; pixels outside all units were not told.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        units = told["units"]

        def column(name: str, outside: float, kind: type = np.float64) -> np.ndarray:
            return np.array([outside, *(_or_nan(unit[name]) for unit in units)], dtype=kind)

        def placing(methods: Iterable[str], factors: Iterable[float | None]) -> dict[str, Any]:
            return {
                "method": np.array([0, *map(METHODS.index, methods)], np.int8),
                "factor": np.array([np.nan, *map(_or_nan, factors)], np.float64),
            }

        own = [unit["method"] for unit in units]
        factors = [unit.get("member_factors", ()) for unit in units]
        methods = [
            unit.get("member_methods", [unit["method"]] * len(each))
            for unit, each in zip(units, factors, strict=True)
        ]
        members = zip(zip(*methods, strict=True), zip(*factors, strict=True), strict=True)
        return cls(
            **placing(own, (unit["factor"] for unit in units)),
            people=column("people", 0.0),
            predicted=column("predicted", told["predicted_outside_units"]),
            pixels=column("pixels", 0, np.int64),
            valid=column("valid_pixels", 0, np.int64),
            members=tuple(Placing(**placing(*member)) for member in members),
        )


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else value


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def plan(
    sums: ZoneSums,
    people: np.ndarray | Sequence[float],
    land: tuple[np.ndarray, np.ndarray] | None = None,
) -> Adjustment:
    """Choose each unit's method and factor from what its pixels sum to, and those of each member.

    Args:
        sums: over the units, of predicted population, built-up area (score x `Area`) where the
            population has a value, and the population predicted by each member.
        people: counted in units 1..n, in this order; NaN for a unit without a count of its own.
        land: `Area` summed over the units' pixels that have a value, and over all of them; None
            where all pixels are of one area.

    Raises:
        CensusError: another number of counts than units, or a count infinite or negative.
    """
    counted = _checked_people(people, sums.pixels.size - 1)
    pixels, valid = sums.pixels, sums.valid[0]
    predicted, builtup, *members = sums.sums
    seen, whole = land or (valid.astype(np.float64), pixels.astype(np.float64))
    uncounted = np.isnan(counted) & (pixels > 0)

    def placing(total: np.ndarray) -> Placing:
        choices = [
            (total > 0) & (total * MAX_FACTOR >= counted),
            (builtup > 0) & (builtup >= BUILTUP_FLOOR * seen),
            valid > 0,
            pixels > 0,
        ]
        # without people, any method gives zero: keep to the model where it has a value at all
        choices[0] |= (counted == 0) & (valid > 0)
        method = np.select(choices, [0, 1, 2, 3], default=UNPLACED).astype(np.int8)
        method[uncounted] = UNCOUNTED
        method[0] = 0
        weight = np.select(choices, [total, builtup, seen, whole], default=np.nan)
        with np.errstate(divide="ignore", invalid="ignore"):
            factor = np.where(counted == 0, np.where(pixels > 0, 0.0, np.nan), counted / weight)
        factor[uncounted] = 1.0
        factor[0] = np.nan
        return Placing(method, factor)

    chosen = placing(predicted)
    return Adjustment(
        method=chosen.method,
        factor=chosen.factor,
        people=counted,
        predicted=predicted.copy(),
        pixels=pixels.copy(),
        valid=valid.copy(),
        members=tuple(placing(total) for total in members),
    )


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
    members: Iterable[np.ndarray] | None = None,
    area: Area = 1.0,
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Adjusted values of some pixels.

    Args:
        adjustment: the plan of all units.
        units: unit numbers, any shape.
        population: predicted people per pixel, NaN where there is none; same shape. Units without
            a count keep it and its spread as they are.
        builtup: built-up score; same shape.
        members: what each member predicts, of that shape, or None.
        area: of the pixels.

    Returns:
        Adjusted people per pixel, its standard deviation across members (None without them), and
        the factor that the prediction was multiplied with, NaN where a fallback placed the people.
        New float64 arrays; NaN outside all units.
    """
    method, factor = adjustment.method[units], adjustment.factor[units]
    by_model = np.where((method == MODEL) | (method == UNCOUNTED), factor, np.nan)
    spread = None
    if members is not None:
        across = SpreadAcross()
        for people in adjusted_members(adjustment, units, members, builtup, area):
            across.add(people)
        spread = across.result()
    return adjustment.placed(units, population, builtup, area), spread, by_model


def adjusted_members(
    adjustment: Adjustment,
    units: np.ndarray,
    members: Iterable[np.ndarray],
    builtup: np.ndarray,
    area: Area = 1.0,
) -> Iterator[np.ndarray]:
    """People per pixel by each member, adjusted by its own unit sums; arguments as for `apply`.

    Each member's people of a unit add up to its count, as the map's do: a member that sees a unit
    as empty has fallbacks of its own. NaN outside all units, and where a fallback placed the
    people of the map.
    """
    silent = ~np.isin(adjustment.method, (MODEL, UNCOUNTED))[units]
    for placing, population in zip(adjustment.members, members, strict=True):
        people = placing.placed(units, population, builtup, area)
        people[silent] = np.nan
        yield people
