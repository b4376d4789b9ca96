"""What a member says of the census units that it never saw.

A unit's people are what the map would have there were this member the only one (`training.unseen`
predicts them). Beside a member's weights lies `out_of_fold.json`; the checkpoints' version has one
of all members together. Nothing here loads torch.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from popcorn_ml.errors import TrainingError

OUT_OF_FOLD_FILE = "out_of_fold.json"


@dataclass(frozen=True)
class Unseen:
    """A unit that a member was not trained on.

    Attributes:
        id, number, people: as in the census; with several countries the id begins with the code.
        predicted: people by the member.
        occupancy: its mean over the unit's pixels and the seasons, which the loss has a term of.
        country: code of its country; empty where the training has one and does not name it.
    """

    id: str
    number: int
    people: float
    predicted: float
    occupancy: float
    country: str = ""


@dataclass(frozen=True)
class OutOfFold:
    """A unit and what the members that never saw it say together.

    Attributes:
        id, number, people: as in the census; with several countries the id begins with the code.
        predicted: mean of those members.
        members: how many they are.
        fold: the fold that the unit is of; None where all members hold out the same units.
        by: seed -> people by that member.
        country: code of its country; empty where the training has one and does not name it.
    """

    id: str
    number: int
    people: float
    predicted: float
    members: int
    fold: int | None
    by: dict[str, float]
    country: str = ""

    def as_row(self) -> dict[str, Any]:
        """As the warehouse's tables `out_of_fold` and `student_out_of_fold` have it."""
        return {
            "unit_id": self.id,
            "people": self.people,
            "predicted": self.predicted,
            "members": self.members,
            "fold": self.fold,
            "unit_country": self.country or None,
        }


@dataclass(frozen=True)
class CountryScore:
    """How members do on one country's units that they never saw.

    Attributes:
        country: its code.
        units: how many there are.
        people, predicted: in all of them.
        mae: mean absolute error in people.
        log_l1: mean of |log((predicted + 1) / (people + 1))|, which the loss is made of.
        log_l1_error: standard error of that mean; None for one unit.
    """

    country: str
    units: int
    people: float
    predicted: float
    mae: float
    log_l1: float
    log_l1_error: float | None

    @property
    def total_ratio(self) -> float | None:
        """People predicted over people counted; None where nobody was."""
        return self.predicted / self.people if self.people else None

    def as_row(self) -> dict[str, Any]:
        """As a table shows it."""
        row = asdict(self) | {"total_ratio": self.total_ratio}
        return {name: row[name] for name in row if name != "log_l1_error"}


def by_country(units: Iterable[Unseen | OutOfFold]) -> list[CountryScore]:
    """The scores of every country, in the order of their first units."""
    of: dict[str, list[Unseen | OutOfFold]] = {}
    for unit in units:
        of.setdefault(unit.country, []).append(unit)
    return [score_of(country, found) for country, found in of.items()]


def score_of(country: str, units: Sequence[Unseen | OutOfFold]) -> CountryScore:
    """The score of some units, of which there is one at least."""
    logs = [abs(log_ratio(unit.predicted, unit.people)) for unit in units]
    return CountryScore(
        country=country,
        units=len(units),
        people=sum(unit.people for unit in units),
        predicted=sum(unit.predicted for unit in units),
        mae=statistics.fmean(abs(unit.predicted - unit.people) for unit in units),
        log_l1=statistics.fmean(logs),
        log_l1_error=statistics.stdev(logs) / math.sqrt(len(logs)) if len(logs) > 1 else None,
    )


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
        "units": [_plain(unit) for unit in sorted(unseen, key=_place)],
    }
    return (json.dumps(content, indent=1) + "\n").encode()


def _place(unit: Unseen) -> tuple[str, int]:
    return unit.country, unit.number


def _plain(unit: Unseen | OutOfFold) -> dict[str, Any]:
    """A unit as plain values; its country where it has one, as files did before there were any."""
    values = asdict(unit)
    return values if unit.country else {k: v for k, v in values.items() if k != "country"}


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
    """All units that some member never saw, by country and number; each with those members' mean.

    Args:
        members: seed -> the member's folder.

    Raises:
        TrainingError: a member's file cannot be read.
    """
    by_unit: dict[tuple[str, int], dict[str, Unseen]] = {}
    fold_of: dict[tuple[str, int], int | None] = {}
    for seed, folder in members.items():
        fold, unseen = read_member(folder)
        for unit in unseen:
            by_unit.setdefault(_place(unit), {})[seed] = unit
            fold_of[_place(unit)] = fold
    rows = []
    for place, told in sorted(by_unit.items()):
        unit = next(iter(told.values()))
        by = {seed: one.predicted for seed, one in told.items()}
        mean = sum(by.values()) / len(by)
        country, number = place
        rows.append(
            OutOfFold(unit.id, number, unit.people, mean, len(by), fold_of[place], by, country)
        )
    return rows


def collected_json(rows: Sequence[OutOfFold]) -> bytes:
    """The checkpoints' `out_of_fold.json`: a list with an entry a unit, fields of `OutOfFold`."""
    return (json.dumps([_plain(row) for row in rows], indent=1) + "\n").encode()


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
