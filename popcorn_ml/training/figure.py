"""The loss curve as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence


def loss_figure(history: Sequence[dict[str, float]], best_epoch: int) -> bytes:
    """PNG of the loss on trained and held-out units, epoch by epoch, the chosen one marked."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7, 4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    epochs = [entry["epoch"] for entry in history]
    axes.plot(
        epochs, [entry["train_loss"] for entry in history], color="#1f6f8b", label="trained on"
    )
    scored = [entry for entry in history if "held_out_loss" in entry]
    if scored:
        held_out = {entry["epoch"]: entry["held_out_loss"] for entry in scored}
        axes.plot([*held_out], [*held_out.values()], color="#d1495b", label="held out")
        axes.plot(
            [best_epoch],
            [held_out[best_epoch]],
            "o",
            color="#d1495b",
            label=f"chosen: epoch {best_epoch}",
        )
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss, 100 x (log-L1 + 0.01 x occupancy)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()
