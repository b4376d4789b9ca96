"""Units that come as a raster: numbered units, and gridded censuses whose cells are units.

Both become polygons too, so that tables and maps of every level look alike.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from popcorn_ml import raster
from popcorn_ml.census.boundaries import RASTER_SUFFIXES, genuine
from popcorn_ml.census.files import Files
from popcorn_ml.census.findings import Finding
from popcorn_ml.census.inputs import KIND_OF, CountInput, UnitInput
from popcorn_ml.census.settings import BoundarySettings, CountSettings, LevelSettings
from popcorn_ml.errors import CensusError
from popcorn_ml.grid import Grid, Window
from popcorn_ml.raster_values import decoded, value_bands

if TYPE_CHECKING:
    import geopandas as gpd
    import numpy as np
    import rasterio

STRIP_PX = 512
EXACT_FLOAT32 = 1 << 24
"""Whole numbers from here on collide in a float32 raster (fault 7)."""
MAX_CELLS = 50_000_000
METRES_A_DEGREE = 111_320.0


def numbered(path: Path, settings: BoundarySettings, files: Files) -> UnitInput:
    """Units from a raster of their numbers, such as the published data set's `boundaries_*.tif`.

    A raster whose stored values are not the numbers (a scale, an offset, a mask) is written anew
    into the scratch folder, so that whoever burns the units need not know.

    Raises:
        CensusError: no number in it, negative or fractional ones, floats too large to be told
            apart, or several bands.
    """
    import geopandas as gpd
    import numpy as np
    import shapely
    from rasterio.features import shapes
    from rasterio.transform import Affine

    genuine(path)
    grid = raster.grid_of(path)
    band = _only_band(path, "raster of units", "unit numbers", "the band of numbers")
    parts: dict[int, list] = {}
    with raster.opened(path) as dataset, ExitStack() as stack:
        anew = None
        if not _as_stored(dataset, band):
            anew = stack.enter_context(_scratch_raster(files, grid))
        for row in range(0, grid.height, STRIP_PX):
            window = Window(row, 0, min(STRIP_PX, grid.height - row), grid.width)
            values = decoded(dataset, [band], window, "float64")[0]
            numbers = _whole(values, dataset.dtypes[band - 1], path)
            if anew is not None:
                anew.write(numbers, 1, window=((row, row + window.height), (0, grid.width)))
            transform = Affine(grid.step, 0, grid.west, 0, -grid.step, grid.north - row * grid.step)
            for shape, number in shapes(numbers, mask=numbers != 0, transform=transform):
                parts.setdefault(int(number), []).append(shapely.geometry.shape(shape))
    if not parts:
        raise CensusError(
            "the raster of units holds no unit",
            where=path,
            expected="whole numbers above 0",
            found="none",
            remedy="write or fetch it again",
        )
    raw = np.array(sorted(parts), np.int64)
    frame = gpd.GeoDataFrame(
        {"id": [str(n) for n in raw], "name": "", "parent": ""},
        geometry=[_union(parts[int(n)]) for n in raw],
        crs=grid.crs,
    )
    frame["row"] = raw
    frame["vintage"] = settings.vintage if settings.vintage is not None else -1
    burnt = path if anew is None else Path(anew.name)
    return UnitInput(frame, path.name, burnt, raw, (), files.sources(settings))


def _only_band(path: Path, noun: str, what: str, band: str) -> int:
    """The one band of values: the first of several would be taken for all of them.

    Raises:
        CensusError: there are several.
    """
    with raster.opened(path) as dataset:
        bands = value_bands(dataset)
    if len(bands) != 1:
        raise CensusError(
            f"the {noun} has several bands",
            where=path,
            expected=f"one band of {what}",
            found=len(bands),
            remedy=f"write {band} to a file of its own",
        )
    return bands[0]


def _as_stored(dataset: rasterio.DatasetReader, band: int) -> bool:
    """Whether a band's stored values are its values, but for a nodata value."""
    from rasterio.enums import MaskFlags

    masked = MaskFlags.per_dataset in dataset.mask_flag_enums[band - 1]
    plain = dataset.scales[band - 1] == 1.0 and dataset.offsets[band - 1] == 0.0
    return plain and not masked and dataset.count == 1


def _scratch_raster(files: Files, grid: Grid) -> rasterio.io.DatasetWriter:
    """A new raster of numbers in the scratch folder, 0 where there is none."""
    import rasterio
    from rasterio.transform import Affine

    return rasterio.open(
        files.scratch / f"numbers{len(list(files.scratch.glob('numbers*')))}.tif",
        "w", driver="GTiff", crs=grid.crs, transform=Affine(*grid.transform),
        width=grid.width, height=grid.height, count=1, dtype="int32", nodata=0,
    )  # fmt: skip


def _union(parts: list):
    import shapely

    return parts[0] if len(parts) == 1 else shapely.union_all(parts)


def _whole(values: np.ndarray, stored: str, path: Path) -> np.ndarray:
    """Unit numbers as int32, 0 where there is none.

    Args:
        values: decoded, NaN where there is none.
        stored: type that they are stored in.
        path: the file, for messages.
    """
    import numpy as np

    filled = np.nan_to_num(values, nan=0.0)
    if (filled != np.rint(filled)).any():
        raise CensusError(
            "the raster of units holds fractions",
            where=path,
            expected="whole numbers",
            found=float(filled[filled != np.rint(filled)][0]),
            remedy="this may be a map of people: give the raster of unit numbers",
        )
    if stored == "float32" and np.abs(filled).max(initial=0) >= EXACT_FLOAT32:
        raise CensusError(
            "the raster of units holds numbers that float32 cannot tell apart",
            where=path,
            expected="numbers below 2^24, or an integer raster",
            found=float(np.abs(filled).max()),
            remedy="write it again as uint32",
        )
    wide = filled.astype(np.int64)
    if wide.min(initial=0) < 0 or wide.max(initial=0) > np.iinfo(np.int32).max:
        raise CensusError(
            "the raster of units holds numbers out of range",
            where=path,
            expected="0 (none) to 2147483647",
            found=int(wide.min() if wide.min() < 0 else wide.max()),
            remedy="state its nodata value in the file, or number the units again",
        )
    return wide.astype(np.int32)


def _read_cells(settings: CountSettings, files: Files) -> tuple[Path, np.ndarray, Grid]:
    """People per cell in float64 with NaN for no data, pooled if asked for, and its grid."""
    import numpy as np

    path = files.open(settings, RASTER_SUFFIXES)
    genuine(path)
    grid = raster.grid_of(path)
    if grid.width * grid.height > MAX_CELLS:
        raise CensusError(
            "the gridded census has too many cells",
            where=path,
            expected=f"at most {MAX_CELLS}",
            found=grid.width * grid.height,
            remedy="cut it to the country",
        )
    band = _only_band(path, "gridded census", "people per cell", "the band of totals")
    people = raster.read_float(path, bands=band, dtype="float64")
    side_m = grid.step * (METRES_A_DEGREE if grid.is_geographic else 1.0)
    factor = 1
    if settings.cell_m is not None:
        factor = round(settings.cell_m / side_m)
        if factor < 1 or abs(settings.cell_m / side_m - factor) > 0.25:
            raise CensusError(
                "cells cannot be pooled to the side asked for",
                where=path,
                expected=f"a whole multiple of {side_m:.0f} m",
                found=settings.cell_m,
                remedy="correct `counts.cell_m` in the country's file",
            )
    if factor > 1:
        height, width = -(-grid.height // factor), -(-grid.width // factor)
        padded = np.full((height * factor, width * factor), np.nan)
        padded[: grid.height, : grid.width] = people
        blocks = padded.reshape(height, factor, width, factor)
        empty = np.isnan(blocks).all((1, 3))
        people = np.where(empty, np.nan, np.nansum(blocks, (1, 3)))
        grid = Grid(grid.crs, grid.west, grid.north, grid.step * factor, width, height)
    return path, people, grid


def cells(settings: CountSettings, files: Files) -> UnitInput:
    """The cells of a gridded census that hold data, as units named by row and column.

    Raises:
        CensusError: no cell holds data, or the raster is not one band on a north-up grid.
    """
    import geopandas as gpd
    import numpy as np
    import shapely

    path, people, grid = _read_cells(settings, files)
    rows, cols = np.nonzero(~np.isnan(people))
    if rows.size == 0:
        raise CensusError(
            "the gridded census holds no cell with data",
            where=path,
            expected="people per cell",
            found="nodata only",
            remedy="write or fetch it again",
        )
    x, y = grid.west + cols * grid.step, grid.north - rows * grid.step
    frame: gpd.GeoDataFrame = gpd.GeoDataFrame(
        {"id": _cell_ids(rows, cols), "name": "", "parent": ""},
        geometry=shapely.box(x, y - grid.step, x + grid.step, y),
        crs=grid.crs,
    )
    raw = np.arange(1, rows.size + 1)
    frame["row"] = raw
    frame["vintage"] = settings.year if settings.year is not None else -1
    numbers = np.zeros(grid.shape, np.int32)
    numbers[rows, cols] = raw
    with _scratch_raster(files, grid) as dataset:
        dataset.write(numbers, 1)
    return UnitInput(frame, path.name, Path(dataset.name), raw, (), files.sources(settings))


def _cell_ids(rows: np.ndarray, cols: np.ndarray) -> list[str]:
    # Zero-padded, so that the order of the text is the order of the cells.
    high, wide = len(str(int(rows.max()))), len(str(int(cols.max())))
    return [f"r{r:0{high}d}c{c:0{wide}d}" for r, c in zip(rows, cols, strict=True)]


def cell_counts(level: LevelSettings, files: Files) -> CountInput:
    """People of each cell, by the identifiers that `cells` gives.

    Raises:
        CensusError: as `cells`, or no year is stated.
    """
    import numpy as np
    import pandas as pd

    settings = level.counts[0]
    path, people, _ = _read_cells(settings, files)
    if settings.year is None:
        raise CensusError(
            "the settings do not say of which year the gridded census is",
            where=path,
            expected="counts.year",
            remedy="add `year` to its settings in the country's file",
        )
    rows, cols = np.nonzero(~np.isnan(people))
    frame = pd.DataFrame(
        {
            "id": _cell_ids(rows, cols),
            "name": "",
            "parent": "",
            "year": settings.year,
            "people": people[rows, cols],
            "kind": settings.kind or level.kind or KIND_OF[level.reader],
            "annual_growth": np.nan,
            "file": path.name,
            "row": np.arange(1, rows.size + 1),
            **dict.fromkeys(("column", "cell", "problem", "growth_cell", "growth_problem"), ""),
        }
    )
    findings: tuple[Finding, ...] = ()
    return CountInput(frame, settings, findings, files.sources(settings))
