"""Census units with what the map says of them, as a GeoDataFrame."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from popcorn_ml.published.places import NoSuchMap, Place, place_of, root_of

if TYPE_CHECKING:
    import duckdb
    import geopandas as gpd
    import pandas as pd

WAREHOUSE = "warehouse.duckdb"
WAIT_S = 60.0
"""How long a writer of the warehouse is waited for."""
DEGREES = "EPSG:4326"
_UNITS = """
SELECT u.country, u.year, u.level, u.unit_id, u.name, u.parent, u.geometry, u.area_ha, u.pixels,
       u.status, u.merged_into, c.people AS census, c.kind AS census_kind,
       c.method AS census_method, m.people AS map, m.people_std AS map_std, m.valid_share,
       a.people AS adjusted
FROM units u
LEFT JOIN counts c USING (country, year, level, unit_id)
LEFT JOIN (FROM map_sums WHERE product = 'map') m USING (country, year, level, unit_id)
LEFT JOIN (FROM map_sums WHERE product = 'adjusted') a USING (country, year, level, unit_id)
WHERE u.country = ? AND u.year = ? ORDER BY u.level, u.number
"""
_INTERVALS = "SELECT * FROM map_intervals WHERE country = ? AND year = ?"
_CHANGE = "SELECT * FROM map_change WHERE country = ? AND year = ?"


def units(
    code: str,
    year: int,
    *,
    level: str | None = None,
    data: str | Path | None = None,
    warehouse: str | Path | None = None,
) -> gpd.GeoDataFrame:
    """Census units of a published map, with what is counted in them and what the map says.

    Args:
        code: of the country, such as "rwa".
        year: of the map.
        level: of the census; None: all levels, one below the other.
        data: as `popcorn_ml.maps`.
        warehouse: the DuckDB file, where it is not `warehouse.duckdb` in the store's folder.

    Returns:
        A row a unit, geometry in degrees (EPSG:4326). Columns, empty where not known: `census`,
        people counted in it, or projected to the year (`census_kind`, `census_method`); `map`,
        people by the model, and `map_std`, their standard deviation over the ensemble;
        `adjusted`, people of the published map; `difference`, map less census, and
        `relative_difference`, the same over the census; `area_ha`; `density_km2`, adjusted people
        per square kilometre; `p2_5` to `p97_5` and `adjusted_p2_5` to `adjusted_p97_5`, bounds of
        the model's and the adjusted people; `change` since `change_from` with `change_p2_5` to
        `change_p97_5` and `change_significant`; `valid_share` of its pixels with a value.

    Raises:
        NoSuchMap: no such country, year or level (says which there are), or no table of units.
        StoreError: the warehouse cannot be read.
    """
    place = place_of(root_of(data), code, int(year))
    found = _exported(place) if not place.versions else _stored(place, root_of(data), warehouse)
    levels = list(dict.fromkeys(found["level"]))
    if level is None:
        return found
    if level not in levels:
        raise NoSuchMap(
            f"{code} {year} has no census level {level!r}",
            where=place.path,
            expected=", ".join(levels),
            found=level,
        )
    return found[found["level"] == level].reset_index(drop=True)


def _exported(place: Place) -> gpd.GeoDataFrame:
    import geopandas as gpd

    return gpd.read_parquet(place.file("units")).to_crs(DEGREES)


def _stored(place: Place, root: Path, warehouse: str | Path | None) -> gpd.GeoDataFrame:
    import geopandas as gpd

    from popcorn_ml.publishing.unit_tables import COLUMNS, HECTARES_PER_KM2

    path = Path(warehouse) if warehouse else root / WAREHOUSE
    key = [place.code, place.year]
    with _reading(path) as connection:
        (tables,) = zip(*connection.execute("SELECT table_name FROM duckdb_tables()").fetchall(),
                        strict=True)  # fmt: skip
        found = connection.execute(_UNITS, key).df()
        for table, add in (("map_intervals", _with_intervals), ("map_change", _with_change)):
            if table in tables:
                query = _INTERVALS if table == "map_intervals" else _CHANGE
                found = add(found, connection.execute(query, key).df())
    if found.empty:
        raise NoSuchMap(
            f"the warehouse has no units of {place.code} {place.year}",
            where=path,
            remedy=f"materialise census_units {place.code}|{place.year} again",
        )
    found["difference"] = found["map"] - found["census"]
    found["relative_difference"] = found["difference"] / found["census"].where(found["census"] > 0)
    area = found["area_ha"].where(found["area_ha"] > 0)
    found["density_km2"] = found["adjusted"] / area * HECTARES_PER_KM2
    shapes = gpd.GeoSeries.from_wkb(found["geometry"].map(_bytes), crs=DEGREES)
    return gpd.GeoDataFrame(found.reindex(columns=list(COLUMNS)), geometry=shapes)


def _bytes(blob: bytes | bytearray | None) -> bytes | None:
    return bytes(blob) if isinstance(blob, bytes | bytearray) else None


def _with_intervals(found: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    from popcorn_ml.publishing.unit_tables import BOUNDS

    for product, before in (("map", ""), ("adjusted", "adjusted_")):
        of = rows[rows["product"] == product].rename(columns={b: f"{before}{b}" for b in BOUNDS})
        wanted = ["level", "unit_id", *(f"{before}{b}" for b in BOUNDS)]
        if product == "adjusted":
            of, wanted = of.rename(columns={"basis": "interval_basis"}), [*wanted, "interval_basis"]
        found = found.merge(of[wanted], on=["level", "unit_id"], how="left")
    return found


def _with_change(found: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    from popcorn_ml.publishing.unit_tables import BOUNDS

    names = {"people": "change", "from_year": "change_from", "significant": "change_significant",
             **{name: f"change_{name}" for name in BOUNDS}}  # fmt: skip
    of = rows.rename(columns=names)[["level", "unit_id", *names.values()]]
    return found.merge(of, on=["level", "unit_id"], how="left")


@contextmanager
def _reading(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """The warehouse as it is: nothing is brought up to date, nothing is written beside it."""
    from popcorn_ml.warehouse.opening import attached, instance

    if not path.is_file():
        raise NoSuchMap(
            "there is no warehouse",
            where=path,
            remedy="give its file as warehouse=, or materialise the census",
        )
    with instance() as connection, attached(connection, path, WAIT_S, read_only=True):
        yield connection
