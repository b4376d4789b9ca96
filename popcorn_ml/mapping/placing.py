"""How census units' people are placed: the methods, the factors, and what is told of them.

An `Adjustment` is worked out, and applied to pixels, in `dasymetric`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

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
