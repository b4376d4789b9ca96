"""The units of one level on the country's grid: read, judged, numbered and burnt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popcorn_ml.census import geometry, globe, readers
from popcorn_ml.census.files import Files, Source
from popcorn_ml.census.findings import Finding
from popcorn_ml.census.pixels import pixel_findings, recounted
from popcorn_ml.census.readers import UnitInput
from popcorn_ml.census.settings import CensusSettings, LevelSettings
from popcorn_ml.census.units import (
    Burner,
    Placement,
    PolygonBurner,
    RasterBurner,
    to_grid,
    write_units,
)
from popcorn_ml.errors import CensusError
from popcorn_ml.grid import Grid

if TYPE_CHECKING:
    import geopandas as gpd


Progress = Callable[[int, int], None]
"""Told how many parts of the work are done, and how many there are."""


def box_degrees(grid: Grid) -> tuple[float, float, float, float]:
    from pyproj import Transformer

    transformer = Transformer.from_crs(grid.crs, geometry.LON_LAT, always_xy=True)
    return transformer.transform_bounds(*grid.bounds)


def units_of_level(
    name: str,
    level: LevelSettings,
    files: Files,
    grid: Grid,
    settings: CensusSettings,
    out_dir: Path,
    partition: tuple[str, int],
    progress: Progress | None,
) -> tuple[list[Finding], gpd.GeoDataFrame, list[Source]]:
    """A level's units written onto the grid: what was found, their table, the files read."""
    import numpy as np

    read, findings = judged_units(level, files, settings.box or box_degrees(grid), partition[1])
    frame = read.frame
    polygons = to_grid(frame, grid)
    if read.raster is None or read.raw is None or _turned(frame, grid):
        burner: Burner = PolygonBurner(frame, grid)
    else:
        order = np.argsort(read.raw)
        burner = RasterBurner(read.raster, read.raw[order], order + 1, grid)
    tags = {
        "country": partition[0],
        "year": partition[1],
        "level": name,
        "role": level.role,
        "units": len(frame),
        "unit": "census unit number",
    }
    placed = write_units(
        out_dir / f"units_{name}.tif",
        burner,
        polygons,
        len(frame),
        grid,
        level.small_units,
        tags,
        progress,
    )
    table = _unit_table(frame, placed, read.file)
    findings += pixel_findings(table, polygons, grid, settings.least_on_grid, findings)
    findings += recounted(out_dir / f"units_{name}.tif", table)
    return findings, table, list(read.sources)


def _turned(frame: gpd.GeoDataFrame, grid: Grid) -> bool:
    """Whether a raster of units cannot be read at the grid's own coordinates: one of the two counts
    on beyond 180 degrees. Its cells are then burnt as polygons."""
    west, _, east, _ = grid.bounds
    return globe.crosses(frame) or (grid.is_geographic and (west < -180 or east > 180))


def judged_units(
    level: LevelSettings, files: Files, box: tuple[float, float, float, float], year: int | None
) -> tuple[UnitInput, list[Finding]]:
    """A level's units as read, and all that is wrong with them before they meet the grid."""
    read = readers.read_units(level, files, year)
    findings = [*read.findings, *geometry.place(read.frame, Path(read.file), box)]
    _somewhere(findings, read.frame)
    if read.raster is None:
        findings += geometry.overlaps(read.frame, Path(read.file))
    return read, findings


def _somewhere(findings: list[Finding], frame: gpd.GeoDataFrame) -> None:
    """Raise where not one unit is near the country: nothing further would make sense."""
    for finding in findings:
        if finding.check == "geometry_place" and len(finding.rows) == len(frame):
            where, _, what = finding.message.partition(": ")
            text, _, remedy = what.rpartition(". ")
            raise CensusError(text, where=where, remedy=remedy)


def _unit_table(frame: gpd.GeoDataFrame, placed: Placement, file: str) -> gpd.GeoDataFrame:
    ids = list(frame["id"])
    out = frame[["id", "name", "parent", "vintage"]].copy()
    out.insert(0, "number", range(1, len(frame) + 1))
    out["status"] = placed.status
    out["merged_into"] = [ids[m - 1] if m else "" for m in placed.merged_into]
    out["pixels"] = placed.pixels
    out["area_ha"] = geometry.area_ha(frame)
    out["pixel_area_ha"] = placed.area_ha
    out["file"] = file
    out["row"] = list(frame["row"])
    return out.set_geometry(globe.cut(globe.degrees(frame)), crs=globe.LON_LAT)


def unit_coverage(table: gpd.GeoDataFrame, findings: list[Finding]) -> dict[str, Any]:
    status = table["status"].value_counts()
    return {
        "units": len(table),
        "with_pixels": int((table["pixels"] > 0).sum()),
        "by_centre": int(status.get("centre", 0)),
        "best_pixel": int(status.get("best_pixel", 0)),
        "merged": int(status.get("merged", 0)),
        "off_grid": int(status.get("outside", 0)),
        "overlapping_pairs": sum(len(f.rows) for f in findings if f.check == "geometry_overlap"),
        "geometry_findings": sum(len(f.rows) for f in findings if f.check == "geometry"),
        "pixels": int(table["pixels"].sum()),
        "area_ha": round(float(table["area_ha"].sum()), 3),
    }
