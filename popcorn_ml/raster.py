"""Reading and writing rasters: GeoTIFF in, cloud-optimised GeoTIFF out, whole or not at all.

Every raster of the project goes through here, so that nodata, band names, tiles, overviews and
tags are always there, a file appears under its name only when it is complete and on disk, and a
bad file is reported with its path and what was expected.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popcorn_ml.cog.profile import BLOCK_PX
from popcorn_ml.cog.writer import CogWriter, together
from popcorn_ml.errors import GridMismatch, RasterError
from popcorn_ml.grid import Grid, Window
from popcorn_ml.raster_cache import current, holding, keep_gdal_small
from popcorn_ml.raster_values import Meaning, decoded, meaning_of, meant, plain_floats, stored

if TYPE_CHECKING:
    import numpy as np
    import rasterio

__all__ = [
    "BLOCK_PX", "CogWriter", "bounded_cache", "check", "grid_of", "opened", "read", "read_float",
    "read_stored", "same_grid", "tags", "together", "write",
]  # fmt: skip

GRID_TOLERANCE_PX = 1e-3
"""How far a raster's corners may lie from the grid's, in pixels, to count as the same."""


DRIVER = "GTiff"
"""The one format that is read. GDAL goes by contents: left to choose, it would take a virtual
raster under any name and follow the paths and addresses written in it."""

MAX_SIDE_PX = 1_000_000
"""10,000 km at 10 m. A file of a few bytes may claim more, and a strip of it fill the memory."""


@contextmanager
def bounded_cache() -> Iterator[None]:
    """Hold decoded blocks up to a bound while rasters are read window by window (`raster_cache`).

    A file that is replaced meanwhile is seen as another.
    """
    with holding(_handle):
        yield


@contextmanager
def opened(path: str | Path) -> Iterator[rasterio.DatasetReader]:
    """Open a GeoTIFF for reading; one missing or unreadable raises `RasterError` with its path."""
    dataset = _handle(path)
    with _explained(path), dataset:
        yield dataset


def _handle(path: str | Path) -> rasterio.DatasetReader:
    import rasterio
    from rasterio.errors import RasterioIOError

    keep_gdal_small()
    try:
        dataset = rasterio.open(path, driver=DRIVER)
    except RasterioIOError as error:
        missing = not str(path).startswith(("http", "/vsi")) and not Path(path).exists()
        raise RasterError(
            "the raster is missing" if missing else "the raster cannot be opened",
            where=path,
            found=None if missing else str(error),
            remedy="materialise or fetch it again",
        ) from error
    if max(dataset.width, dataset.height) > MAX_SIDE_PX:
        dataset.close()
        raise RasterError(
            "the raster is larger than any country",
            where=path,
            expected=f"at most {MAX_SIDE_PX} pixels a side",
            found=f"{dataset.width} x {dataset.height}",
        )
    return dataset


@contextmanager
def _explained(path: str | Path) -> Iterator[None]:
    """Say of which raster GDAL cannot read something, and what to do."""
    from rasterio.errors import RasterioError, RasterioIOError

    try:
        yield
    except RasterioIOError as error:
        raise RasterError(
            "the raster cannot be read to its end",
            where=path,
            expected="a complete file",
            found=str(error),
            remedy="it was probably cut off: fetch or write it again",
        ) from error
    except RasterioError as error:
        raise RasterError("the raster cannot be read", where=path, found=str(error)) from error


def grid_of(path: str | Path) -> Grid:
    """The grid a raster lies on.

    Raises:
        RasterError: unreadable, without CRS, rotated, or with pixels that are not square.
    """
    with opened(path) as dataset:
        return _grid_of(dataset, path)


def _grid_of(dataset: rasterio.DatasetReader, path: str | Path) -> Grid:
    t = dataset.transform
    off_px = abs(t.a - abs(t.e)) / abs(t.a or 1) * max(dataset.width, dataset.height)
    if dataset.crs is None:
        raise RasterError(
            "the raster has no CRS",
            where=path,
            remedy="write the CRS into the file, for instance with gdal_edit.py -a_srs",
        )
    if t.is_identity:
        raise RasterError(
            "the raster does not say where it lies",
            where=path,
            expected="a corner and a pixel side in its CRS",
            found="none: rows and columns alone",
            remedy="write them into the file, for instance with gdal_edit.py -a_ullr",
        )
    if t.b or t.d or t.a <= 0 or t.e == 0 or off_px > GRID_TOLERANCE_PX:
        raise RasterError(
            "the raster is rotated or its pixels are not square",
            where=path,
            expected="rows from west to east; square pixels, their sides equal to "
            f"{GRID_TOLERANCE_PX:g} of a pixel over the whole raster",
            found=tuple(t)[:6],
        )
    authority = dataset.crs.to_authority()
    crs = ":".join(authority) if authority else dataset.crs.to_wkt()
    north = max(t.f, t.f + t.e * dataset.height)
    return Grid(crs, t.c, north, t.a, dataset.width, dataset.height)


def check(
    path: str | Path,
    grid: Grid | None = None,
    *,
    count: int | None = None,
    readable: bool = False,
) -> Grid:
    """Refuse a raster that is not on `grid` or has another number of bands.

    Args:
        path: the raster.
        grid: the grid it must lie on, to a thousandth of a pixel; None takes any.
        count: the number of bands it must have; None takes any.
        readable: also decode every block, so that a truncated file is found now.

    Returns:
        The raster's grid.

    Raises:
        GridMismatch: CRS, origin, pixel size or shape differ.
        RasterError: unreadable, truncated, or with another number of bands.
    """
    with opened(path) as dataset:
        found = _grid_of(dataset, path)
        if count is not None and dataset.count != count:
            raise RasterError(
                "the raster has another number of bands",
                where=path,
                expected=count,
                found=dataset.count,
            )
        if grid is not None:
            _require(found, grid, path)
        if readable:
            for _, window in dataset.block_windows(1):
                dataset.read(window=window)
        return found


def same_grid(a: Grid, b: Grid) -> bool:
    """Whether two grids are one, up to rounding: CRS, corner, step and shape."""
    from pyproj import CRS

    if a.shape != b.shape:
        return False
    tolerance = GRID_TOLERANCE_PX * b.step
    if max(abs(a.west - b.west), abs(a.north - b.north)) > tolerance:
        return False
    if abs(a.step - b.step) * max(b.shape) > tolerance:
        return False
    return a.crs == b.crs or CRS.from_user_input(a.crs) == CRS.from_user_input(b.crs)


def _describe(grid: Grid) -> str:
    crs = grid.crs if len(grid.crs) < 30 else grid.crs[:30] + "..."
    return (
        f"{crs}, {grid.width} x {grid.height} pixels of {grid.step:.10g}, "
        f"corner ({grid.west:.10g}, {grid.north:.10g})"
    )


def read(
    path: str | Path,
    window: Window | None = None,
    bands: Sequence[int] | int | None = None,
    grid: Grid | None = None,
) -> np.ndarray:
    """Stored values, undecoded.

    Args:
        path: the raster.
        window: pixels to read; None reads all.
        bands: 1-based; a number gives (rows, columns), a sequence or None (all) gives
            (bands, rows, columns).
        grid: refuse the raster if it lies elsewhere.
    """
    index = _numbers(bands)
    found = _held(path, index, window, grid)
    if found is not None:
        return found[0][0] if isinstance(bands, int) else found[0]
    with opened(path) as dataset:
        if grid is not None:
            _require(_grid_of(dataset, path), grid, path)
        return stored(dataset, bands, window)


def _numbers(bands: Sequence[int] | int | None) -> list[int] | None:
    return None if bands is None else [bands] if isinstance(bands, int) else list(bands)


def _held(
    path: str | Path, index: list[int] | None, window: Window | None, grid: Grid | None
) -> tuple[np.ndarray, list[int], Meaning] | None:
    """Stored values from the blocks that are held, the bands' numbers and what values mean; None
    where they have to be read from the file."""
    cache = current()
    if cache is None or window is None or grid is not None:
        return None
    with _explained(path):
        return cache.read(str(path), index, window)


def _require(found: Grid, grid: Grid, path: str | Path) -> None:
    """Refuse a raster that lies elsewhere.

    Raises:
        GridMismatch: it does.
    """
    if not same_grid(found, grid):
        raise GridMismatch(
            "the raster is not on the country's grid",
            where=path,
            expected=_describe(grid),
            found=_describe(found),
            remedy="warp it to the grid, or correct the grid in the country's file",
        )


def read_float(
    path: str | Path,
    window: Window | None = None,
    bands: Sequence[int] | int | None = None,
    grid: Grid | None = None,
    dtype: str = "float32",
) -> np.ndarray:
    """Decoded values: the band's scale and offset applied, NaN where there is none.

    None is where the band has its nodata value, or where the file's mask says so, within it or
    beside it (`.msk`), or its alpha band. Arguments as `read`. Integer composites (hundredths of
    dB) and float ones (dB) read alike.
    """
    index = _numbers(bands)
    found = _held(path, index, window, grid)
    if found is not None:
        raw, index, meaning = found
        out = meant(raw, index, meaning, dtype)
    else:
        with opened(path) as dataset:
            if grid is not None:
                _require(_grid_of(dataset, path), grid, path)
            out = decoded(dataset, index or list(dataset.indexes), window, dtype)
    return out[0] if isinstance(bands, int) else out


def read_stored(
    path: str | Path, window: Window | None = None, grid: Grid | None = None
) -> tuple[np.ndarray, Meaning]:
    """All bands as small as they can be kept: stored values, and what makes those of `read_float`
    of them (`raster_values.meant`).

    Where a mask besides says where there is a value, they are decoded already.

    Args:
        path, window, grid: as `read_float`.
    """
    found = _held(path, None, window, grid)
    if found is not None:
        return found[0], found[2]
    with opened(path) as dataset:
        if grid is not None:
            _require(_grid_of(dataset, path), grid, path)
        meaning = meaning_of(dataset)
        if meaning is not None:
            return stored(dataset, None, window), meaning
        floats = decoded(dataset, list(dataset.indexes), window)
    return floats, plain_floats(len(floats))


def tags(path: str | Path) -> dict[str, str]:
    """The raster's own tags (not GDAL's)."""
    with opened(path) as dataset:
        return {k: v for k, v in dataset.tags().items() if k != "AREA_OR_POINT"}


def write(
    path: str | Path,
    values: np.ndarray,
    grid: Grid,
    bands: Sequence[str],
    nodata: float,
    **options: Any,
) -> None:
    """Write a whole array as a COG; `options` as for `CogWriter`."""
    with CogWriter(path, grid, bands, str(values.dtype), nodata, **options) as out:
        out.write(values)
