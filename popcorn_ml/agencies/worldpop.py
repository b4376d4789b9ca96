"""WorldPop's hub: census tables of 2000 to 2020, and the raster of the units that they count.

These are the figures of statistics offices that WorldPop's maps are made from, projected to each
year by WorldPop; its gridded maps are a model's, and no census. Files lie at fixed addresses.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from popcorn_ml.agencies.addresses import Addresses
from popcorn_ml.agencies.agency import Agency, Offer, Reading
from popcorn_ml.agencies.counted import read_people
from popcorn_ml.agencies.fetched import Wanted
from popcorn_ml.agencies.web import Web
from popcorn_ml.census.boundaries import genuine
from popcorn_ml.errors import CensusError
from popcorn_ml.raster import grid_of

FIRST, LAST = 2000, 2020
"""Years that the tables count."""
LICENCE = "Creative Commons Attribution 4.0 International (CC BY 4.0), WorldPop"


class WorldPopCounts(Agency):
    """Census tables, `GID` and `P_2000` to `P_2020`."""

    key, title = "worldpop", "WorldPop, census tables 2000-2020"
    licence = LICENCE
    limit_bytes = 256 * 1024**2

    def __init__(self, addresses: Addresses) -> None:
        self._base = addresses.worldpop

    def _address(self, wanted: Wanted) -> str:
        tables = f"{self._base}/GIS/Population/Global_2000_2020/CensusTables"
        return f"{tables}/{wanted.low}_population_2000_2020.csv"

    def names(self, wanted: Wanted) -> re.Pattern[str]:
        return re.compile(re.escape(self._name(wanted)))

    def _name(self, wanted: Wanted) -> str:
        return f"worldpop-{wanted.iso3}-2000-2020.csv"

    def by_hand(self, wanted: Wanted) -> tuple[str, str, str]:
        return self._address(wanted), "the file", self._name(wanted)

    def offer(self, wanted: Wanted, web: Web) -> Offer:
        return Offer(self._address(wanted), self._name(wanted), LICENCE)

    def reading(self, path: Path, wanted: Wanted, year: int | None) -> Reading:
        year = min(max(wanted.year, FIRST), LAST)
        return read_people(path, "worldpop", year, "GID and P_2000 to P_2020")


class WorldPopUnits(Agency):
    """The raster of units, which the tables' `GID` numbers; 3 arc-seconds."""

    key, title = "worldpop", "WorldPop, units of its census tables"
    licence = LICENCE

    def __init__(self, addresses: Addresses) -> None:
        self._base = addresses.worldpop

    def _address(self, wanted: Wanted) -> str:
        grids = f"{self._base}/GIS/Mastergrid/Global_2000_2020/{wanted.iso3}/Subnational"
        return f"{grids}/{wanted.low}_subnational_admin_2000_2020.tif"

    def _name(self, wanted: Wanted) -> str:
        return f"worldpop-{wanted.iso3}-units.tif"

    def names(self, wanted: Wanted) -> re.Pattern[str]:
        return re.compile(re.escape(self._name(wanted)))

    def by_hand(self, wanted: Wanted) -> tuple[str, str, str]:
        return self._address(wanted), "the file", self._name(wanted)

    def offer(self, wanted: Wanted, web: Web) -> Offer:
        return Offer(self._address(wanted), self._name(wanted), LICENCE)

    def reading(self, path: Path, wanted: Wanted, year: int | None) -> Reading:
        genuine(path)
        return Reading("worldpop", {}, len(_numbers(path)))


def _numbers(path: Path) -> set[int]:
    """Numbers in a raster of units, read a block at a time.

    Raises:
        CensusError: it is damaged, or its numbers are no whole ones.
    """
    import numpy as np
    import rasterio

    grid_of(path)
    found: set[int] = set()
    try:
        with rasterio.open(path) as dataset:
            for _, window in dataset.block_windows(1):
                block: Any = dataset.read(1, window=window, masked=True)
                found |= {int(n) for n in np.unique(block.compressed()) if n > 0}
    except rasterio.errors.RasterioError as error:
        raise CensusError(
            "the raster of units is damaged",
            where=path,
            found=str(error).splitlines()[0],
            remedy="fetch it again with --again",
        ) from error
    return found
