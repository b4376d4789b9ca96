"""What a map must beat: the census spread evenly, or by built-up score, within each unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from popcorn_ml.mapping.placing import METHODS, Adjustment, Area, apply, plan
from popcorn_ml.zones import ZoneSums


def uniform_weight(population: np.ndarray, area: Area = 1.0) -> np.ndarray:
    """A pixel's area where the map has a value, NaN elsewhere.

    So that all approaches share the same pixels.
    """
    return np.where(np.isnan(population), np.nan, area).astype(np.float32)


def builtup_weight(population: np.ndarray, builtup: np.ndarray, area: Area = 1.0) -> np.ndarray:
    """Built-up area, score x pixel's area, where the map has a value, NaN elsewhere."""
    return np.where(np.isnan(population), np.nan, builtup * area).astype(np.float32)


def disaggregation(sums: ZoneSums, people: np.ndarray | Sequence[float]) -> Adjustment:
    """Spread counts in proportion to a weight: people x weight / sum of weight in the unit.

    Args:
        sums: over the units, of the weight alone.
        people: counted in units 1..n; NaN for a unit without a count of its own.

    Units whose weights sum to nothing fall back to area, as in the dasymetric adjustment. Of a unit
    without a count these approaches know nothing: it has no value.
    """
    twice = ZoneSums(sums.pixels, np.repeat(sums.sums, 2, 0), np.repeat(sums.missing, 2, 0))
    found = plan(twice, people)
    uncounted = found.method == METHODS.index("uncounted")
    return replace(found, factor=np.where(uncounted, np.nan, found.factor))


def disaggregated(plan_: Adjustment, units: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """People per pixel of some pixels, by `disaggregation`; NaN outside the counted units."""
    return apply(plan_, units, weight, weight)[0]
