"""Census units on the grid: one unit number a pixel, by the pixel's centre.

A `Burner` gives the unit numbers of any window, so that a country's raster is written block by
block; polygons, rasters of unit numbers and gridded censuses each have one. Units too small to
catch a pixel centre are placed afterwards, by a stated rule. Joining people is in `join`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from isal import isal_zlib

from popcorn_ml.census.globe import on_plane
from popcorn_ml.census.settings import SmallUnits
from popcorn_ml.errors import CensusError
from popcorn_ml.grid import Grid, Window
from popcorn_ml.raster import CogWriter

if TYPE_CHECKING:
    import geopandas as gpd
    import numpy as np

STRIP_PX = 512
"""Rows burnt at once: memory is this times the grid's width, whatever the country's size."""
CLIP_FROM_VERTICES = 500
"""Polygons with more vertices are cut to the strip first: burning costs edges times rows."""
EXACT_PX = 1e-6
"""Error allowed in finding a pixel's cell in another grid; GDAL takes no 0, and 0.125 unless told
otherwise, which moves borders."""

Place = tuple[int, int]
"""Row and column of a pixel."""
Status = str
"""centre: it has pixel centres. best_pixel: it was given the pixel it covers most. merged: it is
counted with the unit in `merged_into`. outside: it lies off the grid."""


class Burner(Protocol):
    """What gives unit numbers for any window of the grid."""

    def burn(self, window: Window) -> np.ndarray:
        """Unit numbers, uint32 (height, width), 0 where there is no unit."""
        ...


class PolygonBurner:
    """Unit numbers by polygons; where two overlap, the smaller one has the pixel.

    Args:
        frame: polygons in any CRS, in the order of their numbers 1..n.
        grid: the country's grid.
    """

    def __init__(self, frame: gpd.GeoDataFrame, grid: Grid) -> None:
        import numpy as np
        import shapely

        self.grid = grid
        self.polygons = to_grid(frame, grid)
        area = shapely.area(self.polygons)
        number = np.arange(1, len(frame) + 1)
        # Later shapes overwrite earlier ones: large first, and the first of equals last.
        self.order = np.lexsort((-number, -area))
        self.rank = np.empty_like(self.order)
        self.rank[self.order] = np.arange(len(frame))
        self.vertices = shapely.get_num_coordinates(self.polygons)
        self.tree = shapely.STRtree(self.polygons)

    def burn(self, window: Window) -> np.ndarray:
        """As `Burner.burn`."""
        import numpy as np
        import shapely
        from rasterio.features import rasterize
        from rasterio.transform import Affine

        west, south, east, north = self.grid.window_bounds(window)
        out = np.zeros((window.height, window.width), np.uint32)
        hits = self.tree.query(shapely.box(west, south, east, north))
        if hits.size == 0:
            return out
        hits = hits[np.argsort(self.rank[hits])]
        shapes = self.polygons[hits]
        large = self.vertices[hits] > CLIP_FROM_VERTICES
        if large.any():
            # Two pixels beyond the window: the cut's own edges meet no pixel centre in it.
            m = 2 * self.grid.step
            shapes = shapes.copy()
            shapes[large] = shapely.clip_by_rect(
                shapes[large], west - m, south - m, east + m, north + m
            )
            kept = ~shapely.is_empty(shapes)
            shapes, hits = shapes[kept], hits[kept]
        pairs = [
            (part, int(i) + 1)
            for shape, i in zip(shapes, hits, strict=True)
            for part in _areas(shape)
        ]
        if not pairs:
            return out
        sub = self.grid.subgrid(window)
        rasterize(pairs, out=out, transform=Affine(*sub.transform), all_touched=False)
        return out


def _areas(shape):
    if shape.geom_type in ("Polygon", "MultiPolygon"):
        return [shape]
    return [p for p in getattr(shape, "geoms", ()) if p.geom_type in ("Polygon", "MultiPolygon")]


def to_grid(frame: gpd.GeoDataFrame, grid: Grid) -> np.ndarray:
    """Polygons in the grid's CRS, on its side of the antimeridian; see `globe.on_plane`."""
    west, _, east, _ = grid.bounds
    return on_plane(frame, grid.crs, (west + east) / 2)


class RasterBurner:
    """Unit numbers by a raster of identifiers, taken at each pixel's centre.

    Args:
        path: raster of whole-number identifiers.
        raw: the identifiers, sorted ascending, of the units 1..n.
        numbers: the unit number of each.
        grid: the country's grid; a raster on another one is read at the nearest cell.
    """

    def __init__(self, path: Path, raw: np.ndarray, numbers: np.ndarray, grid: Grid) -> None:
        self.path, self.raw, self.numbers, self.grid = path, raw, numbers, grid

    def burn(self, window: Window) -> np.ndarray:
        """As `Burner.burn`."""
        import numpy as np

        with at_centres(self.path, self.grid) as read:
            values = read(window)
        place = np.searchsorted(self.raw, values)
        place[place == len(self.raw)] = 0
        return np.where(self.raw[place] == values, self.numbers[place], 0).astype(np.uint32)


@contextmanager
def at_centres(path: Path, grid: Grid) -> Iterator[Callable[[Window], np.ndarray]]:
    """Open a raster of whole numbers to be read at the centres of the grid's pixels.

    Yields a function from a window to int64 values (height, width), 0 for nodata. A raster on
    another grid is read at the cell that holds the centre.
    """
    import numpy as np
    from rasterio.crs import CRS
    from rasterio.enums import Resampling
    from rasterio.transform import Affine
    from rasterio.vrt import WarpedVRT
    from rasterio.windows import Window as RasterioWindow

    from popcorn_ml import raster

    with ExitStack() as stack:
        dataset = stack.enter_context(raster.opened(path))
        nodata = dataset.nodata
        if not raster.same_grid(raster.grid_of(path), grid):
            dataset = stack.enter_context(
                WarpedVRT(
                    dataset,
                    crs=CRS.from_user_input(grid.crs),
                    transform=Affine(*grid.transform),
                    width=grid.width,
                    height=grid.height,
                    resampling=Resampling.nearest,
                    nodata=nodata if nodata is not None else 0,
                    tolerance=EXACT_PX,
                )
            )

        def read(window: Window) -> np.ndarray:
            values = dataset.read(
                1, window=RasterioWindow(window.col, window.row, window.width, window.height)
            )
            none = np.zeros(values.shape, bool)
            if nodata is not None and nodata == nodata:
                none = values == nodata
            if values.dtype.kind == "f":
                values = np.nan_to_num(values, nan=0.0)
            return np.where(none, 0, values).astype(np.int64)

        yield read


def strips(grid: Grid) -> list[Window]:
    """The grid in full-width windows of `STRIP_PX` rows."""
    return [
        Window(row, 0, min(STRIP_PX, grid.height - row), grid.width)
        for row in range(0, grid.height, STRIP_PX)
    ]


@dataclass(frozen=True)
class Placement:
    """Where the units came to lie.

    Attributes:
        pixels: pixels of each unit 1..n, int64 (n,).
        status: of each unit, see `Status`.
        merged_into: number of the unit each one is counted with, 0 for most, int64 (n,).
        area_ha: true area of each unit's pixels in hectares, float64 (n,).
    """

    pixels: np.ndarray
    status: list[Status]
    merged_into: np.ndarray
    area_ha: np.ndarray


def write_units(
    path: Path,
    burner: Burner,
    polygons: np.ndarray | None,
    count: int,
    grid: Grid,
    rule: SmallUnits,
    tags: dict[str, Any],
    progress: Callable[[int, int], None] | None = None,
) -> Placement:
    """Write the raster of unit numbers.

    Args:
        path: the GeoTIFF: uint32, nodata 0, overviews by nearest neighbour.
        burner: gives unit numbers by pixel centre.
        polygons: the units' polygons in the grid's CRS, to place those without a pixel centre;
            None where there are none, and such units then stay without a pixel.
        count: number of units n.
        grid: the country's grid.
        rule: `best_pixel`: a unit without a centre takes the pixel it covers most, of those whose
            owner keeps another one, ties to the first row and column; where there is none it is
            merged as by the other rule. `merge`: it is counted with the unit that owns the pixel
            it covers most.
        tags: written into the file.
        progress: called with strips done and strips in all.

    Raises:
        CensusError: no unit has a pixel.
    """
    import numpy as np

    pixels = np.zeros(count + 1, np.int64)
    area_m2 = np.zeros(count + 1)
    row_area_m2 = grid.row_area_m2()
    windows = strips(grid)
    merged = np.zeros(count + 1, np.int64)
    status = ["centre"] * count
    packed = []  # almost nothing, of numbers that mostly are their neighbours'
    for done, window in enumerate(windows, start=1):
        numbers = burner.burn(window)
        packed.append(isal_zlib.compress(np.ascontiguousarray(numbers, np.uint32), 1))
        _tally(numbers, row_area_m2[window.slices[0]], pixels, area_m2)
        if progress is not None:
            progress(done, len(windows))
    if not pixels[1:].any():
        raise _nowhere(path, grid)
    small = [int(n) for n in np.flatnonzero(pixels[1:] == 0) + 1]
    places = {n: _covered(polygons[n - 1], grid) if polygons is not None else [] for n in small}
    owner_at = _owners(burner, windows, [place for own in places.values() for place in own])
    given: dict[Place, int] = {}
    for number in small:
        owners = [owner_at[place] for place in places[number]]
        taken = None
        if rule == "best_pixel":
            taken = next(
                (
                    place
                    for place, owner in zip(places[number], owners, strict=True)
                    if owner == 0 or (pixels[owner] > 1 and place not in given)
                ),
                None,
            )
        if taken is None:
            merged[number] = next((owner for owner in owners if owner), 0)
            status[number - 1] = "merged" if merged[number] else "outside"
            continue
        owner = owner_at[taken]
        owner_at[taken] = given[taken] = number
        for unit, sign in ((owner, -1), (number, 1)):
            pixels[unit] += sign
            area_m2[unit] += sign * row_area_m2[taken[0]]
        status[number - 1] = "best_pixel"
    _write_numbers(path, grid, packed, given, tags)
    return Placement(pixels[1:], status, merged[1:], area_m2[1:] / 1e4)


def _write_numbers(
    path: Path, grid: Grid, packed: list[bytes], given: dict[Place, int], tags: dict[str, Any]
) -> None:
    """Write the strips, with the pixels that small units were given."""
    import numpy as np

    with CogWriter(path, grid, ("unit",), "uint32", 0, tags=tags, resampling="nearest") as out:
        for window, held in zip(strips(grid), packed, strict=True):
            numbers = np.frombuffer(isal_zlib.decompress(held), np.uint32)
            numbers = numbers.reshape(window.height, window.width).copy()
            for (row, col), number in given.items():
                if window.row <= row < window.row + window.height:
                    numbers[row - window.row, col] = number
            out.write(numbers, window)


def _owners(burner: Burner, windows: Sequence[Window], places: Iterable[Place]) -> dict[Place, int]:
    """Unit numbers of some pixels, from the very windows that the raster is burnt in.

    Of a pixel whose centre lies on a border, another window may give the other neighbour.
    """
    by_strip: dict[int, set[Place]] = {}
    for place in places:
        by_strip.setdefault(place[0] // STRIP_PX, set()).add(place)
    owners: dict[Place, int] = {}
    for strip, wanted in sorted(by_strip.items()):
        numbers = burner.burn(windows[strip])
        top = windows[strip].row
        owners.update({(row, col): int(numbers[row - top, col]) for row, col in wanted})
    return owners


def _nowhere(path: Path, grid: Grid) -> CensusError:
    return CensusError(
        "no census unit has a pixel on the country's grid",
        where=path.name,
        expected="units within " + ", ".join(f"{v:.6g}" for v in grid.bounds),
        found="none",
        remedy="see whether the boundaries and the grid are of the same country and CRS",
    )


def _tally(numbers, row_area_m2, pixels, area_m2) -> None:
    """Add a strip's pixels and their areas to the totals of each unit, in one pass."""
    import numpy as np

    if row_area_m2.size and row_area_m2[0] == row_area_m2[-1]:
        counts = np.bincount(numbers.reshape(-1), minlength=len(pixels))
        pixels += counts
        area_m2 += counts * row_area_m2[0]
        return
    # Pixels of one row have one area, so the number of a unit's pixels in each row is enough.
    for row, area in zip(numbers, row_area_m2, strict=True):
        top = int(row.max()) + 1
        counts = np.bincount(row, minlength=top)
        pixels[:top] += counts
        area_m2[:top] += counts * area


def _covered(polygon, grid: Grid) -> list[Place]:
    """Pixels that a small polygon covers in part, those it covers most first."""
    import numpy as np
    import shapely
    from rasterio.features import rasterize
    from rasterio.transform import Affine

    if polygon is None or polygon.is_empty:
        return []
    west, south, east, north = polygon.bounds
    if not np.isfinite([west, south, east, north]).all():
        return []
    left = max(int((west - grid.west) // grid.step), 0)
    right = min(int((east - grid.west) // grid.step), grid.width - 1)
    top = max(int((grid.north - north) // grid.step), 0)
    bottom = min(int((grid.north - south) // grid.step), grid.height - 1)
    if right < left or bottom < top:
        return []
    window = Window(top, left, bottom - top + 1, right - left + 1)
    touched = rasterize(
        [(polygon, 1)],
        out_shape=(window.height, window.width),
        transform=Affine(*grid.subgrid(window).transform),
        all_touched=True,
        dtype="uint8",
    )
    rows, cols = np.nonzero(touched)
    rows, cols = rows + top, cols + left
    x, y = grid.west + cols * grid.step, grid.north - rows * grid.step
    common = shapely.area(
        shapely.intersection(shapely.box(x, y - grid.step, x + grid.step, y), polygon)
    )
    # Rounded to a millionth of a pixel, so that equal shares stay equal and ties go by place.
    share = np.round(common / grid.step**2, 6)
    order = np.lexsort((cols, rows, -share))
    return [(int(rows[k]), int(cols[k])) for k in order if common[k] > 0]
