"""The loss curves of a student and of those beside it, as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any


def loss_figure(history: Sequence[dict[str, Any]]) -> bytes:
    """PNG of the loss of every lesson, part by part."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for number, lesson in enumerate(dict.fromkeys(entry["lesson"] for entry in history)):
        own = [entry for entry in history if entry["lesson"] == lesson]
        colour = "#1f6f8b" if number == 0 else "#d1495b"
        axes.plot(
            [entry["step"] for entry in own],
            [entry["loss"] for entry in own],
            color=colour,
            alpha=1.0 if number == 0 else max(0.9 - 0.15 * number, 0.3),
            label=lesson,
        )
    axes.set_xlabel("step")
    axes.set_ylabel("people misplaced over the teacher's, on small squares")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()
