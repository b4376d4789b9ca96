"""Dry land along a valley: river, irrigated strips, stony plains, rock, sand, salt. No settlements.

Arrays are float32 (rows, columns), pixels of 10 m. Nearly everything is drawn in the valley's own
coordinates: how far along it a pixel lies, and how far to which side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from popcorn_ml.simulate.terrain import smooth_noise, step_up

CROPS: tuple[tuple[str, float, float, float], ...] = (
    ("barley", 0.24, 0.09, 0.9),
    ("lucerne", 0.45, 0.60, 0.75),
    ("cotton", 0.62, 0.11, 0.85),
    ("fallow", 0.20, 0.08, 0.15),
)
"""Name, when in the year it is greenest (0..1), for how long, how green then."""

CROP_WEIGHTS = (0.42, 0.2, 0.24, 0.14)
STRIP_PX = 4.5
"""Mean width of a field: a strip from canal to river."""


@dataclass(frozen=True)
class Valley:
    """A valley's own coordinates.

    Attributes:
        angle: direction of its axis from that of the columns, in radians.
        origin: row and column where both coordinates are 0, but for the bend.
        knots, bend, width: along the axis: where, how far the valley is bent to the side there,
            and how far irrigated ground reaches to either side; all in pixels.
        along, across: where each pixel lies, in pixels along the axis and to its sides.
        half_width: `width` at each pixel.
    """

    angle: float
    origin: tuple[float, float]
    knots: np.ndarray
    bend: np.ndarray
    width: np.ndarray
    along: np.ndarray
    across: np.ndarray
    half_width: np.ndarray

    @property
    def side(self) -> np.ndarray:
        """How many half widths a pixel lies off the axis; 1 is the canal."""
        return np.abs(self.across) / self.half_width

    def reach(self, along: np.ndarray) -> np.ndarray:
        """How far irrigated ground reaches to either side there, in pixels."""
        return np.interp(along, self.knots, self.width)

    def at(self, along: np.ndarray, across: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Row and column of the valley's coordinates."""
        straight = across + np.interp(along, self.knots, self.bend)
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return (
            self.origin[0] + along * sin + straight * cos,
            self.origin[1] + along * cos - straight * sin,
        )

    def heading(self, along: np.ndarray) -> np.ndarray:
        """Direction of the bent valley there, from that of the columns, in radians."""
        slope = np.interp(along, self.knots, np.gradient(self.bend, self.knots))
        return self.angle + np.arctan(slope)


@dataclass(frozen=True)
class DryLand:
    """What covers the ground where nothing is built; the shares leave open plain as their rest.

    Attributes:
        valley: the coordinates.
        water, gravel, rock, salt, sand: shares of each pixel.
        orchard, crop: shares under palms and fruit trees, and under field crops.
        calendar: index into `CROPS` of each pixel's field, uint8.
        herb, shrub: share of the open plain that greens after rain, and under dwarf shrubs.
        tone: brightness of bare ground relative to its mean, about 1.
        wadi_distance_px: distance to the nearest dry stream bed.
    """

    valley: Valley
    water: np.ndarray
    gravel: np.ndarray
    rock: np.ndarray
    salt: np.ndarray
    sand: np.ndarray
    orchard: np.ndarray
    crop: np.ndarray
    calendar: np.ndarray
    herb: np.ndarray
    shrub: np.ndarray
    tone: np.ndarray
    wadi_distance_px: np.ndarray


def make_land(rng: np.random.Generator, shape: tuple[int, int]) -> DryLand:
    """Draw the land of a place of `shape` pixels."""
    valley = _valley(rng, shape)
    side = valley.side
    thread = valley.across - 0.3 * valley.half_width * _line_noise(rng, valley.along, 60)
    water = step_up(-np.abs(thread), -1.7, 0.35)
    wadis = _wadis(rng, valley)
    gravel = np.maximum(step_up(-np.abs(thread), -5.0, 0.8), wadis) * (1 - water)
    hills = 1.2 * smooth_noise(rng, shape, 110, octaves=4) + 0.3 * np.clip(side - 2.5, -2, 3)
    rock = step_up(hills, 1.45, 0.15) * (side > 1.15) * (1 - gravel)
    pan = smooth_noise(rng, shape, 130, octaves=3) - 0.5 * (side > 4)
    salt = step_up(pan, 1.9, 0.08) * (side > 1.3) * (1 - rock) * (1 - gravel)
    drift = smooth_noise(rng, shape, 100, octaves=3)
    sand = step_up(drift, 1.0, 0.15) * (side > 1.2) * (1 - rock) * (1 - gravel) * (1 - salt)
    irrigated = step_up(-side, -1.0, 0.02) * (1 - water) * (1 - gravel)
    trees, calendar = _strips(rng, valley)
    dry = ndimage.distance_transform_edt(wadis < 0.5) if wadis.max() > 0.5 else np.full(shape, 1e3)
    shrub = 0.05 + 0.16 * np.exp(-dry / 5) + 0.03 * smooth_noise(rng, shape, 20, octaves=3)
    herb = 0.22 + 0.1 * smooth_noise(rng, shape, 35, octaves=3)
    tone = 1 + 0.1 * smooth_noise(rng, shape, 70, octaves=4) + 0.03 * rng.standard_normal(shape)
    return DryLand(
        valley=valley,
        water=water.astype(np.float32),
        gravel=gravel.astype(np.float32),
        rock=rock.astype(np.float32),
        salt=salt.astype(np.float32),
        sand=sand.astype(np.float32),
        orchard=(irrigated * trees * 0.85).astype(np.float32),
        crop=(irrigated * (1 - trees) * 0.95).astype(np.float32),
        calendar=calendar,
        herb=np.clip(herb, 0.02, 0.6).astype(np.float32),
        shrub=np.clip(shrub, 0.01, 0.5).astype(np.float32),
        tone=np.clip(tone, 0.65, 1.4).astype(np.float32),
        wadi_distance_px=dry.astype(np.float32),
    )


def _valley(rng: np.random.Generator, shape: tuple[int, int]) -> Valley:
    angle = float(rng.uniform(0, np.pi))
    origin = float(shape[0] * rng.uniform(0.4, 0.6)), float(shape[1] * rng.uniform(0.4, 0.6))
    rows, cols = np.mgrid[: shape[0], : shape[1]].astype(np.float64)
    rows, cols = rows - origin[0], cols - origin[1]
    along = cols * np.cos(angle) + rows * np.sin(angle)
    straight = rows * np.cos(angle) - cols * np.sin(angle)
    size = min(shape)
    knots = np.arange(along.min() - 30, along.max() + 31, 4.0)
    bend = 0.05 * size * _line_noise(rng, knots, 0.2 * size)
    width = 0.075 * size * (1 + 0.25 * _line_noise(rng, knots, 0.15 * size))
    width = np.clip(width, 0.03 * size, None)
    return Valley(
        angle,
        origin,
        knots,
        bend,
        width,
        along.astype(np.float32),
        (straight - np.interp(along, knots, bend)).astype(np.float32),
        np.interp(along, knots, width).astype(np.float32),
    )


def _line_noise(rng: np.random.Generator, at: np.ndarray, scale_px: float) -> np.ndarray:
    """Smooth noise along one coordinate, mean about 0 and standard deviation about 1."""
    low, high = float(at.min()), float(at.max())
    knots = np.arange(low - 3 * scale_px, high + 3 * scale_px, scale_px / 4)
    values = ndimage.gaussian_filter1d(rng.standard_normal(knots.size), 3)
    return np.interp(at, knots, values / max(values.std(), 1e-6)).astype(np.float32)


def _wadis(rng: np.random.Generator, valley: Valley) -> np.ndarray:
    """Share of each pixel in dry stream beds that come down to the valley from both sides."""
    along, across = valley.along, valley.across
    low, high = float(along.min()), float(along.max())
    found = np.zeros(along.shape, np.float32)
    for start in np.arange(low, high, 150) + rng.uniform(0, 150):
        sign = 1 if rng.random() < 0.5 else -1
        line = start + rng.normal(0, 30) + 16 * _line_noise(rng, across, 45)
        line = line + rng.normal(0, 0.35) * across
        bed = step_up(-np.abs(along - line), -rng.uniform(1.5, 3.5), 0.5)
        found = np.maximum(found, bed * (sign * across > 0.9 * valley.half_width))
    return found


def _strips(rng: np.random.Generator, valley: Valley) -> tuple[np.ndarray, np.ndarray]:
    """Fields as strips across the valley: which bear trees (0 or 1), and the calendar of each."""
    low, high = float(valley.along.min()), float(valley.along.max())
    widths = rng.gamma(4, STRIP_PX / 4, int((high - low) / STRIP_PX * 1.4) + 8)
    strip = np.searchsorted(low + np.cumsum(widths), valley.along + 0.1 * valley.across)
    part = np.clip((valley.side * 3).astype(int), 0, 3) + 4 * (valley.across > 0)
    field = strip * 8 + part
    count = int(field.max()) + 1
    # trees stand by the canals, where water is surest
    planted = rng.random(count) < np.where(np.arange(count) % 4 == 2, 0.45, 0.14)
    calendar = rng.choice(len(CROPS), count, p=CROP_WEIGHTS).astype(np.uint8)
    return planted[field].astype(np.float32), calendar[field]
