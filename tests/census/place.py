"""A small made-up country of twelve square units, and its census files, for the tests here."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import shapely

from popcorn_ml.census.build import CountsReport, UnitsReport, prepare_counts, prepare_units
from popcorn_ml.census.findings import CheckResult
from popcorn_ml.census.settings import CensusSettings
from popcorn_ml.grid import Grid

GRID = Grid("EPSG:32736", 500000.0, 9800000.0, 10.0, 160, 120)
SIDE_PX = 40
NAMES = (
    "Añasco", "Bé", "Çala", "Dömé", "Étang", "Fria", "Gôma", "Huye", "Île", "Jabá", "Kéla", "Łuna",
)  # fmt: skip
PARENTS = ("Nord", "Sud")
TOTAL = sum(100 * (i + 1) + 7 for i in range(12))


@dataclass
class Unit:
    """One row of the country."""

    id: str
    name: str
    parent: str
    people: Any
    geometry: Any


def units() -> list[Unit]:
    """The twelve units, in rows of four; ids with leading zeros."""
    out = []
    for k in range(12):
        row, col = divmod(k, 4)
        west = GRID.west + col * SIDE_PX * GRID.step
        north = GRID.north - row * SIDE_PX * GRID.step
        box = shapely.box(west, north - SIDE_PX * GRID.step, west + SIDE_PX * GRID.step, north)
        out.append(Unit(f"{k + 1:04d}", NAMES[k], PARENTS[row > 0], 100 * (k + 1) + 7, box))
    return out


def write_boundaries(
    path: Path, rows: list[Unit], crs: str | None = GRID.crs, to: str | None = None, **options: Any
) -> Path:
    """Write units as a boundary file, in `crs` or reprojected `to` another."""
    frame = gpd.GeoDataFrame(
        {
            "code": [u.id for u in rows],
            "name": [u.name for u in rows],
            "province": [u.parent for u in rows],
        },
        geometry=[u.geometry for u in rows],
        crs=crs,
    )
    if to is not None:
        frame = frame.to_crs(to)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_file(path, engine="pyogrio", **options)
    return path


def write_counts(
    path: Path,
    rows: list[Unit],
    encoding: str = "utf-8",
    delimiter: str = ",",
    header: tuple[str, ...] = ("code", "name", "province", "population"),
    extra: list[list[Any]] | None = None,
) -> Path:
    """Write counts as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding=encoding, newline="") as stream:
        out = csv.writer(stream, delimiter=delimiter)
        out.writerow(header)
        out.writerows([u.id, u.name, u.parent, u.people] for u in rows)
        out.writerows(extra or [])
    return path


def halves(rows: list[Unit]) -> list[Unit]:
    """Each unit cut into a west and an east half, for a finer level."""
    out = []
    for unit in rows:
        west, south, east, north = unit.geometry.bounds
        middle = (west + east) / 2
        left = unit.people // 3
        out.append(
            Unit(
                unit.id + "a",
                unit.name + " I",
                unit.name,
                left,
                shapely.box(west, south, middle, north),
            )
        )
        out.append(
            Unit(
                unit.id + "b",
                unit.name + " II",
                unit.name,
                unit.people - left,
                shapely.box(middle, south, east, north),
            )
        )
    return out


def settings(**changes: Any) -> dict[str, Any]:
    """The census section, as read from YAML; `changes` replace keys of the training level."""
    columns = {"id": "code", "name": "name", "parent": "province"}
    level = {
        "role": "train",
        "boundaries": {"file": "units.gpkg", "columns": columns},
        "counts": {
            "file": "counts.csv",
            "year": 2020,
            "columns": {**columns, "people": "population"},
        },
    }
    country = {k: changes.pop(k) for k in list(changes) if k in CensusSettings.model_fields}
    for key, value in changes.items():
        head, _, tail = key.partition("__")
        if tail:
            level[head] = {**level[head], tail: value}
        else:
            level[head] = value
    return {"levels": {"district": level}, **country}


def write_place(folder: Path) -> list[Unit]:
    """Write `units.gpkg` and `counts.csv`; the units."""
    rows = units()
    write_boundaries(folder / "units.gpkg", rows)
    write_counts(folder / "counts.csv", rows)
    return rows


@dataclass
class Built:
    """Both reports, and what they wrote."""

    units: UnitsReport
    counts: CountsReport
    folder: Path

    @property
    def checks(self) -> dict[str, CheckResult]:
        """All checks by name."""
        return {c.name: c for c in (*self.units.checks, *self.counts.checks)}

    @property
    def failed(self) -> dict[str, CheckResult]:
        """Those that did not pass."""
        return {name: c for name, c in self.checks.items() if not c.passed}

    def entries(self, level: str = "district") -> list[dict[str, Any]]:
        """The list that training reads."""
        return json.loads(self.counts.files[level].read_text("utf-8"))


def build(
    folder: Path, section: dict[str, Any] | None = None, year: int = 2020, grid: Grid = GRID
) -> Built:
    """Run both steps on the files of a folder."""
    census = CensusSettings.model_validate(section or settings())
    out = folder / "out"
    made = prepare_units("tst", year, census, grid, out, folder)
    return Built(made, prepare_counts("tst", year, census, out, out, folder), out)
