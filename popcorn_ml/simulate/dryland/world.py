"""A place in the dry valley: land and settlements, and what covers each pixel in a year."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from scipy import ndimage

from popcorn_ml.simulate.buildings import LOOK_AXIS, Buildings, Surface, footprints, people_of
from popcorn_ml.simulate.dryland.kinds import KIND_NAMES, KINDS, ROOFS
from popcorn_ml.simulate.dryland.land import DryLand, make_land
from popcorn_ml.simulate.dryland.lots import inhabit
from popcorn_ml.simulate.dryland.projects import Packed, make_towns, old_town, pack
from popcorn_ml.simulate.dryland.rural import Ways, compounds, glasshouses, make_ways, ribbons
from popcorn_ml.simulate.terrain import smooth_noise

GROUND = (
    "asphalt", "paving", "dust", "soil", "gravel", "rock", "salt", "sand",
    "herb", "shrub", "crop", "orchard", "garden", "tree", "water",
)  # fmt: skip
MATERIALS = ROOFS + GROUND
BETWEEN = ("asphalt", "paving", "dust", "garden", "tree")
"""What lies between buildings, as `Kind.ground` is ordered."""

GAPS_M = np.array([kind.gap_m for kind in KINDS.values()])


@dataclass(frozen=True)
class DrySettlements:
    """Everything people have made in a place, at whatever time.

    Attributes:
        buildings: the table.
        zone: number of the old town or project of each pixel, 0 for none.
        kind: kind of zones 0..n (index into `KIND_NAMES`), -1 for none.
        founded: of the same, decimal years.
        ways: roads, tracks and canals.
    """

    buildings: Buildings
    zone: np.ndarray
    kind: np.ndarray
    founded: np.ndarray
    ways: Ways


@dataclass(frozen=True)
class DryWorld:
    """A place at all times.

    Attributes:
        land: the land.
        settlements: what people have made.
        texture: brightness of each pixel's ground relative to its kind's, about 1.
        patches: how much of each of `BETWEEN` a pixel has of what its zone has, of mean 1.
    """

    land: DryLand
    settlements: DrySettlements
    texture: np.ndarray
    patches: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, columns of 10 m pixels."""
        return self.land.water.shape


def make_world(seed: int, shape: tuple[int, int], base_year: int, urban_share: float) -> DryWorld:
    """Draw a place.

    Args:
        seed: the same seed and shape give the same place.
        shape: rows, columns of 10 m pixels.
        base_year: the year in which old towns and projects cover `urban_share` of it.
        urban_share: 0..1.
    """
    rng = np.random.default_rng([seed, 11])
    land = make_land(rng, shape)
    settlements = _settle(rng, land, base_year, urban_share)
    texture = 1 + 0.06 * smooth_noise(rng, shape, 4, octaves=3)
    patches = rng.gamma(2.0, 0.5, (len(BETWEEN), *shape)).astype(np.float32)
    return DryWorld(land, settlements, np.clip(texture, 0.7, 1.3).astype(np.float32), patches)


def _settle(rng, land: DryLand, base_year: int, urban_share: float) -> DrySettlements:
    shape = land.water.shape
    towns = make_towns(rng, land)
    ways, bank = make_ways(rng, land, towns)
    road_px = ndimage.distance_transform_edt(ways.asphalt < 0.3).astype(np.float32)
    wet = (land.water + land.gravel + ways.canal) > 0.4
    blocked = wet | (land.rock > 0.6) | (ways.asphalt > 0.3)
    packed = Packed(np.zeros(shape, np.int32), [], [], [])
    for town in towns:
        ground, lots = old_town(rng, land, town, ~blocked & (packed.zone == 0))
        if not len(lots):
            continue
        packed.kind.append("medina")
        packed.founded.append(base_year - 300.0)
        packed.zone[ground] = len(packed.kind)
        built = base_year - rng.uniform(20, 200, int(lots.house.max()) + 1)
        packed.buildings.append(inhabit(rng, "medina", lots, built))
    glasshouses(rng, land, packed, blocked, base_year)
    pack(rng, land, towns, packed, blocked, road_px, base_year, max(urban_share * wet.size, 1.0))
    free = ~blocked & (packed.zone == 0)
    parts = packed.buildings
    parts += ribbons(rng, land, free & (road_px >= 1), bank, base_year)
    parts += compounds(rng, land, free & (road_px >= 1), road_px, base_year)
    buildings = Buildings(
        *(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Buildings))
    )
    kind = np.array([-1, *(KIND_NAMES.index(name) for name in packed.kind)])
    founded = np.array([np.inf, *packed.founded])
    return DrySettlements(buildings, packed.zone, kind, founded, ways)


def people(world: DryWorld, year: int) -> np.ndarray:
    """Who lives in each pixel at the middle of a year: whole numbers, int64 (rows, columns)."""
    return people_of(world.settlements.buildings, world.shape, year)


def surface(world: DryWorld, year: int) -> Surface:
    """What covers each pixel at the middle of a year."""
    made, land, shape = world.settlements, world.land, world.shape
    roofs, built, walls = footprints(made.buildings, shape, year, len(ROOFS), GAPS_M)
    share = {name: np.zeros(shape, np.float32) for name in GROUND}
    rest = 1 - built
    for name, amount in (
        ("asphalt", made.ways.asphalt),
        ("dust", made.ways.track),
        ("water", np.maximum(made.ways.canal, land.water)),
    ):
        share[name] = rest * amount
        rest = rest - share[name]

    kind = np.where(made.founded <= year + 0.5, made.kind, -1)[made.zone]
    ribbon = KIND_NAMES.index("ribbon")
    trodden = np.clip(3.5 * ndimage.gaussian_filter(built * (kind < 0), 1.1), 0, 0.95)
    settled = np.where(kind >= 0, np.float32(1), trodden) * rest
    ground = np.array([each.ground for each in KINDS.values()], np.float32)
    between = ground[np.where(kind >= 0, kind, ribbon)].transpose(2, 0, 1) * world.patches
    between /= between.sum(0)
    for name, part in zip(BETWEEN, between, strict=True):
        share[name] = share[name] + settled * part
    rest = np.clip(rest - settled, 0, None)

    natural = np.stack([getattr(land, name) for name in LAND])
    natural /= np.maximum(natural.sum(0), 1)
    for name, part in zip(LAND, natural, strict=True):
        share[name] = share[name] + rest * part
    plain = rest * np.clip(1 - natural.sum(0), 0, None)
    share["shrub"] = share["shrub"] + plain * land.shrub
    share["herb"] = share["herb"] + plain * (1 - land.shrub) * land.herb
    share["soil"] = share["soil"] + plain * (1 - land.shrub) * (1 - land.herb)
    stacked = np.concatenate([roofs, np.stack([share[name] for name in GROUND])])
    stacked = np.clip(stacked, 0, 1).astype(np.float32)
    stacked /= stacked.sum(0)
    return Surface(
        stacked,
        built.astype(np.float32),
        {orbit: walls[orbit] for orbit in LOOK_AXIS},
        walls["wall"],
        share["garden"].astype(np.float32),
    )


LAND = ("gravel", "rock", "salt", "sand", "orchard", "crop")
"""What the land's layers say of a pixel that nobody uses; the rest is open plain."""
