"""One consistent place: terrain and settlements together, and what covers each pixel in a year.

What the sensors see (`optics`, `radar`) and what the census counts (`census`) both come from here,
so they agree by construction. Nothing here knows of dates within a year, scenes or files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from popcorn_ml.simulate.buildings import LOOK_AXIS, Surface, footprints, people_of
from popcorn_ml.simulate.settlements import KIND_NAMES, KINDS, ROOFS, Settlements, settle
from popcorn_ml.simulate.terrain import Terrain, make_terrain, smooth_noise

GROUND = ("asphalt", "laterite", "soil", "yard", "grass", "tree", "crop", "water")
MATERIALS = ROOFS + GROUND
GAPS_M = np.array([np.mean(np.subtract(k.plot_m, k.house_m)) for k in KINDS.values()])
"""How far a building of each kind stands from the next."""


@dataclass(frozen=True)
class World:
    """A place at all times.

    Attributes:
        land: the terrain.
        settlements: what people have made.
        texture: brightness of each pixel's ground relative to its kind's, about 1.
        patches: how much grass and how many trees a pixel has of what its neighbourhood has,
            float32 (2, rows, columns) of mean 1.
    """

    land: Terrain
    settlements: Settlements
    texture: np.ndarray
    patches: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, columns of 10 m pixels."""
        return self.land.water.shape


def make_world(seed: int, shape: tuple[int, int], base_year: int, urban_share: float) -> World:
    """Draw a place.

    Args:
        seed: the same seed and shape give the same place.
        shape: rows, columns of 10 m pixels.
        base_year: the year in which towns cover `urban_share` of it.
        urban_share: 0..1.
    """
    rng = np.random.default_rng([seed, 1])
    land = make_terrain(rng, shape)
    settlements = settle(rng, land, base_year, urban_share)
    texture = 1 + 0.05 * smooth_noise(rng, shape, 5, octaves=3)
    patches = rng.gamma(2.5, 1 / 2.5, (2, *shape)).astype(np.float32)
    return World(land, settlements, np.clip(texture, 0.7, 1.3).astype(np.float32), patches)


def people(world: World, year: int) -> np.ndarray:
    """Who lives in each pixel at the middle of a year: whole numbers, int64 (rows, columns)."""
    return people_of(world.settlements.buildings, world.shape, year)


def surface(world: World, year: int) -> Surface:
    """What covers each pixel at the middle of a year."""
    made, land, shape = world.settlements, world.land, world.shape
    roofs, built, walls = footprints(made.buildings, shape, year, len(ROOFS), GAPS_M)

    founded = (made.founded <= year + 0.5)[made.neighbourhood]
    kind = np.where(founded, made.kind[made.neighbourhood], -1)
    share = dict.fromkeys(GROUND, np.float32(0))
    rest = 1 - built
    for material, amount in (("asphalt", made.paved), ("laterite", made.unpaved)):
        share[material] = rest * amount
    rest = rest - share["asphalt"] - share["laterite"]
    share["water"] = np.minimum(rest, land.water)
    rest = rest - share["water"]
    street = np.minimum(rest, made.street * founded * (1 - land.water))
    asphalt = np.array([KINDS[name].asphalt for name in KIND_NAMES] + [0.0], np.float32)[kind]
    share["asphalt"] = share["asphalt"] + street * asphalt
    share["laterite"] = share["laterite"] + street * (1 - asphalt)
    rest = rest - street

    village = KIND_NAMES.index("village")
    lived = np.clip(made.village * 1.4, 0, 1) * (kind < 0) * (land.water < 0.5)
    lived = np.maximum(lived, ndimage.uniform_filter(built, 3) * 2 * (kind < 0)).clip(0, 1)
    ground = np.array([k.ground for k in KINDS.values()], np.float32)
    urban = (kind >= 0).astype(np.float32)
    between = ground[np.where(kind >= 0, kind, village)].transpose(2, 0, 1).copy()
    between[2:] *= world.patches  # gardens and trees stand in patches
    between /= between.sum(0)
    settled = np.maximum(urban, lived) * rest
    for i, material in enumerate(("soil", "yard", "grass", "tree")):
        share[material] = settled * between[i]
    rest = rest - settled
    dry = np.maximum(1 - land.water, 1e-6)
    forest, crop = np.minimum(land.forest / dry, 1), np.minimum(land.crop / dry, 1)
    share["tree"] = share["tree"] + rest * forest
    share["crop"] = rest * crop
    open_land = np.clip(rest * (1 - forest - crop), 0, None)
    share["tree"] = share["tree"] + open_land * land.shrub
    share["soil"] = share["soil"] + open_land * 0.12
    share["grass"] = share["grass"] + open_land * (0.88 - land.shrub)
    stacked = np.concatenate([roofs, np.stack([share[m] * np.ones(shape) for m in GROUND])])
    stacked = np.clip(stacked, 0, 1).astype(np.float32)
    stacked /= stacked.sum(0)
    return Surface(
        stacked,
        built.astype(np.float32),
        {orbit: walls[orbit] for orbit in LOOK_AXIS},
        walls["wall"],
        urban * np.float32(0.8) + lived.astype(np.float32) * np.float32(0.3),
    )
