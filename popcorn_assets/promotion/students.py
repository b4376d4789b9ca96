"""A student's version as far as decisions ask: its units, its weights, whether there is one.

Where no student was asked for, a version of the asset says so and holds nothing else. How a student
is trained is popcorn_ml.student's business.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from popcorn_assets.promotion.soundness import HISTORY, FiniteTraining, weights_rows
from popcorn_assets.store.versions import Version
from popcorn_ml.errors import StoreError, TrainingError
from popcorn_ml.training.out_of_fold import OUT_OF_FOLD_FILE, OutOfFold, read_collected

STUDENT_FILE = "student.safetensors"
UNITS = "units.json"


def is_trained(folder: Path) -> bool:
    """Whether a version's folder holds a student, and not the word that none was asked for."""
    return (folder / STUDENT_FILE).is_file()


def units_told(version: Version) -> list[OutOfFold]:
    """The units that students of the folds told, which never saw them, nor did their teachers.

    Raises:
        StoreError: they cannot be read.
    """
    return read_told(version.path)


def read_told(folder: Path) -> list[OutOfFold]:
    """The same, of a student's folder.

    Raises:
        StoreError: they are not what a student's training writes.
    """
    try:
        return read_collected(folder / OUT_OF_FOLD_FILE)
    except TrainingError as error:
        raise StoreError(
            "what students of the folds say of units cannot be read",
            where=error.where,
            expected=error.expected,
            found=error.found,
            remedy="materialise the student again",
        ) from error


def sensors_of(version: Version) -> str:
    """What a student looks at: both, s2 or s1."""
    return str(version.manifest()["parameters"].get("sensors", "both"))


def finite_student(folder: Path) -> FiniteTraining:
    """Whether every loss of every epoch, every weight and every unit's people is a number.

    Raises:
        StoreError: the history, the weights or the units cannot be read.
    """
    path = folder / HISTORY
    rows: list[dict[str, Any]] = []
    try:
        history = json.loads(path.read_text("utf-8"))
        for number, epoch in enumerate(history, start=1):
            rows += [
                {"member": "student", "epoch": number, "what": name, "value": str(value)}
                for name, value in epoch.items()
                if isinstance(value, int | float) and not math.isfinite(value)
            ]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise StoreError(
            "a student's record of its training cannot be read",
            where=path,
            found=str(error),
            remedy="train the student again",
        ) from error
    found, weights = weights_rows(folder / STUDENT_FILE, "student")
    told = [
        {"member": f"student of fold {unit.fold}", "epoch": 0, "what": unit.id, "value": "people"}
        for unit in read_told(folder)
        if not (math.isfinite(unit.people) and math.isfinite(unit.predicted))
    ]
    return FiniteTraining(
        [*rows, *found, *told], len(history), weights, name="finite_student", parts="parts"
    )
