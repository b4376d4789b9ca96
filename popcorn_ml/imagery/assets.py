"""Reading the part of a scene's raster that a tile needs, and saying why it could not be read.

Local paths are opened by GDAL; links by `remote.RangeFile`, which asks for byte ranges, signs,
repeats and counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from popcorn_ml.imagery.nearest import TileCoordinates
from popcorn_ml.imagery.remote import AssetLost
from popcorn_ml.raster import DRIVER

if TYPE_CHECKING:
    from popcorn_ml.imagery.remote import Fetcher
    from popcorn_ml.imagery.source import Traffic


@dataclass(frozen=True)
class AssetReader:
    """Reads assets of one tile. Threads may share it.

    Attributes:
        tile: the tile's pixel centres.
        fetcher: for links; None if all assets are on disk.
    """

    tile: TileCoordinates
    fetcher: Fetcher | None = None

    def read(self, href: str, fill: float, traffic: Traffic) -> np.ndarray | None:
        """The one band's numbers under each pixel of the tile, as the file stores them.

        The file's nodata tag is not looked at: providers get it wrong, and what is missing shows
        in the numbers.

        Args:
            href: path, or link without signature.
            fill: number for pixels outside the file.
            traffic: what it cost is added here.

        Returns:
            (rows, columns); None where the file does not reach the tile.

        Raises:
            AssetLost: missing, truncated, not a map-projected raster, of several bands, or
                refused for good.
            ImageryError: links cannot be signed at all.
        """
        import rasterio
        from rasterio.errors import RasterioError
        from rasterio.windows import Window as RasterioWindow

        traffic.assets += 1
        link = href.startswith(("http://", "https://"))
        source = None
        try:
            if link:
                if self.fetcher is None:
                    raise AssetLost("a link, where only files on disk were expected")
                source = self.fetcher.open(href, traffic)
            with (
                rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR", GDAL_PAM_ENABLED="NO"),
                rasterio.open(source.name, driver=DRIVER, opener=source)
                if source is not None
                else rasterio.open(Path(href), driver=DRIVER) as dataset,
            ):
                if dataset.crs is None:
                    raise AssetLost("the raster has no CRS")
                if dataset.count > 1:
                    raise AssetLost(f"the raster has {dataset.count} bands, where one was expected")
                t = dataset.transform
                if t.b or t.d:
                    raise AssetLost("the raster is not north-up")
                sampling = self.tile.sampling(
                    dataset.crs.to_wkt(), tuple(t)[:6], dataset.height, dataset.width
                )
                if sampling is None:
                    return None
                w = sampling.window
                values = dataset.read(1, window=RasterioWindow(w.col, w.row, w.width, w.height))
        except (RasterioError, OSError, ValueError) as error:
            if source is not None and source.failure is not None:
                raise source.failure from error
            raise AssetLost(_reason(href)) from error
        finally:
            if source is not None:
                source.close()
        if source is not None and source.failure is not None:
            raise source.failure
        return sampling.take(values, fill)


def _reason(href: str) -> str:
    if not href.startswith(("http://", "https://")) and not Path(href).exists():
        return "the file is not there"
    return "the file is damaged: it cannot be read to its end"  # alike for all tiles, said once
