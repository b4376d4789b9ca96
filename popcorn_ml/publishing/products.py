"""The rasters of a publication: what each holds, in which unit, with which classes.

Each is written anew from the version it is taken from, block by block, with what a reader outside
needs: unit, statistics, tags that say where it is from and how it may be used, a style beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popcorn_ml import raster
from popcorn_ml.grid import Grid, Window
from popcorn_ml.publishing.classes import (
    CHANGE,
    OBSERVATIONS,
    OCCUPANCY,
    PEOPLE,
    PEOPLE_PER_PIXEL,
    RELIABILITY,
    SCORE,
    UNIT_NUMBERS,
    Class,
    Classes,
)
from popcorn_ml.publishing.styles import raster_style, write_style
from popcorn_ml.zones import BLOCK_PX

if TYPE_CHECKING:
    import numpy as np

PERCENTILES = ("p2.5", "p10", "p90", "p97.5")


@dataclass(frozen=True)
class Product:
    """What a raster of a publication holds.

    Attributes:
        role: what it is, for programs: the key of the catalogue's asset and of the facts' entry.
        what: the part of the file's name.
        title: for people.
        text: one or two sentences more.
        unit: of the values.
        classes: that it is shown in.
        band: 1-based, that is shown.
        sums: whether its values add up to people.
        resampling: of its overviews.
    """

    role: str
    what: str
    title: str
    text: str
    unit: str
    classes: Classes
    band: int = 1
    sums: bool = False
    resampling: str = "average"


POPULATION = Product(
    "population", "population", "Population",
    "People in each cell, adjusted so that every census unit holds the people counted in it.",
    "people per cell", PEOPLE, sums=True,
)  # fmt: skip
UNADJUSTED = Product(
    "population_unadjusted", "population_unadjusted", "Population, unadjusted",
    "People in each cell as the model estimates them from the images, not adjusted to the census.",
    "people per cell", PEOPLE, sums=True,
)  # fmt: skip
MASKED = Product(
    "population_masked", "population_masked", "Population, empty cells masked",
    "As the population, with nobody in cells that are taken to be empty; their people are in the "
    "other cells of the same census unit.",
    "people per cell", PEOPLE, sums=True,
)  # fmt: skip
INTERVALS = Product(
    "intervals", "intervals", "Intervals of the population",
    "Bounds between which the people of a cell lie with 95 % (p2.5 to p97.5) and with 80 % (p10 to "
    "p90) probability.",
    "people per cell", PEOPLE, band=4,
)  # fmt: skip
INTERVALS_UNADJUSTED = Product(
    "intervals_unadjusted", "intervals_unadjusted", "Intervals of the unadjusted population",
    "The same bounds of the map that is not adjusted to the census.",
    "people per cell", PEOPLE, band=4,
)  # fmt: skip
RELIABLE = Product(
    "reliability", "reliability", "Use at this scale",
    "1 where a single cell may be used, 0 where it is too uncertain: add cells up first.",
    "1", RELIABILITY, resampling="nearest",
)  # fmt: skip
CHANGED = Product(
    "change", "change_{from_year}_{year}", "Change of the population",
    "People more (or fewer) than in the earlier year, with the bounds of that difference; the last "
    "band says whether it is significant: -1 fewer, 1 more, 0 not told apart from no change.",
    "people per cell", CHANGE, resampling="average",
)  # fmt: skip
PIXELS = Product(
    "population_pixels", "population", "Population of pixels",
    "People in each pixel of the images, adjusted to the census. One pixel alone means little: add "
    "pixels up to the area asked about.",
    "people per pixel", PEOPLE_PER_PIXEL, sums=True,
)  # fmt: skip
PIXELS_UNADJUSTED = Product(
    "population_pixels_unadjusted", "population_unadjusted", "Population of pixels, unadjusted",
    "The same as the model estimates it, not adjusted to the census.",
    "people per pixel", PEOPLE_PER_PIXEL, sums=True,
)  # fmt: skip
OCCUPANCY_RATE = Product(
    "occupancy", "occupancy", "Occupancy",
    "People whom a fully built-up pixel would hold here, by the model.",
    "people per fully built-up pixel", OCCUPANCY,
)  # fmt: skip
BUILTUP = Product(
    "builtup", "builtup", "Built-up score",
    "How surely a pixel is built up, 0 to 1, mean of the seasons.",
    "1", SCORE,
)  # fmt: skip
QUALITY = Product(
    "quality", "quality", "Quality of the input",
    "Clear observations of either sensor in the year, how many of the eight seasonal composites "
    "were filled from elsewhere, and whether the pixel is not to be used.",
    "1", OBSERVATIONS, band=2, resampling="nearest",
)  # fmt: skip
TRUE_HECTARES = Product(
    "population_100m", "population", "Population of true hectares",
    "The adjusted people of the pixels in real cells of 100 x 100 m, split by area: the map's own "
    "cells are in degrees and no hectares.",
    "people per cell", PEOPLE, sums=True,
)  # fmt: skip
TRUE_HECTARES_UNADJUSTED = Product(
    "population_100m_unadjusted", "population_unadjusted",
    "Population of true hectares, unadjusted",
    "The same as the model estimates it, not adjusted to the census.",
    "people per cell", PEOPLE, sums=True,
)  # fmt: skip
UNITS = Product(
    "units", "units_{level}", "Census units",
    "The number of the census unit that a pixel lies in, 0 outside all: the column number of the "
    "units' tables, of the level that the map is adjusted to.",
    "1", UNIT_NUMBERS, resampling="nearest",
)  # fmt: skip
ARC_SECONDS = Product(
    "population_3arcsec", "population", "Population on WorldPop's 3 arc-second grid",
    "The adjusted people on the lattice of WorldPop's mosaics, split by area.",
    "people per cell", PEOPLE, sums=True,
)  # fmt: skip

Source = Callable[[Window], "np.ndarray"]
"""Reads a window: (bands, rows, columns), NaN or the nodata value where there is none."""


@dataclass(frozen=True)
class Written:
    """A raster that was written.

    Attributes:
        product: what it is.
        file: its name.
        grid: on which it lies.
        bands: their descriptions.
        dtype, nodata: as stored.
        people: what all its cells add up to, of a product of which they do.
        cell: what a cell of it is called.
    """

    product: Product
    file: str
    grid: Grid
    bands: tuple[str, ...]
    dtype: str
    nodata: float | None
    cell: str
    unit: str
    people: float | None = None
    statistics: tuple[Mapping[str, float], ...] = field(default=())

    def as_fact(self) -> dict[str, Any]:
        """Plain values for the facts."""
        product = self.product
        return {
            "role": product.role,
            "file": self.file,
            "style": str(Path(self.file).with_suffix(".qml")),
            "title": product.title,
            "text": product.text,
            "unit": self.unit,
            "cell": self.cell,
            "bands": list(self.bands),
            "shown_band": product.band,
            "nodata": "nan" if self.nodata is None or self.nodata != self.nodata else self.nodata,
            "dtype": self.dtype,
            "people": self.people,
            "statistics": list(self.statistics),
            "grid": self.grid.as_dict(),
            "classes": [
                {
                    **({"upper": one.upper} if isinstance(one, Class) else {"value": one.value}),
                    "colour": one.colour,
                    "label": one.label,
                }
                for one in product.classes
            ],
        }


def write_product(
    product: Product,
    path: Path,
    grid: Grid,
    bands: Sequence[str],
    read: Source,
    tags: Mapping[str, str],
    *,
    dtype: str = "float32",
    nodata: float = float("nan"),
    cell: str = "",
) -> Written:
    """Write a raster with its style beside it.

    Args:
        product: what it holds.
        path: where; whole or not at all.
        grid: of the raster.
        bands: their descriptions.
        read: gives the values of a window.
        tags: what it says of itself.
        dtype, nodata: as stored.
        cell: what a cell is called; the unit "people per cell" then names it.

    Raises:
        RasterError: as `raster.CogWriter`.
    """
    import numpy as np

    unit = product.unit.replace("cell", cell) if cell else product.unit
    people = 0.0
    options: dict[str, Any] = {
        "tags": {"title": product.title, "description": product.text, **tags},
        "units": [unit] * len(bands),
        "statistics": True,
        "resampling": product.resampling,
    }
    with (
        raster.bounded_cache(),
        raster.CogWriter(path, grid, bands, dtype, nodata, **options) as out,
    ):
        for tile in grid.tiles(BLOCK_PX):
            values = read(tile.core)
            if product.sums:
                people += float(np.nansum(values.astype(np.float32), dtype=np.float64))
            out.write(values, tile.core)
        statistics = tuple(seen.as_fact() for seen in out.statistics)
    write_style(path, raster_style(product.classes, unit, product.band))
    return Written(
        product, path.name, grid, tuple(bands), dtype, nodata, cell, unit,
        people if product.sums else None, statistics,
    )  # fmt: skip


def copied(
    product: Product,
    source: Path,
    path: Path,
    tags: Mapping[str, str],
    *,
    grid: Grid | None = None,
    bands: Sequence[str] = (),
    cell: str = "",
) -> Written:
    """As `write_product`, of a version's own raster.

    Args:
        source: the raster, decoded values of which are written as they are.
        grid: that it must lie on.
        bands: other descriptions than its own.

    Raises:
        GridMismatch: it lies elsewhere.
        RasterError: it is unreadable, or as `raster.CogWriter`.
    """
    found = raster.check(source, grid)
    with raster.opened(source) as dataset:
        dtype, nodata = dataset.dtypes[0], dataset.nodata
        own = [text or f"band {i}" for i, text in enumerate(dataset.descriptions, start=1)]
    return write_product(
        product, path, found, bands or own, lambda window: raster.read(source, window), tags,
        dtype=dtype, nodata=float("nan") if nodata is None else nodata, cell=cell,
    )  # fmt: skip
