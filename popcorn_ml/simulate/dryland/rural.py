"""Outside the towns: ribbon villages, compounds strewn over the plain, plastic tunnels, roads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from popcorn_ml.simulate.buildings import Buildings
from popcorn_ml.simulate.dryland.land import DryLand
from popcorn_ml.simulate.dryland.lots import Lots, inhabit
from popcorn_ml.simulate.dryland.projects import Packed, Rectangle, Town

ROAD_OFF = 1.1
"""Where the main road runs: so many half widths of the valley from its axis, on one bank."""

VILLAGES_PER_KM2 = 0.5
RURAL_GROWTH = 0.012


@dataclass(frozen=True)
class Ways:
    """Shares of each pixel under asphalt roads, under tracks of dust and under canals."""

    asphalt: np.ndarray
    track: np.ndarray
    canal: np.ndarray


def make_ways(rng: np.random.Generator, land: DryLand, towns: list[Town]) -> tuple[Ways, float]:
    """Roads, tracks and canals; and the bank that the main road is on, 1 or -1."""
    valley = land.valley
    bank = 1.0 if rng.random() < 0.5 else -1.0
    asphalt = _line(valley.across - bank * ROAD_OFF * valley.half_width, 10.0)
    for town in towns:  # across the valley
        asphalt = np.maximum(asphalt, _line(valley.along - town.along, 8.0) * (valley.side < 2.2))
    canal = _line(np.abs(valley.across) - valley.half_width, 3.0)
    track = _line(np.abs(valley.across) - valley.half_width - 0.7, 4.0)
    return Ways(asphalt, track * (asphalt < 0.3), canal * (asphalt < 0.3)), bank


def _line(off_px: np.ndarray, width_m: float) -> np.ndarray:
    """Share of each pixel within a strip, by how far its middle lies from the strip's."""
    width = width_m / 10
    share = np.clip((width + 1) / 2 - np.abs(off_px), 0, min(width, 1.0))
    return share.astype(np.float32)


def ribbons(
    rng: np.random.Generator, land: DryLand, free: np.ndarray, bank: float, base_year: int
) -> list[Buildings]:
    """Villages in file: along either canal, along the main road, or up a side valley."""
    valley, shape = land.valley, free.shape
    low, high = float(valley.along.min()), float(valley.along.max())
    found = []
    for _ in range(round(shape[0] * shape[1] / 1e4 * VILLAGES_PER_KM2)):
        where = rng.choice(["canal", "road", "side"], p=[0.6, 0.22, 0.18])
        start, length = rng.uniform(low, high), rng.uniform(300, 1300) / 10
        steps = rng.uniform(1.2, 2.2, int(length / 1.2))
        run = np.repeat(np.cumsum(steps)[np.cumsum(steps) < length], 2)
        sides = np.tile([1.0, -1.0], run.size // 2)
        second = rng.random(run.size) < 0.3  # a second house behind the first
        off = sides * (rng.uniform(0.9, 1.4, run.size) + 1.9 * second)
        kept = rng.random(run.size) < rng.uniform(0.6, 0.92)
        run, off = run[kept], off[kept]
        if where == "side":
            here = 1.0 if rng.random() < 0.5 else -1.0
            foot = float(valley.reach(np.array(start))) * 1.3
            along, across = start + off, here * (foot + run)
            angle = valley.heading(along) + np.pi / 2
        else:
            here, times = (bank, ROAD_OFF) if where == "road" else (rng.choice([-1.0, 1.0]), 1.0)
            along = start + run
            across = here * times * valley.reach(along) + off
            angle = valley.heading(along)
        row, col = valley.at(along, across)
        count = row.size
        lots = Lots(
            row, col, rng.uniform(7.5, 12, count), rng.uniform(6, 9, count),
            angle + rng.normal(0, 0.1, count), np.arange(count),
        )  # fmt: skip
        found += _settled(rng, "ribbon", lots, free, base_year)
    return found


def compounds(
    rng: np.random.Generator,
    land: DryLand,
    free: np.ndarray,
    road_px: np.ndarray,
    base_year: int,
) -> list[Buildings]:
    """Huts around a yard, on the plain, most of them near stream beds and roads."""
    shape, step = free.shape, 9
    rows, cols = (axis.ravel() for axis in np.mgrid[0 : shape[0] : step, 0 : shape[1] : step])
    row = np.clip(rows + rng.uniform(1, step - 1, rows.size), 0, shape[0] - 1)
    col = np.clip(cols + rng.uniform(1, step - 1, cols.size), 0, shape[1] - 1)
    at = row.astype(int), col.astype(int)
    wanted = 0.04 + 0.4 * np.exp(-land.wadi_distance_px[at] / 8) + 0.15 * np.exp(-road_px[at] / 8)
    plain = (land.rock + land.salt + land.sand)[at] < 0.4
    keep = (land.valley.side[at] > 1.2) & plain & (rng.random(row.size) < wanted)
    row, col = row[keep], col[keep]
    huts = rng.integers(2, 6, row.size)
    yard = np.repeat(np.arange(row.size), huts)
    turned = rng.uniform(0, np.pi, row.size)[yard]
    around = rng.uniform(0, 2 * np.pi, yard.size)
    distance = rng.uniform(0.8, 2.2, yard.size)
    lots = Lots(
        row[yard] + distance * np.sin(around),
        col[yard] + distance * np.cos(around),
        rng.uniform(4.5, 8, yard.size),
        rng.uniform(4, 6, yard.size),
        turned,
        np.arange(yard.size),
    )
    return _settled(rng, "compound", lots, free, base_year)


def _settled(rng, name, lots: Lots, free, base_year) -> list[Buildings]:
    """Those lots that lie on free ground, built over the years; one village, or none."""
    inside = (
        (lots.row >= 0) & (lots.row < free.shape[0]) & (lots.col >= 0) & (lots.col < free.shape[1])
    )
    lots = lots.where(inside)
    lots = lots.where(free[lots.row.astype(int), lots.col.astype(int)])
    if not len(lots):
        return []
    drawn = rng.uniform(0.0, 1.25, len(lots)) + 1e-3
    return [inhabit(rng, name, lots, base_year + np.log(drawn) / np.log1p(RURAL_GROWTH))]


def glasshouses(
    rng: np.random.Generator, land: DryLand, packed: Packed, blocked: np.ndarray, base_year: int
) -> None:
    """Plastic tunnels on irrigated ground, more of them every year."""
    shape, valley = land.water.shape, land.valley
    inside = np.flatnonzero((valley.side < 0.95) & ~blocked)
    if not inside.size:
        return
    for _ in range(round(shape[0] * shape[1] / 1e4 * 0.35)):
        row, col = np.unravel_index(inside[rng.integers(inside.size)], shape)
        angle = valley.heading(valley.along[row, col]) + np.pi / 2
        ground = Rectangle(
            row + 0.5, col + 0.5, rng.uniform(90, 240), rng.uniform(60, 160), float(angle)
        )
        founded = base_year + rng.uniform(-14, 12)
        at = ground.pixels(shape)
        if at is None or (packed.zone[at] > 0).any() or blocked[at].mean() > 0.02:
            continue
        packed.place(rng, ground, "glasshouse", founded, at)
