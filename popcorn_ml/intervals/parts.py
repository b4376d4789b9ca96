"""Zones cut by census units: the parts of each, and what is known of a sum over them.

Of an adjusted map the error of a part depends on the unit that it is a part of, so a zone's
variance is the sum over its parts; errors of two units have nothing to do with each other there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from popcorn_ml.intervals.measures import Measured
from popcorn_ml.intervals.model import ErrorModel
from popcorn_ml.mapping.placing import MODEL, UNCOUNTED


@dataclass(frozen=True)
class Parts:
    """What zones and units share. Arrays with an item a part.

    Attributes:
        zone, unit: numbers; no part is in unit 0.
        people, crowding: P and Q of the part in the adjusted map.
    """

    zone: np.ndarray
    unit: np.ndarray
    people: np.ndarray
    crowding: np.ndarray

    def joined(self, other: Parts) -> Parts:
        """Both, parts of one zone and unit made one."""
        pairs = [np.concatenate([getattr(p, n) for p in (self, other)]) for n in vars(self)]
        return _summed(*pairs)


def no_parts() -> Parts:
    """None at all."""
    whole, real = np.zeros(0, np.int64), np.zeros(0)
    return Parts(whole, whole, real, real)


def parts_of(
    zones: np.ndarray, units: np.ndarray, people: np.ndarray, crowding: np.ndarray
) -> Parts:
    """The parts in a block of pixels; pixels in no zone, no unit or without a value are left out.

    Args:
        zones, units: numbers, 0 for none; of one shape.
        people, crowding: per pixel, of the adjusted map.
    """
    chosen = (zones > 0) & (units > 0) & ~np.isnan(people)
    return _summed(
        zones[chosen].astype(np.int64),
        units[chosen].astype(np.int64),
        people[chosen].astype(np.float64),
        crowding[chosen].astype(np.float64),
    )


def _summed(zone: np.ndarray, unit: np.ndarray, people: np.ndarray, crowding: np.ndarray) -> Parts:
    if not zone.size:
        return no_parts()
    # neighbours mostly lie in one part: runs first, then the few runs are sorted
    change = np.flatnonzero((zone[1:] != zone[:-1]) | (unit[1:] != unit[:-1])) + 1
    starts = np.concatenate(([0], change))
    key = zone[starts] * (int(unit.max()) + 1) + unit[starts]
    _, first, place = np.unique(key, return_index=True, return_inverse=True)
    return Parts(
        zone[starts][first],
        unit[starts][first],
        np.bincount(place, np.add.reduceat(people, starts)),
        np.bincount(place, np.add.reduceat(crowding, starts)),
    )


def adjusted_variance(
    model: ErrorModel, parts: Parts, units: Measured, method: np.ndarray, zones: int
) -> np.ndarray:
    """Variance of the people of each zone in the adjusted map.

    Args:
        units: the census units in the adjusted map.
        method: of each unit 0..n, as `mapping.placing` numbers them.
        zones: the number of zones.

    Returns:
        float64 (zones + 1,); NaN where a fallback placed people of the zone: of where in the unit
        those are, nothing is known.
    """
    of = parts.unit
    known = model.part_variance(parts.people, parts.crowding, units.people[of], units.crowding[of])
    free = model.map_variance(parts.people, parts.crowding)
    how = method[of]
    found = np.where(how == MODEL, known, np.where(how == UNCOUNTED, free, np.nan))
    whole = parts.people >= units.people[of] * (1 - 1e-6)
    found[(parts.people == 0) | (whole & (how != UNCOUNTED))] = 0.0
    return np.bincount(parts.zone, found, zones + 1)
