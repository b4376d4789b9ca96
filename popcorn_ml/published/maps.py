"""Published maps as data: what there is, a map as an xarray Dataset, people in any zones.

Libraries are imported where they are used: whoever imports this waits for none of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from popcorn_ml.published.places import NoSuchMap, Place, place_of, places, root_of

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    import xarray as xr

QUANTILES = {"p2.5": "p2_5", "p10": "p10", "p90": "p90", "p97.5": "p97_5"}
"""A raster's band -> the name of the variable and of the column."""

RASTERS = (".tif", ".tiff")

Resolution = Literal["hectare", "pixel"]


def maps(data: str | Path | None = None) -> pd.DataFrame:
    """The maps that are published.

    Args:
        data: the store's folder, or one that `popcorn export` wrote; None: POPCORN_DATA, or `data`
            in the working folder.

    Returns:
        A row a map, by `code` and `year`: `version`; `model`, what it was mapped with; `census`,
        level and version of the counts that it is adjusted to; `people` of the adjusted map in
        census units and `people_unadjusted` of the model's own on the whole grid (NaN where not
        told); `intervals`, whether it has them; `made`, UTC; `path`, the folder of its files.

    Raises:
        NoSuchMap: there is no such folder.

    Warns:
        UserWarning: a map is left out, since what it consists of is not in the store.
    """
    import pandas as pd

    columns = ["code", "year", "version", "model", "census", "people", "people_unadjusted",
               "intervals", "made", "path"]  # fmt: skip
    rows = [
        {
            "code": one.code,
            "year": one.year,
            **one.told,
            "intervals": "cells_intervals" in one.files,
            "path": str(one.path),
        }
        for one in places(root_of(data))
    ]
    found = pd.DataFrame(rows, columns=columns)
    totals = ["people", "people_unadjusted"]
    return found.astype({"year": "int64", "intervals": "bool", **dict.fromkeys(totals, "float64")})


def open_map(
    code: str,
    year: int,
    *,
    data: str | Path | None = None,
    resolution: Resolution = "hectare",
    adjusted: bool = True,
    chunks: Any = None,
) -> xr.Dataset:
    """A map, opened: values are read from its files when they are used.

    Args:
        code: of the country, such as "rwa".
        year: of the map.
        data: as `maps`.
        resolution: "hectare" for cells of 10 x 10 pixels (which in degrees are no hectares),
            "pixel" for pixels of about 10 m.
        adjusted: to the census; False: as the model estimates people from the images.
        chunks: as `xarray.open_dataset`, for those who have dask; None needs none.

    Returns:
        Dataset of dimensions (y, x), float32, NaN without a value, in the CRS of the country's grid
        (`spatial_ref`; `.rio.crs`). Variables, as far as the map has them: `population`, people per
        cell; `population_std`, their standard deviation over the members of the ensemble; `p2_5`,
        `p10`, `p90`, `p97_5`, bounds below which the people lie with 2.5, 10, 90, 97.5 %
        probability; `reliability`, 1 where a cell may be used by itself, 0 where not.
        Attributes: country, year, version, model, census, adjusted.

    Raises:
        NoSuchMap: no such country or year (says which there are), or no such file of it.
        RasterError: a file is damaged.
    """
    import xarray as xr

    if resolution not in ("hectare", "pixel"):
        raise ValueError(f"resolution {resolution!r} is neither 'hectare' nor 'pixel'")
    place = place_of(root_of(data), code, int(year))
    kind = ("" if adjusted else "unadjusted_") + ("cells" if resolution == "hectare" else "pixels")
    place.file(kind)
    layers = dict(_layers(place, kind, chunks))
    found = xr.Dataset(layers)
    told = ("version", "model", "census")
    return found.assign_attrs(
        country=place.code,
        year=place.year,
        **{name: str(place.told[name]) for name in told},
        adjusted="to the census" if adjusted else "no",
        path=str(place.path),
    )


def _layers(place: Place, kind: str, chunks: Any) -> Iterator[tuple[str, xr.DataArray]]:
    """Variable -> its values, of the files of one kind of cells."""
    cell = "cell" if kind.endswith("cells") else "pixel"
    unit = {"units": f"people per {cell}"}
    for name, file in (("population", kind), ("population_std", f"{kind}_std")):
        if file in place.files:
            yield name, _opened(place.files[file], chunks).isel(band=0).assign_attrs(unit)
    if f"{kind}_intervals" in place.files:
        bands = _opened(place.files[f"{kind}_intervals"], chunks)
        for name, values in zip(_names(bands), bands, strict=True):
            yield QUANTILES[name], values.assign_attrs(unit)
    if "reliability" in place.files and kind == "cells":
        yield "reliability", _opened(place.files["reliability"], chunks).isel(band=0)


def _names(bands: xr.DataArray) -> list[str]:
    told = bands.attrs["long_name"]
    return [told] if isinstance(told, str) else list(told)


def _opened(path: Path, chunks: Any) -> xr.DataArray:
    """A raster's bands: (band, y, x), NaN without a value, not read yet."""
    import rioxarray

    from popcorn_ml import raster

    raster.check(path)  # a damaged file is told of as everywhere else
    found: Any = rioxarray.open_rasterio(path, masked=True, chunks=chunks, driver=raster.DRIVER)
    names = {"long_name": found.attrs["long_name"]} if "long_name" in found.attrs else {}
    found.attrs = names
    return found.drop_vars("band") if "band" in found.coords else found


def people_in(
    zones: gpd.GeoDataFrame | gpd.GeoSeries | str | Path,
    code: str,
    year: int,
    *,
    data: str | Path | None = None,
    adjusted: bool = True,
) -> pd.DataFrame:
    """People in any zones, with how far the number may be off.

    A pixel is of the zone that holds its centre. Zones may overlap.

    Args:
        zones: polygons in any CRS; or a file: a raster of whole numbers above 0 (`.tif`, 0 for no
            zone), or vectors that geopandas reads.
        code, year: the map's.
        data: as `maps`.
        adjusted: to the census; False: as the model estimates people from the images.

    Returns:
        A row a zone, with the index of the polygons, or by number of the raster: `people`; `p2_5`,
        `p10`, `p90`, `p97_5`, NaN where no interval can be given; `pixels` in the zone, and
        `valid_share`, of them those in which the map has a value.

    Raises:
        NoSuchMap: no such country or year (says which there are).
        IntervalError: zones without a CRS, that are no areas, or not on the map.
    """
    from popcorn_ml.intervals.zones import COLUMNS, MapFiles, sums_in
    from popcorn_ml.intervals.zones import people_in as with_intervals

    place = place_of(root_of(data), code, int(year))
    given = _zones(zones)
    needed = ("pixels", "unadjusted_pixels", "unit_numbers", "adjustment", "error_model")
    if all(what in place.files for what in needed):
        files = MapFiles(
            population=place.file("unadjusted_pixels"),
            adjusted=place.file("pixels"),
            units=place.file("unit_numbers"),
            adjustment=place.file("adjustment"),
            model=place.file("error_model"),
        )
        return with_intervals(given, files, "adjusted" if adjusted else "map")
    found = sums_in(given, place.file("pixels" if adjusted else "unadjusted_pixels"))
    for number, name in enumerate(COLUMNS.values(), start=1):
        found.insert(number, name, float("nan"))
    return found


def _zones(zones: Any) -> Any:
    """Zones as the sums take them: a frame, or the path of a raster."""
    import geopandas as gpd

    if isinstance(zones, str | Path):
        path = Path(zones)
        if not path.exists():
            raise NoSuchMap("the file of zones is not there", where=path)
        return path if path.suffix.lower() in RASTERS else gpd.read_file(path)
    if isinstance(zones, gpd.GeoSeries):
        return gpd.GeoDataFrame(geometry=zones)
    return zones
