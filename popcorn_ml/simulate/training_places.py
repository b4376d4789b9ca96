"""Other simulated places with building labels, to pre-train a built-up area extractor on.

Their views come from the same optics and radar as scenes of a country of their family, but
composites are rendered straight away: medians of a few dates without clouds, instead of scenes on
disk and the compositing of `popcorn_ml.imagery`. What is lost is residual cloud and seams; what is
kept is the noise that so many dates leave.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from popcorn_ml import sentinel
from popcorn_ml.sentinel import Season
from popcorn_ml.simulate import radar
from popcorn_ml.simulate.buildings import LOOK_AXIS, Surface
from popcorn_ml.simulate.family import FAMILIES, Family, World
from popcorn_ml.simulate.spec import FIRST, TRAINING_SEEDS_FROM, CountrySpec

BUILT_SHARE = 0.2
"""A pixel is labelled built-up when buildings cover at least this share of it (20 m2)."""

FIRST_SEED = TRAINING_SEEDS_FROM


@dataclass(frozen=True)
class LabelledPlace:
    """One place to learn from.

    Attributes:
        channels: float32 (seasons, 6, rows, columns) in the order of `sentinel.CHANNELS`,
            normalised as the networks take them.
        built: bool (rows, columns).
        people: who lives in each pixel, int64 (rows, columns).
    """

    channels: np.ndarray
    built: np.ndarray
    people: np.ndarray


def make_place(number: int, side_px: int, family: Family = FAMILIES[FIRST]) -> LabelledPlace:
    """Draw the training place of a number, with a town that fills 5 to 60 % of it.

    Args:
        number: 0, 1, ...; the same number, side and family give the same place.
        side_px: rows and columns.
        family: of worlds.
    """
    seed = FIRST_SEED + number
    rng = np.random.default_rng([seed, 4])
    year = CountrySpec().base_year
    world = family.make_world(seed, (side_px, side_px), year, float(rng.uniform(0.05, 0.6)))
    covered = family.surface(world, year)
    channels = [composite(world, covered, season, rng, family) for season in sentinel.SEASONS]
    people = family.people(world, year)
    return LabelledPlace(np.stack(channels), covered.built >= BUILT_SHARE, people)


def composite(
    world: World,
    covered: Surface,
    season: Season,
    rng: np.random.Generator,
    family: Family = FAMILIES[FIRST],
) -> np.ndarray:
    """A season's normalised channels, float32 (6, rows, columns), from 2 to 5 dates a sensor."""
    start = {"spring": 2, "summer": 5, "autumn": 8, "winter": 11}[season] / 12
    orbit = list(LOOK_AXIS)[rng.integers(2)]
    power = []
    for t in _dates(rng, start):
        wetness = float(np.clip(2 * family.rains(t) - 1 + rng.normal(0, 0.3), -1, 1))
        expected = family.gamma_nought(world, covered, orbit, t, wetness)
        power.append(radar.speckled(expected, rng))
    reflectance = [family.reflectance(world, covered, t, rng) for t in _dates(rng, start)]
    decibels = 10 * np.log10(np.median(power, axis=0))
    digital = np.median(reflectance, axis=0) * sentinel.S2_REFLECTANCE_SCALE
    stacked = np.concatenate([decibels, digital])
    mean, std = (
        np.array([table[name] for name in sentinel.CHANNELS])[:, None, None]
        for table in (sentinel.CHANNEL_MEAN, sentinel.CHANNEL_STD)
    )
    return ((stacked - mean) / std).astype(np.float32)


def _dates(rng: np.random.Generator, start: float) -> np.ndarray:
    """Two to five days of a quarter, in 0..1 of the year."""
    return (start + 0.25 * np.sort(rng.random(rng.integers(2, 6)))) % 1.0
