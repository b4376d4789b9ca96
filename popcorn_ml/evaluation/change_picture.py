"""The picture of a change between two years: all of it, and what of it is significant."""

from __future__ import annotations

from pathlib import Path

import numpy as np

TICKS = (-300, -100, -30, -10, -3, 0, 3, 10, 30, 100, 300)


def change_png(change: Path, title: str, note: str) -> bytes:
    """People gained (red) and lost (blue) per hectare, as a PNG.

    Two maps: every difference, and the significant ones alone.

    Args:
        change: `change.tif`.
        title: above the first.
        note: below both.
    """
    from matplotlib.colors import SymLogNorm

    from popcorn_ml import raster
    from popcorn_ml.grid import HECTARE_M2
    from popcorn_ml.mapping.panels import side_by_side
    from popcorn_ml.mapping.pictures import figure_png

    grid = raster.grid_of(change)
    values = raster.read_float(change) * (HECTARE_M2 / grid.row_area_m2())[:, None]
    people, real = values[0], raster.read_float(change, bands=6)
    seen = np.abs(people[np.isfinite(people)])
    top = max(float(np.percentile(seen, 99.9)) if seen.size else 10.0, 10.0)
    ticks = [tick for tick in TICKS if abs(tick) <= top]
    judged = np.isfinite(real).any()
    panels = [(title, people)]
    if judged:
        panels.append(("significant changes alone", np.where(real != 0, people, 0.0 * people)))
    figure = side_by_side(
        panels,
        grid,
        norm=SymLogNorm(1.0, linscale=0.5, vmin=-top, vmax=top, base=10),
        colours="RdBu_r",
        legend="people per hectare gained (red) or lost (blue)",
        ticks=ticks,
        beyond="both",
        note=note,
    )
    return figure_png(figure)
