"""The error model of a map: a law with what it rests on, as a small JSON file beside the map."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from popcorn_ml.errors import PopcornError
from popcorn_ml.intervals.law import (
    LEVELS,
    QUANTILES,
    Law,
    part_variance,
    quantile,
    variance,
)

MODEL_FILE = "error_model.json"
SCHEMA = 1


class IntervalError(PopcornError):
    """Intervals cannot be given, or what is asked of them cannot be read."""


@dataclass(frozen=True)
class Basis:
    """What an error model rests on.

    Attributes:
        residuals: units with a count that a member predicted without having seen them.
        smallest_ha, largest_ha: extent of the least and the most extended of them: the hectares
            that its people fill, not its area.
        smallest_people, largest_people: counted.
        level: of the census.
        unseen_by: "members of other folds", "all members" (a model of another country), "members
            that held them out", "students that held it out".
        trained_on: country and year of the model, "demo|2020".
        told: one sentence for people.
    """

    residuals: int
    smallest_ha: float
    largest_ha: float
    smallest_people: float
    largest_people: float
    level: str
    unseen_by: str
    trained_on: str
    told: str


@dataclass(frozen=True)
class ErrorModel:
    """How far sums of one map may be off.

    Attributes:
        law: its constants.
        widths: level in per cent -> what standard deviations are multiplied with.
        basis: what it rests on.
        coverage: level -> share of the units held when the law was fitted without their group.
    """

    law: Law
    widths: dict[int, float]
    basis: Basis
    coverage: dict[int, float]

    def map_variance(self, people: np.ndarray, crowding: np.ndarray) -> np.ndarray:
        """Of sums of the map that is not adjusted; see `law.variance`."""
        return variance(self.law, people, crowding, self.basis.largest_ha)

    def part_variance(
        self,
        people: np.ndarray,
        crowding: np.ndarray,
        unit_people: np.ndarray,
        unit_crowding: np.ndarray,
    ) -> np.ndarray:
        """Of parts of units in the adjusted map; see `law.part_variance`."""
        return part_variance(self.law, people, crowding, unit_people, unit_crowding)

    def quantiles(self, people: np.ndarray, variances: np.ndarray) -> np.ndarray:
        """The published ones, in the order of `law.QUANTILES`: (4, ...), never decreasing.

        Args:
            people: the estimate.
            variances: of its error.
        """
        people = np.asarray(people, np.float64)
        found = np.stack(
            [
                quantile(people, variances, below, self.width_of(below))
                for below in QUANTILES.values()
            ]
        )
        # rounding of the table must not turn neighbours round
        found[0] = np.minimum(found[0], found[1])
        found[3] = np.maximum(found[3], found[2])
        return found

    def width_of(self, below: float) -> float:
        """The width of the level that a quantile is an end of."""
        return next(self.widths[level] for level, ends in LEVELS.items() if below in ends)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; `from_dict` reads it."""
        return {
            "schema": SCHEMA,
            "law": self.law.as_dict(),
            "widths": {str(level): width for level, width in self.widths.items()},
            "coverage": {str(level): share for level, share in self.coverage.items()},
            "basis": asdict(self.basis),
        }

    @classmethod
    def from_dict(cls, told: dict[str, Any]) -> ErrorModel:
        """What `as_dict` gave.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        if told["schema"] != SCHEMA:
            raise ValueError(f"schema {told['schema']}")
        return cls(
            law=Law(**{name: float(value) for name, value in told["law"].items()}),
            widths={int(level): float(width) for level, width in told["widths"].items()},
            basis=Basis(**told["basis"]),
            coverage={int(level): float(share) for level, share in told["coverage"].items()},
        )


def read_model(path: Path) -> ErrorModel:
    """The error model in a file.

    Raises:
        IntervalError: there is none, or it is not what `as_dict` gives.
    """
    try:
        return ErrorModel.from_dict(json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        raise IntervalError(
            "this map has no error model, so no interval can be given",
            where=path,
            remedy="the hectare map's facts say why; with at least 20 counted units and "
            "training.held_out: folds, train, map and adjust again",
        ) from None
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise IntervalError(
            "the error model cannot be read",
            where=path,
            expected="the file that hectare_map writes",
            found=repr(error),
            remedy="materialise hectare_map again",
        ) from error
