"""Rasters of people by others (WorldPop, GHS-POP, ...) brought to a country's pixels, to be scored.

Such a raster has a grid of its own: another CRS, origin and cell side, coarser or finer than ours.
A cell's people are spread evenly over its area and counted into the pixels that it covers, each by
the area it has of it; nothing is resampled, so nobody is lost or counted twice. What lies beyond
the country's grid, and what belongs to cells across the edge of the census units, is counted and
told. Whether the values are people at all is asked of the census.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from popcorn_ml.errors import RasterError
from popcorn_ml.evaluation.overlap import Cells, Source
from popcorn_ml.grid import HECTARE_M2, PIXELS_PER_HECTARE_SIDE, Grid, Window
from popcorn_ml.zones import BLOCK_PX

CONSERVED = 1e-6
"""Largest share of the people that may be lost or won on the way; more is refused."""

MOST_APART = 2.0
"""Factor between a product's people and the census' above which the raster is refused."""

DENSITIES = {"km2": 1e6, "hectare": HECTARE_M2, "m2": 1.0}
"""What a density may be per, and how many square metres that is."""

_SAYS_DENSITY = re.compile(
    r"densit|(^|[_\-. ])pd([_\-. ]|$)|pp(km|ha)|(per|/)[ _]?(sq|km|ha|hect|square)"
    r"|(km|m)\^?-2|ha-1",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Brought:
    """One product on the country's pixels.

    Attributes:
        name: as the country's file calls it.
        path: people per pixel on the country's grid, float32; NaN where the product has no cell.
        people: in all of the product's cells that touch the grid.
        on_grid, outside: of them, on the grid's pixels and beyond it, in cells that its edge cuts.
        in_units: in the pixels of census units.
        at_edge: in cells of which a part is in a unit and a part in none: by area they are told
            apart as well as that goes.
        at_edge_inside: of those, counted inside.
        cell_m: side of a cell in metres, root of the mean true area.
        cells, empty: cells with a value that touch the grid, and those without; they hold nobody.
        uncovered: share of the units' pixels where the product has no cell.
        as_density: people in the units if the values were people per square metre.
        says_density: what in the file's name, unit or description speaks of a density; or ''.
        said: what had to be assumed of the file.
    """

    name: str
    path: Path
    people: float
    on_grid: float
    outside: float
    in_units: float
    at_edge: float
    at_edge_inside: float
    cell_m: float
    cells: int
    empty: int
    uncovered: float
    as_density: float
    says_density: str
    said: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """What is told of it, as plain values."""
        return {
            "product": self.name,
            "cell, m": round(self.cell_m, 1),
            "people in its cells": self.people,
            "beyond the grid": self.outside,
            "in census units": self.in_units,
            "in cells across the units' edge": self.at_edge,
            "of those counted inside": self.at_edge_inside,
            "cells without a value": self.empty,
            "share of the units without a cell": self.uncovered,
            "spread": how_spread(self.cell_m),
            "assumed": "; ".join(self.said),
        }


def how_spread(cell_m: float) -> str:
    """How people of a cell came to pixels, in words."""
    if cell_m > 10.0:
        return "evenly over each cell's area, land and water alike"
    return "to the pixels that each cell covers, by area"


def bring(
    name: str,
    source: Path,
    grid: Grid,
    units: Path,
    out: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Brought:
    """Count a raster of people into the pixels of a grid.

    Args:
        name: what it is called.
        source: GeoTIFF of people per cell: any CRS, grid, type and nodata, one band (and alpha).
            Cells without a value hold nobody. A single negative value that the file does not
            declare as nodata is taken as such, and that is said.
        grid: the country's.
        units: census units (uint32, 0 outside), to tell what lies inside.
        out: the raster to write.
        progress: called with (blocks done, blocks).

    Raises:
        RasterError: unreadable, without CRS or place, several bands, infinite values, several
            negative ones, or more than `CONSERVED` of the people lost.
        GridMismatch: the units lie elsewhere.
    """
    from popcorn_ml import raster
    from popcorn_ml.raster import bounded_cache

    raster.check(units, grid)
    windows = [tile.core for tile in grid.tiles(BLOCK_PX)]
    written = 0.0
    pixels = uncovered = 0
    with bounded_cache(), Source.opened(source) as product:
        cells = Cells(product, grid)
        with raster.CogWriter(
            out, grid, [f"people per pixel, {name}"], "float32", np.nan, tags={"product": name}
        ) as writer:
            for done, window in enumerate(windows, start=1):
                inside = raster.read(units, window, 1) > 0
                values = cells.block(window, inside).astype(np.float32)
                written += float(np.nansum(values, dtype=np.float64))
                pixels += int(inside.sum())
                uncovered += int((inside & np.isnan(values)).sum())
                writer.write(values, window)
                if progress is not None:
                    progress(done, len(windows))
        found = cells.total()
        said_density = _says_density(product, source)
        said = product.assumed()
    off = max(abs(found.lost), abs(written - found.on_grid))
    if off > CONSERVED * max(found.people, 1.0):
        raise RasterError(
            "bringing the raster to the country's grid did not keep its people",
            where=source,
            expected=f"{found.on_grid:,.3f} people, to {CONSERVED:g} of them",
            found=f"{written:,.3f}, {found.lost:+,.3f} lost in whole cells",
            remedy="report this, with the file",
        )
    return Brought(
        name=name,
        path=out,
        people=found.people,
        on_grid=found.on_grid,
        outside=found.people - found.on_grid,
        in_units=found.inside,
        at_edge=found.at_edge,
        at_edge_inside=found.at_edge_inside,
        cell_m=math.sqrt(found.area_m2 / found.cells) if found.cells else math.nan,
        cells=found.cells,
        empty=found.empty,
        uncovered=uncovered / pixels if pixels else 0.0,
        as_density=found.as_density,
        says_density=said_density,
        said=said,
    )


def _says_density(product: Source, path: Path) -> str:
    """What in the file's name or its band's unit and description speaks of a density, or ''."""
    told = (product.unit, product.description, path.stem)
    return next((text for text in told if text and _SAYS_DENSITY.search(text)), "")


def require_people(brought: Brought, source: Path, mapped: float, census: float) -> None:
    """Refuse a raster that is a density, or whose people are not those of the census.

    Args:
        brought: the product on the country's pixels.
        source: its file, to name.
        mapped: its people in the counted units.
        census: people counted in the same units.

    Raises:
        RasterError: naming which of both it is, with both totals.
    """
    share = mapped / brought.in_units if brought.in_units else 0.0
    totals = {per: brought.as_density * m2 * share for per, m2 in _per_m2().items()}
    fits = {per: people for per, people in totals.items() if _near(people, census)}
    as_people = _near(mapped, census)
    if as_people and not (brought.says_density and fits):
        return
    counted = f"{census:,.0f} people in the census units"
    if fits:
        per, people = min(fits.items(), key=lambda item: abs(math.log(item[1] / census)))
        named = f" ('{brought.says_density}' says so)" if brought.says_density else ""
        raise RasterError(
            f"{brought.name} is a density, people per {per}, and no raster of people{named}",
            where=source,
            expected=counted,
            found=f"{mapped:,.0f} when its cells are added up, {people:,.0f} when they are taken "
            f"as people per {per}",
            remedy="multiply it by the area of its cells, or take the product's counts",
        )
    raise RasterError(
        f"{brought.name} has not the people of this country: its total is off by more than a "
        f"factor of {MOST_APART:g}",
        where=source,
        expected=counted,
        found=f"{mapped:,.0f} people in the same units, of {brought.people:,.0f} in the cells that "
        f"touch the country's grid; {brought.uncovered:.0%} of the units' area has no cell",
        remedy="see whether the file is of this country and year, counts everybody (not one age or "
        "sex) and is not a density in another unit",
    )


def _per_m2() -> dict[str, float]:
    return {per: 1.0 / m2 for per, m2 in DENSITIES.items()}


def _near(people: float, census: float) -> bool:
    return people > 0 and census > 0 and 1 / MOST_APART <= people / census <= MOST_APART


def in_counted_units(
    brought: Brought, units: Path, grid: Grid, people: Sequence[float] | np.ndarray
) -> tuple[float, float, np.ndarray]:
    """A product's and the census' people in the units that have a count, and the product's by unit.

    Returns:
        Both totals, and people of the product in units 0..n, NaN where it has no pixel of a unit.
    """
    from popcorn_ml.zones import raster_zone_sums

    counted = np.asarray(people, np.float64)
    sums = raster_zone_sums(units, [brought.path], grid, len(counted))
    by_unit = np.where(sums.valid[0] > 0, sums.sums[0], np.nan)
    known = ~np.isnan(counted)
    return float(np.nansum(by_unit[1:][known])), float(counted[known].sum()), by_unit


def hectares_of(path: Path, grid: Grid, out: Path) -> None:
    """Sum a raster of people per pixel to cells of 10 x 10 pixels, as hectare maps are.

    Args:
        path: on `grid`; NaN where nothing is known.
        out: the raster to write, float32, on `grid.hectares()`.
    """
    from popcorn_ml import raster
    from popcorn_ml.mapping.aggregate import cell_sums

    side = PIXELS_PER_HECTARE_SIDE
    band = f"people per {grid.cell_name}"
    with raster.CogWriter(out, grid.hectares(), [band], "float32", np.nan) as writer:
        for tile in grid.tiles(BLOCK_PX):
            cells = cell_sums(raster.read_float(path, tile.core, 1))
            writer.write(cells, Window(tile.core.row // side, tile.core.col // side, *cells.shape))


def picture(maps: Mapping[str, Path]) -> bytes:
    """Maps of people per cell side by side, on one scale, as a PNG.

    Args:
        maps: title -> raster of people per cell, all on one grid.
    """
    from matplotlib.colors import SymLogNorm

    from popcorn_ml import raster
    from popcorn_ml.mapping.panels import side_by_side
    from popcorn_ml.mapping.pictures import figure_png

    grid = raster.grid_of(next(iter(maps.values())))
    density = (HECTARE_M2 / grid.row_area_m2())[:, None]
    panels = [(title, raster.read_float(path, bands=1) * density) for title, path in maps.items()]
    seen = np.concatenate([values[np.isfinite(values)] for _, values in panels])
    top = max(float(np.percentile(seen, 99.8)) if seen.size else 1.0, 10.0)
    ticks = [tick for tick in (0, 1, 3, 10, 30, 100, 300, 1000, 3000) if tick <= top]
    norm = SymLogNorm(1.0, linscale=0.6, vmin=0.0, vmax=top, base=10)
    return figure_png(
        side_by_side(
            panels, grid, norm=norm, colours="inferno", legend="people per hectare", ticks=ticks
        )
    )
