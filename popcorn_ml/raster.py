"""Reading and writing rasters: GeoTIFF in, cloud-optimised GeoTIFF out, whole or not at all.

Every raster of the project goes through here, so that nodata, band names, tiles, overviews and
tags are always there, a file appears under its name only when it is complete and on disk, and a
bad file is reported with its path and what was expected.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popcorn_ml.errors import GridMismatch, RasterError
from popcorn_ml.files import naming_the_disk, sync
from popcorn_ml.grid import Grid, Window
from popcorn_ml.raster_values import BandStatistics, decoded, rasterio_window, stored

if TYPE_CHECKING:
    import numpy as np
    import rasterio

BLOCK_PX = 256
GRID_TOLERANCE_PX = 1e-3
"""How far a raster's corners may lie from the grid's, in pixels, to count as the same."""


DRIVER = "GTiff"
"""The one format that is read. GDAL goes by contents: left to choose, it would take a virtual
raster under any name and follow the paths and addresses written in it."""

MAX_SIDE_PX = 1_000_000
"""10,000 km at 10 m. A file of a few bytes may claim more, and a strip of it fill the memory."""

CACHE_BYTES = 128 << 20
"""GDAL's block cache; its own default, a share of the machine's memory, grows with a country."""


@contextmanager
def bounded_cache() -> Iterator[None]:
    """Keep GDAL's block cache small while rasters are read and written."""
    import rasterio

    # rasterio hands a number to GDAL as bytes, though GDAL's option of that name counts in MB
    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
        yield


@contextmanager
def opened(path: str | Path):
    """Open a GeoTIFF for reading; one missing or unreadable raises `RasterError` with its path."""
    import rasterio
    from rasterio.errors import RasterioError, RasterioIOError

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
    try:
        with dataset:
            if max(dataset.width, dataset.height) > MAX_SIDE_PX:
                raise RasterError(
                    "the raster is larger than any country",
                    where=path,
                    expected=f"at most {MAX_SIDE_PX} pixels a side",
                    found=f"{dataset.width} x {dataset.height}",
                )
            yield dataset
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
        if grid is not None and not same_grid(found, grid):
            raise GridMismatch(
                "the raster is not on the country's grid",
                where=path,
                expected=_describe(grid),
                found=_describe(found),
                remedy="warp it to the grid, or correct the grid in the country's file",
            )
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
    with opened(path) as dataset:
        if grid is not None:
            found = _grid_of(dataset, path)
            if not same_grid(found, grid):
                raise GridMismatch(
                    "the raster is not on the country's grid",
                    where=path,
                    expected=_describe(grid),
                    found=_describe(found),
                )
        return stored(dataset, bands, window)


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
    with opened(path) as dataset:
        if grid is not None and not same_grid(_grid_of(dataset, path), grid):
            raise GridMismatch(
                "the raster is not on the country's grid",
                where=path,
                expected=_describe(grid),
                found=_describe(_grid_of(dataset, path)),
            )
        index = (
            list(dataset.indexes)
            if bands is None
            else list(bands)
            if isinstance(bands, Sequence)
            else [bands]
        )
        out = decoded(dataset, index, window, dtype)
        return out[0] if isinstance(bands, int) else out


def tags(path: str | Path) -> dict[str, str]:
    """The raster's own tags (not GDAL's)."""
    with opened(path) as dataset:
        return {k: v for k, v in dataset.tags().items() if k != "AREA_OR_POINT"}


class CogWriter:
    """Write a raster window by window; on leaving the `with` it becomes a COG under its name.

    Args:
        path: where the COG will be. Nothing is there until all is written and synced, and on an
            exception nothing ever is.
        grid: the raster's grid.
        bands: one description a band.
        dtype: numpy name of the stored type.
        nodata: stored value that means "no value"; NaN for floats.
        scale: value of one stored unit, where the stored value is not the value.
        tags: what the file says about itself.
        resampling: of the overviews; "nearest" for identifiers.
        units: unit of each band's values; empty says none.
        statistics: count the values while they are written, and have each band say its smallest,
            largest and mean value, so that no program has to read it through to draw it. Every
            pixel is then to be written once.

    Memory stays at the windows written and GDAL's block cache, whatever the raster's size.
    """

    def __init__(
        self,
        path: str | Path,
        grid: Grid,
        bands: Sequence[str],
        dtype: str,
        nodata: float,
        *,
        scale: float = 1.0,
        tags: dict[str, Any] | None = None,
        resampling: str = "average",
        units: Sequence[str] = (),
        statistics: bool = False,
    ) -> None:
        self.path, self.grid, self.bands = Path(path), grid, tuple(bands)
        self.dtype, self.nodata, self.scale = dtype, nodata, scale
        self.tags = {k: str(v) for k, v in (tags or {}).items()}
        self.resampling = resampling
        self.units = tuple(units)
        self.statistics = [BandStatistics() for _ in self.bands] if statistics else []

    def __enter__(self) -> CogWriter:
        import rasterio
        from rasterio.transform import Affine

        with naming_the_disk(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(
                prefix=f".{self.path.stem}.", suffix=".partial.tif", dir=self.path.parent
            )
            os.close(handle)
        self._draft = Path(name)
        self._cog = self._draft.with_suffix(".cog")
        self._dataset = rasterio.open(
            self._draft,
            "w",
            driver="GTiff",
            crs=self.grid.crs,
            transform=Affine(*self.grid.transform),
            width=self.grid.width,
            height=self.grid.height,
            count=len(self.bands),
            dtype=self.dtype,
            nodata=self.nodata,
            tiled=True,
            blockxsize=BLOCK_PX,
            blockysize=BLOCK_PX,
            BIGTIFF="IF_SAFER",
        )
        self._dataset.scales = [self.scale] * len(self.bands)
        for i, description in enumerate(self.bands, start=1):
            self._dataset.set_band_description(i, description)
        for i, unit in enumerate(self.units, start=1):
            self._dataset.set_band_unit(i, unit)
        self._dataset.update_tags(**self.tags)
        return self

    def write(self, values: np.ndarray, window: Window | None = None) -> None:
        """Write stored values, (bands, rows, columns) or, for one band, (rows, columns)."""
        if values.ndim == 2:
            values = values[None]
        window = window or self.grid.whole()
        expected = (len(self.bands), window.height, window.width)
        if values.shape != expected:
            raise ValueError(f"{self.path}: writing {values.shape} into a window of {expected}")
        stored = values.astype(self.dtype, copy=False)
        for seen, band in zip(self.statistics, stored, strict=False):
            seen.add(band, self.nodata)
        with naming_the_disk(self.path):
            self._dataset.write(stored, window=rasterio_window(window))

    def __exit__(self, kind, error, trace) -> None:
        import rasterio.shutil

        try:
            if kind is not None:
                with suppress(Exception):  # what went wrong first is what is told
                    self._dataset.close()
                return
            for i, seen in enumerate(self.statistics, start=1):
                self._dataset.update_tags(i, **seen.tags())
            self._dataset.close()
            predictor = 3 if self.dtype.startswith("float") else 2
            rasterio.shutil.copy(
                self._draft,
                self._cog,
                driver="COG",
                COMPRESS="DEFLATE",
                PREDICTOR=str(predictor),
                BLOCKSIZE=str(BLOCK_PX),
                OVERVIEW_RESAMPLING=self.resampling.upper(),
                BIGTIFF="IF_SAFER",
            )
            sync(self._cog)
            _read_through(self._cog)
            os.replace(self._cog, self.path)
            sync(self.path.parent)
        except Exception as failure:  # GDAL's errors are of many kinds
            with naming_the_disk(self.path):
                raise RasterError(
                    "the raster could not be written",
                    where=self.path,
                    found=str(failure),
                    remedy="see whether the disk is full or read-only",
                ) from failure
        finally:
            for left in (self._draft, self._cog):
                left.unlink(missing_ok=True)


def _read_through(path: Path) -> None:
    """Decode every block of a file and of its overviews.

    On a full disk GDAL may close a file that lacks its end without a word.

    Raises:
        RasterError: a block cannot be decoded.
    """
    import rasterio

    check(path, readable=True)
    with opened(path) as dataset:
        levels = len(dataset.overviews(1))
    for level in range(levels):
        with rasterio.open(path, driver=DRIVER, overview_level=level) as overview:
            for _, window in overview.block_windows(1):
                overview.read(window=window)


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
