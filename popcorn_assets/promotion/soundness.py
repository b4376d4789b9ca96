"""Whether trained members hold numbers only: the verdict that no promotion can overrule.

It is worked out on files, so that it is in a version's manifest from its publication on; Dagster's
check of the same name is in `checks.model`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from popcorn_assets.store.versions import Version
from popcorn_ml.errors import StoreError

HISTORY = "history.json"
WEIGHTS = "occupancy.safetensors"
REMEDY = "look at the member's loss curve, lower training.learning_rate, and train again"


@dataclass(frozen=True)
class FiniteTraining:
    """The verdict on checkpoints, as `Outcome.checks` takes it.

    Attributes:
        rows: what is infinite or no number: member, epoch (0: weights), what, value.
        epochs: looked at, of all members.
        weights: numbers looked at, of all members.
        parts: what is between two looks at the loss: an epoch, or so many steps.
    """

    rows: list[dict[str, Any]]
    epochs: int
    weights: int
    name: str = "finite_training"
    severity: str = "error"
    parts: str = "epochs"

    @property
    def passed(self) -> bool:
        return not self.rows

    @property
    def message(self) -> str:
        return (
            f"{len(self.rows)} of the losses and weights of {self.epochs} {self.parts} are "
            "infinite or no number"
        )

    @property
    def metadata(self) -> dict[str, Any]:
        return {self.parts: self.epochs, "weights": self.weights}


def finite_training(folder: Path, members: Iterable[str]) -> FiniteTraining:
    """Whether every loss of every epoch and every weight of every member is a number.

    Args:
        folder: of the members' folders.
        members: their names.

    Raises:
        StoreError: a member's history or weights cannot be read.
    """
    rows: list[dict[str, Any]] = []
    epochs = weights = 0
    for member in members:
        path = folder / member / HISTORY
        try:
            for number, epoch in enumerate(json.loads(path.read_text("utf-8")), start=1):
                epochs += 1
                rows += [
                    {"member": member, "epoch": number, "what": name, "value": str(value)}
                    for name, value in epoch.items()
                    if not (isinstance(value, int | float) and math.isfinite(value))
                ]
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise _unreadable(path, error) from error
        found, numbers = weights_rows(folder / member / WEIGHTS, member)
        rows, weights = rows + found, weights + numbers
    return FiniteTraining(rows, epochs, weights)


def weights_rows(path: Path, member: str) -> tuple[list[dict[str, Any]], int]:
    """Which tensors of a file of weights are infinite or no number, and how many numbers it has.

    Raises:
        StoreError: it cannot be read.
    """
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise _unreadable(path, error) from error
    rows: list[dict[str, Any]] = [
        {"member": member, "epoch": 0, "what": name, "value": "weights"}
        for name, values in tensors.items()
        if not np.isfinite(values).all()
    ]
    return rows, sum(values.size for values in tensors.values())


def _unreadable(path: Path, error: Exception) -> StoreError:
    return StoreError(
        "a member's record of its training, or its weights, cannot be read",
        where=path,
        found=str(error),
        remedy="train this country-year again",
    )


def member_names(version: Version) -> list[str]:
    """The folders of the members of checkpoints.

    Raises:
        StoreError: they do not say which they have.
    """
    seeds = version.manifest().get("facts", {}).get("seeds")
    if not seeds:
        raise StoreError("the checkpoints do not say which members they have", where=version.path)
    return [f"member_{seed}" for seed in seeds]
