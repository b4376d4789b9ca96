"""A student's version as far as decisions ask: its units, its weights, whether there is one.

Where no student was asked for, a version of the asset says so and holds nothing else. How a student
is trained is popcorn_ml.student's business.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from popcorn_assets.promotion.soundness import HISTORY, FiniteTraining, weights_rows
from popcorn_assets.store.versions import Version
from popcorn_ml.errors import StoreError
from popcorn_ml.training.out_of_fold import OUT_OF_FOLD_FILE

STUDENT_WEIGHTS = "student.safetensors"
CARD = "card.json"
UNITS = "units.json"


@dataclass(frozen=True)
class Told:
    """A census unit as told by the student of a fold, which never saw it, nor did its teacher.

    Attributes:
        id, number, people: as in the census.
        predicted: people by that student, before any adjustment to the census.
        fold: which fold's it was.
    """

    id: str
    number: int
    people: float
    predicted: float
    fold: int


def is_trained(folder: Path) -> bool:
    """Whether a version's folder holds a student, and not the word that none was asked for."""
    return (folder / STUDENT_WEIGHTS).is_file()


def units_told(version: Version) -> list[Told]:
    """The units that students of the folds told, by number.

    Raises:
        StoreError: they cannot be read.
    """
    return read_told(version.file(OUT_OF_FOLD_FILE))


def read_told(path: Path) -> list[Told]:
    """The same, of a file.

    Raises:
        StoreError: it is not what a student's training writes.
    """
    try:
        rows = json.loads(path.read_text("utf-8"))
        return sorted((_told(row) for row in rows), key=lambda unit: unit.number)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            "what the students of the folds say of units cannot be read",
            where=path,
            expected="a JSON list with id, number, people, predicted and fold of each unit",
            found=repr(error),
            remedy="materialise the student again",
        ) from error


def _told(row: Mapping[str, Any]) -> Told:
    return Told(
        str(row["id"]),
        int(row["number"]),
        float(row["people"]),
        float(row["predicted"]),
        int(row["fold"] or 0),
    )


def sensors_of(version: Version) -> str:
    """What a student looks at: both, s2 or s1."""
    return str(version.manifest()["parameters"].get("sensors", "both"))


def chosen_by(version: Version) -> str:
    """How the epoch that a student is kept of was chosen, as its card says."""
    try:
        card = json.loads(version.file(CARD).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(
            "a student's card cannot be read",
            where=version.path / CARD,
            found=str(error),
            remedy=f"materialise {version.address} again",
        ) from error
    return str(card.get("chosen_by", "last epoch"))


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
    found, weights = weights_rows(folder / STUDENT_WEIGHTS, "student")
    told = [
        {"member": f"student of fold {unit.fold}", "epoch": 0, "what": unit.id, "value": "people"}
        for unit in read_told(folder / OUT_OF_FOLD_FILE)
        if not (math.isfinite(unit.people) and math.isfinite(unit.predicted))
    ]
    return FiniteTraining([*rows, *found, *told], len(history), weights, name="finite_student")
