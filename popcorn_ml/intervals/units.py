"""From a map, its census and who saw which unit to an error model: what hectare maps call.

A unit counts as unseen by the members that were not trained on it. In a country that the model was
trained in these are the members that held it out, whatever the year that is mapped; in any other
country they are all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from popcorn_ml.intervals.fitting import GROUPS, LEAST_UNITS, Fitted, Unseen, fit
from popcorn_ml.intervals.law import LEVELS
from popcorn_ml.intervals.measures import Measured
from popcorn_ml.intervals.model import Basis, ErrorModel

MIN_UNIT_SHARE = 0.95
"""Share of a unit's pixels that must have a value: of less, the sum says more of the gaps."""


@dataclass(frozen=True)
class Seen:
    """Which members a unit is unseen by.

    Attributes:
        members: positions of those members in `population_members.tif`, from 0.
        group: the unit is left out together with others of its group.
        told: people counted and predicted, where no band but another network never saw the unit.
    """

    members: tuple[int, ...]
    group: int
    told: tuple[float, float] | None = None


@dataclass(frozen=True)
class Given:
    """What came of it: an error model, or the reason that there is none.

    Attributes:
        model: None where no interval can be given.
        fitted: with the units behind it; None likewise.
        why: what it rests on, or why there is none and what would help.
    """

    model: ErrorModel | None
    fitted: Fitted | None
    why: str


def unseen_units(
    measured: Measured,
    by_member: np.ndarray,
    counted: Sequence[float],
    unseen_by: Mapping[int, Seen] | None,
    pixel_ha: float,
) -> Unseen:
    """Units with a count and a prediction by members that never saw them.

    Args:
        measured: the census units in the map that is not adjusted.
        by_member: people by each member, (members, n + 1).
        counted: people of units 1..n, NaN without a count.
        unseen_by: unit number -> `Seen`; None where no member saw any unit. What is told with it
            takes the place of count and members.
        pixel_ha: mean area of a pixel.
    """
    people = np.asarray(counted, np.float64)
    whole = measured.valid[1:] >= MIN_UNIT_SHARE * np.maximum(measured.pixels[1:], 1)
    usable = ~np.isnan(people) & (measured.pixels[1:] > 0) & whole & (measured.people[1:] > 0)
    numbers = np.flatnonzero(usable) + 1
    everyone = tuple(range(len(by_member)))
    if unseen_by is None:
        parts = np.arange(len(numbers)) * GROUPS // max(len(numbers), 1)
        told = {int(n): Seen(everyone, int(p)) for n, p in zip(numbers, parts, strict=True)}
    else:
        told = {n: seen for n, seen in unseen_by.items() if seen.members or seen.told}
        numbers = np.array([n for n in numbers if int(n) in told], np.int64)

    def of(number: int) -> tuple[float, float]:
        seen = told[number]
        if seen.told is not None:
            return seen.told
        return people[number - 1], by_member[list(seen.members), number].mean()

    pairs = np.array([of(int(n)) for n in numbers], np.float64).reshape(-1, 2)
    counts, predicted = pairs.T
    mapped = measured.people[numbers]
    # the members' people lie where the map's do, as far as a sum over a unit can say
    return Unseen(
        number=numbers,
        counted=counts,
        people=predicted,
        crowding=measured.crowding[numbers] * (predicted / mapped) ** 2,
        area_ha=measured.pixels[numbers] * pixel_ha,
        group=np.array([told[int(n)].group for n in numbers], np.int64),
    )


def give(
    unseen: Unseen,
    *,
    level: str,
    country: str,
    year: int,
    trained_on: tuple[str, int],
    by_folds: bool = False,
) -> Given:
    """The error model of a map, where enough units stand behind one.

    Args:
        unseen: of the map's own country and year.
        level: of the census that they are of.
        country, year: that are mapped.
        trained_on: country and year that the model was trained on.
        by_folds: it is a student, whose units in its own country students of the folds told, in the
            year that it was trained on.
    """
    own = trained_on[0] == country
    folds = own and by_folds
    if len(unseen) < LEAST_UNITS:
        found = f"{len(unseen)} counted units were predicted by a member that never saw them"
        remedy = (
            "train on this country's units with training.held_out: folds, so that every unit is "
            "held out once"
            if own
            else "give a census level with more counted units"
        )
        return Given(
            None, None, f"no intervals: {found}; at least {LEAST_UNITS} are needed. {remedy}"
        )
    fitted = fit(unseen)
    told = (
        f"{len(unseen)} units of the level {level} in {trained_on[1] if folds else year}, each "
        f"held against {'a student' if folds else 'members'} that "
        + ("never saw it" if own else f"were all trained elsewhere, on {trained_on[0]}")
    )
    if own and trained_on[1] != year:
        told += f"; the model was trained on {trained_on[1]}"
    extent, people = fitted.units.extent, unseen.counted
    basis = Basis(
        residuals=len(unseen),
        smallest_ha=round(float(extent.min()), 2),
        largest_ha=round(float(extent.max()), 2),
        smallest_people=float(people.min()),
        largest_people=float(people.max()),
        level=level,
        unseen_by=f"{'students' if folds else 'members'} that held it out"
        if own
        else "all members",
        trained_on=f"{trained_on[0]}|{trained_on[1]}",
        told=told,
    )
    coverage = {level: float(fitted.tried[level].mean()) for level in LEVELS}
    return Given(ErrorModel(fitted.law, fitted.widths, basis, coverage), fitted, told)
