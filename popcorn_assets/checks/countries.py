"""A check of checkpoints of several countries; it is there where a country's file names several."""

import math
from typing import Any

import dagster as dg

from popcorn_assets.assets.training import CHECKPOINTS
from popcorn_assets.checks.verdict import FEWEST, newest, not_judged, verdict
from popcorn_assets.partitions import COUNTRY_YEAR, trained_together
from popcorn_assets.resources import NOTHING, StoreResource
from popcorn_ml.training.out_of_fold import (
    OUT_OF_FOLD_FILE,
    CountryScore,
    OutOfFold,
    by_country,
    read_collected,
    score_of,
)

MUCH_WORSE = 1.5
"""A country's mean |log ratio| over that of the others' units, from which on it is much worse."""

CERTAIN = 1.645
"""Standard errors that chance alone exceeds, one way, once in twenty times."""


@dg.asset_check(asset=CHECKPOINTS, partitions_def=COUNTRY_YEAR, config_schema=NOTHING)
def no_country_much_worse(
    context: dg.AssetCheckExecutionContext, store: StoreResource
) -> dg.AssetCheckResult:
    """No country trained on is predicted much worse than the others, by members that saw no unit.

    Compared is the mean |log ratio| of people of a country's units, each by the members that never
    saw it, with that of all other countries' units: at most one and a half times, or within what
    chance makes of so many units.
    """
    version = newest(context, store, CHECKPOINTS)
    units = read_collected(version.path / OUT_OF_FOLD_FILE)
    scores = by_country(units)
    if len(scores) == 1 and not scores[0].country:
        return verdict(True, "trained on the units of one country")
    rows = [_beside_others(score, units) for score in scores]
    few = [score.country for score in scores if score.units < FEWEST]
    worse = [row["country"] for row in rows if row["much worse"] and row["country"] not in few]
    found = "; ".join(
        f"{s.country}: mean |log ratio| {s.log_l1:.3f} over {s.units} units, people predicted "
        + ("of none counted" if s.total_ratio is None else f"{s.total_ratio:.2f} of those counted")
        for s in scores
    )
    if worse:
        return verdict(
            False,
            f"{', '.join(worse)}: much worse than the other countries ({found})",
            remedy="look at that country's composites, and at its units in the warehouse's table "
            "out_of_fold; leave it out of training.countries if it is another kind of place, or "
            "train it by itself",
            warns=True,
            rows=rows,
            countries=len(scores),
        )
    if few or len(scores) < 2:
        told = f"{', '.join(few)}: fewer than {FEWEST} units" if few else "units of one country"
        return not_judged(
            f"{told} were predicted by members that never saw them; {found}",
            remedy="hold more units out (training.held_out: folds), on censuses of more and "
            "smaller units if need be",
            countries=len(scores),
        )
    return verdict(True, found, warns=True, countries=len(scores))


def _beside_others(score: CountryScore, units: list[OutOfFold]) -> dict[str, Any]:
    """A country's score, and whether it is much worse than that of all others' units together."""
    others = [unit for unit in units if unit.country != score.country]
    row = score.as_row()
    if not others:
        return {**row, "others' log l1": None, "much worse": False}
    against = score_of("", others)
    chance = CERTAIN * math.hypot(score.log_l1_error or 0.0, against.log_l1_error or 0.0)
    worse = score.log_l1 > MUCH_WORSE * against.log_l1 and score.log_l1 - against.log_l1 > chance
    return {**row, "others' log l1": against.log_l1, "much worse": worse}


checks = [no_country_much_worse] if trained_together() else []
