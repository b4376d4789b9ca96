"""Maps side by side in one figure, with one legend and a bar that says how far a kilometre is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from popcorn_ml.grid import Grid
from popcorn_ml.mapping.pictures import NODATA_COLOUR

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_PX = 900
"""Longest side of a map that is drawn; larger ones are averaged over whole cells."""


def side_by_side(
    panels: Sequence[tuple[str, np.ndarray]],
    grid: Grid,
    *,
    norm: Any,
    colours: str,
    legend: str,
    ticks: Sequence[float] | None = None,
    beyond: str = "max",
    note: str = "",
) -> Figure:
    """A figure of maps on one grid.

    Args:
        panels: title and values (rows, columns) of each map; NaN has no value and is light grey.
        grid: of the values.
        norm, colours: a matplotlib norm and the name of a colour map, of all panels.
        legend: what the colours are, with the unit.
        ticks: of the legend.
        beyond: at which ends of the legend there may be values beyond: "max" or "both".
        note: a sentence below.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    across = 2 if len(panels) in (2, 4) else min(len(panels), 3)
    down = -(-len(panels) // across)
    tall = grid.height / grid.width
    width = 3.4 if across > 1 else 6.0
    figure = Figure(
        figsize=(across * width + 0.9, down * (width * tall + 0.45) + (0.4 if note else 0.1)),
        dpi=110,
        layout="constrained",
    )
    axes = np.atleast_1d(figure.subplots(down, across, squeeze=False)).ravel()
    shown = None
    bad = colormaps[colours].with_extremes(bad=NODATA_COLOUR)
    for axis, (title, values) in zip(axes, panels, strict=False):
        drawn = _at_most(values, MAX_PX)
        shown = axis.imshow(
            np.ma.masked_invalid(drawn),
            norm=norm,
            cmap=bad,
            interpolation="nearest",
            extent=(0, grid.width, grid.height, 0),
        )
        axis.set_title(title, fontsize=9)
    for k, axis in enumerate(axes):
        axis.set_axis_off()
        axis.set_visible(k < len(panels))
    scale_bar(axes[0], grid)
    if shown is not None:
        bar = figure.colorbar(shown, ax=list(axes[: len(panels)]), shrink=0.85, extend=beyond)
        if ticks is not None:
            bar.set_ticks(list(ticks), labels=[f"{tick:g}" for tick in ticks])
            bar.ax.minorticks_off()
        bar.set_label(legend, fontsize=9)
        bar.ax.tick_params(labelsize=8)
    if note:
        figure.supxlabel(note, fontsize=8)
    return figure


def _at_most(values: np.ndarray, most: int) -> np.ndarray:
    from popcorn_ml.mapping.aggregate import cell_sums

    side = -(-max(values.shape) // most)
    if side <= 1:
        return values
    has_value = np.where(np.isnan(values), np.nan, 1.0)
    return cell_sums(values, side) / cell_sums(has_value, side)


def metres_across(grid: Grid) -> float:
    """Metres along the middle row of a grid from one cell to the next."""
    if not grid.is_geographic:
        return grid.step
    latitude = grid.north - grid.height * grid.step / 2
    return math.radians(grid.step) * 6_378_137.0 * math.cos(math.radians(latitude))


def scale_bar(axis: Axes, grid: Grid) -> None:
    """A bar of a round length, about a quarter of the map, in its lower left corner."""
    step = metres_across(grid)
    quarter = grid.width * step / 4
    power = 10.0 ** math.floor(math.log10(quarter))
    length = max(factor * power for factor in (1, 2, 5) if factor * power <= quarter)
    left, low = 0.04 * grid.width, 0.95 * grid.height
    right = left + length / step
    told = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    axis.plot([left, right], [low, low], color="white", linewidth=4.5, solid_capstyle="butt")
    axis.plot([left, right], [low, low], color="black", linewidth=2.5, solid_capstyle="butt")
    axis.text(
        (left + right) / 2,
        low - 0.02 * grid.height,
        told,
        ha="center",
        va="bottom",
        fontsize=8,
        bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 1},
    )
