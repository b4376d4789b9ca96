"""Towns of the dry valley: an old town of courtyard houses, and projects packed around it.

A project is a rectangle that one builder fills with one kind of building. Projects are placed one
after the other, from the old towns outwards and mostly along the valley, wherever there is room;
the order is that of their founding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from popcorn_ml.simulate.buildings import Buildings
from popcorn_ml.simulate.dryland.kinds import PROJECTS
from popcorn_ml.simulate.dryland.land import DryLand
from popcorn_ml.simulate.dryland.lots import Lots, inhabit
from popcorn_ml.simulate.terrain import smooth_noise

YEARLY_GROWTH = 0.025
"""Share by which the towns' area grows each year."""

HOUSE_M = 15.5
"""From the middle of one courtyard house to that of the next."""


@dataclass(frozen=True)
class Town:
    """An old town: where, how far along the valley, how large compared with the first."""

    row: float
    col: float
    along: float
    weight: float


@dataclass(frozen=True)
class Rectangle:
    """A project's ground: middle in pixels, sides in metres, direction of the long one."""

    row: float
    col: float
    length_m: float
    depth_m: float
    angle: float

    def pixels(self, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray] | None:
        """Rows and columns of the pixels within; None where it leaves the place."""
        reach = np.hypot(self.length_m, self.depth_m) / 20 + 1
        top, left = int(self.row - reach), int(self.col - reach)
        bottom, right = int(self.row + reach) + 2, int(self.col + reach) + 2
        if top < 0 or left < 0 or bottom > shape[0] or right > shape[1]:
            return None
        rows, cols = np.mgrid[top:bottom, left:right]
        y, x = rows + 0.5 - self.row, cols + 0.5 - self.col
        u = x * np.cos(self.angle) + y * np.sin(self.angle)
        v = y * np.cos(self.angle) - x * np.sin(self.angle)
        inside = (np.abs(u) < self.length_m / 20) & (np.abs(v) < self.depth_m / 20)
        return rows[inside], cols[inside]

    def lots(self, u, v, length_m, width_m, turn=0.0) -> Lots:
        """Buildings at metres from the middle, each a house of its own."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        count = np.size(u)
        return Lots(
            self.row + (u * sin + v * cos) / 10,
            self.col + (u * cos - v * sin) / 10,
            np.broadcast_to(np.asarray(length_m, float), count),
            np.broadcast_to(np.asarray(width_m, float), count),
            np.broadcast_to(self.angle + turn, count),
            np.arange(count),
        )


def make_towns(rng: np.random.Generator, land: DryLand) -> list[Town]:
    """Old towns above the irrigated ground: one in the middle, one for every 30 km2 besides."""
    valley, shape = land.valley, land.water.shape
    others = round(shape[0] * shape[1] / 1e4 / 30)
    low, high = float(valley.along.min()) * 0.75, float(valley.along.max()) * 0.75
    spots = [(rng.uniform(-0.08, 0.08) * (high - low), 1.0)]
    spots += [(rng.uniform(low, high), rng.uniform(0.2, 0.45)) for _ in range(others)]
    towns = []
    for along, weight in spots:
        bank = 1.0 if rng.random() < 0.5 else -1.0
        across = bank * float(valley.reach(np.array(along))) * rng.uniform(1.1, 1.3)
        row, col = valley.at(np.array(along), np.array(across))
        if 0 <= row < shape[0] and 0 <= col < shape[1]:
            towns.append(Town(float(row), float(col), along, weight))
    return towns


def old_town(
    rng: np.random.Generator, land: DryLand, town: Town, free: np.ndarray
) -> tuple[np.ndarray, Lots]:
    """The ground of an old town (bool), and its courtyard houses, four wings each."""
    shape = land.water.shape
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    wavy = 1 + 0.2 * smooth_noise(rng, shape, 25)
    radius = 0.04 * min(shape) * np.sqrt(town.weight)
    ground = (np.hypot(rows - town.row, cols - town.col) < radius * wavy) & free
    reach = int(radius * 2 * 10 / HOUSE_M) + 2
    i, j = (axis.ravel() for axis in np.mgrid[-reach : reach + 1, -reach : reach + 1])
    bent = [0.9 * smooth_noise(rng, shape, 7) for _ in range(2)]
    row, col = town.row + i * HOUSE_M / 10, town.col + j * HOUSE_M / 10
    inside = (row >= 1) & (row < shape[0] - 1) & (col >= 1) & (col < shape[1] - 1)
    row, col = row[inside], col[inside]
    at = row.astype(int), col.astype(int)
    turned = 0.3 * smooth_noise(rng, shape, 18)[at]
    squares = smooth_noise(rng, shape, 6)[at] > 1.7
    row, col = row + bent[0][at], col + bent[1][at]
    row, col = np.clip(row, 0, shape[0] - 0.01), np.clip(col, 0, shape[1] - 0.01)
    keep = ground[row.astype(int), col.astype(int)] & ~squares & (rng.random(row.size) < 0.94)
    row, col, angle = row[keep], col[keep], turned[keep]
    side = np.clip(rng.normal(13.2, 1.0, row.size), 10, 15)
    court = side * rng.uniform(0.28, 0.42, row.size)
    return ground, _around_court(row, col, side, court, angle)


def _around_court(row, col, side, court, angle) -> Lots:
    """Two wings as long as the house and two between them, around an open court."""
    wing = (side - court) / 2
    off = (side + court) / 4
    zero, house = np.zeros_like(side), np.arange(side.size)
    u = np.concatenate([zero, zero, -off, off])
    v = np.concatenate([-off, off, zero, zero])
    length = np.concatenate([side, side, wing, wing])
    width = np.concatenate([wing, wing, court, court])
    turned = np.tile(angle, 4)
    cos, sin = np.cos(turned), np.sin(turned)
    return Lots(
        np.tile(row, 4) + (u * sin + v * cos) / 10,
        np.tile(col, 4) + (u * cos - v * sin) / 10,
        length,
        width,
        turned,
        np.tile(house, 4),
    )


def flats(rng: np.random.Generator, ground: Rectangle) -> Lots:
    """Slabs of three or four staircases in parallel rows, or towers; each staircase a house."""
    tower = rng.random() < 0.25
    stairs, long, deep = (1, 21.0, 19.0) if tower else (rng.integers(3, 5), 15.0, 12.5)
    along = _steps(ground.length_m - 12, stairs * long, rng.uniform(12, 19) + 10 * tower)
    rows = _steps(ground.depth_m - 12, deep, rng.uniform(22, 32))
    u, v = (axis.ravel() for axis in np.meshgrid(along, rows))
    built = rng.random(u.size) < 0.92
    stair = (np.arange(stairs) - (stairs - 1) / 2) * long
    u = (u[built][:, None] + stair).ravel()
    return ground.lots(u, np.repeat(v[built], stairs), long, deep)


def terrace(rng: np.random.Generator, ground: Rectangle) -> Lots:
    """Rows of attached houses, back to back, a street before every front."""
    front, deep, yard, street = rng.uniform(6.2, 8.4), rng.uniform(9, 11), 6.0, 9.0
    plots = int((ground.length_m - 10) // front)
    along = (np.arange(plots) - (plots - 1) / 2) * front
    along = along[np.arange(plots) % 13 != 12]  # a way through
    period = street + 2 * (deep + yard)
    pairs = max(int((ground.depth_m - street) // period), 1)
    start = -pairs * period / 2 + street
    rows = [start + n * period + d for n in range(pairs) for d in (deep / 2, 1.5 * deep + 2 * yard)]
    u, v = (axis.ravel() for axis in np.meshgrid(along, rows))
    built = rng.random(u.size) < 0.97
    return ground.lots(u[built], v[built], deep, front, np.pi / 2)


def villa(rng: np.random.Generator, ground: Rectangle) -> Lots:
    """Large houses on plots of their own."""
    u, v = _plots(ground, 25, 30)
    u, v = u + rng.normal(0, 2, u.size), v + rng.normal(0, 2.5, v.size)
    built = rng.random(u.size) < 0.88
    count = int(built.sum())
    return ground.lots(
        u[built], v[built], rng.uniform(12, 18, count), rng.uniform(10, 14, count),
        rng.normal(0, 0.12, count),
    )  # fmt: skip


def works(rng: np.random.Generator, ground: Rectangle) -> Lots:
    """Sheds in yards, nobody at home."""
    u, v = _plots(ground, 64, 52)
    built = rng.random(u.size) < 0.75
    count = int(built.sum())
    return ground.lots(
        u[built], v[built], rng.uniform(24, 52, count), rng.uniform(16, 36, count)
    )  # fmt: skip


def tunnels(rng: np.random.Generator, ground: Rectangle) -> Lots:
    """Plastic tunnels side by side."""
    along = _steps(ground.length_m - 4, 42, 6)
    rows = _steps(ground.depth_m - 4, 8, 4)
    u, v = (axis.ravel() for axis in np.meshgrid(along, rows))
    built = rng.random(u.size) < 0.85
    return ground.lots(u[built], v[built], 42, 8)


LAYOUTS: dict[str, Callable[[np.random.Generator, Rectangle], Lots]] = {
    "flats": flats,
    "terrace": terrace,
    "villa": villa,
    "works": works,
    "glasshouse": tunnels,
}


def _steps(room: float, length: float, gap: float) -> np.ndarray:
    """Middles of things of a length, with a gap between them, that fit into a room around 0."""
    count = max(int((room + gap) // (length + gap)), 1)
    return (np.arange(count) - (count - 1) / 2) * (length + gap)


def _plots(ground: Rectangle, wide: float, deep: float) -> tuple[np.ndarray, np.ndarray]:
    """Middles of plots, a street of 9 m after every second row."""
    along = _steps(ground.length_m, wide, 0)
    pairs = max(int(ground.depth_m // (2 * deep + 9)), 1)
    middle = (np.arange(pairs) - (pairs - 1) / 2) * (2 * deep + 9)
    rows = np.concatenate([middle - deep / 2, middle + deep / 2])
    u, v = np.meshgrid(along, rows)
    return u.ravel(), v.ravel()


@dataclass(frozen=True)
class Packed:
    """Projects on the ground.

    Attributes:
        zone: number of the project of each pixel, 0 for none, int32.
        kind: name of each project's kind, of projects 1..n.
        founded: of the same, decimal years.
        buildings: of all.
    """

    zone: np.ndarray
    kind: list[str]
    founded: list[float]
    buildings: list[Buildings]

    def place(
        self, rng: np.random.Generator, ground: Rectangle, name: str, founded: float, at
    ) -> None:
        """Fill a rectangle (pixels `at`) with a project."""
        self.kind.append(name)
        self.founded.append(founded)
        self.zone[at] = len(self.kind)
        lots = LAYOUTS[name](rng, ground)
        inside = (
            (lots.row >= 0)
            & (lots.row < self.zone.shape[0])
            & (lots.col >= 0)
            & (lots.col < self.zone.shape[1])
        )
        lots = lots.where(inside)
        if len(lots):
            built = founded + rng.uniform(0, 2.5, int(lots.house.max()) + 1)
            self.buildings.append(inhabit(rng, name, lots, built))


def pack(
    rng: np.random.Generator,
    land: DryLand,
    towns: list[Town],
    packed: Packed,
    blocked: np.ndarray,
    road_px: np.ndarray,
    base_year: int,
    wanted_px: float,
) -> None:
    """Place projects around the towns until fifteen years after the base year.

    Args:
        rng: source of all that is drawn.
        land: the land.
        towns: the old towns; their ground is in `packed.zone` already.
        packed: takes the projects.
        blocked: pixels that nobody builds on.
        road_px: distance to the nearest road.
        base_year: when towns cover `wanted_px` pixels.
        wanted_px: see there.
    """
    shape, valley = land.water.shape, land.valley
    taken = packed.zone > 0
    old = [number for number, name in enumerate(packed.kind, 1) if name == "medina"]
    area = float(np.isin(packed.zone, old).sum())
    for score, town, row, col in _candidates(rng, land, towns):
        name = _kind(rng, land, score, road_px[int(row), int(col)], row - town.row)
        length, depth = rng.uniform(120, 330), rng.uniform(100, 250)
        heading = float(valley.heading(np.array(town.along)))
        turned = heading + rng.choice([0.0, np.pi / 2]) + rng.normal(0, 0.06)
        ground = Rectangle(row, col, length, depth, float(turned))
        at = ground.pixels(shape)
        if at is None or taken[at].mean() > 0.01 or blocked[at].mean() > 0.02:
            continue
        if valley.side[at].mean() < 1 and rng.random() < 0.65:
            continue  # farmland is dear
        founded = base_year + np.log(max(area, 1.0) / wanted_px) / np.log1p(YEARLY_GROWTH)
        if founded > base_year + 15:
            return
        taken[at] = True
        area += len(at[0])
        packed.place(rng, ground, name, max(founded, base_year - 60.0), at)


def _candidates(rng: np.random.Generator, land: DryLand, towns: list[Town]):
    """Where a project may lie, the nearest to a town first: score, town, row, column."""
    shape = land.water.shape
    size = min(shape)
    found = []
    for town in towns:
        many = int(9000 * town.weight * (size / 834) ** 2) + 300
        reach = size * np.sqrt(town.weight)
        far = np.where(rng.random(many) < 0.2, 0.17, 0.075)  # some build where nobody is yet
        distance = reach * (0.02 + rng.exponential(1.0, many) * far)
        direction = rng.uniform(0, 2 * np.pi, many)
        along = town.along + 1.7 * distance * np.cos(direction)
        middle = land.valley.across[int(town.row), int(town.col)]
        row, col = land.valley.at(along, middle + 0.8 * distance * np.sin(direction))
        score = distance / reach + rng.normal(0, 0.02, many)
        inside = (row >= 0) & (row < shape[0]) & (col >= 0) & (col < shape[1])
        found += [(score[n], town, row[n], col[n]) for n in np.flatnonzero(inside)]
    return sorted(found, key=lambda one: one[0])


def _kind(rng: np.random.Generator, land: DryLand, score: float, road_px: float, lee: float) -> str:
    """Flats near the old town, works by the road and to the lee, villas further out."""
    near = np.exp(-max(score, 0.0) / 0.12)
    weights = np.array(
        [
            0.12 + 0.35 * near,
            0.28,
            0.12 + 0.22 * (1 - near),
            (0.05 + 0.3 * np.exp(-road_px / 12)) * (1.4 if lee > 0 else 0.5),
        ]
    )
    return PROJECTS[rng.choice(4, p=weights / weights.sum())]
