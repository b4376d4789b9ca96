"""One consistent place: terrain and settlements together, and what covers each pixel in a year.

What the sensors see (`optics`, `radar`) and what the census counts (`census`) both come from here,
so they agree by construction. Nothing here knows of dates within a year, scenes or files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from popcorn_ml.sentinel import Orbit
from popcorn_ml.simulate.settlements import KIND_NAMES, KINDS, ROOFS, Buildings, Settlements, settle
from popcorn_ml.simulate.terrain import Terrain, make_terrain, smooth_noise

GROUND = ("asphalt", "laterite", "soil", "yard", "grass", "tree", "crop", "water")
MATERIALS = ROOFS + GROUND

LOOK_AXIS: dict[Orbit, float] = {"ascending": np.radians(12.0), "descending": np.radians(-12.0)}
"""Direction in which Sentinel-1 looks, from the direction of the columns, in radians: near the
equator it flies 12 degrees off north, on either side of it, and looks across its track."""

ALIGNED_WITHIN = np.radians(14.0)
"""How far a wall may be turned from facing the sensor and still return the double bounce."""


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


@dataclass(frozen=True)
class Surface:
    """What covers each pixel in one year.

    Attributes:
        share: share of each pixel under each of `MATERIALS`, float32 (materials, rows, columns),
            adding up to 1.
        built: share under buildings, float32 (rows, columns).
        bounce: wall area that faces the sensor per pixel area, by orbit.
        wall: wall area per pixel area, whichever way it faces.
        garden: 0..1, watered ground that stays green longer than open grassland.
    """

    share: np.ndarray
    built: np.ndarray
    bounce: dict[Orbit, np.ndarray]
    wall: np.ndarray
    garden: np.ndarray


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
    """Who lives in each pixel at the middle of a year: whole numbers, int64 (rows, columns).

    A building's people count in the pixel that holds its middle.
    """
    table = world.settlements.buildings
    there = table.built <= year + 0.5
    flat = table.row.astype(np.int64) * world.shape[1] + table.col.astype(np.int64)
    counts = np.bincount(flat[there], table.people[there], int(np.prod(world.shape)))
    return np.rint(counts).astype(np.int64).reshape(world.shape)


def surface(world: World, year: int) -> Surface:
    """What covers each pixel at the middle of a year."""
    made, land, shape = world.settlements, world.land, world.shape
    table = made.buildings.where(made.buildings.built <= year + 0.5)
    roofs = np.zeros((len(ROOFS), *shape), np.float32)
    walls = {name: np.zeros(shape, np.float32) for name in ("wall", *LOOK_AXIS)}
    _footprints(table, roofs, walls)
    built = roofs.sum(0)
    roofs /= np.maximum(built, 1.0)
    built = np.minimum(built, 1.0)

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


def _footprints(table: Buildings, roofs: np.ndarray, walls: dict[str, np.ndarray]) -> None:
    """Add each building's roof and walls to the pixels it stands on, by points of its footprint."""
    long_side = np.maximum(table.length_m, table.width_m)
    for points, chosen in ((5, long_side < 25), (24, long_side >= 25)):
        part = table.where(chosen)
        if not len(part):
            continue
        at = (np.arange(points) + 0.5) / points - 0.5
        along, across = (axis.ravel()[:, None] for axis in np.meshgrid(at, at))
        u, v = along * part.length_m, across * part.width_m
        cos, sin = np.cos(part.angle), np.sin(part.angle)
        row = part.row + (u * sin + v * cos) / 10
        col = part.col + (u * cos - v * sin) / 10
        inside = (row >= 0) & (row < roofs.shape[1]) & (col >= 0) & (col < roofs.shape[2])
        flat = (row.astype(np.int64) * roofs.shape[2] + col.astype(np.int64))[inside]
        each = 1.0 / points**2 / 100.0  # of a building, per square metre of pixel
        area = np.broadcast_to(part.length_m * part.width_m * each, row.shape)[inside]
        roof = np.broadcast_to(part.roof, row.shape)[inside]
        size = roofs[0].size
        roofs += np.bincount(roof * size + flat, area, roofs.size).reshape(roofs.shape)
        for name, wall in _wall_area(part).items():
            weight = np.broadcast_to(wall * each, row.shape)[inside]
            walls[name] += np.bincount(flat, weight, size).reshape(walls[name].shape)


def _wall_area(table: Buildings) -> dict[str, np.ndarray]:
    """Square metres of wall of each building: all of one long and one short side, and what of
    them faces each orbit. A rough model of how double bounce fades as walls turn away."""
    gap = np.array([np.mean(np.subtract(k.plot_m, k.house_m)) for k in KINDS.values()])[table.kind]
    seen = np.clip(gap / table.height_m, 0, 1) * table.glint  # what the next house does not hide
    long_wall, short_wall = table.length_m * table.height_m, table.width_m * table.height_m
    areas = {"wall": long_wall + short_wall}
    for orbit, axis in LOOK_AXIS.items():
        total = np.zeros(len(table))
        for wall, normal in ((long_wall, table.angle + np.pi / 2), (short_wall, table.angle)):
            off = (normal - axis + np.pi / 2) % np.pi - np.pi / 2
            total += wall * np.exp(-((off / ALIGNED_WITHIN) ** 2))
        areas[str(orbit)] = total * seen
    return areas
