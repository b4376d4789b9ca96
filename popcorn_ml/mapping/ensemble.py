"""The ensemble's mean and spread: seasons averaged within each member first, then across members.

Seeds, seasons and tiles are never mixed: a member's four seasons see one place through one set of
weights and differ by phenology, not by what the ensemble does not know.
"""

from __future__ import annotations

import numpy as np


class SeasonMean:
    """Mean over the seasons that have a value, pixel by pixel, one season after another.

    Args:
        shape: of the values of one season, (..., rows, columns).
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._sum = np.zeros(shape)
        self._seasons: np.ndarray = np.zeros((), np.int32)

    def add(self, values: np.ndarray, seen: np.ndarray | None = None) -> None:
        """Take one season.

        Args:
            values: of the season, NaN where it has none; or 0, where `seen` is given.
            seen: whether there is a value, of the values' last axes; of all seasons or of none.
        """
        if seen is None:
            seen = ~np.isnan(values)
            values = np.where(seen, values, 0)
        self._sum += values
        self._seasons = self._seasons + seen

    def mean(self) -> np.ndarray:
        """float64; NaN where no season had a value."""
        with np.errstate(invalid="ignore"):
            return self._sum / self._seasons


def spread_of(members: np.ndarray) -> np.ndarray:
    """Standard deviation across members: how far members of this kind lie from one another.

    The sample's, with members - 1 below the sum (ddof = 1), since the members stand for all that
    could have been trained. In two passes, mean first, in float64: never negative, and 0 where the
    members agree. For a single member it is 0 by definition; it does not mean "certain".

    Args:
        members: (members, ...); a NaN in any of them makes the result NaN.

    Returns:
        float64 without the first axis, in the members' unit.
    """
    values = members.astype(np.float64, copy=False)
    if len(values) == 1:
        return values[0] - values[0]
    centre = values.mean(axis=0)
    squares = np.zeros(centre.shape)
    for one in values:
        apart = one - centre
        apart *= apart
        squares += apart
    return np.sqrt(squares / max(len(values) - 1, 1))


class SpreadAcross:
    """`spread_of` members that come one after another, so that they are never held together.

    By Welford's update (1962): like two passes never negative, and 0 where the members agree.
    """

    def __init__(self) -> None:
        self._members = 0
        self._mean: np.ndarray = np.zeros(())
        self._squares: np.ndarray = np.zeros(())

    def add(self, values: np.ndarray) -> None:
        """Take one member's values; a NaN makes the result NaN there."""
        self._members += 1
        apart = values - self._mean
        self._mean = self._mean + apart / self._members
        self._squares = self._squares + apart * (values - self._mean)

    def result(self) -> np.ndarray:
        """float64, of one member's shape; 0 for a single member."""
        return np.sqrt(self._squares / max(self._members - 1, 1))
