"""What the surfaces of the dry valley look like to Sentinel-2 and Sentinel-1.

Pale mineral soils, mud and lime, one rainy season in winter; the green follows water, not rain.
Figures are of the order of published spectral libraries and of the literature on C-band backscatter
of arid land, rounded.
"""

from __future__ import annotations

import numpy as np

from popcorn_ml.sentinel import Orbit
from popcorn_ml.simulate.buildings import Surface
from popcorn_ml.simulate.dryland.land import CROPS
from popcorn_ml.simulate.dryland.world import MATERIALS, DryWorld
from popcorn_ml.simulate.optics import observed
from popcorn_ml.simulate.radar import returned

REFLECTANCE: dict[str, tuple[float, float, float, float]] = {
    "mud": (0.13, 0.18, 0.24, 0.30),
    "lime": (0.34, 0.37, 0.39, 0.42),
    "gravelled": (0.20, 0.22, 0.24, 0.27),
    "clay_tile": (0.09, 0.13, 0.24, 0.32),
    "sheet": (0.28, 0.30, 0.31, 0.33),
    "plastic": (0.30, 0.33, 0.33, 0.42),
    "asphalt": (0.10, 0.11, 0.12, 0.15),
    "paving": (0.22, 0.24, 0.26, 0.29),
    "dust": (0.15, 0.21, 0.28, 0.34),
    "soil": (0.12, 0.17, 0.23, 0.29),
    "gravel": (0.13, 0.16, 0.19, 0.22),
    "rock": (0.09, 0.115, 0.145, 0.17),
    "salt": (0.36, 0.38, 0.40, 0.42),
    "sand": (0.17, 0.24, 0.33, 0.40),
    "shrub": (0.06, 0.08, 0.09, 0.20),
    "tree": (0.03, 0.05, 0.045, 0.26),
    "water": (0.07, 0.09, 0.08, 0.04),
}
"""Of what looks the same all year, in B02, B03, B04, B08."""

NATURAL = ("soil", "gravel", "rock", "salt", "sand", "dust")
"""Ground whose brightness varies with the land's tone."""

LEAVES = np.array([0.03, 0.06, 0.04, 0.42], np.float32)
STRAW = np.array([0.12, 0.17, 0.23, 0.31], np.float32)
PALMS = np.array([0.045, 0.07, 0.07, 0.24], np.float32)
HAZE = (0.008, 0.009, 0.010, 0.008)
"""Of dust, which is not blue."""

GAMMA0_DB: dict[str, tuple[float, float]] = {
    "mud": (-8.5, -17.5),
    "lime": (-7.5, -16.5),
    "gravelled": (-7.0, -16.0),
    "clay_tile": (-7.0, -15.5),
    "sheet": (-4.5, -14.5),
    "plastic": (-9.0, -16.5),
    "asphalt": (-17.0, -25.0),
    "paving": (-13.5, -22.0),
    "dust": (-15.0, -24.0),
    "soil": (-14.0, -22.5),
    "gravel": (-11.0, -20.5),
    "rock": (-8.5, -18.0),
    "salt": (-16.5, -26.0),
    "sand": (-18.5, -28.0),
    "herb": (-13.5, -21.0),
    "shrub": (-11.0, -16.5),
    "crop": (-11.5, -18.5),
    "orchard": (-8.5, -14.0),
    "garden": (-11.5, -17.5),
    "tree": (-8.0, -13.5),
    "water": (-20.0, -27.5),
}
"""VV, VH of each material, before walls."""

SWING_DB = {"soil": 2.0, "dust": 1.5, "salt": 3.0, "herb": 1.2, "crop": 0.8, "water": 1.5}


def _bump(t: float, peak: float, width: float) -> float:
    away = abs((t - peak + 0.5) % 1 - 0.5)
    return float(np.exp(-((away / width) ** 2)))


def rains(t: float) -> float:
    """0..1, how rainy the time of year (0..1) is: one short season, in winter."""
    return 0.7 * _bump(t, 0.08, 0.13)


def _crops(world: DryWorld, t: float) -> np.ndarray:
    """Green share of field crops, by each strip's calendar."""
    green = [0.04 + most * _bump(t, peak, width) for _, peak, width, most in CROPS]
    return np.array(green, np.float32)[world.land.calendar]


def reflectance(
    world: DryWorld, covered: Surface, t: float, rng: np.random.Generator
) -> np.ndarray:
    """Surface reflectance without clouds, 0..1, float32 (4, rows, columns); `t` in 0..1."""
    share = dict(zip(MATERIALS, covered.share, strict=True))
    crops, sprouted = _crops(world, t), np.float32(0.05 + 0.7 * _bump(t, 0.2, 0.11))
    tone = world.land.tone
    leaves = share["crop"] * crops + share["herb"] * sprouted + 0.75 * share["garden"]
    straw = share["crop"] * (1 - crops) * 0.5 + share["herb"] * (1 - sprouted)
    bare = share["crop"] * (1 - crops) * 0.5 + 0.25 * share["garden"] + 0.35 * share["orchard"]
    ground = {**share, "soil": share["soil"] + bare}

    def mixed(band: int) -> np.ndarray:
        seen = leaves * LEAVES[band] + straw * STRAW[band] * tone
        seen += 0.65 * share["orchard"] * PALMS[band]
        for name, value in REFLECTANCE.items():
            part = ground[name] * np.float32(value[band])
            seen += part * tone if name in NATURAL else part
        return seen * world.texture

    return observed(mixed, covered, HAZE, rng)


def gamma_nought(
    world: DryWorld, covered: Surface, orbit: Orbit, t: float, wetness: float
) -> np.ndarray:
    """Expected gamma-nought without speckle, linear power, float32 (2, rows, columns)."""
    share = dict(zip(MATERIALS, covered.share, strict=True))
    materials = {
        name: (share[name], value, SWING_DB.get(name, 0.0)) for name, value in GAMMA0_DB.items()
    }
    vigour = {"crop": _crops(world, t)}
    return returned(materials, vigour, world.texture, covered, orbit, wetness)
