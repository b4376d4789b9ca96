"""From what a raster's file stores to what it means: which way its rows run, scale, nodata, masks.

Of open datasets; which file, and on which grid, is `raster`'s business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, sqrt
from typing import TYPE_CHECKING

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
    raw = stored(dataset, index, window)
    out = raw.astype(dtype)
    for i, band in enumerate(index):
        scale, offset = dataset.scales[band - 1], dataset.offsets[band - 1]
        nodata = dataset.nodatavals[band - 1]
        if scale != 1.0 or offset != 0.0:
            out[i] = raw[i].astype(np.float64) * scale + offset
        if nodata is not None and not np.isnan(nodata):
            out[i][raw[i] == nodata] = np.nan
        if alpha and band not in alpha:  # GDAL makes a mask of it only where it has 8 or 16 bits
            out[i][stored(dataset, alpha[0], window) == 0] = np.nan
        elif MaskFlags.per_dataset in dataset.mask_flag_enums[band - 1]:
            out[i][_mask(dataset, band, window) == 0] = np.nan
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


@dataclass
class BandStatistics:
    """Smallest, largest and mean stored value of a band, and their spread, as it is written.

    Attributes:
        count: values that are not nodata.
        mean, squares: of these; the sum of the squares of what they differ from their mean.
    """

    count: int = 0
    smallest: float = inf
    largest: float = -inf
    mean: float = 0.0
    squares: float = 0.0

    def add(self, values: np.ndarray, nodata: float) -> None:
        """Count what was written into a window."""
        import numpy as np

        kept = values[~np.isnan(values)] if nodata != nodata else values[values != nodata]
        if kept.size == 0:
            return
        seen = kept.astype(np.float64)
        mean = float(seen.mean())
        apart, total = mean - self.mean, self.count + seen.size
        self.squares += float(((seen - mean) ** 2).sum())
        self.squares += apart * apart * self.count * seen.size / total
        self.mean += apart * seen.size / total
        self.count = total
        self.smallest = min(self.smallest, float(seen.min()))
        self.largest = max(self.largest, float(seen.max()))

    def as_fact(self) -> dict[str, float]:
        """The same as STAC names it; empty where there is no value."""
        if self.count == 0:
            return {}
        spread = sqrt(self.squares / self.count)
        return {
            "minimum": self.smallest, "maximum": self.largest, "mean": self.mean, "stddev": spread,
        }  # fmt: skip

    def tags(self) -> dict[str, str]:
        """The same under the names that GDAL and QGIS look for."""
        return {f"STATISTICS_{name.upper()}": repr(value) for name, value in self.as_fact().items()}
