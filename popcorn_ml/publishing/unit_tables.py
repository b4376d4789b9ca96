"""Census units with what the map says of them: GeoPackage for QGIS, GeoParquet, CSV.

One row a unit of every level, with the same columns whatever is known: what is not is empty.
Geometry is in the CRS of the country's grid, as the rasters are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popcorn_ml.files import replacing
from popcorn_ml.grid import HECTARE_M2, Grid
from popcorn_ml.publishing.classes import DENSITY
from popcorn_ml.publishing.styles import units_style, write_style

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

HECTARES_PER_KM2 = 1e6 / HECTARE_M2
GEOPACKAGE = "1.2"
"""The version of GeoPackage: what QGIS 3.22 and its GDAL know."""
BOUNDS = {"p2_5": "p2.5", "p10": "p10", "p90": "p90", "p97_5": "p97.5"}

COLUMNS: dict[str, str] = {
    "country": "code of the country",
    "year": "year of the map",
    "level": "census level",
    "unit_id": "the census's own identifier",
    "name": "name of the unit, as the census gives it",
    "parent": "the unit it lies in, as the census gives it",
    "number": "its number in the raster of units of its level",
    "census": "people counted in it (or projected to the year: see census_kind), with those of "
    "units merged into it; empty where no count is known",
    "census_kind": "census, projection or estimate",
    "census_method": "how the count came about",
    "map": "people by the model, not adjusted to the census",
    "map_std": "their standard deviation across the members of the ensemble",
    "adjusted": "people of the published map, adjusted to the census",
    "placed_by": "how the adjusted people were placed in it: model, builtup, area, all_pixels, "
    "unplaced or uncounted; of the level that the map is adjusted to",
    "difference": "map minus census, people",
    "relative_difference": "the same over the census",
    "area_ha": "area of the unit, hectares",
    "density_km2": "adjusted people per square kilometre of the unit",
    **{
        f"{name}": f"{text}: people by the model are fewer with this probability"
        for name, text in BOUNDS.items()
    },
    **{f"adjusted_{name}": f"{text} of the adjusted people" for name, text in BOUNDS.items()},
    "interval_basis": "what the intervals rest on",
    "change": "people more (or fewer) than in the year change_from",
    "change_from": "the earlier year",
    **{f"change_{name}": f"{text} of the change" for name, text in BOUNDS.items()},
    "change_significant": "whether the change is told apart from none",
    "valid_share": "share of the unit's pixels in which the map has a value",
    "pixels": "pixels of the unit",
    "status": "how the unit got its pixels: centre, best_pixel, merged or outside",
    "merged_into": "the unit that it is counted with, having no pixels of its own",
}
"""The columns of the tables, and what each holds."""

COUNTED = {"people": "census", "kind": "census_kind", "method": "census_method"}


@dataclass(frozen=True)
class UnitRows:
    """What is known of units beside their shapes and counts, as rows of the warehouse's tables.

    Attributes:
        sums: of `map_sums`.
        intervals: of `map_intervals`; none where no interval can be given.
        change: of `map_change`; none in the first year.
        placed: level -> number of a unit -> how its people were placed.
    """

    sums: Sequence[Mapping[str, Any]]
    intervals: Sequence[Mapping[str, Any]] = field(default=())
    change: Sequence[Mapping[str, Any]] = field(default=())
    placed: Mapping[str, Mapping[int, str]] = field(default_factory=dict)


def unit_frame(
    code: str,
    year: int,
    levels: Iterable[str],
    units: Path,
    counts: Path,
    rows: UnitRows,
    grid: Grid,
) -> gpd.GeoDataFrame:
    """All units of all levels, `COLUMNS` and geometry in the grid's CRS.

    Args:
        code, year: the country-year.
        levels: in the order of the rows.
        units, counts: folders that `census.build` wrote.
        rows: see there.
        grid: the country's.
    """
    import geopandas as gpd
    import pandas as pd
    from shapely import make_valid

    from popcorn_ml.census.units import to_grid

    frames = []
    for level in levels:
        frame = gpd.read_parquet(units / f"units_{level}.parquet")
        known = {e["id"]: e for e in json.loads((counts / f"counts_{level}.json").read_text())}
        frame = frame.rename(columns={"id": "unit_id"})
        frame["level"] = level
        for key, column in COUNTED.items():
            frame[column] = [known.get(unit, {}).get(key) for unit in frame["unit_id"]]
        frame["placed_by"] = [rows.placed.get(level, {}).get(n) for n in frame["number"]]
        shapes = make_valid(to_grid(frame, grid))
        frame = frame.set_geometry(gpd.GeoSeries(shapes, index=frame.index, crs=grid.crs))
        frames.append(frame)
    found = pd.concat(frames, ignore_index=True)
    found = found.merge(_wide(rows), on=["level", "unit_id"], how="left")
    found["country"], found["year"] = code, year
    found["difference"] = found["map"] - found["census"]
    found["relative_difference"] = found["difference"] / found["census"].where(found["census"] > 0)
    area = found["area_ha"].where(found["area_ha"] > 0)
    found["density_km2"] = found["adjusted"] / area * HECTARES_PER_KM2
    return gpd.GeoDataFrame(
        found.reindex(columns=[*COLUMNS, "geometry"]), geometry="geometry", crs=grid.crs
    )


def _wide(rows: UnitRows) -> pd.DataFrame:
    """One row a unit of a level, from the rows of the warehouse's tables."""
    import pandas as pd

    units: dict[tuple[str, str], dict[str, Any]] = {}

    def unit(row: Mapping[str, Any]) -> dict[str, Any]:
        return units.setdefault((row["level"], row["unit_id"]), {})

    for row in rows.sums:
        if row["product"] == "map":
            unit(row).update(map=row["people"], map_std=row["people_std"])
        else:
            unit(row).update(adjusted=row["people"])
        unit(row)["valid_share"] = row["valid_share"]
    for row in rows.intervals:
        before = "adjusted_" if row["product"] == "adjusted" else ""
        unit(row).update({f"{before}{name}": row[name] for name in BOUNDS})
        unit(row)["interval_basis"] = row["basis"]
    for row in rows.change:
        unit(row).update({f"change_{name}": row[name] for name in BOUNDS})
        unit(row).update(
            change=row["people"], change_from=row["from_year"],
            change_significant=row["significant"],
        )  # fmt: skip
    flat = [{"level": level, "unit_id": name, **of} for (level, name), of in units.items()]
    return pd.DataFrame(flat, columns=["level", "unit_id", *_KNOWN])


_TEXTS = ("interval_basis", "change_significant", "change_from")
_KNOWN = [
    "map", "map_std", "adjusted", "valid_share", *BOUNDS, *(f"adjusted_{name}" for name in BOUNDS),
    "interval_basis", "change", "change_from", *(f"change_{name}" for name in BOUNDS),
    "change_significant",
]  # fmt: skip


def write_units(frame: gpd.GeoDataFrame, geopackage: Path) -> list[Path]:
    """Write the units as a GeoPackage with a layer a level, GeoParquet and CSV, all of one name.

    Args:
        frame: as `unit_frame` gave it.
        geopackage: the first's path; the others, and a style for QGIS, lie beside it.

    Returns:
        The three tables' paths.
    """
    import numpy as np

    typed = frame.astype(dict.fromkeys((*_numbers(), "change_from"), "float64")).assign(
        change_significant=frame["change_significant"].astype("boolean")
    )
    with replacing(geopackage) as draft, _dated(int(frame["year"].iloc[0])):
        draft.unlink()  # the driver wants to make it itself
        version = {"VERSION": GEOPACKAGE}
        for level in dict.fromkeys(typed["level"]):
            of_level = typed[typed["level"] == level]
            of_level.to_file(draft, layer=level, driver="GPKG", engine="pyogrio", **version)
            version = {}  # of the file, which is there now
    write_style(geopackage, units_style("density_km2", DENSITY, "people per km2"))
    parquet, text = geopackage.with_suffix(".parquet"), geopackage.with_suffix(".csv")
    with replacing(parquet) as draft:
        typed.to_parquet(draft, index=False, schema_version="1.1.0", compression="zstd")
    with replacing(text) as draft:
        plain = typed.drop(columns="geometry").replace({np.nan: None})
        plain.to_csv(draft, index=False, encoding="utf-8", float_format="%.10g")
    return [geopackage, parquet, text]


@contextmanager
def _dated(year: int) -> Iterator[None]:
    """Have GeoPackages say the map's year of when they were written: the same map, the same bytes.

    Args:
        year: of the map.
    """
    from pyogrio import get_gdal_config_option, set_gdal_config_options

    before = get_gdal_config_option("OGR_CURRENT_DATE")
    set_gdal_config_options({"OGR_CURRENT_DATE": f"{year}-12-31T00:00:00.000Z"})
    try:
        yield
    finally:
        set_gdal_config_options({"OGR_CURRENT_DATE": before})


def _numbers() -> list[str]:
    own = ["census", "difference", "relative_difference", "area_ha", "density_km2"]
    return [name for name in _KNOWN if name not in _TEXTS] + own
