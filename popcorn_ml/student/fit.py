"""Train a student from start to end, or from where a killed run stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from popcorn_ml.student.spec import StudentSpec

Progress = Callable[[int, int, dict[str, float]], None]
"""Called with parts done, parts in all, and the part's metrics."""


@dataclass(frozen=True)
class StudentResult:
    """What a training gave.

    Attributes:
        folder: holds `student.safetensors`, `card.json`, `history.json`, `units.json`, `loss.png`
            and `out_of_fold.json`.
        weights: of the student that maps are made with.
        history: metrics of every part of every training.
        trained: units that it was trained on.
        held_out: units that a training beside it never saw, all together.
        resumed_after: steps, of all trainings, after which an earlier run was taken up.
        seconds: of this run.
    """

    folder: Path
    weights: Path
    history: list[dict[str, float | str]]
    trained: int
    held_out: int
    resumed_after: int
    seconds: float


def train_student(spec: StudentSpec, progress: Progress | None = None) -> StudentResult:
    """Train the student that maps, and one beside it for each fold.

    Args:
        spec: all there is to say about it.
        progress: see `Progress`.

    Raises:
        CensusError, RasterError, GridMismatch, WeightsError, ConfigError: an input that cannot be
            used; nothing is written to the out folder then.
        TrainingError: the loss is no longer a number.
    """
    raise NotImplementedError
