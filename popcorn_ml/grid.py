"""A country's pixel grid: one CRS and origin, square pixels, nesting hectares, tiles with a halo.

Every raster of a country lies on its one grid, so no asset ever resamples another. Nothing here
reads a file; `raster` does that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from popcorn_ml.errors import ConfigError

if TYPE_CHECKING:
    from pyproj import CRS

EARTH_ENGINE_10M_DEG = 8.983152841195215e-05
"""Earth Engine's "10 m" in EPSG:4326, in degrees: 10 m along the equator of WGS 84."""

PIXELS_PER_HECTARE_SIDE = 10

HECTARE_M2 = 10_000.0

HECTARE_TOLERANCE = 0.005
"""How far a cell's area may be off for it to be called a hectare."""

STEP_RANGE_M = (1.0, 1000.0)
"""What a pixel's side may be: beyond, somebody gave metres to degrees or degrees to metres."""

AREA_TOLERANCE = 0.1
"""How far areas in a projected CRS may be off. A UTM zone is within it to 18 degrees and more from
its meridian; the web's Mercator only within 17 degrees of the equator."""

AREA_POINTS = 9
"""Along a grid's width and height, edges included, where areas are looked at."""


class Window(NamedTuple):
    """A rectangle of pixels: first row and column, and how many of each."""

    row: int
    col: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Row and column slices into an array of the whole grid."""
        return (
            slice(self.row, self.row + self.height),
            slice(self.col, self.col + self.width),
        )

    def grown(self, halo: int, within: tuple[int, int]) -> Window:
        """The window with `halo` pixels added on each side, cut to an array of shape `within`."""
        top, left = max(self.row - halo, 0), max(self.col - halo, 0)
        bottom = min(self.row + self.height + halo, within[0])
        right = min(self.col + self.width + halo, within[1])
        return Window(top, left, bottom - top, right - left)

    def inside(self, outer: Window) -> tuple[slice, slice]:
        """Where this window lies in an array that holds `outer`."""
        row, col = self.row - outer.row, self.col - outer.col
        return slice(row, row + self.height), slice(col, col + self.width)


class Tile(NamedTuple):
    """One piece of work: `core` is written, `read` (the core and its halo) is read."""

    index: int  # type: ignore[assignment]
    core: Window
    read: Window


@dataclass(frozen=True)
class Grid:
    """North-up grid of square pixels.

    Attributes:
        crs: the coordinate reference system, as an authority code ("EPSG:32736") or WKT.
        west, north: coordinates of the outer corner of the first pixel, in CRS units.
        step: side of a pixel in CRS units (10 for metric grids).
        width, height: pixels.
    """

    crs: str
    west: float
    north: float
    step: float
    width: int
    height: int

    @classmethod
    def covering(cls, crs: str, bounds: tuple[float, float, float, float], step: float) -> Grid:
        """The smallest grid that covers `bounds`, its origin and size snapped to whole hectares.

        Args:
            crs: target CRS; `bounds` are in it.
            bounds: west, south, east, north.
            step: pixel side in CRS units.

        The origin is a multiple of ten pixels from the CRS's origin, so that neighbouring grids of
        one CRS share their hectares.
        """
        west, south, east, north = bounds
        if not (east > west and north > south and step > 0):
            raise ValueError(f"empty bounds {bounds} or step {step}")
        cell = step * PIXELS_PER_HECTARE_SIDE
        tiny = 1e-6  # a bound that lies on a cell's edge up to rounding does not open a new cell
        left, right = math.floor(west / cell + tiny), math.ceil(east / cell - tiny)
        bottom, top = math.floor(south / cell + tiny), math.ceil(north / cell - tiny)
        return cls(
            crs=crs,
            west=left * cell,
            north=top * cell,
            step=step,
            width=(right - left) * PIXELS_PER_HECTARE_SIDE,
            height=(top - bottom) * PIXELS_PER_HECTARE_SIDE,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, columns."""
        return self.height, self.width

    @property
    def transform(self) -> tuple[float, float, float, float, float, float]:
        """Affine coefficients a, b, c, d, e, f, from (column, row) to (x, y)."""
        return self.step, 0.0, self.west, 0.0, -self.step, self.north

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north, in CRS units."""
        return (
            self.west,
            self.north - self.height * self.step,
            self.west + self.width * self.step,
            self.north,
        )

    @property
    def is_geographic(self) -> bool:
        """Whether the CRS counts in degrees."""
        from pyproj import CRS

        return CRS.from_user_input(self.crs).is_geographic

    def window_bounds(self, window: Window) -> tuple[float, float, float, float]:
        """West, south, east, north of a window, in CRS units."""
        west = self.west + window.col * self.step
        north = self.north - window.row * self.step
        return (
            west,
            north - window.height * self.step,
            west + window.width * self.step,
            north,
        )

    def subgrid(self, window: Window) -> Grid:
        """The grid of one window."""
        west, _, _, north = self.window_bounds(window)
        return Grid(self.crs, west, north, self.step, window.width, window.height)

    def hectares(self) -> Grid:
        """The grid of the 10 x 10 pixel cells; a last cell may be partly outside this grid."""
        side = PIXELS_PER_HECTARE_SIDE
        return Grid(
            self.crs,
            self.west,
            self.north,
            self.step * side,
            math.ceil(self.width / side),
            math.ceil(self.height / side),
        )

    def whole(self) -> Window:
        """The window of the whole grid."""
        return Window(0, 0, self.height, self.width)

    def tiles(self, size: int, halo: int = 0) -> Iterator[Tile]:
        """Tiles of `size` x `size` pixels, row by row, each pixel in exactly one core.

        Reads reach `halo` pixels beyond the core and are cut at the grid's edge.
        """
        index = 0
        for row in range(0, self.height, size):
            for col in range(0, self.width, size):
                core = Window(row, col, min(size, self.height - row), min(size, self.width - col))
                yield Tile(index, core, core.grown(halo, self.shape))
                index += 1

    def tile_count(self, size: int) -> int:
        """How many tiles `tiles(size)` yields."""
        return math.ceil(self.height / size) * math.ceil(self.width / size)

    def row_area_m2(self):
        """True area of a pixel of each row in square metres, float64 of shape (height,).

        For a geographic CRS: the area of the cell on the WGS 84 ellipsoid, from the closed
        form of the area between two parallels (Snyder 1987, Map Projections, eq. 3-12). For a
        projected one: the plane's, which `check_grid` holds against the true one.
        """
        import numpy as np

        if not self.is_geographic:
            return np.full(self.height, self.step * self.step)
        semi_major, flattening = 6378137.0, 1 / 298.257223563
        e2 = flattening * (2 - flattening)
        e = math.sqrt(e2)
        edges = self.north - self.step * np.arange(self.height + 1)
        sine = np.sin(np.radians(edges))
        q = (1 - e2) * (
            sine / (1 - e2 * sine**2) - np.log((1 - e * sine) / (1 + e * sine)) / (2 * e)
        )
        return semi_major**2 / 2 * math.radians(self.step) * -np.diff(q)

    @property
    def pixel_area_m2(self) -> float:
        """True area of a pixel in square metres, mean of the rows."""
        return float(self.row_area_m2().mean()) if self.is_geographic else self.step * self.step

    def relative_area(self, window: Window | None = None):
        """True area of the window's pixels (None: the grid's) over the grid's `pixel_area_m2`.

        float64 of shape (rows, 1), as it is the same all along a row. Exactly 1 in a projected
        CRS; in a geographic one pixels shrink towards the poles.
        """
        window = window or self.whole()
        return _relative_area(self)[window.row : window.row + window.height]

    @property
    def cell_area_ha(self) -> tuple[float, float]:
        """Smallest and largest true area in hectares of the whole 10 x 10 pixel cells."""
        cells = self.hectares()
        area = cells.row_area_m2() if self.is_geographic else [cells.pixel_area_m2]
        return float(min(area)) / HECTARE_M2, float(max(area)) / HECTARE_M2

    @property
    def cell_name(self) -> str:
        """What a 10 x 10 pixel cell is to be called: a hectare only if it is one."""
        is_one = all(abs(area - 1) <= HECTARE_TOLERANCE for area in self.cell_area_ha)
        side = PIXELS_PER_HECTARE_SIDE
        return "hectare" if is_one else f"{side} x {side} pixel cell"

    @property
    def cell_title(self) -> str:
        """`cell_name` as people are told of it: of which area, where it is no hectare."""
        name = self.cell_name
        low, high = (f"{round(area, 2 if area < 10 else 0):,.6g}" for area in self.cell_area_ha)
        area = low if low == high else f"{low} to {high}"
        return name if name == "hectare" else f"{name} ({area} ha)"

    def as_dict(self) -> dict[str, object]:
        """Plain values for a manifest or a specification; `Grid(**d)` reads them back."""
        return {
            "crs": self.crs,
            "west": self.west,
            "north": self.north,
            "step": self.step,
            "width": self.width,
            "height": self.height,
        }


def default_step(crs: str) -> float:
    """The pixel side, in units of a CRS, that is 10 m: Earth Engine's in a geographic one.

    Raises:
        ConfigError: there is no such CRS.
    """
    return EARTH_ENGINE_10M_DEG if _crs(crs).is_geographic else 10.0


def check_grid(grid: Grid, where: str = "grid") -> None:
    """Refuse a grid whose pixels would not have the size or the area that they are taken for.

    Args:
        grid: any; looked at once a grid.
        where: the setting it comes from; ".step" or ".crs" is added to it.

    Raises:
        ConfigError: a CRS that there is not, that counts neither in degrees nor in metres or whose
            areas are off by more than `AREA_TOLERANCE` somewhere on the grid; a pixel side that is
            absurd for the CRS's unit.
    """
    crs = _crs(grid.crs, where)
    unit, size = ("degree", math.radians(1)) if crs.is_geographic else ("metre", 1.0)
    axis = crs.axis_info[0] if crs.axis_info else None  # by its size: its name has many spellings
    usable = crs.is_geographic or crs.is_projected
    if not usable or axis is None or not math.isclose(axis.unit_conversion_factor, size):
        raise ConfigError(
            "the grid's CRS cannot be used",
            where=f"{where}.crs",
            expected="a geographic CRS in degrees, or a projection in metres",
            found=f"{crs.name}: {crs.type_name}, in units of {axis.unit_name if axis else 'none'}",
            remedy="give a UTM zone, such as EPSG:32736, or leave crs out",
        )
    metres = 10 / EARTH_ENGINE_10M_DEG if crs.is_geographic else 1.0
    least, most = (side / metres for side in STEP_RANGE_M)
    if not least <= grid.step <= most:
        raise ConfigError(
            f"this pixel side cannot be meant: {crs.name} counts in {unit}s",
            where=f"{where}.step",
            expected=f"{least:.4g} to {most:.4g} {unit}s ({STEP_RANGE_M[0]:.0f} to "
            f"{STEP_RANGE_M[1]:.0f} m)",
            found=f"{grid.step:.10g} {unit}s",
            remedy=f"leave step out: it is then {default_step(grid.crs):.10g}, 10 m",
        )
    if not crs.is_geographic:
        _check_areas(grid, crs.name, f"{where}.crs")


def _crs(name: str, where: str = "grid") -> CRS:
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    try:
        return CRS.from_user_input(name)
    except CRSError as error:
        raise ConfigError(
            "there is no such CRS",
            where=f"{where}.crs",
            expected="an authority code such as EPSG:32736",
            found=f"{name}: {error}",
        ) from error


def _check_areas(grid: Grid, name: str, where: str) -> None:
    least, most = _areal_scale(grid)
    if least >= 1 - AREA_TOLERANCE and most <= 1 + AREA_TOLERANCE:
        return
    found = f"{least:.3g} to {most:.3g} times the true area"
    raise ConfigError(
        "areas in the grid's CRS are not the true ones, so people per pixel and per hectare would "
        "be wrong",
        where=where,
        expected=f"areas within {AREA_TOLERANCE:.0%} of the true ones all over the grid",
        found=f"{name}: {found if math.isfinite(most) else 'its projection does not reach there'}",
        remedy="give the UTM zone of the place (EPSG:326 or EPSG:327 and the zone's two digits) "
        "or, for a country too wide for one, EPSG:4326 or an equal-area CRS such as EPSG:3035 "
        "for Europe",
    )


@lru_cache(maxsize=8)
def _relative_area(grid: Grid):
    import numpy as np

    if grid.is_geographic:
        area = (grid.row_area_m2() / grid.pixel_area_m2)[:, None]
    else:
        area = np.ones((grid.height, 1))
    area.setflags(write=False)  # everybody's
    return area


@lru_cache(maxsize=64)
def _areal_scale(grid: Grid) -> tuple[float, float]:
    """The least and the largest area in the plane over the true one, edges and centre included.

    Points that the projection does not reach are left out; where it reaches none, infinity.
    """
    import numpy as np
    from pyproj import Proj

    west, south, east, north = grid.bounds
    x, y = np.meshgrid(np.linspace(west, east, AREA_POINTS), np.linspace(south, north, AREA_POINTS))
    projection = Proj(grid.crs)
    lon, lat = projection(x.ravel(), y.ravel(), inverse=True)
    scale = np.asarray(projection.get_factors(lon, lat).areal_scale, dtype=np.float64)
    scale = scale[np.isfinite(scale)]
    return (float(scale.min()), float(scale.max())) if scale.size else (math.inf, math.inf)
