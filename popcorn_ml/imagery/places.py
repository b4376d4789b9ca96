"""Where in a country scenes look: squares of its grid, and which of them a scene's outline holds.

Longitudes count on from the country's own meridian, so that nothing breaks at 180 degrees.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from popcorn_ml.grid import PIXELS_PER_HECTARE_SIDE, Grid, Tile
from popcorn_ml.imagery.nearest import parts_of_box
from popcorn_ml.imagery.source import Scene

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

MOST_PLACES = 65_536
"""Squares a country is looked at in: a hectare each where it is small, some kilometres where it is
large. What is narrower is looked at by its outline (`Places.asked`)."""


class Places:
    """The squares of a grid that hold pixels which are asked for.

    Attributes:
        pixels: of each, how many are asked for.
    """

    def __init__(self, grid: Grid, tiles: Sequence[Tile]) -> None:
        from pyproj import Transformer

        self._grid, self._tiles = grid, tiles
        self._to_degrees = Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
        west, south, east, north = grid.bounds
        self._middle = float(self._to_degrees.transform((west + east) / 2, (south + north) / 2)[0])
        side = max(
            PIXELS_PER_HECTARE_SIDE, math.ceil(math.sqrt(grid.width * grid.height / MOST_PLACES))
        )
        rows, cols = (np.arange(0, length + side, side) for length in grid.shape)
        rows[-1], cols[-1] = grid.shape
        asked = np.zeros((len(rows) - 1, len(cols) - 1), np.int64)
        for tile in tiles:
            core = tile.core
            asked += np.outer(
                _shared(rows, core.row, core.height), _shared(cols, core.col, core.width)
            )
        row, col = np.nonzero(asked)
        self.pixels = asked[row, col]
        self._lon, self._lat = self._degrees(
            (cols[col] + cols[col + 1]) / 2, (rows[row] + rows[row + 1]) / 2
        )

    def under(self, outline: BaseGeometry) -> np.ndarray:
        """Indices of the squares whose centre an outline holds, ascending."""
        import shapely

        west, south, east, north = outline.bounds
        near = np.flatnonzero(
            (self._lon >= west) & (self._lon <= east) & (self._lat >= south) & (self._lat <= north)
        )
        shapely.prepare(outline)
        return near[shapely.intersects_xy(outline, self._lon[near], self._lat[near])]

    def outline(self, scene: Scene) -> BaseGeometry:
        """What a scene shows, as it says: its footprint, else its box, else everything."""
        import shapely

        shapes = [shapely.Polygon(self._unwrapped(np.array(ring))) for ring in scene.footprint]
        shape = shapely.union_all(shapely.make_valid(shapes)) if shapes else shapely.Polygon()
        if shape.area == 0 and scene.bbox is not None:
            parts = [shapely.box(*part) for part in parts_of_box(scene.bbox)]
            rings = [self._unwrapped(shapely.get_coordinates(part)) for part in parts]
            shape = shapely.union_all([shapely.Polygon(ring) for ring in rings])
        if shape.area == 0:
            shape = shapely.box(self._middle - 180, -90, self._middle + 180, 90)
        return shape

    @cached_property
    def asked(self) -> BaseGeometry:
        """The tiles that are asked for."""
        import shapely

        cores = [tile.core for tile in self._tiles]
        corners = np.array(
            [
                [
                    (core.col + right * core.width, core.row + down * core.height)
                    for right, down in ((0, 0), (1, 0), (1, 1), (0, 1))
                ]
                for core in cores
            ],
            float,
        )
        lon, lat = self._degrees(corners[..., 0], corners[..., 1])
        rings = np.stack([lon, lat], -1)
        return shapely.union_all(shapely.make_valid(shapely.polygons(rings)))

    def _degrees(self, cols: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        grid = self._grid
        lon, lat = self._to_degrees.transform(
            grid.west + cols * grid.step, grid.north - rows * grid.step
        )
        return self._turned(np.asarray(lon)), np.asarray(lat)

    def _turned(self, lon: np.ndarray) -> np.ndarray:
        """The same meridians within half a turn of the country's; what lies there stays as it is.

        A scene's edge and a square's centre are compared to the last bit.
        """
        away = lon - self._middle
        return np.where(np.abs(away) <= 180, lon, lon - 360 * np.round(away / 360))

    def _unwrapped(self, ring: np.ndarray) -> np.ndarray:
        return np.stack([self._turned(ring[:, 0]), ring[:, 1]], -1)


def _shared(edges: np.ndarray, start: int, length: int) -> np.ndarray:
    """How many of `length` pixels from `start` on lie between each two edges."""
    return np.maximum(np.minimum(edges[1:], start + length) - np.maximum(edges[:-1], start), 0)


def faces(covers: Sequence[np.ndarray], places: int) -> np.ndarray:
    """Of each place, the number of its face: places that the same outlines hold share one.

    Args:
        covers: for each outline, the indices of the places it holds.
        places: how many there are.
    """
    signs = np.zeros((places, len(covers) // 8 + 1), np.uint8)
    for number, held in enumerate(covers):
        signs[held, number // 8] |= np.uint8(1 << number % 8)
    words = signs.view(np.dtype((np.void, signs.shape[1])))[:, 0]
    return np.unique(words, return_inverse=True)[1]
