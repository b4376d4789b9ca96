"""What the page has to know of a published map, from its facts, its units and its rasters."""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from popcorn_ml.errors import StoreError
from popcorn_ml.grid import HECTARE_M2, Grid
from popcorn_ml.publishing.web.outlines import write_outlines

ROLES = (
    "population", "population_pixels", "intervals", "reliability", "change", "builtup", "units",
)  # fmt: skip
"""Rasters that the page reads; any but the first may be missing."""

KEPT = ("title", "unit", "file", "bands")
SHIFT_CELLS = 0.1
"""How far, in cells, the page's projection may be off from PROJ's."""


def entry_of(folder: Path, facts: Mapping[str, Any], parts: Path) -> dict[str, Any]:
    """One map's entry in `maps.json`; writes its units' outlines as well.

    Args:
        folder: with the map's files.
        facts: the map's.
        parts: folder for the outlines.

    Raises:
        StoreError: a file that the facts name is not there.
    """
    stem = f"{facts['code']}_{facts['year']}"
    rasters = {}
    for product in facts["products"]:
        if product["role"] in ROLES:
            _there(folder, product["file"])
            grid = product["grid"]
            rasters[product["role"]] = {
                **{key: product[key] for key in KEPT},
                "grid": grid,
                "crs": proj_text(grid),
                "classes": product.get("classes", []),
            }
    if "population" not in rasters:
        raise StoreError(
            "the facts name no population raster",
            where=folder / f"{stem}_facts.json",
            remedy="export the map again",
        )
    frame = _units(folder, facts)
    model = (facts.get("intervals") or {}).get("model")
    report, catalogue = f"{stem}_report.html", f"{stem}_item.json"
    return {
        **{key: facts[key] for key in ("code", "year", "name", "title", "version", "summary")},
        **{key: facts[key] for key in ("licence", "attribution", "citation")},
        "cell": facts["cell"]["name"],
        "cell_ha": cell_hectares(facts["grid"]),
        "bounds": lonlat_bounds(rasters["population"]["grid"]),
        "rasters": rasters,
        "levels": write_outlines(frame, facts, parts, stem),
        "error_model": model,
        "units_measured": _measured(folder, facts, rasters, frame) if model else [],
        "why_no_intervals": _why_none(facts, model, rasters),
        "left_out": [_left_out(one) for one in facts["left_out"]],
        "facts": f"{stem}_facts.json",
        "report": report if (folder / report).is_file() else None,
        "catalogue": catalogue if (folder / catalogue).is_file() else None,
    }


def _there(folder: Path, name: str) -> Path:
    path = folder / name
    if Path(name).name != name or not path.is_file():
        raise StoreError(
            "a file that the facts of a published map name is not there",
            where=folder,
            found=repr(name),
            remedy="export the map again",
        )
    return path


def _left_out(one: Mapping[str, str]) -> str:
    return f"Not here: {one['what'].replace('_', ' ')}; {one['why']}."


def _why_none(facts: Mapping[str, Any], model: object, rasters: Mapping[str, Any]) -> str:
    if not model:
        found = [one["why"] for one in facts["left_out"] if one["what"] == "intervals"]
        return f"No interval: {found[0] if found else 'the map was published without one'}."
    return "" if "units" in rasters else "No interval: the raster of census units is not here."


def _units(folder: Path, facts: Mapping[str, Any]):
    import geopandas as gpd

    name = next(one["file"] for one in facts["tables"] if one["role"] == "units_parquet")
    return gpd.read_parquet(_there(folder, name))


def _measured(
    folder: Path, facts: Mapping[str, Any], rasters: Mapping[str, Any], frame: Any
) -> list[dict[str, Any]]:
    """People and crowding of the adjusted level's units, in the order of their numbers."""
    if "units" not in rasters or "population_pixels" not in rasters:
        return []
    from popcorn_ml.intervals.measures import measure

    of_level = frame[frame["level"] == facts["census"]["level"]]
    count = len(of_level)
    [measured], _ = measure(
        folder / rasters["units"]["file"],
        [folder / rasters["population_pixels"]["file"]],
        Grid(**facts["grid"]),
        count,
    )
    placed = of_level.get("placed_by", [None] * count)
    return [
        {
            "people": float(measured.people[k + 1]),
            "crowding": float(measured.crowding[k + 1]),
            "placed_by": how if isinstance(how, str) else None,
        }
        for k, how in enumerate(placed)
    ]


def cell_hectares(grid: Mapping[str, Any]) -> float | list[float]:
    """True area of the map's cells in hectares: one number, or one a row on a grid in degrees."""
    cells = Grid(**grid).hectares()
    if not cells.is_geographic:
        return cells.pixel_area_m2 / HECTARE_M2
    return [float(area) / HECTARE_M2 for area in cells.row_area_m2()]


def lonlat_bounds(grid: Mapping[str, Any]) -> list[float]:
    """West, south, east, north in degrees of all that a raster covers."""
    from pyproj import Transformer

    transformer = Transformer.from_crs(grid["crs"], "EPSG:4326", always_xy=True)
    found = transformer.transform_bounds(*Grid(**grid).bounds, densify_pts=41)
    return [round(float(value), 7) for value in found]


def proj_text(grid: Mapping[str, Any]) -> str:
    """The CRS of a grid as a PROJ string that puts places where PROJ itself puts them.

    A PROJ string does not name a datum's shift; where that is three numbers it is added. What is
    still off by more than `SHIFT_CELLS` cells is refused: the page would show a map elsewhere.

    Raises:
        StoreError: there is no such string.
    """
    from pyproj import CRS

    crs = CRS.from_user_input(grid["crs"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a PROJ string loses what is checked here
        plain = crs.to_proj4().replace(" +type=crs", "")
    for text in (plain, _shifted(crs, plain)):
        if text and _shift(grid, text) <= SHIFT_CELLS:
            return text
    raise StoreError(
        f"the web map cannot show the CRS {crs.name}",
        found=plain,
        expected="one that a PROJ string describes",
        remedy="give the country a UTM zone or EPSG:4326",
    )


def _shifted(crs: Any, plain: str) -> str | None:
    from pyproj import Transformer

    transformer = Transformer.from_crs(crs.geodetic_crs, "EPSG:4326", always_xy=True)
    shift = re.search(r"proj=helmert x=(\S+) y=(\S+) z=(\S+)", transformer.definition)
    if shift is None:
        return None
    own = re.sub(r" ?\+(datum|towgs84|nadgrids)=\S+", "", plain)
    ellipsoid = crs.ellipsoid
    if "+ellps" not in own and "+a=" not in own:
        own += f" +a={ellipsoid.semi_major_metre!r} +rf={ellipsoid.inverse_flattening!r}"
    return f"{own} +towgs84={','.join(shift.groups())},0,0,0,0"


def _shift(grid: Mapping[str, Any], text: str) -> float:
    """How far the string is off from the grid's CRS, in cells, at most over the grid."""
    from pyproj import Transformer

    west, south, east, north = Grid(**grid).bounds
    x, y = (axis.ravel() for axis in np.meshgrid([west, (west + east) / 2, east],
                                                 [south, (south + north) / 2, north]))  # fmt: skip
    places = Transformer.from_crs(grid["crs"], "EPSG:4326", always_xy=True).transform(x, y)
    back = Transformer.from_crs("EPSG:4326", text, always_xy=True).transform(*places)
    off = max(np.abs(back[0] - x).max(), np.abs(back[1] - y).max()) / grid["step"]
    return float(off) if math.isfinite(off) else math.inf


def quantile_tables() -> bytes:
    """The gamma distribution's quantiles over its mean as the page interpolates them, as JSON."""
    try:
        from popcorn_ml.intervals.law import QUANTILES, _gamma_table
    except ImportError:
        return b'{"quantiles": []}\n'
    tables: list[dict[str, Any]] = []
    for below in QUANTILES.values():
        shape, ratio = _gamma_table(below)
        tables.append({"first": shape[0], "last": shape[-1], "ratios": _short(ratio)})
    return f"{json.dumps({'quantiles': tables}, separators=(',', ':'))}\n".encode()


def _short(values: Sequence[float]) -> list[float]:
    return [float(f"{value:.12g}") for value in values]
