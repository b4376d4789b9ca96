"""Crops that a student learns from: where, of which seasons, turned and brightened how.

Every draw is a function of (seed, lesson, step, crop) alone, so a resumed training makes the same
ones. A crop reaches as far beyond the pixels that are compared as the network looks, on the
network's canvas: it says of them what the map would.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from popcorn_ml import raster
from popcorn_ml.grid import Grid, Window
from popcorn_ml.mapping.student import read_together
from popcorn_ml.model.canvas import ALIGN_PX, HALO_PX, CanvasTile, occupancy_canvas
from popcorn_ml.sentinel import BANDS, CHANNEL_MEAN, CHANNEL_STD
from popcorn_ml.student.spec import StudentSpec
from popcorn_ml.student.teacher import Places, Teacher

ALL_SEASONS = 0.5
"""How often a crop shows all seasons; else some of them, so that one may be missing in a map."""


@dataclass(frozen=True)
class Sight:
    """How a crop is seen.

    Attributes:
        core: the pixels that are compared.
        seasons: which, by their position.
        quarter_turns: anticlockwise, after mirroring.
        mirrored: left and right swapped.
        brightness: factor on Sentinel-2's reflectance.
    """

    core: Window
    seasons: tuple[int, ...]
    quarter_turns: int
    mirrored: bool
    brightness: float


@dataclass(frozen=True)
class Crop:
    """A crop as the network is to see it, and what it should say.

    Attributes:
        inputs: (1, inputs, h, w).
        core: of it, the pixels that are compared; rows and columns.
        score: built-up score of these in pixels of the grid's mean area, 0 where there is none.
        people: the teacher's, 0 where it says nothing.
        told: 1 where it says something and the student can, else 0.
    """

    inputs: Tensor
    core: tuple[slice, slice]
    score: Tensor
    people: Tensor
    told: Tensor

    def to(self, device: torch.device) -> Crop:
        """The same on a device."""
        moved = (x.to(device) for x in (self.inputs, self.score, self.people, self.told))
        inputs, score, people, told = moved
        return Crop(inputs, self.core, score, people, told)


class Crops:
    """Draws and reads crops; any thread may.

    Args:
        spec: where the rasters are, and how crops are drawn.
        grid: on which they lie.
        lesson: number of the lesson, for the draws.
        teacher, places: of the lesson.
        bands: of the built-up score, those of the seasons.
    """

    def __init__(
        self,
        spec: StudentSpec,
        grid: Grid,
        lesson: int,
        teacher: Teacher,
        places: Places,
        bands: list[int],
    ) -> None:
        self._spec, self._grid, self._lesson = spec, grid, lesson
        self._teacher, self._places, self._bands = teacher, places, bands
        self._pairs = list(spec.pairs().items())
        self._canvas = occupancy_canvas(*grid.shape)

    def sight(self, step: int, number: int) -> Sight:
        """What a step's crop of a number is to be."""
        spec = self._spec
        chance = np.random.default_rng([spec.seed, self._lesson, step, number])
        side = spec.crop_px - 2 * HALO_PX
        middle = self._places.draw(chance)
        jitter = chance.integers(-(side // 2), side // 2, size=2).tolist()
        first, length = [], []
        for pixel, off, whole in zip(middle, jitter, self._grid.shape, strict=True):
            size = min(side, whole)
            begin = min(max(pixel + off - side // 2, 0), whole - size)
            first.append(begin // ALIGN_PX * ALIGN_PX)
            length.append(size)
        seasons = tuple(range(len(self._pairs)))
        if chance.random() >= ALL_SEASONS and len(seasons) > 1:
            count = int(chance.integers(1, len(seasons)))
            seasons = tuple(sorted(chance.permutation(len(seasons))[:count].tolist()))
        turns, mirrored = int(chance.integers(4)), bool(chance.integers(2))
        brightness = float(chance.uniform(1 / spec.stretch, spec.stretch))
        return Sight(Window(*first, *length), seasons, turns, mirrored, brightness)

    def read(self, sight: Sight) -> Crop:
        """A crop from the rasters."""
        tile = self._canvas.tile(sight.core)
        bands = [self._bands[i] for i in sight.seasons]
        scores = raster.read_float(self._spec.builtup, tile.source, bands)
        pairs = dict(self._pairs[i] for i in sight.seasons)
        seen = read_together(pairs, scores, tile.source, self._spec.looks_at)  # type: ignore[arg-type]
        people = self._teacher.people(sight.core)
        score = seen.score()[sight.core.inside(tile.source)]
        told = ~np.isnan(people) & ~np.isnan(score)
        area = self._grid.relative_area(sight.core).astype(np.float32)
        score = np.where(told, score, np.float32(0)) * area
        inputs = brightened(seen.inputs(), seen.count > 0, sight.brightness, self._spec)
        return _turned(tile, sight, inputs, score, np.where(told, people, np.float32(0)), told)


def _turned(
    tile: CanvasTile,
    sight: Sight,
    inputs: np.ndarray,
    score: np.ndarray,
    people: np.ndarray,
    told: np.ndarray,
) -> Crop:
    inner = np.zeros((tile.window.height, tile.window.width), bool)
    inner[tile.core_in_window.slices] = True

    def turned(values: np.ndarray) -> np.ndarray:
        if sight.mirrored:
            values = values[..., ::-1]
        return np.ascontiguousarray(np.rot90(values, sight.quarter_turns, (-2, -1)))

    rows, cols = (np.flatnonzero(turned(inner).any(axis=axis)) for axis in (1, 0))
    core = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(cols[0]), int(cols[-1]) + 1)
    return Crop(
        torch.from_numpy(turned(tile.lay(inputs)))[None].contiguous(
            memory_format=torch.channels_last
        ),
        core,
        torch.from_numpy(turned(score)),
        torch.from_numpy(turned(people)),
        torch.from_numpy(turned(told.astype(np.float32))),
    )


def brightened(
    inputs: np.ndarray, seen: np.ndarray, brightness: float, spec: StudentSpec
) -> np.ndarray:
    """Inputs as if every season's reflectance had been so many times as large.

    Args:
        inputs: as `mapping.together` gives them; changed in place.
        seen: pixels that any season shows; the others stay 0.
    """
    if "s2" not in spec.looks_at or brightness == 1.0:
        return inputs
    before = len(BANDS["s1"]) if "s1" in spec.looks_at else 0
    for i, band in enumerate(BANDS["s2"], start=before):
        nil = np.float32(CHANNEL_MEAN[band] / CHANNEL_STD[band])
        inputs[i] *= np.float32(brightness)
        inputs[i] += np.float32(brightness - 1) * nil * seen
    return inputs


def bands_of(path: str | Path, spec: StudentSpec) -> list[int]:
    """Bands of the built-up score that hold the seasons; see `training.units.season_bands`."""
    from popcorn_ml.training.units import season_bands

    return season_bands(path, spec.seasons)
