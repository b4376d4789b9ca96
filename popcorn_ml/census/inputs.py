"""What reading gives: units with polygons and counts of people, each with its place in a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popcorn_ml.census.files import Source
from popcorn_ml.census.findings import Finding
from popcorn_ml.census.settings import CountSettings, ReaderName

if TYPE_CHECKING:
    import geopandas as gpd
    import numpy as np
    import pandas as pd


KIND_OF: dict[ReaderName, str] = {
    "table": "census",
    "cod": "projection",
    "worldpop": "estimate",
    "geoboundaries": "census",
    "us_census": "census",
    "gridded": "census",
    "published": "estimate",
}
"""What a reader's counts are, where the settings do not say."""


@dataclass(frozen=True)
class UnitInput:
    """Units of one level as read.

    Attributes:
        frame: GeoDataFrame: id, name, parent, row, vintage, geometry; sorted by id.
        file: name of the boundary file.
        raster: raster of identifiers, where the units came as one.
        raw: the identifier in the raster of each row of `frame`.
        findings: what was wrong or mended.
        sources: the files read.
    """

    frame: gpd.GeoDataFrame
    file: str
    raster: Path | None
    raw: np.ndarray | None
    findings: tuple[Finding, ...]
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class CountInput:
    """Counts of one table as read.

    Attributes:
        frame: id, name, parent (text), year (int), people (float), kind, annual_growth (float,
            NaN where unknown), file, row; and as written: column, cell, problem (of the number),
            growth_cell, growth_problem.
        settings: the table's.
        findings: what was wrong or mended.
        sources: the files read.
        asides: lines that are no rows of the table: file, row, why, text.
    """

    frame: pd.DataFrame
    settings: CountSettings
    findings: tuple[Finding, ...]
    sources: tuple[Source, ...]
    asides: tuple[dict[str, Any], ...] = ()
