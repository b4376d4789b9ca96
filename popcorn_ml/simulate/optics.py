"""What Sentinel-2 sees of a surface on one day: reflectance, then clouds and shadows over it.

Reflectances are of the order of published spectral libraries, rounded. Everything is per pixel of
10 m; bands are `sentinel.S2_BANDS`. Nothing here knows of tiles, files or digital numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from popcorn_ml.simulate.buildings import Surface
from popcorn_ml.simulate.terrain import smooth_noise, step_up
from popcorn_ml.simulate.world import MATERIALS, World

REFLECTANCE: dict[str, tuple[float, float, float, float]] = {
    "new_metal": (0.25, 0.27, 0.28, 0.31),
    "rusty_metal": (0.12, 0.14, 0.19, 0.25),
    "tile": (0.08, 0.11, 0.20, 0.28),
    "concrete": (0.18, 0.20, 0.22, 0.25),
    "thatch": (0.08, 0.11, 0.15, 0.25),
    "hall_sheet": (0.32, 0.34, 0.34, 0.37),
    "asphalt": (0.08, 0.09, 0.10, 0.13),
    "laterite": (0.08, 0.13, 0.22, 0.31),
    "soil": (0.08, 0.12, 0.18, 0.26),
    "yard": (0.16, 0.19, 0.21, 0.25),
    "water": (0.06, 0.07, 0.05, 0.03),
}
"""Of what looks the same all year, in B02, B03, B04, B08."""

GREEN = np.array([0.03, 0.065, 0.04, 0.40], np.float32)
DRY = np.array([0.08, 0.12, 0.16, 0.26], np.float32)
TREE = np.array([0.02, 0.045, 0.028, 0.30], np.float32)
HAZE = (0.010, 0.006, 0.004, 0.002)
POINT_SPREAD_PX = 0.55
"""Standard deviation of the blur by the instrument's point spread, in pixels."""

CLOUD = np.array([0.75, 0.74, 0.74, 0.78], np.float32)


@dataclass(frozen=True)
class Sky:
    """Clouds of one acquisition, float32 (rows, columns): opacity and shadow, both 0..1."""

    opacity: np.ndarray
    shadow: np.ndarray


def _season_bump(t: np.ndarray | float, peak: np.ndarray | float, width: float) -> np.ndarray:
    """1 at `peak`, falling off within `width`; times in 0..1 of the year, which is a circle."""
    away = np.abs((np.asarray(t) - peak + 0.5) % 1 - 0.5)
    return np.exp(-((away / width) ** 2)).astype(np.float32)


def rains(t: float) -> float:
    """0..1, how rainy the time of year is: two rainy seasons, as near the equator."""
    return float(np.maximum(_season_bump(t, 0.32, 0.13), _season_bump(t, 0.93, 0.12)))


def greenness(world: World, covered: Surface, t: float) -> tuple[np.ndarray, np.ndarray]:
    """Green share of crops and of grass in each pixel, at `t` in 0..1 of the year.

    Grass follows the rains, crops their own field's calendar.
    """
    land = world.land
    second = land.second_crop * _season_bump(t, (land.crop_peak + 0.5) % 1, 0.09)
    crops = 0.06 + 0.86 * np.maximum(_season_bump(t, land.crop_peak, 0.1), second)
    grass = 0.2 + 0.6 * rains(t) + 0.25 * covered.garden
    return crops, np.clip(grass, 0, 0.95)


def reflectance(world: World, covered: Surface, t: float, rng: np.random.Generator) -> np.ndarray:
    """Surface reflectance without clouds, 0..1, float32 (4, rows, columns).

    Args:
        world: the place.
        covered: what covers it that year.
        t: the day, in 0..1 of the year.
        rng: of what differs between acquisitions: haze, illumination, noise.
    """
    share = dict(zip(MATERIALS, covered.share, strict=True))
    crops, grass = greenness(world, covered, t)
    green = share["crop"] * crops + share["grass"] * grass
    soil = share["soil"] + 0.75 * share["crop"] * (1 - crops)
    dry = 0.25 * share["crop"] * (1 - crops) + share["grass"] * (1 - grass)
    natural_tone = world.land.soil_tone * world.texture

    def mixed(band: int) -> np.ndarray:
        fixed = sum(
            share[name] * np.float32(value[band])
            for name, value in REFLECTANCE.items()
            if name not in ("soil", "water")
        )
        seen = fixed * world.texture + share["water"] * np.float32(REFLECTANCE["water"][band])
        seen += (soil * np.float32(REFLECTANCE["soil"][band]) + dry * DRY[band]) * natural_tone
        seen += green * GREEN[band] + share["tree"] * TREE[band]
        return seen

    return observed(mixed, covered, HAZE, rng)


def observed(
    mixed: Callable[[int], np.ndarray],
    covered: Surface,
    haze: tuple[float, float, float, float],
    rng: np.random.Generator,
) -> np.ndarray:
    """What reaches the instrument of what the ground reflects, float32 (4, rows, columns).

    Args:
        mixed: a band's reflectance by what covers each pixel; its array is used up.
        covered: what covers the place that year.
        haze: what a usual haze adds to each band.
        rng: of what differs between acquisitions: haze, illumination, noise.
    """
    light = rng.normal(1.0, 0.025)
    hazy = np.array(haze) * rng.gamma(1.5, 0.5)
    shape = covered.built.shape
    out = np.empty((4, *shape), np.float32)
    for band in range(4):
        seen = mixed(band)
        # tall buildings shade what lies between them
        seen *= 1 - 0.3 * np.clip(covered.wall / 1.2, 0, 1) * (1 - covered.built)
        seen = ndimage.gaussian_filter(seen, POINT_SPREAD_PX, truncate=3)
        noise = rng.standard_normal(shape, np.float32)
        out[band] = seen * np.float32(light) * (1 + 0.012 * noise) + np.float32(hazy[band])
    return np.clip(out, 0.001, 1.2)


def sky(
    rng: np.random.Generator, shape: tuple[int, int], cover: float, sun: tuple[float, float]
) -> Sky:
    """Clouds that hide about `cover` (0..1) of the ground, and their shadows.

    Args:
        sun: how far a shadow falls from its cloud, rows and columns.
    """
    if cover < 0.01:
        nothing = np.zeros(shape, np.float32)
        return Sky(nothing, nothing)
    billow = smooth_noise(rng, shape, 75, octaves=5)
    opacity = step_up(billow, float(np.quantile(billow, 1 - cover)), 0.07)
    opacity[opacity < 0.02] = 0
    dense = np.clip((opacity - 0.25) / 0.5, 0, 1)
    shadow = ndimage.shift(dense, sun, order=1, mode="nearest", prefilter=False)
    return Sky(opacity, np.clip(shadow, 0, 1) * (1 - opacity))


def under(clear: np.ndarray, above: Sky) -> np.ndarray:
    """Reflectance as seen through clouds and in their shadows; arrays as in `reflectance`."""
    dark = np.array([0.62, 0.58, 0.52, 0.5], np.float32)[:, None, None]
    shaded = clear * (1 - above.shadow * (1 - dark))
    return shaded * (1 - above.opacity) + CLOUD[:, None, None] * above.opacity


def classes(seen: np.ndarray, above: Sky, water: np.ndarray) -> np.ndarray:
    """Scene classes as Sentinel-2's own classification gives them, uint8 (rows, columns).

    Thin edges of clouds pass for ground, as they do there.
    """
    red, near_infrared = seen[2], seen[3]
    ndvi = (near_infrared - red) / np.maximum(near_infrared + red, 1e-3)
    out = np.where(ndvi > 0.4, 4, 5).astype(np.uint8)
    out[(ndvi > 0.22) & (ndvi <= 0.4) & (seen.mean(0) > 0.19)] = 7
    out[water > 0.5] = 6
    out[(above.shadow > 0.3)] = 3
    out[above.opacity > 0.10] = 10
    out[above.opacity > 0.35] = 8
    out[above.opacity > 0.70] = 9
    return out
