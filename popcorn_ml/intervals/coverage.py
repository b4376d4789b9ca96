"""Whether intervals hold what they are meant to: shares by level, by size and by density, drawn.

Of units that the law was fitted without, and of anything whose true people are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from popcorn_ml.intervals.fitting import Fitted
from popcorn_ml.intervals.law import LEVELS, interval
from popcorn_ml.intervals.model import ErrorModel

CLASSES = 4
"""Classes of units by size and by density, of as many units each as can be."""

LEAST_IN_A_CLASS = 5

HECTARE_CLASSES = (0.0, 1.0, 3.0, 10.0, 30.0, 100.0, np.inf)
"""People mapped in a hectare: ends of the classes by which hectares are told apart."""

INHABITED = 1.0
"""A hectare is inhabited where more people than this are true or mapped."""


@dataclass(frozen=True)
class Coverage:
    """How many of some intervals hold.

    Attributes:
        of: what they are of, for instance "units predicted unseen".
        by: "all", "size" or "density".
        low, high: of the class, in hectares (size) or people per hectare (density).
        n: how many there are.
        held: level in per cent -> share that the interval held.
    """

    of: str
    by: str
    low: float
    high: float
    n: int
    held: dict[int, float]

    def as_dict(self) -> dict[str, Any]:
        """Plain values; an open end is None."""
        told = asdict(self)
        held = told.pop("held")
        told["low"], told["high"] = (
            float(end) if np.isfinite(end) else None for end in (self.low, self.high)
        )
        return {**told, **{f"held_{level}": round(share, 4) for level, share in held.items()}}

    @classmethod
    def from_dict(cls, told: dict[str, Any]) -> Coverage:
        """What `as_dict` gave."""
        return cls(
            of=told["of"],
            by=told["by"],
            low=told["low"] or 0.0,
            high=np.inf if told["high"] is None else told["high"],
            n=told["n"],
            held={level: told[f"held_{level}"] for level in LEVELS},
        )


def of_fitted(fitted: Fitted, of: str = "units predicted unseen") -> list[Coverage]:
    """Of the units that a law was fitted on, each by the law that was fitted without its group."""
    units = fitted.units
    size, density = units.area_ha, units.people / np.maximum(units.area_ha, 1e-9)
    return [
        _row(of, "all", 0.0, np.inf, fitted.tried, np.ones(len(units), bool)),
        *_rows(of, "size", size, _ends(size), fitted.tried),
        *_rows(of, "density", density, _ends(density), fitted.tried),
    ]


def of_known(
    model: ErrorModel,
    of: str,
    people: np.ndarray,
    variances: np.ndarray,
    true: np.ndarray,
    *,
    area_ha: np.ndarray | None = None,
    inhabited: bool = False,
) -> list[Coverage]:
    """Of zones whose true people are known.

    Args:
        people, variances: of each zone in the map.
        true: their true people; NaN where not known.
        area_ha: of each zone; None for hectares, whose density is told alone.
        inhabited: only those with more than `INHABITED` people, true or mapped.
    """
    chosen = ~np.isnan(people) & ~np.isnan(true) & ~np.isnan(variances)
    if inhabited:
        chosen &= (people > INHABITED) | (true > INHABITED)
    people, variances, true = people[chosen], variances[chosen], true[chosen]
    held = {}
    for level in LEVELS:
        low, high = interval(people, variances, level, model.widths[level])
        held[level] = (true >= low) & (true <= high)
    rows = [_row(of, "all", 0.0, np.inf, held, np.ones(len(true), bool))]
    if area_ha is None:
        return [*rows, *_rows(of, "density", people, np.array(HECTARE_CLASSES), held)]
    size = area_ha[chosen]
    density = people / np.maximum(size, 1e-9)
    return [
        *rows,
        *_rows(of, "size", size, _ends(size), held),
        *_rows(of, "density", density, _ends(density), held),
    ]


def _ends(values: np.ndarray) -> np.ndarray:
    """Ends of classes with as many values each; fewer classes where values are few."""
    classes = min(CLASSES, max(len(values) // LEAST_IN_A_CLASS, 1))
    if not len(values):
        return np.array([0.0, np.inf])
    ends = np.unique(np.quantile(values, np.linspace(0, 1, classes + 1)))
    return ends if len(ends) > 1 else np.array([ends[0], np.inf])


def _rows(
    of: str, by: str, values: np.ndarray, ends: np.ndarray, held: dict[int, np.ndarray]
) -> list[Coverage]:
    rows = []
    for k, (low, high) in enumerate(pairwise(ends)):
        last = k == len(ends) - 2
        chosen = (values >= low) & ((values <= high) if last else (values < high))
        if chosen.sum() >= LEAST_IN_A_CLASS:
            rows.append(_row(of, by, float(low), float(high), held, chosen))
    return rows


def _row(
    of: str, by: str, low: float, high: float, held: dict[int, np.ndarray], chosen: np.ndarray
) -> Coverage:
    n = int(chosen.sum())
    shares = {level: float(which[chosen].mean()) if n else 0.0 for level, which in held.items()}
    return Coverage(of, by, low, high, n, shares)


def interval_score(
    people_true: np.ndarray, low: np.ndarray, high: np.ndarray, level: int
) -> np.ndarray:
    """Winkler's score of each interval (1972, J. Am. Stat. Assoc. 67, 187-191); less is better.

    Its width, and 2 / (1 - level) times how far outside of it the truth lies.
    """
    missed = 1 - level / 100
    outside = np.maximum(low - people_true, 0) + np.maximum(people_true - high, 0)
    return high - low + 2 / missed * outside


def coverage_png(rows: Sequence[Coverage]) -> bytes:
    """What is held against what was meant, of all, and by size and density: a PNG.

    A panel a kind of class; a bar a level with the share that two standard errors around the level
    reach, so that few units are not taken for many.
    """
    from matplotlib.figure import Figure

    from popcorn_ml.mapping.pictures import figure_png

    kinds = [by for by in ("all", "size", "density") if any(row.by == by for row in rows)]
    widths = [max(sum(row.by == by for row in rows), 1.5) for by in kinds]
    figure = Figure(figsize=(2.2 + 0.95 * sum(widths), 3.6), dpi=100, layout="constrained")
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False, width_ratios=widths)[0]
    colours = {50: "#9ecae1", 80: "#4292c6", 95: "#08519c"}
    titles = {"all": "all", "size": "by size, ha", "density": "by people per ha"}
    for panel, by in zip(panels, kinds, strict=True):
        shown = [row for row in rows if row.by == by]
        for k, level in enumerate(LEVELS):
            at = np.arange(len(shown)) + (k - 1) * 0.27
            heights = [100 * row.held[level] for row in shown]
            panel.bar(at, heights, 0.25, color=colours[level], label=f"meant: {level} %")
            panel.axhline(level, color=colours[level], linewidth=1, linestyle="--", zorder=0)
            spread = [200 * np.sqrt(level / 100 * (1 - level / 100) / row.n) for row in shown]
            panel.errorbar(at, [level] * len(shown), spread, fmt="none", ecolor="0.35", capsize=2)
        panel.set_xticks(
            range(len(shown)), [f"{_class(row)}\nn {row.n}" for row in shown], fontsize=8
        )
        panel.set_title(titles[by], fontsize=10)
        panel.set_ylim(0, 105)
    panels[0].set_ylabel("held, %")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, loc="outside lower center", ncol=len(LEVELS))
    figure.suptitle(f"intervals of {rows[0].of}" if rows else "", fontsize=10)
    return figure_png(figure)


def _class(row: Coverage) -> str:
    if row.by == "all":
        return ""
    if not np.isfinite(row.high):
        return f"from {row.low:.3g}"
    return f"{row.low:.3g} to {row.high:.3g}"
