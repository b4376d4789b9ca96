"""A student's training as every launcher runs it: alone in its folder, result as plain values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popcorn_ml.compute.locks import held
from popcorn_ml.student.spec import StudentSpec

if TYPE_CHECKING:
    from popcorn_ml.student.fit import Progress

LOCK_FILE = "student.lock"


def train(
    spec: StudentSpec,
    progress: Progress | None = None,
    *,
    note: str = "",
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Train a student, or take it up where it was left; nobody else does meanwhile.

    Args:
        spec: as for `fit.train_student`, which says what is raised.
        progress: see `fit.Progress`.
        note: who trains, for another process that would train the same student and waits.
        say: called with sentences about what happens.

    Returns:
        What the command's last line says.
    """
    from popcorn_ml.student.fit import FIGURE_FILE, train_student

    told = say or (lambda _: None)

    def waiting(who: str) -> None:
        told(f"this student is being trained by {who or 'another process'}: waiting for it to end")

    with held(Path(spec.work) / LOCK_FILE, note, waiting):
        result = train_student(spec, progress)
    if result.resumed_after:
        told(f"taken up after step {result.resumed_after}")
    return {
        "done": True,
        "weights": str(result.weights),
        "steps": spec.step_count,
        "resumed_after": result.resumed_after,
        "trained": result.trained,
        "held_out": result.held_out,
        "seconds": round(result.seconds, 1),
        "figure": str(result.folder / FIGURE_FILE),
    }


def part_text(done: int, total: int, metrics: dict[str, Any]) -> str:
    """A part's figures as a line of a log."""
    return f"step {done} of {total} ({metrics['lesson']}): loss {metrics['loss']:.4g}"
