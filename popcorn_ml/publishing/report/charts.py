"""Charts of the report: people predicted against people counted, and what intervals held."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from popcorn_ml.publishing.report.maps import DPI, as_address

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, SOFT, ACCENT, SECOND = "#1b1f24", "#8b949e", "#0a4f8f", "#b35806"
MOST_POINTS = 20_000


def _axes(width: float, height: float) -> Axes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    return axes


def scatter(counted: np.ndarray, predicted: np.ndarray, level: str) -> str:
    """Units' people by the model against those counted, both axes logarithmic.

    Args:
        counted, predicted: of the same units; those below 1 are drawn at 1.
        level: of the census.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes = _axes(3.6, 3.4)
    x, y = np.maximum(counted, 1.0), np.maximum(predicted, 1.0)
    if len(x) > MOST_POINTS:
        some = np.linspace(0, len(x) - 1, MOST_POINTS).astype(int)
        x, y = x[some], y[some]
    ends = np.array([min(x.min(), y.min()) / 1.3, max(x.max(), y.max()) * 1.3])
    axes.plot(ends, ends, color=INK, linewidth=0.8)
    axes.fill_between(ends, ends / 1.25, ends * 1.25, color="#d8dee4", linewidth=0, zorder=0)
    axes.scatter(x, y, s=9, color=ACCENT, alpha=0.55, linewidths=0)
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    axes.set_aspect("equal")
    steps = (1,) if ends[1] / ends[0] > 100 else (1, 3) if ends[1] / ends[0] > 8 else (1, 2, 4, 7)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=steps))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(f"people counted, {_plain(level)}", fontsize=8.5)
    axes.set_ylabel("people by the model", fontsize=8.5)
    return as_address(axes.figure)  # type: ignore[arg-type]


def coverage(held: Mapping[str, Mapping[int, float]]) -> str:
    """Shares held against shares meant.

    Args:
        held: title -> level in per cent -> share held, 0 to 1.
    """
    axes = _axes(3.6, 3.4)
    axes.plot([0, 100], [0, 100], color=INK, linewidth=0.8)
    axes.fill_between([0, 100], [-5, 95], [5, 105], color="#d8dee4", linewidth=0, zorder=0)
    for (title, shares), colour, marker in zip(
        held.items(), (ACCENT, SECOND, "#35b779", "#7a0177") * 3, "osD^" * 3, strict=False
    ):
        levels = sorted(shares)
        axes.plot(
            levels, [100 * shares[level] for level in levels], marker, color=colour,
            label=_plain(title), markersize=6,
        )  # fmt: skip
    axes.set(xlim=(40, 100), ylim=(0, 103))
    axes.set_xlabel("meant to hold, %", fontsize=8.5)
    axes.set_ylabel("held, %", fontsize=8.5)
    axes.legend(fontsize=7.5, frameon=False, loc="lower right")
    return as_address(axes.figure)  # type: ignore[arg-type]


def shares_held(
    counted: np.ndarray, ends: Mapping[int, tuple[np.ndarray, np.ndarray]]
) -> dict[int, float]:
    """Level -> share of units whose count lies between the ends, of those that have all three."""
    found = {}
    for level, (low, high) in ends.items():
        known = np.isfinite(counted) & np.isfinite(low) & np.isfinite(high)
        if known.any():
            held = (counted >= low) & (counted <= high)
            found[level] = float(held[known].mean())
    return found


def _plain(text: str) -> str:
    return text.replace("$", r"\$")
