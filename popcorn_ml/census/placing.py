"""The units of one level on the country's grid: read, judged, numbered and burnt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popcorn_ml.census import geometry, readers
from popcorn_ml.census.files import Files, Source
from popcorn_ml.census.findings import Finding, rows_text
from popcorn_ml.census.readers import UnitInput
from popcorn_ml.census.settings import LevelSettings
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
    import numpy as np
    import pandas as pd


Progress = Callable[[int, int], None]
"""Told how many parts of the work are done, and how many there are."""

PARTLY_OFF_GRID = 0.99


def box_degrees(grid: Grid) -> tuple[float, float, float, float]:
    from pyproj import Transformer

    transformer = Transformer.from_crs(grid.crs, geometry.LON_LAT, always_xy=True)
    return transformer.transform_bounds(*grid.bounds)


def units_of_level(
    name: str,
    level: LevelSettings,
    files: Files,
    grid: Grid,
    box: tuple[float, float, float, float],
    out_dir: Path,
    partition: tuple[str, int],
    progress: Progress | None,
) -> tuple[list[Finding], gpd.GeoDataFrame, list[Source]]:
    import numpy as np

    read, findings = judged_units(level, files, box, partition[1])
    frame = read.frame
    if read.raster is None:
        polygons: np.ndarray | None = to_grid(frame, grid)
        burner: Burner = PolygonBurner(frame, grid)
    else:
        assert read.raw is not None
        order = np.argsort(read.raw)
        polygons = to_grid(frame, grid)
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
    findings += _pixel_findings(table, polygons, grid)
    return findings, table, list(read.sources)


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
    out["geometry"] = frame.geometry.to_crs(geometry.LON_LAT)
    return out.set_geometry("geometry")


def _pixel_findings(
    table: gpd.GeoDataFrame, polygons: np.ndarray | None, grid: Grid
) -> list[Finding]:
    import numpy as np
    import shapely

    findings = []
    texts = {
        "best_pixel": "caught no pixel centre and were given the pixel they cover most",
        "merged": "caught no pixel centre and are counted with a neighbour",
        "outside": "lie off the country's grid and have no pixel. Widen the grid, or leave them "
        "out of both files",
    }
    for status, text in texts.items():
        chosen = table[table["status"] == status]
        if chosen.empty:
            continue
        rows = rows_of(chosen, "merged_into") if status == "merged" else rows_of(chosen)
        findings.append(
            Finding(
                "unit_pixels",
                "error" if status == "outside" else "warn",
                f"{rows[0]['file']}: units that {text}: {rows_text(rows)}",
                rows,
            )
        )
    if polygons is not None and len(polygons):
        west, south, east, north = grid.bounds
        bounds = shapely.bounds(polygons)
        across = (
            (bounds[:, 0] < west)
            | (bounds[:, 1] < south)
            | (bounds[:, 2] > east)
            | (bounds[:, 3] > north)
        ) & (table["status"] != "outside").to_numpy()
        if across.any():
            area = shapely.area(polygons[across])
            inside = shapely.area(shapely.clip_by_rect(polygons[across], *grid.bounds))
            share = inside / np.maximum(area, 1e-30)
            cut = np.flatnonzero(across)[share < PARTLY_OFF_GRID]
            if cut.size:
                shares = share[share < PARTLY_OFF_GRID]
                rows = tuple(
                    {**row, "share_inside": round(float(s), 4)}
                    for row, s in zip(rows_of(table.iloc[cut]), shares, strict=True)
                )
                findings.append(
                    Finding(
                        "unit_pixels",
                        "warn",
                        f"{rows[0]['file']}: units that lie partly off the country's "
                        f"grid: {rows_text(rows)}. All their people are counted in the part on "
                        "it; widen the grid if people live in the rest",
                        rows,
                    )
                )
    return findings


def rows_of(table: pd.DataFrame, *more: str) -> tuple[dict[str, Any], ...]:
    return tuple(
        {
            "file": r["file"], "row": int(r["row"]), "id": r["id"], "name": r["name"],
            **{m: r[m] for m in more},
        }
        for _, r in table.iterrows()
    )  # fmt: skip


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
