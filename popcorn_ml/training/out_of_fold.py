"""What a member says of the census units that it never saw.

A unit's people are what the map would have there were this member the only one (`training.unseen`
predicts them). Beside a member's weights lies `out_of_fold.json`; the checkpoints' version has one
of all members together. Nothing here loads torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from popcorn_ml.errors import TrainingError

OUT_OF_FOLD_FILE = "out_of_fold.json"


@dataclass(frozen=True)
class Unseen:
    """A unit that a member was not trained on.

    Attributes:
        id, number, people: as in the census.
        predicted: people by the member.
        occupancy: its mean over the unit's pixels and the seasons, which the loss has a term of.
    """

    id: str
    number: int
    people: float
    predicted: float
    occupancy: float


@dataclass(frozen=True)
class OutOfFold:
    """A unit and what the members that never saw it say together.

    Attributes:
        id, number, people: as in the census.
        predicted: mean of those members.
        members: how many they are.
        fold: the fold that the unit is of; None where all members hold out the same units.
        by: seed -> people by that member.
    """

    id: str
    number: int
    people: float
    predicted: float
    members: int
    fold: int | None
    by: dict[str, float]

    def as_row(self) -> dict[str, Any]:
        """As the warehouse's table `out_of_fold` has it."""
        return {
            "unit_id": self.id,
            "people": self.people,
            "predicted": self.predicted,
            "members": self.members,
            "fold": self.fold,
        }


def losses(unseen: Sequence[Unseen], scale: float, occupancy_weight: float) -> dict[str, float]:
    """The metrics of an epoch's history on held-out units; empty without any."""
    if not unseen:
        return {}
    count = len(unseen)
    log_l1 = sum(abs(log_ratio(unit.predicted, unit.people)) for unit in unseen) / count
    occupancy = sum(unit.occupancy for unit in unseen) / count
    people = sum(unit.people for unit in unseen)
    return {
        "held_out_loss": scale * (log_l1 + occupancy_weight * occupancy),
        "held_out_log_l1": log_l1,
        "held_out_mae_people": sum(abs(u.predicted - u.people) for u in unseen) / count,
        **(
            {"held_out_total_ratio": sum(unit.predicted for unit in unseen) / people}
            if people
            else {}
        ),
    }


def log_ratio(predicted: float, people: float) -> float:
    """log((predicted + 1) / (people + 1)), which the loss takes the size of."""
    return math.log(predicted + 1) - math.log(people + 1)


def as_json(unseen: Sequence[Unseen], fold: int | None, folds: int) -> bytes:
    """What lies beside a member's weights."""
    content = {
        "fold": fold,
        "folds": folds,
        "units": [asdict(unit) for unit in sorted(unseen, key=lambda unit: unit.number)],
    }
    return (json.dumps(content, indent=1) + "\n").encode()


def read_member(folder: Path) -> tuple[int | None, list[Unseen]]:
    """A member's fold and its predictions of units that it never saw.

    Empty for a member that was trained before such predictions were kept.

    Raises:
        TrainingError: the file is not what `as_json` writes.
    """
    path = folder / OUT_OF_FOLD_FILE
    if not path.exists():
        return None, []
    try:
        content = json.loads(path.read_text("utf-8"))
        return content["fold"], [Unseen(**unit) for unit in content["units"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            "a member's out-of-fold predictions cannot be read",
            where=path,
            expected="fold and units, as a training writes them",
            found=repr(error),
            remedy="train this member again",
        ) from error


def collected(members: Mapping[str, Path]) -> list[OutOfFold]:
    """All units that some member never saw, by number; each with the mean of those members.

    Args:
        members: seed -> the member's folder.

    Raises:
        TrainingError: a member's file cannot be read.
    """
    by_unit: dict[int, dict[str, Unseen]] = {}
    fold_of: dict[int, int | None] = {}
    for seed, folder in members.items():
        fold, unseen = read_member(folder)
        for unit in unseen:
            by_unit.setdefault(unit.number, {})[seed] = unit
            fold_of[unit.number] = fold
    rows = []
    for number, told in sorted(by_unit.items()):
        unit = next(iter(told.values()))
        by = {seed: one.predicted for seed, one in told.items()}
        mean = sum(by.values()) / len(by)
        rows.append(OutOfFold(unit.id, number, unit.people, mean, len(by), fold_of[number], by))
    return rows


def collected_json(rows: Sequence[OutOfFold]) -> bytes:
    """The checkpoints' `out_of_fold.json`: a list with an entry a unit, fields of `OutOfFold`."""
    return (json.dumps([asdict(row) for row in rows], indent=1) + "\n").encode()


def read_collected(path: Path) -> list[OutOfFold]:
    """Read the checkpoints' `out_of_fold.json`; empty where there is none, as in older versions.

    Raises:
        TrainingError: it is not what `collected_json` gives.
    """
    if not path.exists():
        return []
    try:
        return [OutOfFold(**row) for row in json.loads(path.read_text("utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        raise TrainingError(
            "the out-of-fold predictions cannot be read",
            where=path,
            expected="a JSON list with an entry a unit",
            found=repr(error),
            remedy="materialise the checkpoints again",
        ) from error
