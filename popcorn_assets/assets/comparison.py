"""Products of others that a country's file names: found, brought to our pixels, and put to rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from popcorn_assets.assets.maps import POPULATION
from popcorn_assets.country import Country
from popcorn_assets.paths import given_path
from popcorn_assets.show import PICTURE
from popcorn_assets.store.making import Making
from popcorn_assets.store.versions import Version
from popcorn_ml.grid import Grid

if TYPE_CHECKING:
    from popcorn_ml.evaluation.compare import Brought

COMPARED_PICTURE = "compared.png"


def product_files(making: Making, country: Country) -> dict[str, Path]:
    """Name -> file of each product to compare with, noted as sources.

    Raises:
        StoreError: one is missing.
    """
    files = {
        name: given_path(path.replace("{year}", str(making.year)))
        for name, path in country.evaluation.compare.items()
    }
    if files:
        making.parameter(compare=sorted(files))
    return {name: making.source(path) for name, path in files.items()}


def brought_products(
    making: Making,
    files: Mapping[str, Path],
    grid: Grid,
    units: Path,
    people: Sequence[float],
) -> dict[str, "Brought"]:
    """Each product on the country's pixels, in a folder that goes when the version is published.

    Raises:
        RasterError: one cannot be read, is a density, or has not the people of the census.
    """
    from popcorn_ml.evaluation.compare import bring, in_counted_units, require_people

    brought = {}
    for name, path in files.items():
        out = making.lone_work() / f"{name}.tif"
        found = bring(name, path, grid, units, out, progress=making.progress(f"blocks of {name}"))
        mapped, census, _ = in_counted_units(found, units, grid, people)
        require_people(found, path, mapped, census)
        brought[name] = found
    return brought


def product_sums(
    brought: Mapping[str, "Brought"], rasters: Mapping[str, Path], grid: Grid
) -> list[dict[str, Any]]:
    """Rows of `map_sums`: people of each product in each unit of each level.

    Args:
        rasters: level -> its unit numbers, with their table beside it.
    """
    import pyarrow.parquet as pq

    from popcorn_ml.zones import raster_zone_sums

    rows = []
    for level, raster in rasters.items() if brought else ():
        units = pq.read_table(raster.with_suffix(".parquet"), columns=["number", "id"]).to_pylist()
        sums = raster_zone_sums(raster, [b.path for b in brought.values()], grid, len(units))
        rows += [
            {
                "level": level,
                "unit_id": unit["id"],
                "product": name,
                "people": float(sums.sums[k, unit["number"]]),
                "people_std": np.nan,
                "valid_share": int(sums.valid[k, unit["number"]])
                / int(sums.pixels[unit["number"]]),
            }
            for k, name in enumerate(brought)
            for unit in units
            if sums.valid[k, unit["number"]] > 0
        ]
    return rows


def write_compared(
    making: Making,
    brought: Mapping[str, "Brought"],
    ours: Mapping[str, Version],
    grid: Grid,
    folder: Path,
) -> dict[str, Any]:
    """Each product per hectare, and a picture of them beside our maps; what to show of them.

    Without a truth to compare with it is the version's one picture.

    Args:
        ours: title -> our map.
    """
    from popcorn_ml.evaluation.compare import hectares_of, picture

    if not brought:
        return {}
    maps = {}
    for title, path in ((title, version.file(POPULATION)) for title, version in ours.items()):
        maps[title] = making.lone_work() / f"{title} per hectare.tif"
        hectares_of(path, grid, maps[title])
    for name, found in brought.items():
        maps[name] = folder / "compared" / f"{name}.tif"
        hectares_of(found.path, grid, maps[name])
    name = COMPARED_PICTURE if (folder / PICTURE).exists() else PICTURE
    (folder / name).write_bytes(picture(maps))
    return {"compared with": [found.as_dict() for found in brought.values()]}
