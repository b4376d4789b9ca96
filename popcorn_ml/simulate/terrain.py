"""The land before anyone lives on it: water, forest, fields, soil, without relief. No settlements.

Arrays are float32 of shape (rows, columns), pixels of 10 m.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

FIELD_PX = 11
"""Mean side of a field, in pixels: smallholders' fields of about a hectare."""


@dataclass(frozen=True)
class Terrain:
    """What covers the ground where nothing is built; the shares leave grassland as their rest.

    Attributes:
        water: share of the pixel under water.
        forest: share under trees.
        crop: share under crops.
        crop_peak: when in the year this field's first crop is greenest, 0..1 of the year.
        second_crop: strength of the field's second crop, 0..1.
        shrub: share of trees and shrubs in grassland.
        soil_tone: brightness of the soil relative to its mean, about 1.
        water_distance_px: distance to the nearest water.
    """

    water: np.ndarray
    forest: np.ndarray
    crop: np.ndarray
    crop_peak: np.ndarray
    second_crop: np.ndarray
    shrub: np.ndarray
    soil_tone: np.ndarray
    water_distance_px: np.ndarray


def smooth_noise(
    rng: np.random.Generator, shape: tuple[int, int], scale_px: float, octaves: int = 1
) -> np.ndarray:
    """Gaussian noise that varies over `scale_px` pixels, mean 0 and standard deviation 1.

    Each further octave has half the scale and half the amplitude.
    """
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        step = max(scale_px / 2**octave, 1.0)
        coarse = rng.standard_normal([int(n / step) + 4 for n in shape]).astype(np.float32)
        rows = np.arange(shape[0], dtype=np.float32) / step + 1
        cols = np.arange(shape[1], dtype=np.float32) / step + 1
        total += _interpolate(coarse, rows, cols) / 2**octave
    return (total - total.mean()) / max(float(total.std()), 1e-6)


def _interpolate(coarse: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """Cubic B-spline surface over `coarse`, at the product of `rows` and `cols`."""
    return _spline_matrix(rows, coarse.shape[0]) @ coarse @ _spline_matrix(cols, coarse.shape[1]).T


def _spline_matrix(at: np.ndarray, knots: int) -> np.ndarray:
    first = np.floor(at).astype(int)
    t = at - first
    weights = np.stack(
        [
            (1 - t) ** 3,
            3 * t**3 - 6 * t**2 + 4,
            -3 * t**3 + 3 * t**2 + 3 * t + 1,
            t**3,
        ],
        axis=1,
    )
    matrix = np.zeros((at.size, knots), np.float32)
    for i in range(4):
        matrix[np.arange(at.size), np.clip(first - 1 + i, 0, knots - 1)] += weights[:, i] / 6
    return matrix


def step_up(values: np.ndarray, middle: float | np.ndarray, softness: float) -> np.ndarray:
    """0 below and 1 above `middle`, passing smoothly within about `softness` of it."""
    return (1 / (1 + np.exp(-np.clip((values - middle) / softness, -30, 30)))).astype(np.float32)


def make_terrain(rng: np.random.Generator, shape: tuple[int, int]) -> Terrain:
    """Draw the land of a place of `shape` pixels."""
    river_distance = _river_distance(rng, shape)
    width_px = 3.0 + 1.2 * smooth_noise(rng, shape, 80)
    wet = smooth_noise(rng, shape, 170, octaves=3)
    water = np.maximum(
        step_up(-river_distance, -np.maximum(width_px, 1.2), 0.35), step_up(wet, 2.15, 0.02)
    )
    water_distance = ndimage.distance_transform_edt(water < 0.5).astype(np.float32)
    trees = smooth_noise(rng, shape, 90, octaves=4) + 0.9 * np.exp(-water_distance / 12)
    forest = step_up(trees, 0.95, 0.12) * (1 - water)
    field, peak, second = _fields(rng, shape)
    farmed = smooth_noise(rng, shape, 60, octaves=3) + 0.7 * field
    crop = step_up(farmed, -0.35, 0.08) * (1 - water) * (1 - forest) * 0.92
    shrub = np.clip(0.18 + 0.12 * smooth_noise(rng, shape, 14, octaves=3), 0.02, 0.7)
    tone = np.clip(
        1 + 0.12 * smooth_noise(rng, shape, 40, octaves=4) + 0.04 * rng.standard_normal(shape),
        0.6,
        1.5,
    )
    return Terrain(
        water.astype(np.float32),
        forest.astype(np.float32),
        crop.astype(np.float32),
        peak,
        second,
        shrub.astype(np.float32),
        tone.astype(np.float32),
        water_distance,
    )


def _river_distance(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Distance in pixels to the middle of a river that winds from one side to the other."""
    height, width = shape
    along = np.linspace(-0.05, 1.05, 6 * max(shape))
    bend = np.interp(along, np.linspace(-0.05, 1.05, 12), rng.normal(0, 0.05, 12))
    bend = ndimage.gaussian_filter1d(bend, along.size / 45)
    start, end = rng.uniform(0.15, 0.85, 2)
    across = start + (end - start) * along + bend
    rows, cols = (
        (along * height, across * width)
        if rng.random() < 0.5
        else (
            across * height,
            along * width,
        )
    )
    line = np.ones(shape, bool)
    inside = (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
    line[rows[inside].astype(int), cols[inside].astype(int)] = False
    if line.all():
        return np.full(shape, 1e3, np.float32)
    return ndimage.distance_transform_edt(line).astype(np.float32)


def _fields(
    rng: np.random.Generator, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fields as cells of a bent lattice: a value of each, when its crop peaks, its second crop."""
    bend = 9.0
    rows, cols = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    rows = rows + bend * smooth_noise(rng, shape, 55)
    cols = cols + bend * smooth_noise(rng, shape, 55)
    lattice = np.mgrid[-20 : shape[0] + 20 : FIELD_PX, -20 : shape[1] + 20 : FIELD_PX]
    seeds = lattice.reshape(2, -1).T + rng.uniform(-0.42, 0.42, (lattice[0].size, 2)) * FIELD_PX
    _, cell = cKDTree(seeds).query(np.stack([rows, cols], -1).reshape(-1, 2), p=np.inf)
    cell = cell.reshape(shape)
    value = rng.standard_normal(len(seeds)).astype(np.float32)
    crop_kinds = np.array([0.28, 0.38, 0.47, 0.95], np.float32)  # maize, beans, sorghum, early
    peak = crop_kinds[rng.choice(4, len(seeds), p=[0.4, 0.25, 0.2, 0.15])]
    peak = (peak + rng.normal(0, 0.025, len(seeds)).astype(np.float32)) % 1
    second = (rng.random(len(seeds)) < 0.5).astype(np.float32) * 0.8
    return value[cell], peak[cell].astype(np.float32), second[cell].astype(np.float32)
