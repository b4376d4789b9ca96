"""From what a raster's file stores to what it means: which way its rows run, scale, nodata, masks.

Of open datasets; which file, and on which grid, is `raster`'s business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from popcorn_ml.grid import Window

if TYPE_CHECKING:
    import numpy as np
    import rasterio
    from rasterio.windows import Window as RasterioWindow


def stored(
    dataset: rasterio.DatasetReader,
    bands: Sequence[int] | int | None = None,
    window: Window | None = None,
) -> np.ndarray:
    """Stored values of a window, its rows from north to south whichever way the file has them.

    Args:
        bands, window: as `raster.read`; the window is of the raster's grid (`raster.grid_of`).
    """
    index = list(bands) if isinstance(bands, Sequence) else bands
    return _northward(dataset, window, lambda there: dataset.read(index, window=there))


def _northward(
    dataset: rasterio.DatasetReader,
    window: Window | None,
    read: Callable[[RasterioWindow | None], np.ndarray],
) -> np.ndarray:
    """What `read` gives of a window of the raster's grid, rows from north to south."""
    if dataset.transform.e <= 0:
        return read(rasterio_window(window))
    if window is not None:
        row = dataset.height - window.row - window.height
        window = Window(row, window.col, window.height, window.width)
    return read(rasterio_window(window))[..., ::-1, :]


def decoded(
    dataset: rasterio.DatasetReader,
    index: Sequence[int],
    window: Window | None = None,
    dtype: str = "float32",
) -> np.ndarray:
    """As `raster.read_float`, of an open dataset: the one way from stored to meant values."""
    import numpy as np
    from rasterio.enums import MaskFlags

    alpha = sorted(set(dataset.indexes) - set(value_bands(dataset)))
    out = meant(stored(dataset, index, window), index, _meaning(dataset), dtype)
    for i, band in enumerate(index):
        if alpha and band not in alpha:  # GDAL makes a mask of it only where it has 8 or 16 bits
            out[i][stored(dataset, alpha[0], window) == 0] = np.nan
        elif MaskFlags.per_dataset in dataset.mask_flag_enums[band - 1]:
            out[i][_mask(dataset, band, window) == 0] = np.nan
    return out


class Meaning(NamedTuple):
    """What the numbers that a raster stores stand for; of each band where not of all.

    Attributes:
        dtype: of all bands.
        scales, offsets: a value is the number times the scale and the offset.
        nodata: number that means "no value", or None.
    """

    dtype: str
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    nodata: tuple[float | None, ...]


def plain_floats(bands: int) -> Meaning:
    """Of values that are themselves already, NaN where there is none."""
    return Meaning("float32", (1.0,) * bands, (0.0,) * bands, (None,) * bands)


def _meaning(dataset: rasterio.DatasetReader) -> Meaning:
    return Meaning(dataset.dtypes[0], dataset.scales, dataset.offsets, dataset.nodatavals)


def meaning_of(dataset: rasterio.DatasetReader) -> Meaning | None:
    """What numbers mean, where they say it by themselves, row by row from the north; None where
    there is a mask besides, where bands are of several types, or where rows run the other way."""
    from rasterio.enums import MaskFlags

    masked = any(MaskFlags.per_dataset in flags for flags in dataset.mask_flag_enums)
    plain = len(value_bands(dataset)) == dataset.count and len(set(dataset.dtypes)) == 1
    return _meaning(dataset) if plain and not masked and dataset.transform.e < 0 else None


def meant(
    raw: np.ndarray, index: Sequence[int], meaning: Meaning, dtype: str = "float32"
) -> np.ndarray:
    """Values of stored numbers, NaN where they mean that there is none.

    Args:
        raw: (bands, rows, columns).
        index: which bands of the raster those are, from 1.
    """
    import numpy as np

    out = np.empty(raw.shape, dtype)
    for i, band in enumerate(index):
        scale, offset = meaning.scales[band - 1], meaning.offsets[band - 1]
        nodata = meaning.nodata[band - 1]
        if scale != 1.0 or offset != 0.0:
            exact = raw[i].astype(np.float64)
            exact *= scale
            exact += offset
            out[i] = exact
        else:
            out[i] = raw[i]
        if nodata is not None and not np.isnan(nodata):
            out[i][raw[i] == nodata] = np.nan
    return out


def _mask(dataset: rasterio.DatasetReader, band: int, window: Window | None) -> np.ndarray:
    """A band's mask, 0 where it has no value; rows as `stored` gives them."""
    return _northward(dataset, window, lambda there: dataset.read_masks(band, window=there))


def value_bands(dataset: rasterio.DatasetReader) -> list[int]:
    """Numbers of the bands that hold values: all but an alpha band, which is a mask."""
    from rasterio.enums import ColorInterp

    kinds = zip(dataset.indexes, dataset.colorinterp, strict=True)
    return [band for band, kind in kinds if kind != ColorInterp.alpha]


def rasterio_window(window: Window | None) -> RasterioWindow | None:
    """A window in the words of rasterio; None stays, for all of a raster."""
    if window is None:
        return None
    from rasterio.windows import Window as RasterioWindow

    return RasterioWindow(window.col, window.row, window.width, window.height)
