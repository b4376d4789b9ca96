"""What must hold of a student: verdicts on its files, kept in its manifest from publication on."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from popcorn_assets.promotion.soundness import FiniteTraining
from popcorn_assets.promotion.students import UNITS, finite_student, read_told
from popcorn_ml.errors import StoreError
from popcorn_ml.mapping.checks import MapCheck
from popcorn_ml.training.out_of_fold import OutOfFold, log_ratio

FINITE, ACCOUNTED, KEEPS_UP = "finite_student", "units_accounted_for", "keeps_up_with_the_bag"

MOST_WORSE = 0.1
"""How much larger a student's mean |log ratio| may be than the Bag's on the same units."""

FEWEST = 10
"""Units on which the two are compared at least: on fewer, chance decides."""

CHECKS = {
    FINITE: "Every loss, every weight and every unit's people of the student is a number.",
    ACCOUNTED: "Every counted unit was learnt from or is said to be left out, and every unit that "
    "members told unseen was told by a student of a fold.",
    KEEPS_UP: "On units that neither saw, the student's mean |log ratio| of people is at most "
    f"{MOST_WORSE:.0%} larger than the Bag's.",
}
"""The asset's own checks, and what each says when it passes."""


@dataclass(frozen=True)
class Judged:
    """What was found of a student.

    Attributes:
        checks: verdicts, as `Outcome.checks` takes them.
        scores: a row for the student and one for the Bag, on the units that both told.
    """

    checks: list[MapCheck | FiniteTraining]
    scores: list[dict[str, Any]]


def judged(student: Path, told_by_bag: Sequence[OutOfFold], counts: Path) -> Judged:
    """Judge a trained student's folder.

    Args:
        told_by_bag: the units of its country that members which taught it had not seen.
        counts: JSON list of the counts that it was trained on.

    Raises:
        StoreError: a file cannot be read.
    """
    told = {unit.id: unit for unit in read_told(student)}
    bag = {unit.id: unit for unit in told_by_bag}
    both = sorted(told.keys() & bag.keys())
    ours, theirs = [told[unit] for unit in both], [bag[unit] for unit in both]
    return Judged(
        [
            finite_student(student),
            accounted(student, counts, told.keys(), bag.keys()),
            keeps_up(ours, theirs),
        ],
        [{"model": "student", **scores(ours)}, {"model": "Bag", **scores(theirs)}] if both else [],
    )


def accounted(
    student: Path, counts: Path, told: Iterable[str], told_by_bag: Iterable[str]
) -> MapCheck:
    """Whether no counted unit, and none that members told unseen, was dropped in silence."""
    try:
        said = json.loads((student / UNITS).read_text("utf-8"))
        known = {str(unit) for unit in said["trained"]}
        known |= {str(unit["id"]) for unit in said["left_out"]}
        counted = {str(row["id"]) for row in json.loads(counts.read_text("utf-8"))}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            "which units a student learnt from cannot be read",
            where=student / UNITS,
            expected="lists of the units trained on and left out",
            found=repr(error),
            remedy="train the student again",
        ) from error
    dropped, untold = sorted(counted - known), sorted({*told_by_bag} - {*told})
    found = (
        f"{len(counted)} counted units: {len(dropped)} of them neither learnt from nor left out "
        f"for a stated reason{_some(dropped)}; {len(untold)} that members told unseen were told by "
        f"no student of a fold{_some(untold)}"
    )
    remedy = "train the student again; if it stays so, report it with the census"
    numbers = {"units": len(counted), "dropped": len(dropped), "not told": len(untold)}
    return MapCheck(ACCOUNTED, not dropped and not untold, found, remedy, numbers)


def keeps_up(ours: Sequence[OutOfFold], theirs: Sequence[OutOfFold]) -> MapCheck:
    """Whether a student does about as well as the Bag on the same units; a warning where not."""
    remedy = (
        "train it longer (student.steps), or map with the Bag (model.kind: bag); popcorn models "
        "compares them"
    )
    if len(ours) < FEWEST:
        found = f"not judged: {len(ours)} units were told unseen by both, {FEWEST} are needed"
        remedy = (
            "train the members with training.held_out: folds, on a census of more units; this "
            "country has to be among the training.countries where there are any"
        )
        return MapCheck(KEEPS_UP, False, found, remedy, {"units": len(ours)}, "warn")
    mine, bags = off(ours), off(theirs)
    worse = mine / bags - 1 if bags > 0 else float(mine > 0)
    found = (
        f"mean |log ratio| of people on {len(ours)} units that neither saw: student {mine:.3f}, "
        f"Bag {bags:.3f} ({worse:+.1%}, at most {MOST_WORSE:+.0%})"
    )
    numbers = {"units": len(ours), "student": mine, "bag": bags}
    return MapCheck(KEEPS_UP, worse <= MOST_WORSE, found, remedy, numbers, "warn")


def off(units: Sequence[OutOfFold]) -> float:
    """Mean |log ratio| of people predicted and counted."""
    return statistics.fmean(abs(log_ratio(unit.predicted, unit.people)) for unit in units)


def scores(units: Sequence[OutOfFold]) -> dict[str, Any]:
    """R2, MAE, RMSE and bias per unit, and the mean |log ratio|."""
    import numpy as np

    from popcorn_ml.evaluation.metrics import Scores

    found = Scores.of(
        np.array([unit.people for unit in units]), np.array([unit.predicted for unit in units])
    )
    return {**found.as_dict(), "mean |log ratio|": off(units)}


def _some(units: Sequence[str]) -> str:
    return f" ({', '.join(units[:5])}{', ...' if len(units) > 5 else ''})" if units else ""
