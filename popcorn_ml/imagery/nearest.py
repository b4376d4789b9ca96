"""Which pixel of a scene lies under each pixel of a tile: nearest neighbour, computed exactly.

GDAL's warper interpolates the transformation between sampled points, so the neighbour it picks
depends on how the work was cut. Here every pixel centre is transformed on its own; the result does
not depend on tiles, and it is the rule by which Earth Engine resamples. Coordinates are computed
once a tile and CRS and shared by all scenes.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

import numpy as np

from popcorn_ml.grid import Grid, Window

EDGE_PX = 1e-6
"""A centre that lies on the edge between two pixels, up to rounding, belongs to the later one."""


@dataclass(frozen=True)
class Sampling:
    """How to take a tile out of a raster: the window to read, and where in it each pixel lies.

    `rows` and `cols` are (height, 1) and (1, width) or both (height, width), relative to the
    window; `inside` says which pixels of the tile lie in the raster at all, None = all.
    """

    window: Window
    rows: np.ndarray
    cols: np.ndarray
    inside: np.ndarray | None

    def take(self, values: np.ndarray, fill: float) -> np.ndarray:
        """The tile from what was read of `window`; `fill` outside the raster."""
        out = values[self.rows, self.cols]
        return out if self.inside is None else np.where(self.inside, out, values.dtype.type(fill))


class TileCoordinates:
    """A tile's pixel centres in any CRS, each computed once. Threads may share it."""

    def __init__(self, tile: Grid) -> None:
        from pyproj import CRS

        self._tile, self._crs = tile, CRS.from_user_input(tile.crs)
        self._x = tile.west + (np.arange(tile.width) + 0.5) * tile.step
        self._y = tile.north - (np.arange(tile.height) + 0.5) * tile.step
        self._lock = threading.Lock()
        self._known: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def centres(self, crs: str) -> tuple[np.ndarray, np.ndarray]:
        """x and y of the pixel centres in `crs` (WKT or authority code), float64.

        (1, width) and (height, 1) in the tile's own CRS, (height, width) in another.
        """
        from pyproj import CRS, Transformer

        with self._lock:
            if crs not in self._known:
                if CRS.from_user_input(crs) == self._crs:
                    self._known[crs] = self._x[None, :], self._y[:, None]
                else:
                    change = Transformer.from_crs(self._crs, crs, always_xy=True)
                    shape = self._tile.shape
                    self._known[crs] = change.transform(
                        np.broadcast_to(self._x[None, :], shape),
                        np.broadcast_to(self._y[:, None], shape),
                    )
            return self._known[crs]

    def sampling(
        self, crs: str, transform: tuple[float, ...], height: int, width: int
    ) -> Sampling | None:
        """How to take the tile out of a north-up raster; None where the two do not meet.

        Args:
            crs: the raster's.
            transform: its affine coefficients a, b, c, d, e, f.
            height, width: its shape.
        """
        a, _, c, _, e, f = transform[:6]
        x, y = self.centres(crs)
        with np.errstate(invalid="ignore"):
            cols = np.floor((x - c) / a + EDGE_PX)
            rows = np.floor((y - f) / e + EDGE_PX)
            inside = (cols >= 0) & (cols < width) & (rows >= 0) & (rows < height)
        if not inside.any():
            return None
        separable = x.shape[0] == 1
        if separable:
            hit_cols, hit_rows = cols[0][inside.any(axis=0)], rows[:, 0][inside.any(axis=1)]
        else:
            hit_cols, hit_rows = cols[inside], rows[inside]
        left, right = int(hit_cols.min()), int(hit_cols.max())
        top, bottom = int(hit_rows.min()), int(hit_rows.max())
        window = Window(top, left, bottom - top + 1, right - left + 1)
        with np.errstate(invalid="ignore"):
            in_rows = np.clip(np.nan_to_num(rows, posinf=0, neginf=0), top, bottom) - top
            in_cols = np.clip(np.nan_to_num(cols, posinf=0, neginf=0), left, right) - left
        return Sampling(
            window,
            in_rows.astype(np.int32),
            in_cols.astype(np.int32),
            None if inside.all() else inside,
        )


def lonlat_bounds(grid: Grid, margin_px: float = 2.0) -> tuple[float, float, float, float]:
    """West, south, east, north of a grid in degrees (WGS 84), a little too wide rather than short.

    Across the antimeridian west is greater than east (RFC 7946), also where the grid's own
    coordinates count on beyond 180.
    """
    from pyproj import Transformer

    west, south, east, north = grid.bounds
    pad = margin_px * grid.step
    bounds = Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True).transform_bounds(
        west - pad, south - pad, east + pad, north + pad, densify_pts=21
    )
    west, south, east, north = bounds
    if not all(math.isfinite(v) for v in bounds) or east - west >= 360:
        return -180.0, south, 180.0, north
    return _wrapped(west), south, _wrapped(east), north


def _wrapped(lon: float) -> float:
    """The same meridian within -180 to 180; what lies there stays to the last bit."""
    return lon if -180 <= lon <= 180 else (lon + 180) % 360 - 180


def bounds_meet(
    one: tuple[float, float, float, float], other: tuple[float, float, float, float]
) -> bool:
    """Whether two west, south, east, north boxes in degrees have a point in common.

    A box whose west is greater than its east reaches across the antimeridian.
    """
    if one[1] > other[3] or other[1] > one[3]:
        return False
    west, east = one[0], one[2] + 360 * (one[0] > one[2])
    start, end = other[0], other[2] + 360 * (other[0] > other[2])
    return any(west <= end + turn and start + turn <= east for turn in (-360, 0, 360))


def parts_of_box(box: tuple[float, float, float, float]) -> list[tuple[float, float, float, float]]:
    """The box, or, across the antimeridian, what lies on either side of it.

    Services differ in what they make of a west that is greater than the east.
    """
    west, south, east, north = box
    if west <= east:
        return [box]
    return [(west, south, 180.0, north), (-180.0, south, east, north)]
