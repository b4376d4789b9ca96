"""What Sentinel-1 sees of a surface on one pass: gamma-nought in linear power, with speckle.

Backscatter coefficients are of the order of those in the literature for C band at 35 to 45 degrees,
rounded; the double bounce of walls is a one-line model. Bands are VV, VH. Nothing here knows of
files, nodata or decibels on disk.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import ndimage

from popcorn_ml.sentinel import Orbit
from popcorn_ml.simulate.buildings import Surface
from popcorn_ml.simulate.optics import greenness
from popcorn_ml.simulate.world import MATERIALS, World

GAMMA0_DB: dict[str, tuple[float, float]] = {
    "new_metal": (-7.5, -17.0),
    "rusty_metal": (-7.5, -16.5),
    "tile": (-7.0, -15.0),
    "concrete": (-7.0, -15.5),
    "thatch": (-9.0, -15.0),
    "hall_sheet": (-3.0, -14.0),
    "asphalt": (-16.0, -24.0),
    "laterite": (-13.5, -21.5),
    "soil": (-12.5, -20.0),
    "yard": (-13.0, -21.5),
    "grass": (-12.0, -18.0),
    "tree": (-7.5, -13.0),
    "crop": (-12.0, -19.0),
    "water": (-20.0, -27.5),
}
"""VV, VH of each material, before walls."""

SWING_DB = {"soil": 1.6, "laterite": 1.2, "crop": 1.2, "grass": 0.9, "water": 1.5, "tree": 0.3}
"""How much more a material returns when it is wet than when it is neither wet nor dry."""

WALL_BOUNCE = (4.0, 0.18)
"""Power that a square metre of wall facing the sensor adds per square metre of ground, VV, VH."""

WALL_SCATTER = (0.35, 0.11)
"""The same of walls whichever way they face: corners, eaves, fences, turned walls (mostly VH)."""

KERNEL = (0.1788, 0.6424, 0.1788)
"""Weights by which neighbouring single-look pixels mix in both directions when 20 m cells are laid
out at 10 m: independent exponentials so averaged have 1 / (sum of squares)^2 = 4.4 looks, the
equivalent number of looks of IW GRD products."""


def gamma_nought(
    world: World, covered: Surface, orbit: Orbit, t: float, wetness: float
) -> np.ndarray:
    """Expected gamma-nought without speckle, linear power, float32 (2, rows, columns).

    Args:
        world: the place.
        covered: what covers it that year.
        orbit: which way the sensor flies.
        t: the day, in 0..1 of the year.
        wetness: -1 (dry) .. 1 (wet) of soils and canopies, as of that day.
    """
    share = dict(zip(MATERIALS, covered.share, strict=True))
    crops, _ = greenness(world, covered, t)
    materials = {
        name: (share[name], value, SWING_DB.get(name, 0.0)) for name, value in GAMMA0_DB.items()
    }
    return returned(materials, {"crop": crops}, world.texture, covered, orbit, wetness)


def returned(
    materials: Mapping[str, tuple[np.ndarray, tuple[float, float], float]],
    vigour: Mapping[str, np.ndarray],
    texture: np.ndarray,
    covered: Surface,
    orbit: Orbit,
    wetness: float,
) -> np.ndarray:
    """What a surface returns to the sensor, linear power, float32 (2, rows, columns).

    Args:
        materials: name -> its share of each pixel, its VV and VH, how much wetness adds, in dB.
        vigour: of those that grow: how green each pixel's is, 0..1.
        texture: brightness of each pixel's ground, about 1.
        covered: walls, that year.
        orbit: which way the sensor flies.
        wetness: -1..1, as of that day.
    """
    out = np.empty((2, *texture.shape), np.float32)
    for i in range(2):
        total = np.zeros(texture.shape, np.float32)
        for name, (share, decibels, swing) in materials.items():
            power = np.asarray(10 ** ((decibels[i] + swing * wetness) / 10), np.float32)
            if name in vigour:
                grown = vigour[name]
                power = power * 10 ** ((0.25 if i == 0 else 0.35) * grown).astype(np.float32)
            total += share * power
        total *= texture
        total += np.float32(WALL_BOUNCE[i]) * covered.bounce[orbit]
        total += np.float32(WALL_SCATTER[i]) * covered.wall
        out[i] = ndimage.gaussian_filter(total, 0.6, truncate=3)
    return out


def speckled(expected: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One pass's measurement: `expected` under multiplicative speckle of 4.4 looks."""
    out = np.empty_like(expected)
    for i, power in enumerate(expected):
        single = rng.standard_exponential(power.shape, np.float32)
        mixed = ndimage.correlate1d(single, KERNEL, axis=0, mode="reflect")
        out[i] = power * ndimage.correlate1d(mixed, KERNEL, axis=1, mode="reflect")
    return np.maximum(out, 1e-5)
