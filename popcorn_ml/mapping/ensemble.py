"""The ensemble's mean and spread: seasons averaged within each member first, then across members.

Seeds, seasons and tiles are never mixed: a member's four seasons see one place through one set of
weights and differ by phenology, not by what the ensemble does not know.
"""

from __future__ import annotations

import numpy as np


def season_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the seasons that have a value.

    Args:
        values: (seasons, ..., rows, columns), NaN where a season has none.

    Returns:
        float64 without the first axis; NaN where no season has a value.
    """
    holes = np.isnan(values)
    seasons = (~holes).sum(axis=0)
    total = np.where(holes, 0.0, values).sum(axis=0, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return np.where(seasons > 0, total / np.maximum(seasons, 1), np.nan)


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
    values = members.astype(np.float64)
    centre = values.mean(axis=0)
    squares = ((values - centre) ** 2).sum(axis=0)
    return np.sqrt(squares / max(len(values) - 1, 1))
