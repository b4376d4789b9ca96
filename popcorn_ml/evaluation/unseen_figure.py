"""The scores without truth as a picture: units never seen, and places within joined units."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from popcorn_ml.evaluation.report import TITLES
from popcorn_ml.evaluation.without_truth import UnseenUnits, WithoutTruth

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {"uniform": "#9aa5b1", "builtup": "#e08e45", "adjusted": "#1f6f8b"}


def unseen_figure(
    units: UnseenUnits,
    scores: WithoutTruth,
    real: dict[str, dict[str, float | None]] | None = None,
    parts: float | None = None,
    *,
    told_by: str = "members",
) -> Figure:
    """Counted against predicted people of units, and the error within joined units.

    Args:
        real: approach -> shares at a finer level, where one is known; see `within`.
        parts: its units in one of the units scored here.
        told_by: what predicted the units.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 4.3), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    known = units.scored
    counted, predicted = units.people[known], units.predicted[known]
    top = 1.2 * max(float(np.max(counted, initial=1)), float(np.max(predicted, initial=1)))
    low = max(min(float(np.min(counted, initial=top)), float(np.min(predicted, initial=top))), 1.0)
    left.plot([low, top], [low, top], color="0.6", linewidth=1)
    left.plot(np.maximum(counted, low), np.maximum(predicted, low), "o", color="#1f6f8b",
              markersize=3.5, alpha=0.7, markeredgewidth=0)  # fmt: skip
    left.set(xscale="log", yscale="log", xlim=(low * 0.8, top), ylim=(low * 0.8, top))
    left.set_aspect("equal")
    found = scores.out_of_fold
    told = f"R² {found['r2']:.2f}   " if found.get("r2") is not None else ""
    left.set_title(
        f"units predicted by {told_by} that never saw them\n{told}MAE {found['mae']:,.0f}   "
        f"bias {found['bias']:+,.0f}   n {found['n']}",
        fontsize=10,
    )
    left.set_xlabel("people counted")
    left.set_ylabel("people predicted")
    for approach, colour in COLOURS.items():
        entries = [e for e in scores.coarsened if e["metrics"][approach]["mae_share"] is not None]
        right.plot(
            [entry["parts"] for entry in entries],
            [100 * entry["metrics"][approach]["mae_share"] for entry in entries],
            "o-", color=colour, markersize=4, label=TITLES[approach],
        )  # fmt: skip
        share = ((real or {}).get(approach) or {}).get("mae_share")
        if share is not None and parts is not None:
            right.plot([parts], [100 * share], "D", color=colour, markersize=8,
                       markerfacecolor="none")  # fmt: skip
    if real:
        right.plot([], [], "D", color="0.3", markerfacecolor="none", label="of the finer level")
    right.set_xscale("log", base=2)
    ticks = [2, 4, 8]
    right.set_xticks(ticks, [str(tick) for tick in ticks])
    right.minorticks_off()
    right.set_ylim(bottom=0)
    right.set_title("maps that knew only sums of joined units", fontsize=10)
    right.set_xlabel("units in one that the map was adjusted to")
    right.set_ylabel("mean error, % of a unit's mean people")
    right.legend(frameon=False, fontsize=8)
    for axes in (left, right):
        axes.grid(alpha=0.2)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def stacked(*pictures: bytes) -> bytes:
    """PNGs one below the other, as one PNG of white ground."""
    from PIL import Image

    images = [Image.open(io.BytesIO(picture)).convert("RGB") for picture in pictures]
    size = (max(image.width for image in images), sum(image.height for image in images))
    sheet, top = Image.new("RGB", size, "white"), 0
    for image in images:
        sheet.paste(image, ((size[0] - image.width) // 2, top))
        top += image.height
    stream = io.BytesIO()
    sheet.save(stream, format="png")
    return stream.getvalue()
