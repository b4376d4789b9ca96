"""What the files of a publication are called: country, year, what it is, and its cells."""

from __future__ import annotations

from dataclasses import dataclass

CATALOGUE = "catalog.json"
WEB_PAGE = "index.html"
NOTE = ".popcorn-export.json"
"""Says which country-years were exported to a folder, and which files of theirs."""
HECTARE = "100m"
CELLS = "cells"
"""Of 10 x 10 pixels that are no hectares: on a grid in degrees."""
PIXEL = "10m"
ARC_SECONDS = "3arcsec"


@dataclass(frozen=True)
class Names:
    """Names of one country-year's files.

    Attributes:
        code, year: the country-year.
    """

    code: str
    year: int

    @property
    def stem(self) -> str:
        """What every name begins with."""
        return f"{self.code}_{self.year}"

    def raster(self, what: str, cells: str) -> str:
        """A map, such as `rwa_2022_population_100m.tif`.

        Args:
            what: population, intervals, ...; of a change both years as well.
            cells: of what size, such as `HECTARE`.
        """
        return f"{self.stem}_{what}_{cells}.tif"

    @property
    def units(self) -> str:
        """The census units as a GeoPackage."""
        return f"{self.stem}_units.gpkg"

    @property
    def hexagons(self) -> str:
        """People by hexagon."""
        return f"{self.stem}_h3.parquet"

    @property
    def facts(self) -> str:
        """What is said of the map, for programs."""
        return f"{self.stem}_facts.json"

    @property
    def report(self) -> str:
        """The same for people."""
        return f"{self.stem}_report.html"

    @property
    def scenes(self) -> str:
        """The scenes that the year's composites were made of."""
        return f"{self.stem}_scenes.csv"

    @property
    def preview(self) -> str:
        """A small picture of the map."""
        return f"{self.stem}_preview.png"

    @property
    def item(self) -> str:
        """The catalogue's item of the year."""
        return f"{self.stem}_item.json"

    @property
    def model(self) -> str:
        """The catalogue's item of the model."""
        return f"{self.stem}_model.json"

    @property
    def collection(self) -> str:
        """The catalogue's collection of the country."""
        return f"{self.code}_collection.json"

    def own(self, name: str) -> bool:
        """Whether a file is of this country-year alone, and not of the country or the folder."""
        return name.startswith(f"{self.stem}_")
