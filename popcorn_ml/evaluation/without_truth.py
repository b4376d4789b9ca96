"""What can be said of a map where nothing but its own census is known.

Two scores, neither of which any count that is scored has helped:

- *out of fold*: units as predicted by the members that were not trained on them, against their
  counts. It is the error of the map before adjustment, where no count is known.
- *coarsened* (`coarsening`): the same predictions adjusted to the sums of joined units, against
  the units' counts. It is the error of the adjusted map within the units that it agrees with.

Errors in people depend on how many people a unit has. So both are given as shares as well, over the
mean people of a unit, and these are compared between levels: what the map does within units joined
from four is the estimate for a level with four units in one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from popcorn_ml.evaluation.baselines import builtup_weight, uniform_weight
from popcorn_ml.evaluation.coarsening import Coarsened, borders, coarsened
from popcorn_ml.evaluation.metrics import Scores
from popcorn_ml.grid import Grid, Window
from popcorn_ml.zones import BLOCK_PX, blockwise_zone_sums

FEWEST_UNITS = 20
"""Units predicted unseen that a score needs at least: fewer say little but chance."""

MIN_UNIT_SHARE = 0.95
"""As in `report`: share of a unit's pixels that must have a value for the unit to be scored."""


@dataclass(frozen=True)
class UnseenUnits:
    """Census units 1..n as told by members that never saw their counts; arrays of n.

    Attributes:
        people: counted; NaN for a unit without a count of its own.
        predicted: mean of the members that never saw the unit; NaN where every member did, or
            too little of the unit is mapped.
        members: how many members that are.
        builtup, area: built-up score summed and pixels of the grid's mean area, where the map has a
            value.
        touching: which units touch, see `coarsening.borders`.
    """

    people: np.ndarray
    predicted: np.ndarray
    members: np.ndarray
    builtup: np.ndarray
    area: np.ndarray
    touching: dict[tuple[int, int], int]

    @property
    def scored(self) -> np.ndarray:
        """Which units have both a count and a prediction by members that never saw it."""
        return ~(np.isnan(self.people) | np.isnan(self.predicted))

    def coarsened(self) -> list[Coarsened]:
        """The coarsening test over all units that were predicted unseen."""
        return coarsened(self.people, self.predicted, self.builtup, self.area, self.touching)


def unseen_units(
    *,
    grid: Grid,
    population: Path,
    members: Path,
    builtup: Path,
    units: Path,
    people: np.ndarray | Sequence[float],
    saw: np.ndarray,
    told: tuple[np.ndarray, np.ndarray] | None = None,
    threads: int = 2,
) -> UnseenUnits:
    """Sum a map's members over the units that they were not trained on.

    Args:
        grid: on which every raster lies.
        population, members, builtup: the map, a band a member of it, and its built-up score.
        units, people: unit numbers 0..n and their counts; NaN for one without a count of its own.
        saw: bool (members, n): whether a member was trained on a unit's count.
        told: people counted and predicted of units, arrays of n with NaN for none, where others
            than the map's members never saw them and told them, such as the students of folds;
            they take the place of counts and members there.
        threads: blocks at once.

    Raises:
        GridMismatch, RasterError: a raster lies elsewhere or is unreadable.
        ValueError: `saw` or `told` is of another shape.
    """
    from popcorn_ml import raster

    counted = np.asarray(people, np.float64)
    for path in (population, members, builtup, units):
        raster.check(path, grid)
    with raster.opened(members) as dataset:
        bands = dataset.count
    if saw.shape != (bands, len(counted)):
        raise ValueError(f"saw of shape {saw.shape}: {bands} members, {len(counted)} units")
    if told is not None and {len(told[0]), len(told[1])} != {len(counted)}:
        raise ValueError(f"told of {len(told[0])} units, of {len(counted)}")

    def read(window: Window) -> tuple[np.ndarray, list[np.ndarray]]:
        values, area = raster.read_float(population, window, 1), grid.relative_area(window)
        score = raster.read_float(builtup, window, 1)
        weights = [uniform_weight(values, area), builtup_weight(values, score, area)]
        return raster.read(units, window, 1), [*weights, *raster.read_float(members, window)]

    windows = [tile.core for tile in grid.tiles(BLOCK_PX)]
    sums = blockwise_zone_sums(read, windows, 2 + bands, len(counted), threads=threads)
    share = sums.valid[0, 1:] / np.maximum(sums.pixels[1:], 1)
    unseen = ~saw
    asked = unseen.sum(axis=0)
    total = np.where(unseen, sums.sums[2:, 1:], 0.0).sum(axis=0)
    mean = total / np.maximum(asked, 1)
    if told is not None:
        by_others = ~np.isnan(told[1])
        counted, mean = np.where(by_others, told, (counted, mean))
        asked = np.where(by_others, 1, asked)
    return UnseenUnits(
        people=counted,
        predicted=np.where((asked > 0) & (share >= MIN_UNIT_SHARE), mean, np.nan),
        members=asked,
        area=sums.sums[0, 1:],
        builtup=sums.sums[1, 1:],
        touching=borders(units, grid),
    )


@dataclass(frozen=True)
class WithoutTruth:
    """The scores, and the estimate for a finer level; see the module.

    Attributes:
        counted: units with a count.
        units: of them, predicted by members that never saw them.
        out_of_fold: `Scores.as_dict` with `mae_share` and `rmse_share`; empty without units.
        coarsened: an entry a size of join: `joined` (units in a super-unit, about), `parts` (units
            in one on average), `units`, `super_units`, and `metrics`: approach -> as above.
        why_not: why there is no score; empty where there is one.
    """

    counted: int
    units: int
    out_of_fold: dict[str, float | int | None]
    coarsened: list[dict[str, Any]]
    why_not: str = ""

    def within(self, parts: float) -> dict[str, dict[str, float]]:
        """Shares of the adjusted map and the baselines within zones of so many units, by approach.

        Interpolated between the sizes of join, over the logarithm of their parts; beyond them that
        of the nearest. Empty without any.
        """
        if not self.coarsened:
            return {}
        at = np.log([entry["parts"] for entry in self.coarsened])
        approaches = self.coarsened[0]["metrics"]
        return {
            approach: {
                share: float(
                    np.interp(
                        np.log(max(parts, 1.0)),
                        at,
                        [_or_nan(entry["metrics"][approach][share]) for entry in self.coarsened],
                    )
                )
                for share in ("mae_share", "rmse_share")
            }
            for approach in approaches
        }

    def as_dict(self) -> dict[str, Any]:
        return {
            "counted": self.counted,
            "units": self.units,
            "out_of_fold": self.out_of_fold,
            "coarsened": self.coarsened,
            "why_not": self.why_not,
        }


def score_without_truth(found: UnseenUnits) -> WithoutTruth:
    """Both scores of a map's units; none, and why, where too few were predicted unseen."""
    scored = found.scored
    counted, units = int((~np.isnan(found.people)).sum()), int(scored.sum())
    if units < FEWEST_UNITS:
        what = "no census unit was" if units == 0 else f"{units} census units were"
        return WithoutTruth(
            counted, units, {}, [],
            f"{what} predicted by a member that was not trained on it, of {counted} counted; at "
            f"least {FEWEST_UNITS} are needed",
        )  # fmt: skip
    entries = []
    for one in found.coarsened():
        together = one.joined > 0
        entries.append(
            {
                "joined": one.size,
                "parts": float(together.sum() / one.super_units),
                "units": int(together.sum()),
                "super_units": one.super_units,
                "metrics": {
                    approach: with_shares(found.people[together], predicted[together])
                    for approach, predicted in one.predicted.items()
                },
            }
        )
    return WithoutTruth(
        counted, units, with_shares(found.people[scored], found.predicted[scored]), entries
    )


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def with_shares(people: np.ndarray, predicted: np.ndarray) -> dict[str, float | int | None]:
    """`Scores.as_dict`, and mean absolute error and RMSE over the mean people of a unit."""
    scores = Scores.of(people, predicted)
    return scores.as_dict() | shares(scores.mae, scores.rmse, scores.truth_mean)


def shares(mae: float | None, rmse: float | None, mean: float) -> dict[str, float | None]:
    """Errors over the mean people of a unit; None where nobody lives, or there is no error."""
    return {
        name: None if value is None or not mean > 0 else value / mean
        for name, value in (("mae_share", mae), ("rmse_share", rmse))
    }
