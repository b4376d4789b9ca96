"""Judging how units came to lie on the grid: who has no pixel, who lies off it, whose areas differ.

The pixels themselves are given in `units`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popcorn_ml.census.findings import Finding, rows_text
from popcorn_ml.grid import AREA_TOLERANCE, Grid

if TYPE_CHECKING:
    import geopandas as gpd
    import numpy as np
    import pandas as pd

PARTLY_OFF_GRID = 0.99
EDGE_PX = 0.75
"""Pixels by which a border may be off, along all of it: a centre lies at most 0.71 sides inside."""
STRIP_PX = 512


def pixel_findings(
    table: gpd.GeoDataFrame,
    polygons: np.ndarray | None,
    grid: Grid,
    least_inside: float,
    overlapping: Iterable[Finding],
) -> list[Finding]:
    """All that is to be said of where units came to lie.

    Args:
        table: the units' table.
        polygons: the same units in the grid's CRS.
        grid: the country's.
        least_inside: share of a unit's ground that has to lie on the grid.
        overlapping: findings of overlaps: ground that a unit leaves to a smaller one.
    """
    findings = _status_findings(table)
    if polygons is None or len(polygons) == 0:
        return findings
    inside = shares_inside(polygons, grid)
    findings += _off_grid_findings(table, inside, least_inside)
    return findings + _area_findings(table, polygons, grid, inside, overlapping)


def _status_findings(table: gpd.GeoDataFrame) -> list[Finding]:
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
    return findings


def shares_inside(polygons: np.ndarray, grid: Grid) -> np.ndarray:
    """Share of each polygon's ground that lies on the grid, 1 for one without extent."""
    import numpy as np
    import shapely

    west, south, east, north = grid.bounds
    bounds = shapely.bounds(polygons)
    share = np.ones(len(polygons))
    across = (bounds[:, 0] < west) | (bounds[:, 1] < south)
    across |= (bounds[:, 2] > east) | (bounds[:, 3] > north)
    if across.any():
        inside = shapely.area(shapely.clip_by_rect(polygons[across], *grid.bounds))
        share[across] = inside / np.maximum(shapely.area(polygons[across]), 1e-30)
    return share


def _off_grid_findings(table: gpd.GeoDataFrame, inside: np.ndarray, least: float) -> list[Finding]:
    """Units of which only a part lies on the grid: little of them is an error."""
    on_it = (table["status"] != "outside").to_numpy()
    few, most = on_it & (inside < least), on_it & (inside >= least) & (inside < PARTLY_OFF_GRID)
    findings = []
    for mask, severity, text in (
        (few, "error", f"lie on the country's grid with less than {least:.0%} of their ground"),
        (most, "warn", "lie partly off the country's grid"),
    ):
        if not mask.any():
            continue
        rows = tuple(
            {**row, "share_inside": round(float(s), 4)}
            for row, s in zip(rows_of(table[mask]), inside[mask], strict=True)
        )
        remedy = "widen the grid if people live in the rest"
        if severity == "error":
            remedy = "widen the grid, or leave them out of both files; where nobody lives in the "
            remedy += "rest, set `least_on_grid` lower in the country's file"
        findings.append(
            Finding(
                "unit_pixels",
                "error" if severity == "error" else "warn",
                f"{rows[0]['file']}: units that {text}: {rows_text(rows)}. All their people are "
                f"counted in the part on it; {remedy}",
                rows,
            )
        )
    return findings


def _area_findings(
    table: gpd.GeoDataFrame,
    polygons: np.ndarray,
    grid: Grid,
    inside: np.ndarray,
    overlapping: Iterable[Finding],
) -> list[Finding]:
    """Units whose pixels do not add up to their polygon's area, the border's pixels aside.

    The two are reckoned in different planes: that they differ says that a polygon is not where,
    or not as large as, it is taken for.
    """
    import numpy as np
    import shapely

    shared: dict[str, float] = {}
    for finding in overlapping:
        for row in finding.rows if finding.check == "geometry_overlap" else ():
            for key in ("id", "other_id"):
                shared[row[key]] = shared.get(row[key], 0.0) + row["overlap_ha"]
    area = table["area_ha"].to_numpy() * inside
    pixels = table["pixel_area_ha"].to_numpy()
    border = shapely.length(polygons) * grid.step / np.maximum(shapely.area(polygons), 1e-30)
    allowed = (AREA_TOLERANCE * 1.5 + EDGE_PX * border) * area
    allowed += np.array([shared.get(i, 0.0) for i in table["id"]])
    allowed += pixels / np.maximum(table["pixels"].to_numpy(), 1)  # one may have been given away
    off = (table["status"] != "outside").to_numpy() & (np.abs(pixels - area) > allowed)
    if not off.any():
        return []
    rows = tuple(
        {**row, "area_ha": round(float(a), 3), "pixel_area_ha": round(float(p), 3)}
        for row, a, p in zip(rows_of(table[off]), area[off], pixels[off], strict=True)
    )
    return [
        Finding(
            "unit_areas",
            "error",
            f"{rows[0]['file']}: units whose pixels have another area than their polygons: "
            f"{rows_text(rows)}. Look at them in QGIS: they may lie across the edge of the CRS of "
            "the file or the grid, or be drawn twice",
            rows,
        )
    ]


def recounted(path: Path, table: gpd.GeoDataFrame) -> list[Finding]:
    """Units of which the written raster has not as many pixels as their table says."""
    import numpy as np

    from popcorn_ml import raster

    counted = np.zeros(len(table) + 1, np.int64)
    with raster.opened(path) as dataset:
        for row in range(0, dataset.height, STRIP_PX):
            window = ((row, min(row + STRIP_PX, dataset.height)), (0, dataset.width))
            numbers = dataset.read(1, window=window).ravel()
            counted += np.bincount(numbers, minlength=len(counted))
    off = counted[1:] != table["pixels"].to_numpy()
    if not off.any():
        return []
    rows = tuple(
        {**row, "in_raster": int(n)}
        for row, n in zip(rows_of(table[off], "pixels"), counted[1:][off], strict=True)
    )
    return [
        Finding(
            "unit_pixels",
            "error",
            f"{path.name}: units that have another number of pixels in the raster than in their "
            f"table: {rows_text(rows)}. Make the units again; report it if it stays",
            rows,
        )
    ]


def rows_of(table: pd.DataFrame, *more: str) -> tuple[dict[str, Any], ...]:
    """Rows of a units' table as findings show them."""
    return tuple(
        {
            "file": r["file"], "row": int(r["row"]), "id": r["id"], "name": r["name"],
            **{m: r[m] for m in more},
        }
        for _, r in table.iterrows()
    )  # fmt: skip
