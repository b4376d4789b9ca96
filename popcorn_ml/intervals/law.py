"""How far a sum of people may be off: one law from a part of a hectare to a district.

The variance of a sum over a zone follows from three things that can be added up over its pixels,
whatever its shape:

* people P, as mapped;
* crowding Q, every person counted with the people mapped in their own hectare. Q / P is the
  density that the zone's people live at, and P^2 / Q the zone's *extent* n: the number of hectares
  that its people fill. A hectare has n = 1, half of it n = 0.5, a town hundreds, and empty land
  around it adds nothing.

    variance = chance P + (dense^2 + (sparse D0 / (D0 + Q / P))^2) P^2 n^-evening

`chance` is what no image shows: whole households, flats that stand empty. `dense` and `sparse` are
errors in share, of a crowded and of a thinly settled hectare; they are alike among neighbours, so
that in a zone of n hectares they even out more slowly than they would independently (`evening` 1)
and faster than if all were wrong in step (0). That the variance of means over plots of land falls
with a power of their size is Fairfield Smith's law (1938, J. Agric. Sci. 28, 1-23).

In a map adjusted to the census, errors that all of a unit shares are gone. A part that holds the
share s of its unit's people is off by e_part - s e_unit; with the covariances that the law implies

    variance = (1 - s) V(part) + s V(rest) - s (1 - s) V(unit)

which is 0 for the whole unit and for none of it. Quantiles are those of a gamma distribution of
that mean and variance, widened by half a person, since people come whole.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np

SPARSE_BELOW = 10.0
"""People per hectare at which errors in share have lost half of what `sparse` adds to them."""

HALF_A_PERSON = 0.5

QUANTILES = {"p2.5": 0.025, "p10": 0.10, "p90": 0.90, "p97.5": 0.975}
"""Bands of `intervals.tif` and what share of outcomes lies below them."""

LEVELS = {50: (0.25, 0.75), 80: (0.10, 0.90), 95: (0.025, 0.975)}
"""Per cent that an interval is meant to hold -> the quantiles that it lies between."""

DEGREES_OF_FREEDOM = 6
"""Of the t distribution whose tails errors are taken to have: more small and more large ones than
a normal distribution of their variance."""


@dataclass(frozen=True)
class Law:
    """The constants of the law; see the module."""

    chance: float
    dense: float
    sparse: float
    evening: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def variance(
    law: Law, people: np.ndarray, crowding: np.ndarray, largest: float = math.inf
) -> np.ndarray:
    """Of sums over zones of a map that is not adjusted.

    Args:
        people: P, zero or more.
        crowding: Q.
        largest: extent in hectares up to which errors are known to even out; not beyond.

    Returns:
        float64, people squared; 0 where nobody is.
    """
    people, crowding = np.asarray(people, np.float64), np.asarray(crowding, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        density = np.where(people > 0, crowding / people, 0.0)
        extent = np.where(density > 0, people / density, 0.0)
        evened = np.power(np.minimum(extent, largest), -law.evening)
    share = law.dense**2 + (law.sparse * SPARSE_BELOW / (SPARSE_BELOW + density)) ** 2
    found = law.chance * people + share * people**2 * np.where(extent > 0, evened, 0.0)
    return np.where(people > 0, found, 0.0)


def part_variance(
    law: Law,
    people: np.ndarray,
    crowding: np.ndarray,
    unit_people: np.ndarray,
    unit_crowding: np.ndarray,
) -> np.ndarray:
    """Of sums over parts of units whose people are known, as in an adjusted map.

    Args:
        people, crowding: P and Q of each part.
        unit_people, unit_crowding: of the unit that it is a part of.

    Returns:
        float64, people squared; 0 for a whole unit.
    """
    people, crowding = np.asarray(people, np.float64), np.asarray(crowding, np.float64)
    unit_people = np.asarray(unit_people, np.float64)
    unit_crowding = np.asarray(unit_crowding, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(unit_people > 0, people / unit_people, 0.0)
    # what is left of a whole unit is the rounding of float32 rasters, not people
    share = np.where(share > 1 - WHOLE, 1.0, np.clip(share, 0.0, 1.0))
    rest = np.maximum(unit_people - people, 0.0)
    found = (
        (1 - share) * variance(law, people, crowding)
        + share * variance(law, rest, np.maximum(unit_crowding - crowding, 0.0))
        - share * (1 - share) * variance(law, unit_people, unit_crowding)
    )
    return np.where((share > 0) & (share < 1), np.maximum(found, 0.0), 0.0)


WHOLE = 1e-6
"""Share of a unit's people that may be missing from a part that is the whole unit."""


def student_width(level: int) -> float:
    """Half-width of the t distribution's interval over the normal one's of the same variance."""
    from scipy import stats

    upper = LEVELS[level][1]
    freedom = DEGREES_OF_FREEDOM
    unit = math.sqrt((freedom - 2) / freedom)
    return float(stats.t.ppf(upper, freedom) * unit / stats.norm.ppf(upper))


def quantile(
    people: np.ndarray, variances: np.ndarray, below: float, width: float = 1.0
) -> np.ndarray:
    """The number of people that a sum stays below with a given probability.

    Args:
        people: the estimate, zero or more.
        variances: of its error.
        below: the probability.
        width: what the standard deviation is multiplied with.

    Returns:
        float64, never negative; on the estimate's side that it belongs to, whatever the shape.
        NaN where the estimate or its variance is.
    """
    people = np.asarray(people, np.float64)
    spread = width * np.sqrt(variances)
    with np.errstate(divide="ignore", invalid="ignore"):
        # log of the gamma distribution's shape, (mean / standard deviation)^2
        shape = 2 * (np.log(people) - np.log(spread))
        ratio = np.interp(shape, *_gamma_table(below))
        found = np.where((people > 0) & (spread > 0), people * ratio, people)
    half = np.minimum(HALF_A_PERSON, spread)
    if below < 0.5:
        return np.maximum(np.minimum(found, people) - half, 0.0)
    return np.maximum(found, people) + half


@lru_cache(maxsize=32)
def _gamma_table(below: float) -> tuple[np.ndarray, np.ndarray]:
    """Log shapes and the quantile over the mean; linear between them is right to 1e-4 of it."""
    from scipy import special

    shape = np.linspace(math.log(1e-3), math.log(1e9), 4000)
    ratio = special.gammaincinv(np.exp(shape), below) / np.exp(shape)
    for values in (shape, ratio):
        values.setflags(write=False)  # everybody's
    return shape, ratio


def interval(
    people: np.ndarray, variances: np.ndarray, level: int, width: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end of the interval that is meant to hold `level` per cent of outcomes."""
    low, high = LEVELS[level]
    return (
        quantile(people, variances, low, width),
        quantile(people, variances, high, width),
    )
