"""The law's constants from units that were predicted unseen, and how well it holds for them.

Constants are those of the greatest posterior density: errors have the tails of a t distribution
with the law's variance, and beliefs hold what few units cannot say. The beliefs are about the
order of things (`BELIEFS`); some hundred units outweigh them.

Widths, one a level, are the t distribution's. Where intervals hold fewer units than chance
explains, each by a law fitted without it and its neighbours, they are widened to what holds the
level's share of them, counted as conformal prediction does (Vovk et al. 2005), so that few units
widen it more. They are never made narrower: that few units happen to fit is no reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from popcorn_ml.intervals.law import (
    DEGREES_OF_FREEDOM,
    LEVELS,
    Law,
    interval,
    student_width,
    variance,
)

LEAST_UNITS = 20
"""Counted units, each predicted without having been seen, below which no law is fitted: the
interval of 95 % would rest on the one unit that is furthest off."""

MOST_UNITS = 4000
"""More say nothing more about four constants; so many are taken, evenly through the list."""

GROUPS = 5
"""Parts that units without folds are divided into, consecutive numbers together."""

BELIEFS = {
    "chance": (4.0, 0.2),
    "dense": (0.15, 0.4),
    "sparse": (0.75, 0.3),
    "evening": (0.4, 0.3),
}
"""Constant -> median and standard deviation of its logarithm before any unit is looked at; from
simulated countries whose truth was looked at (docs/method.md). Of independent households `chance`
is the mean of their squared sizes over their mean size: 4 to 6 where they are of 4 or 5 people."""

BY_CHANCE = 0.01
"""Probability of holding so few units, were the interval right, below which it is widened."""

LEAST_WIDTH, MOST_WIDTH = 0.05, 20.0
"""Between which a width is looked for."""


@dataclass(frozen=True)
class Unseen:
    """Units with their counts and what was predicted of them unseen. Arrays of one length.

    Attributes:
        number: in the raster of units.
        counted: people.
        people: predicted.
        crowding: Q of the prediction, see `law`.
        area_ha: of their pixels.
        group: units of one group are left out together when the law is tried; neighbours.
    """

    number: np.ndarray
    counted: np.ndarray
    people: np.ndarray
    crowding: np.ndarray
    area_ha: np.ndarray
    group: np.ndarray

    def __len__(self) -> int:
        return len(self.number)

    def where(self, chosen: np.ndarray) -> Unseen:
        """Only the chosen units: a mask or indices."""
        return Unseen(**{name: values[chosen] for name, values in vars(self).items()})

    @property
    def extent(self) -> np.ndarray:
        """Hectares that each unit's people fill."""
        return self.people**2 / np.maximum(self.crowding, 1e-12)


@dataclass(frozen=True)
class Fitted:
    """A law with all that its use and its judgement need.

    Attributes:
        law: fitted on all units.
        widths: level in per cent -> what the standard deviation is multiplied with.
        largest_ha: greatest extent of a unit that it rests on.
        tried: level -> whether each unit was held when the law was fitted without its group.
        units: that it rests on.
    """

    law: Law
    widths: dict[int, float]
    largest_ha: float
    tried: dict[int, np.ndarray] = field(repr=False)
    units: Unseen = field(repr=False)


def fit(units: Unseen) -> Fitted:
    """Constants and widths from units.

    Raises:
        ValueError: fewer than `LEAST_UNITS`.
    """
    if len(units) < LEAST_UNITS:
        raise ValueError(f"{len(units)} units; at least {LEAST_UNITS} are needed")
    if len(units) > MOST_UNITS:
        units = units.where(np.linspace(0, len(units) - 1, MOST_UNITS).astype(int))
    groups = np.unique(units.group)
    others: dict[int, Law] = {}
    if len(groups) > 1:
        others = {int(g): fit_law(units.where(units.group != g)) for g in groups}
    law = fit_law(units)
    needed = {
        level: needed_widths(units, [others.get(int(g), law) for g in units.group], level)
        for level in LEVELS
    }
    widths = {level: width(found, level) for level, found in needed.items()}
    # each group with the widths that the others ask for, so that no unit widens its own interval
    tried = {level: np.zeros(len(units), bool) for level in LEVELS}
    for level, found in needed.items():
        for g in groups:
            own = units.group == g
            rest = found[~own] if len(groups) > 1 else found
            tried[level][own] = found[own] <= width(rest, level)
    return Fitted(law, widths, float(units.extent.max()), tried, units)


def fit_law(units: Unseen) -> Law:
    """The constants alone."""
    from scipy import optimize

    middle = np.log([median for median, _ in BELIEFS.values()])
    sure = np.array([spread for _, spread in BELIEFS.values()])

    def law_at(steps: np.ndarray) -> Law:
        return Law(*(float(value) for value in np.exp(middle + sure * steps)))

    def against(steps: np.ndarray) -> float:
        return 0.5 * float((steps**2).sum()) - log_likelihood(units, law_at(steps))

    begun = np.vstack([np.zeros(len(sure)), np.eye(len(sure))])  # one belief's width each way
    options = {"xatol": 1e-3, "fatol": 1e-4, "initial_simplex": begun, "maxiter": 2000}
    return law_at(optimize.minimize(against, begun[0], method="Nelder-Mead", options=options).x)


def log_likelihood(units: Unseen, law: Law) -> float:
    """Of the units' errors under a law."""
    from scipy.special import gammaln

    freedom = DEGREES_OF_FREEDOM
    # a person's worth of variance: nobody predicted and somebody there is unlikely, not impossible
    scale2 = (variance(law, units.people, units.crowding) + 1.0) * (freedom - 2) / freedom
    squares = (units.counted - units.people) ** 2 / scale2
    constant = gammaln((freedom + 1) / 2) - gammaln(freedom / 2) - 0.5 * math.log(freedom * math.pi)
    terms = -0.5 * np.log(scale2) - (freedom + 1) / 2 * np.log1p(squares / freedom)
    return float((constant + terms).sum())


def needed_widths(units: Unseen, laws: Sequence[Law], level: int) -> np.ndarray:
    """The least width at which the interval of each unit, by its own law, holds its count."""
    spread2 = np.array(
        [float(variance(law, units.people[i], units.crowding[i])) for i, law in enumerate(laws)]
    )
    low = np.full(len(units), math.log(LEAST_WIDTH))
    high = np.full(len(units), math.log(MOST_WIDTH))
    for _ in range(30):  # both ends move outwards with the width
        middle = (low + high) / 2
        ends = interval_of_each(units.people, spread2, level, np.exp(middle))
        held = (units.counted >= ends[0]) & (units.counted <= ends[1])
        high, low = np.where(held, middle, high), np.where(held, low, middle)
    return np.exp(high)


def interval_of_each(
    people: np.ndarray, variances: np.ndarray, level: int, widths: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`interval` with a width a zone."""
    return interval(people, variances * widths**2, level)


def width(needed: np.ndarray, level: int) -> float:
    """What standard deviations are multiplied with at a level.

    Args:
        needed: the least width at which each unit is held, by a law that has not seen it.
    """
    from scipy import stats

    usual = student_width(level)
    chance = stats.binom.cdf((needed <= usual).sum(), len(needed), level / 100)
    return usual if chance > BY_CHANCE else max(usual, conformal(needed, level / 100))


def conformal(needed: np.ndarray, share: float) -> float:
    """The width that a further unit needs no more than, with a probability of at least `share`.

    The ceil((n + 1) share)-th smallest of n; the largest there is where n is too small for it.
    """
    rank = min(math.ceil((len(needed) + 1) * share), len(needed))
    return float(np.sort(needed)[rank - 1])
