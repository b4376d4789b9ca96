"""Buildings, and what they make of the pixels they stand on: roofs, walls, people.

Every family of worlds draws its own buildings; from there to shares of pixels the way is the same.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from popcorn_ml.sentinel import Orbit

LOOK_AXIS: dict[Orbit, float] = {"ascending": np.radians(12.0), "descending": np.radians(-12.0)}
"""Direction in which Sentinel-1 looks, from the direction of the columns, in radians: near the
equator it flies 12 degrees off north, on either side of it, and looks across its track."""

ALIGNED_WITHIN = np.radians(14.0)
"""How far a wall may be turned from facing the sensor and still return the double bounce."""


@dataclass(frozen=True)
class Buildings:
    """One row a building; all arrays of the same length.

    Attributes:
        row, col: middle, in pixels of the place (fractions count).
        length_m, width_m, height_m: of the building.
        angle: of the long side from the direction of the columns, in radians.
        glint: how strongly its walls return the radar's pulse, of mean 1.
        kind: index into its family's kinds.
        roof: index into its family's roofs.
        built: when it was built, as a decimal year.
        people: who live there once it is built.
    """

    row: np.ndarray
    col: np.ndarray
    length_m: np.ndarray
    width_m: np.ndarray
    height_m: np.ndarray
    angle: np.ndarray
    glint: np.ndarray
    kind: np.ndarray
    roof: np.ndarray
    built: np.ndarray
    people: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    def where(self, chosen: np.ndarray) -> Buildings:
        """Only the chosen rows."""
        return Buildings(*(getattr(self, f.name)[chosen] for f in fields(self)))


@dataclass(frozen=True)
class Surface:
    """What covers each pixel in one year.

    Attributes:
        share: share of each pixel under each of its family's materials, adding up to 1, float32
            (materials, rows, columns).
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


def people_of(table: Buildings, shape: tuple[int, int], year: int) -> np.ndarray:
    """Who lives in each pixel at the middle of a year: whole numbers, int64 (rows, columns).

    A building's people count in the pixel that holds its middle.
    """
    there = table.built <= year + 0.5
    flat = table.row.astype(np.int64) * shape[1] + table.col.astype(np.int64)
    counts = np.bincount(flat[there], table.people[there], int(np.prod(shape)))
    return np.rint(counts).astype(np.int64).reshape(shape)


def footprints(
    buildings: Buildings, shape: tuple[int, int], year: int, roofs: int, gaps_m: np.ndarray
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """What the buildings of a year cover, per pixel.

    Args:
        buildings: of all years.
        shape: rows, columns.
        year: at whose middle.
        roofs: how many sorts of roof there are.
        gaps_m: by kind, how far a building stands from the next: what that one hides of its walls.

    Returns:
        Shares under each sort of roof (roofs, rows, columns), under any, and wall areas per pixel
        area: "wall" of all, and by orbit of those that face it.
    """
    covered = np.zeros((roofs, *shape), np.float32)
    walls = {name: np.zeros(shape, np.float32) for name in ("wall", *LOOK_AXIS)}
    _add(buildings.where(buildings.built <= year + 0.5), gaps_m, covered, walls)
    built = covered.sum(0)
    covered /= np.maximum(built, 1.0)
    return covered, np.minimum(built, 1.0), walls


def _add(
    table: Buildings, gaps_m: np.ndarray, roofs: np.ndarray, walls: dict[str, np.ndarray]
) -> None:
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
        for name, wall in _wall_area(part, gaps_m).items():
            weight = np.broadcast_to(wall * each, row.shape)[inside]
            walls[name] += np.bincount(flat, weight, size).reshape(walls[name].shape)


def _wall_area(table: Buildings, gaps_m: np.ndarray) -> dict[str, np.ndarray]:
    """Square metres of wall of each building: all of one long and one short side, and what of
    them faces each orbit. A rough model of how double bounce fades as walls turn away."""
    seen = (
        np.clip(gaps_m[table.kind] / table.height_m, 0, 1) * table.glint
    )  # what the next house does not hide
    long_wall, short_wall = table.length_m * table.height_m, table.width_m * table.height_m
    areas = {"wall": long_wall + short_wall}
    for orbit, axis in LOOK_AXIS.items():
        total = np.zeros(len(table))
        for wall, normal in ((long_wall, table.angle + np.pi / 2), (short_wall, table.angle)):
            off = (normal - axis + np.pi / 2) % np.pi - np.pi / 2
            total += wall * np.exp(-((off / ALIGNED_WITHIN) ** 2))
        areas[str(orbit)] = total * seen
    return areas
