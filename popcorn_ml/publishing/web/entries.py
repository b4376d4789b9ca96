"""What the page has to know of a published map, from its facts, its units and its rasters."""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Iterator, Mapping
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
PROJECTIONS = (
    "longlat", "utm", "tmerc", "etmerc", "merc", "lcc", "aea", "laea", "sinu",
    "moll", "stere", "sterea", "somerc", "omerc", "krovak", "cass", "eqc", "eqdc",
    "poly", "mill", "cea", "aeqd", "eqearth", "robin",
)  # fmt: skip
"""Those of PROJ's projections that proj4.js has and grids are made in."""
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

    of_level = frame[frame["level"] == facts["census"]["level"]].sort_values("number")
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
    for text in (plain, *_shifted(crs, plain)):
        if _projection(text) in PROJECTIONS and _shift(grid, text) <= SHIFT_CELLS:
            return text
    raise StoreError(
        f"the web map cannot show the CRS {crs.name}",
        found=plain,
        expected="one that a PROJ string describes",
        remedy="give the country a UTM zone or EPSG:4326",
    )


def _projection(text: str) -> str:
    found = re.match(r"\+proj=(\w+)", text)
    return found[1] if found else ""


def _shifted(crs: Any, plain: str) -> Iterator[str]:
    """The string with each shift of the datum that PROJ knows as three or seven numbers."""
    from pyproj.transformer import TransformerGroup

    own = re.sub(r" ?\+(datum|towgs84|nadgrids)=\S+", "", plain)
    if "+ellps" not in own and "+a=" not in own:
        ellipsoid = crs.ellipsoid
        own += f" +a={ellipsoid.semi_major_metre!r} +rf={ellipsoid.inverse_flattening!r}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a better shift needs a file that is not here
        known = TransformerGroup(crs, "EPSG:4326", always_xy=True).transformers
    for transformer in known:
        shift = re.search(r"proj=helmert ([^/]*?)(?: step|$)", transformer.definition)
        if shift is None:
            continue
        told = dict(part.split("=") for part in shift[1].split() if "=" in part)
        turned = -1 if told.get("convention") == "coordinate_frame" else 1
        numbers = [float(told.get(name, 0)) for name in ("x", "y", "z", "rx", "ry", "rz", "s")]
        numbers[3:6] = [turned * value for value in numbers[3:6]]
        yield f"{own} +towgs84={','.join(f'{value:g}' for value in numbers)}"


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


def law_json() -> bytes:
    """Constants of the error law, and the gamma distribution's quantiles over its mean as they are
    interpolated, so that the page reckons as `intervals.law` does."""
    from popcorn_ml.intervals import law

    tables: list[dict[str, Any]] = []
    for below in law.QUANTILES.values():
        shape, ratio = law._gamma_table(below)
        level = next(level for level, ends in law.LEVELS.items() if below in ends)
        ends = {"first": float(shape[0]), "last": float(shape[-1])}
        tables.append({"below": below, "level": level, **ends, "ratios": _short(ratio)})
    constants = {
        "sparse_below": law.SPARSE_BELOW, "half_a_person": law.HALF_A_PERSON, "whole": law.WHOLE,
    }  # fmt: skip
    found = {"constants": constants, "quantiles": tables}
    return f"{json.dumps(found, separators=(',', ':'))}\n".encode()


def _short(values: np.ndarray) -> list[float]:
    return [float(f"{value:.12g}") for value in values]
