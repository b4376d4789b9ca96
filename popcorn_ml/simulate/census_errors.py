"""Errors of a simulated census, as real ones have them: counts, borders, age. For any family.

Only the level that is published and trained on errs; the finer one and the truth, by which a map is
judged, stay exact. Identifiers stay, units remain a partition of the country.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from popcorn_ml.simulate.census import Level
from popcorn_ml.simulate.spec import CountrySpec
from popcorn_ml.simulate.terrain import smooth_noise

LEVEL = "coarse"
"""The level that errs."""

BORDER_SCALE_PX = 24
"""Over how many pixels the error of a border changes: digitised from a sketch, not shaken."""


def published_units(spec: CountrySpec, levels: dict[str, Level]) -> dict[str, Level]:
    """The levels as they are published: the borders of `LEVEL` off by at most what is said."""
    off = spec.census_error.borders_px
    if not off:
        return levels
    moved = moved_borders(np.random.default_rng([spec.seed, 21]), levels[LEVEL].number, off)
    return {**levels, LEVEL: replace(levels[LEVEL], number=moved)}


def moved_borders(rng: np.random.Generator, number: np.ndarray, most_px: float) -> np.ndarray:
    """A partition whose borders are bent by at most `most_px` pixels, none of its units lost.

    Every pixel takes the unit of a place that lies up to so far from it, further in nearly all
    places than half of that; neighbours look into nearly the same direction.
    """
    shape = number.shape
    off = np.stack([smooth_noise(rng, shape, BORDER_SCALE_PX, octaves=2) for _ in range(2)])
    off *= most_px / np.maximum(np.hypot(*off), 0.5)  # only where it turns round is it less
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    # towards the pixel itself, so that rounding never adds to the distance
    row = np.clip(rows + np.trunc(off[0] + 1e-6 * np.sign(off[0])), 0, shape[0] - 1).astype(int)
    col = np.clip(cols + np.trunc(off[1] + 1e-6 * np.sign(off[1])), 0, shape[1] - 1).astype(int)
    moved = number[row, col]
    # a unit that is lost gets its own ground back, which may be the last that another had taken
    while (lost := np.setdiff1d(number, moved)).size:
        kept = np.isin(number, lost)
        moved[kept] = number[kept]
    return moved


def published_counts(spec: CountrySpec, year: int, people: np.ndarray) -> np.ndarray:
    """The counts of units 1..n as they are published, whole numbers of at least 0.

    Each is off by a share of itself, drawn for its unit and year from a normal distribution.
    """
    share = spec.census_error.counts
    if not share:
        return people
    rng = np.random.default_rng([spec.seed, 22, year])
    return np.maximum(np.rint(people * (1 + share * rng.standard_normal(people.size))), 0)
