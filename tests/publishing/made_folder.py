"""A folder of published maps with everything that one can have, made without a model in a second.

Names of units are hostile on purpose: they reach pages, pictures and tables.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from popcorn_ml import raster
from popcorn_ml.census.units import PolygonBurner
from popcorn_ml.grid import Grid
from popcorn_ml.intervals.hectares import write_intervals
from popcorn_ml.intervals.law import Law
from popcorn_ml.intervals.measures import measure
from popcorn_ml.intervals.model import Basis, ErrorModel
from popcorn_ml.mapping.placing import METHODS, MODEL
from popcorn_ml.publishing import classes
from popcorn_ml.zones import zone_sums

HOSTILE = (
    "<script>window.planted = 1</script>",
    '"><img src=x onerror="window.planted = 2">',
    "</script><script>window.planted = 3</script>",
    "{{ 7 * 7 }} {% raise %} $x^{2}$ \\frac",
    "javascript:window.planted=4",
    "Ñalãnga & ‘Sons’",
)
UTM = Grid("EPSG:32736", 312300.0, 9755700.0, 10.0, 420, 300)
DEGREES = Grid("EPSG:4326", 31.3, -2.2, 8.983152841195215e-05, 420, 300)
BASIS = Basis(40, 1.0, 60.0, 10.0, 9000.0, "coarse", "members that held it out", "tst|2021", "40")
ERRORS = ErrorModel(
    Law(6.0, 0.15, 0.9, 0.35), {50: 1.1, 80: 1.15, 95: 1.2}, BASIS, {50: 0.5, 80: 0.8, 95: 0.95}
)
SHADES = {
    "population": classes.PEOPLE, "intervals": classes.PEOPLE, "change": classes.CHANGE,
    "builtup": classes.SCORE, "population_pixels": classes.PEOPLE_PER_PIXEL,
    "reliability": classes.RELIABILITY, "units": (),
}  # fmt: skip


@dataclass(frozen=True)
class Made:
    """A folder and what it was made of.

    Attributes:
        maps: what `people_in` asks about the same map.
    """

    folder: Path
    facts: dict[str, Any]
    units: gpd.GeoDataFrame
    grid: Grid

    @property
    def stem(self) -> str:
        return f"{self.facts['code']}_{self.facts['year']}"

    def path(self, role: str) -> Path:
        found = next(one for one in self.facts["products"] if one["role"] == role)
        return self.folder / found["file"]


def make_folder(
    folder: Path,
    code: str = "tst",
    year: int = 2021,
    *,
    grid: Grid = UTM,
    whole: bool = True,
    seed: int = 1,
) -> Made:
    """Write the files that `publishing.folder` would, of a country of six units.

    Args:
        whole: with intervals, change and the raster of units; else the facts say why not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{code}_{year}"
    drawn = np.random.default_rng(seed)
    predicted, builtup = _people(drawn, grid)
    units = _units(grid, drawn)
    numbers = PolygonBurner(units, grid).burn(grid.whole())
    counts = np.round(zone_sums(numbers, predicted, len(units))[1:] * drawn.uniform(0.8, 1.3, 6))
    factor = np.concatenate(([np.nan], counts / zone_sums(numbers, predicted, len(units))[1:]))
    adjusted = (predicted * factor[numbers]).astype(np.float32)
    files = {
        "population_pixels": (f"{stem}_population_10m.tif", grid, adjusted[None], "people"),
        "builtup": (f"{stem}_builtup_10m.tif", grid, builtup[None], "score"),
    }
    cells = grid.hectares()
    hectares = np.nansum(adjusted.reshape(30, 10, 42, 10), (1, 3), dtype=np.float64)
    files["population"] = (f"{stem}_population_100m.tif", cells, hectares[None], "people per cell")
    frame = _table(units, code, year, counts, zone_sums(numbers, predicted, 6)[1:], numbers, grid)
    model = None
    if whole:
        files["units"] = (f"{stem}_units_10m.tif", grid, numbers[None], "number")
        for role in ("units", "population_pixels"):
            _write(folder / files[role][0], *files[role][1:])
        files |= _with_intervals(folder, stem, grid, predicted, frame)
        files["change"] = _change(stem, cells, hectares, drawn, year)
        model = ERRORS.as_dict()
    for name, on, values, unit in files.values():
        if not (folder / name).exists():
            _write(folder / name, on, values, unit)
    facts = _facts(code, year, grid, files, frame, model)
    frame.to_parquet(folder / f"{stem}_units.parquet")
    (folder / f"{stem}_facts.json").write_text(json.dumps(facts), "utf-8")
    return Made(folder, facts, units, grid)


def _people(drawn: np.random.Generator, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    rows, cols = np.mgrid[: grid.height, : grid.width]
    score = np.zeros(grid.shape)
    for _ in range(12):
        row, col, size = drawn.uniform(0, 300), drawn.uniform(0, 420), drawn.uniform(8, 50)
        score += np.exp(-((rows - row) ** 2 + (cols - col) ** 2) / (2 * size**2))
    score = np.clip(score * drawn.uniform(0, 1, grid.shape), 0, 1)
    people = (score**2 * 4 + 1e-3).astype(np.float32)
    people[:, :20] = np.nan  # no image ever showed it
    return people, score.astype(np.float32)


def _units(grid: Grid, drawn: np.random.Generator) -> gpd.GeoDataFrame:
    """Six slanted units that leave no gap; the last one leaves the grid."""
    west, south, east, north = grid.bounds
    wide, high = (east - west) / 3, (north - south) / 2
    corners = np.array([[(west + i * wide, south + j * high) for i in range(4)] for j in range(3)])
    corners[1, 1:3] += drawn.uniform(-0.25, 0.25, (2, 2)) * [wide, high]
    shapes = [
        shapely.Polygon(
            [corners[j, i], corners[j, i + 1], corners[j + 1, i + 1], corners[j + 1, i]]
        )
        for j in range(2)
        for i in range(3)
    ]
    ids = [f"{k:02}" for k in range(1, 7)]
    return gpd.GeoDataFrame({"unit_id": ids, "name": HOSTILE}, geometry=shapes, crs=grid.crs)


def _table(units, code, year, counts, predicted, numbers, grid) -> gpd.GeoDataFrame:
    frame = units.copy()
    frame["country"], frame["year"], frame["level"] = code, year, "coarse"
    frame["census"], frame["census_kind"], frame["map"] = counts, "census", predicted
    frame["adjusted"] = counts
    frame["difference"] = predicted - counts
    frame["relative_difference"] = frame["difference"] / counts
    area = units.to_crs("EPSG:32736").area / 1e6
    frame["density_km2"] = counts / area
    frame["placed_by"], frame["number"] = "model", np.arange(1, len(frame) + 1)
    empty = [f"{a}{q}" for a in ("", "adjusted_") for q in ("p2_5", "p10", "p90", "p97_5")]
    empty += ["change", "change_from", "change_p2_5", "change_p97_5"]
    frame[empty] = np.nan
    frame["change_significant"] = pd.array([pd.NA] * 6, "boolean")
    return frame


def _with_intervals(folder, stem, grid, predicted, frame) -> dict[str, tuple]:
    """Intervals of hectares, by the product's own code, and of the units, in the frame."""
    adjusted, units = folder / f"{stem}_population_10m.tif", folder / f"{stem}_units_10m.tif"
    with tempfile.TemporaryDirectory(dir=folder.parent) as drafts:
        scratch = Path(drafts)
        (scratch / "unadjusted").mkdir()
        plain = scratch / "population.tif"
        _write(plain, grid, predicted[None], "people")
        (of_map, of_adjusted), _ = measure(units, [plain, adjusted], grid, 6)
        write_intervals(
            ERRORS, grid, scratch, population=plain, adjusted=adjusted, units=units,
            unit_measures=of_adjusted, method=np.full(7, MODEL, np.int8),
        )  # fmt: skip
        for role in ("intervals", "reliability"):
            (scratch / f"{role}.tif").rename(folder / f"{stem}_{role}_100m.tif")
    spread2 = ERRORS.map_variance(of_map.people[1:], of_map.crowding[1:])
    for name, values in zip(
        ("p2_5", "p10", "p90", "p97_5"), ERRORS.quantiles(of_map.people[1:], spread2), strict=True
    ):
        frame[name], frame[f"adjusted_{name}"] = values, frame["adjusted"]
    cells = grid.hectares()
    return {
        role: (f"{stem}_{role}_100m.tif", cells, np.empty((bands, 0, 0)), "people per cell")
        for role, bands in (("intervals", 4), ("reliability", 1))
    }


def _change(stem, cells, hectares, drawn, year) -> tuple:
    more = drawn.normal(0, 1, hectares.shape) * np.sqrt(hectares)
    half = 1 + np.sqrt(hectares)
    significant = np.sign(more) * (np.abs(more) > half)
    bands = np.stack(
        [more, more - 2 * half, more - half, more + half, more + 2 * half, significant]
    )
    return f"{stem}_change_{year - 1}_{year}_100m.tif", cells, bands, "people per cell"


def _write(path: Path, grid: Grid, values: np.ndarray, unit: str) -> None:
    whole_numbers = values.dtype.kind == "u"
    dtype, nodata = ("uint32", 0) if whole_numbers else ("float32", np.nan)
    with raster.CogWriter(
        path, grid, [unit] * len(values), dtype, nodata,
        resampling="nearest" if whole_numbers else "average",
    ) as writer:  # fmt: skip
        writer.write(values.astype(dtype), grid.whole())


def _facts(code, year, grid, files, frame, model) -> dict[str, Any]:
    why = "this version of the map was made without intervals"
    left_out = (
        []
        if model
        else [{"what": "intervals", "why": why}, {"what": "change", "why": "it is the first year"}]
    )
    score = {"r2": 0.9, "mae": 10.0, "rmse": 20.0, "bias": -1.0, "n": 6}
    season = {
        "sensor": "s2", "season": "spring", "from": f"{year}-03-01", "until": f"{year}-06-01",
        "scenes": 10, "clear": {"median": 3, "none_share": 0.01}, "nodata_share": 0.01,
        "lost_share": 0.0, "filled": {"observed": 0.9, "nearest": 0.1, "empty": 0.0},
    }  # fmt: skip
    return {
        "schema": 1, "code": code, "year": year, "name": f"Test <b>{code}</b>",
        "title": f"Population of Test <b>{code}</b>, {year}",
        "summary": ["It says this. <script>window.planted = 9</script>", "And that.", "And so on."],
        "simulated": True, "version": "0123456789abcdef", "made": "2026-01-02T03:04:05+00:00",
        "cell": {"name": grid.cell_name, "title": grid.cell_title},
        "grid": grid.as_dict(), "bbox": [0, 0, 1, 1],
        "totals": {"map": float(frame["map"].sum()), "adjusted": float(frame["adjusted"].sum())},
        "model": {"title": "m", "members": 3, "another_country": False},
        "method": {"name": "POPCORN", "text": "T.", "citation": "C", "url": "javascript:alert(1)"},
        "census": {"level": "coarse", "levels": [{"level": "coarse", "role": "train"}]},
        "evaluation": {
            "metrics": {"map": {"unit": score}, "adjusted": {"hectare": score}},
            "unit_level": "coarse",
            "without_truth": {
                "out_of_fold": score, "why_not": "",
                "coarsened": [{"joined": 4, "metrics": {"adjusted": score, "uniform": score}}],
            },
        },
        "checks": [{"asset": "a", "name": "b", "passed": False, "message": "<i>no</i>"}],
        "quality": {"rule": "r", "seasons": [season]},
        "intervals": {"available": model is not None, "facts": {}, "model": model},
        "change": {
            "from_year": year - 1 if model else None,
            "found": {"significant": "3 cells <gained>", "compared with": year - 1},
        },
        "products": [
            {
                "role": role, "file": name, "title": role, "text": "", "unit": unit,
                "bands": [unit] * len(values), "grid": on.as_dict(),
                "classes": [vars(one) for one in SHADES[role]],
            }
            for role, (name, on, values, unit) in files.items()
        ],
        "tables": [
            {"role": f"units_{kind}", "file": f"{code}_{year}_units.{kind}"}
            for kind in ("parquet", "csv")
        ],
        "licence": "CC-BY-4.0", "licence_stated": True, "citation": "Cite <me>",
        "attribution": "None", "publisher": None, "contact": None,
        "sources": [
            {"kind": "census", "name": HOSTILE[0], "licence": "not stated",
             "url": "javascript:alert(2)", "sha256": "ab" * 32},
        ],
        "lineage": {
            "versions": [
                {"asset": "hectare_map", "country": code, "year": year, "version": "v",
                 "finished": "2026-01-02T03:04:05", "code_version": "c", "code_commit": None}
            ],
            "scenes": 3, "audit": f"popcorn audit {code} {year}",
            "reproduce": f"popcorn reproduce {code} {year}",
        },
        "limits": ["l"], "undercounted": ["u"], "left_out": left_out,
    }  # fmt: skip


def asked(made: Made):
    """What the product's own `people_in` reads of the same map."""
    from popcorn_ml.intervals.zones import Ready

    (measured,), _ = measure(made.path("units"), [made.path("population_pixels")], made.grid, 6)
    method = np.full(7, METHODS.index("model"), np.int8)
    return Ready(
        made.path("population_pixels"), ERRORS, made.grid, made.path("units"), measured, method
    )
