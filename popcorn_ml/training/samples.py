"""Census units as tensors: the pixels that a unit needs, read when needed and kept while they fit.

A unit's window is its bounding box and `HALO_PX` around it, laid on the occupancy network's canvas
(`model.canvas`): the unit's own pixels then get exactly what mapping the whole country gives them.
The published code takes 32 pixels around; what lies beyond 23 changes nothing.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from popcorn_ml import raster
from popcorn_ml.grid import Grid, Window
from popcorn_ml.inputs import channels_of, read_stored
from popcorn_ml.model.canvas import ALIGN_PX, HALO_PX, Canvas, CanvasTile, occupancy_canvas
from popcorn_ml.model.unet import S1_CHANNELS
from popcorn_ml.raster_values import Meaning
from popcorn_ml.sentinel import SENSORS
from popcorn_ml.training.augment import Draw, stretched, turned, turned_pixels
from popcorn_ml.training.countries import area_over, grids_of
from popcorn_ml.training.left_out import kept, worked_on
from popcorn_ml.training.loss import Piece
from popcorn_ml.training.scratch import Scratch
from popcorn_ml.training.spec import TrainingSpec
from popcorn_ml.training.units import Unit, season_bands

MULTIPLE_PX = 16
"""Sides of windows, so that units of all sizes come in few shapes: a third less time an epoch."""


@dataclass(frozen=True)
class Sample:
    """One tile of a unit in one season, as read; `Piece` is the same augmented.

    Attributes:
        channels: float32 (6, h, w).
        s2_missing: bool (h, w), or None where Sentinel-2 saw everything.
        pixels: int64 (pixels,), the unit's observed pixels in the flattened (h, w).
        score: float32 (pixels,), their built-up score in pixels of the grid's mean area: on a
            geographic grid a pixel holds as many people as its row's own area. With several
            countries that of the first one's grid.
    """

    channels: Tensor
    s2_missing: Tensor | None
    pixels: Tensor
    score: Tensor

    @property
    def bytes(self) -> int:
        held = [self.channels, self.pixels, self.score]
        held += [] if self.s2_missing is None else [self.s2_missing]
        return sum(tensor.numel() * tensor.element_size() for tensor in held)

    def augmented(self, drawn: Draw, device: torch.device) -> Piece:
        """The sample under a draw, on a device."""
        height, width = self.channels.shape[-2:]
        channels = self.channels.to(device)
        missing = None if self.s2_missing is None else self.s2_missing.to(device)
        pixels = self.pixels.to(device)
        return Piece(
            channels=turned(stretched(channels, missing, drawn), drawn),
            pixels=turned_pixels(pixels, height, width, drawn),
            score=self.score.to(device),
        )


def unit_tiles(canvas: Canvas, box: Window, max_pixels: int) -> list[CanvasTile]:
    """A bounding box's window, or, where that has more than `max_pixels`, tiles that cover it."""
    whole = canvas.tile(box, multiple=MULTIPLE_PX)
    if whole.window.height * whole.window.width <= max_pixels:
        return [whole]
    border = 2 * (HALO_PX + ALIGN_PX) + MULTIPLE_PX
    height = min(box.height, math.isqrt(max_pixels) - border)
    width = max_pixels // (height + border) - border
    return [
        canvas.tile(
            Window(
                row,
                col,
                min(height, box.row + box.height - row),
                min(width, box.col + box.width - col),
            ),
            multiple=MULTIPLE_PX,
        )
        for row in range(box.row, box.row + box.height, height)
        for col in range(box.col, box.col + box.width, width)
    ]


Key = tuple[int, int, int]
"""A unit's `key`, tile, season: indices of the last two."""

SAMPLE_BYTES_PER_PX = 6 * 4
"""Of a sample's window, in memory."""


class Samples:
    """Reads samples, several at a time, and keeps the latest of them up to a budget.

    Where the budget does not hold all, what was decoded once is put aside on disk as the composites
    store it, a third of a sample: to cut a unit out of compressed blocks again in every epoch takes
    a quarter of a training's time.

    Close it when done (it holds threads, and space of the disk).
    """

    def __init__(
        self,
        spec: TrainingSpec,
        grid: Grid,
        units: Iterable[Unit],
        below: float | Sequence[float] = 0.0,
    ) -> None:
        """
        Args:
            spec: where the rasters are.
            grid: on which they lie; those of further countries on grids of their own.
            units: whose samples will be asked for.
            below: score below which pixels are left out, in each country; see `left_out`.

        Raises:
            GridMismatch, RasterError: a raster lies elsewhere, or cannot be read.
        """
        self.spec = spec
        self._places, self._grids = spec.places, grids_of(spec, grid)
        each = below if isinstance(below, Sequence) else (below,) * len(self._places)
        self._below: tuple[float, ...] = tuple(each)
        self._area = [area_over(one, grid) for one in self._grids]
        for place, one in zip(self._places, self._grids, strict=True):
            for path in (place.builtup, place.units, *place.s1.values(), *place.s2.values()):
                raster.check(path, one)
        canvases = [occupancy_canvas(*one.shape) for one in self._grids]
        self._units = {unit.key: unit for unit in units}
        self._tiles = {
            key: self._with_pixels(
                unit,
                [
                    tile
                    for part in worked_on(spec, unit, self._below[unit.place])
                    for tile in unit_tiles(canvases[unit.place], part, spec.max_pixels_per_unit)
                ],
            )
            for key, unit in self._units.items()
        }
        self._bands = [season_bands(place.builtup, spec.seasons) for place in self._places]
        self._meanings: dict[str, Meaning] = {}
        self._kept: OrderedDict[Key, Future[Sample]] = OrderedDict()
        self._budget = spec.cache_mb * 1024 * 1024
        self._held_bytes = 0
        windows = sum(map(self.pixels, self._units.values()))
        fits = windows * SAMPLE_BYTES_PER_PX * len(spec.seasons) <= self._budget
        self._scratch = None if fits else Scratch(spec.work)
        self._lock = threading.Lock()
        self._readers = ThreadPoolExecutor(spec.threads, thread_name_prefix="read")

    def _with_pixels(self, unit: Unit, tiles: list[CanvasTile]) -> list[CanvasTile]:
        """A large unit's tiles, less those that its outline leaves empty."""
        if len(tiles) == 1:
            return tiles
        numbers = self._places[unit.place].units
        return [
            tile
            for tile in tiles
            if (raster.read(numbers, tile.core, bands=1) == unit.number).any()
        ]

    def close(self) -> None:
        """Let go of the threads and of what was kept."""
        self._readers.shutdown(cancel_futures=True)
        self._kept.clear()
        if self._scratch is not None:
            self._scratch.close()

    def country(self, unit: Unit) -> str:
        """Code of a unit's country; empty where the training has one and does not name it."""
        return self._places[unit.place].code

    def tile_count(self, unit: Unit) -> int:
        """In how many pieces a unit is worked on."""
        return len(self._tiles[unit.key])

    def keys(self, unit: Unit, season: int) -> list[Key]:
        """What a unit in a season is made of."""
        return [(unit.key, tile, season) for tile in range(self.tile_count(unit))]

    def pixels(self, unit: Unit) -> int:
        """Of all windows that a unit is seen in."""
        return sum(t.window.height * t.window.width for t in self._tiles[unit.key])

    def request(self, key: Key) -> Future[Sample]:
        """Start reading a sample unless it is there or under way."""
        with self._lock:
            known = self._kept.get(key)
            if known is not None:
                self._kept.move_to_end(key)
                return known
            future = self._readers.submit(self._read, key)
            self._kept[key] = future
        # Outside the lock: a sample that is there already calls back at once, in this thread.
        future.add_done_callback(self._make_room)
        return future

    def get(self, key: Key) -> Sample:
        """A sample, read now if need be."""
        return self.request(key).result()

    def _make_room(self, arrived: Future[Sample]) -> None:
        if arrived.cancelled() or arrived.exception() is not None:
            return
        with self._lock:
            self._held_bytes += arrived.result().bytes
            for key in list(self._kept):
                if self._held_bytes <= self._budget:
                    return
                future = self._kept[key]
                if future.done() and future is not arrived and future.exception() is None:
                    self._held_bytes -= future.result().bytes
                    del self._kept[key]

    def _read(self, key: Key) -> Sample:
        unit_key, tile_index, season_index = key
        pixels, scores = self._ground(unit_key, tile_index)
        score = scores[season_index]
        seen = np.isfinite(score)
        if not seen.all():
            pixels, score = pixels[seen], score[seen]
        channels, valid = self._channels(key)
        missing = None
        if not valid.all():
            missing = ~valid & (channels[S1_CHANNELS:] == 0).all(axis=0)
        return Sample(
            channels=torch.from_numpy(channels),
            s2_missing=None if missing is None else torch.from_numpy(missing),
            pixels=torch.from_numpy(pixels.astype(np.int64)),
            score=torch.from_numpy(score),
        )

    def _ground(self, unit_key: int, tile_index: int) -> list[np.ndarray]:
        """Of a unit's tile: its pixels in the flattened window, int32, and their score in each
        season, float32 (seasons, pixels), NaN where that one does not show them."""
        key = unit_key, tile_index
        found = None if self._scratch is None else self._scratch.get(key)
        if found is not None:
            return found
        unit, tile = self._units[unit_key], self._tiles[unit_key][tile_index]
        place, grid = self._places[unit.place], self._grids[unit.place]
        below = self._below[unit.place]
        scores = raster.read_float(place.builtup, tile.core, self._bands[unit.place])
        own = raster.read(place.units, tile.core, bands=1) == unit.number
        own &= kept(scores, below) if below else np.isfinite(scores).any(axis=0)
        scores *= (grid.relative_area(tile.core) * self._area[unit.place]).astype(np.float32)
        rows, cols = np.nonzero(own)
        inside = tile.core_in_window
        pixels = (rows + inside.row) * tile.window.width + cols + inside.col
        found = [pixels.astype(np.int32), scores[:, rows, cols]]
        if self._scratch is not None:
            self._scratch.put(key, found)
        return found

    def _channels(self, key: Key) -> tuple[np.ndarray, np.ndarray]:
        """A sample's channels and where all were observed, as `inputs.read_channels`."""
        unit_key, tile_index, season_index = key
        place, season = self._places[self._units[unit_key].place], self.spec.seasons[season_index]
        s1, s2 = place.s1[season], place.s2[season]
        found = None if self._scratch is None else self._scratch.get(key)
        if found is None:
            tile = self._tiles[unit_key][tile_index]
            read = read_stored(s1, s2, tile.source)
            self._meanings |= {s1: read["s1"][1], s2: read["s2"][1]}
            found = [np.ascontiguousarray(tile.lay(read[sensor][0])) for sensor in SENSORS]
            if self._scratch is not None:
                self._scratch.put(key, found)
        meanings = self._meanings[s1], self._meanings[s2]
        return channels_of(dict(zip(SENSORS, zip(found, meanings, strict=True), strict=True)))
