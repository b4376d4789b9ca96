"""One member's training as every launcher runs it: alone in its folder, result as plain values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popcorn_ml.compute.locks import held
from popcorn_ml.training.spec import TrainingSpec

if TYPE_CHECKING:
    from popcorn_ml.training.loop import Progress

LOCK_FILE = "training.lock"

TOLD = ("train_loss", "held_out_loss", "held_out_total_ratio", "seconds")
"""Metrics of an epoch that are logged; all of them are in the member's history.json."""


def train(
    spec: TrainingSpec,
    progress: Progress | None = None,
    *,
    note: str = "",
    say: Callable[[str], None] | None = None,
    bar: bool = False,
) -> dict[str, Any]:
    """Train one member, or take it up where it was left; nobody else does meanwhile.

    Args:
        spec: as for `fit.train_member`, which says what is raised.
        progress: called after every epoch.
        note: who trains, for another process that would train the same member and waits.
        say: called with sentences about what happens.
        bar: show a progress bar on standard error.

    Returns:
        What the command's last line says.
    """
    from popcorn_ml.training.fit import train_member

    told = say or (lambda _: None)

    def waiting(who: str) -> None:
        told(f"this member is being trained by {who or 'another process'}: waiting for it to end")

    first = True

    def epoch(done: int, total: int, metrics: dict[str, float]) -> None:
        nonlocal first
        if first and done > 1:
            told(f"taken up after epoch {done - 1}")
        first = False
        if progress is not None:
            progress(done, total, metrics)

    with held(Path(spec.work) / LOCK_FILE, note, waiting):
        result = train_member(spec, epoch, bar=bar)
    if first:
        told("all epochs were there already")
    return {
        "done": True,
        "weights": str(result.weights),
        "best_epoch": result.best_epoch,
        "epochs": result.epochs,
        "resumed_after": result.resumed_after,
        "trained": result.trained,
        "held_out": result.held_out,
        "left_out": [asdict(unit) for unit in result.left_out],
        "seconds": round(result.seconds, 1),
        "metrics": result.history[result.best_epoch - 1],
        "figure": str(result.folder / "loss.png"),
    }


def epoch_text(done: int, total: int, metrics: dict[str, float]) -> str:
    """An epoch's figures as a line of a log."""
    told = [f"{name.replace('_', ' ')} {metrics[name]:.4g}" for name in TOLD if name in metrics]
    return f"epoch {done} of {total}: {', '.join(told)}"
