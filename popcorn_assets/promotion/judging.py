"""Whether a candidate is good enough to come into use: the rules by which losses are compared.

What is asked, and what is written down, is `decide`'s business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from popcorn_assets.promotion.entries import Entry, InUse, Ledger, Model
from popcorn_assets.promotion.metrics import (
    COUNTS_UNKNOWN,
    Metrics,
    incomparable,
    loss_in,
    loss_shift,
    margin_of_chance,
    on_current_counts,
)
from popcorn_assets.store.versions import Store

MARGIN = 0.05
"""How much worse a model may be where neither the country's file nor its units' losses say."""

MOST_BY_CHANCE = 0.25
"""However few units there are, a model a quarter worse does not come into use by itself."""


@dataclass(frozen=True)
class Verdict:
    """What became of a comparison.

    Attributes:
        allowed: the candidate may come into use.
        said: why, in a sentence; empty where there was nothing to compare it with.
        margin: how much worse it might be; None: it was compared with nothing.
        sure: it is known to be no worse than that; not so where the census was corrected.
        best: the loss it was compared with.
    """

    allowed: bool
    said: str
    margin: float | None
    sure: bool = True
    best: float = float("inf")


def taken_out(ledger: Ledger, year: int | None, against: InUse | None) -> dict[int | None, InUse]:
    """What an explicit decision for a mapped year (None: all) replaces, by the years it maps.

    Where it replaces nothing, what it is to be compared with: `against`.
    """
    found = ledger.standing() if year is None else {}
    return found or ({} if against is None else {year: against})


def judge(
    store: Store,
    ledger: Ledger,
    model: Model,
    metrics: Metrics,
    replaced: Mapping[int | None, InUse],
    *,
    margin: float | None,
    explicit: bool,
) -> Verdict:
    """Whether a model is good enough to replace all that it would.

    What was trained in another country does not compare; the candidate is judged then by what was
    last in use of its own country, so that nothing worse comes back by way of another country.

    Args:
        replaced: what it would replace, or is to be compared with, by the years that maps.
        margin: how much worse it may be, relative to the loss in use; None: what chance makes of
            equals, from the differences of the losses of single units, or `MARGIN` where these are
            not known.
        explicit: somebody decides it. Otherwise what somebody chose has no margin.
    """
    verdicts: dict[int | None, Verdict] = {}
    for year, in_use in replaced.items():
        use, where = in_use, "in use"
        if in_use.model.country != model.country:
            own = last_of(ledger, model.country, metrics, year)
            if own is None:
                continue
            use, where = own, f"which was in use before {in_use.model}"
        if use.model != model:
            allowed = 0.0 if use.entry.explicit and not explicit else margin
            lenient = explicit or not use.entry.explicit
            verdicts[year] = _compare(
                store, ledger, model, metrics, use, where, allowed, year, lenient=lenient
            )
    refused = {year: verdict for year, verdict in verdicts.items() if not verdict.allowed}
    if refused:
        said: dict[str, list[int | None]] = {}
        for year, verdict in sorted(refused.items(), key=lambda item: item[0] or 0):
            said.setdefault(verdict.said, []).append(year)
        several = len(replaced) > 1
        text = "; ".join(
            f"for {_years(years)}: {reason}" if several else reason
            for reason, years in said.items()
        )
        return Verdict(False, text, min(v.margin or 0.0 for v in refused.values()))
    if not verdicts:
        return Verdict(True, "", None)
    nearest = min(verdicts.values(), key=lambda verdict: (verdict.sure, verdict.best))
    return nearest


def last_of(ledger: Ledger, country: str, metrics: Metrics, year: int | None) -> InUse | None:
    """What was last in use of a training country, for a mapped year; of what compares, if any.

    Where none of it was for that year, what was for the nearest. Rolled back models do not count.
    """
    out, line = ledger.rolled_back_from(), {use.entry.number for use in ledger.line(year)}
    own = [e for e in ledger.placed() if e.model.country == country and e.model not in out]

    def nearest(entry: Entry) -> tuple[bool, bool, int, int]:
        away = 0 if year is None or entry.year is None else abs(entry.year - year)
        differs = bool(incomparable(metrics, entry.metrics))
        return differs, entry.number not in line, away, -entry.number

    found = min(own, key=nearest, default=None)
    return None if found is None else InUse(found.model, found.metrics, found)


def refused_by(
    ledger: Ledger, model: Model, year: int | None, margin: float | None
) -> Entry | None:
    """The entry that refused a model for all years, or for this one.

    None: there is none, it came into use for that since, or the country's file allows more by now.
    """
    found, line = None, {use.entry.number for use in ledger.line(year)}
    for entry in (entry for entry in ledger.entries if entry.model == model):
        if entry.action != "refuse":
            found = None if entry.number in line else found
        elif entry.year not in (None, year):
            continue
        elif found is None and (entry.margin is None or margin is None or margin <= entry.margin):
            found = entry
    return found


def _compare(
    store: Store,
    ledger: Ledger,
    model: Model,
    metrics: Metrics,
    against: InUse,
    where: str,
    margin: float | None,
    year: int | None,
    *,
    lenient: bool,
) -> Verdict:
    """A model against one in use, and why, in a sentence.

    It is compared with the best model of its country in use since the last explicit decision on
    one, so that many small losses within the margin do not add up. Models that were not in use
    for `year` do not count.

    With a census corrected in between, the loss in use is known only within bounds. What may be no
    worse is allowed if `lenient`, as it was trained on the counts that hold now, but not as sure.
    """
    differs = incomparable(metrics, against.metrics)
    shift = None if differs else loss_shift(store, model, metrics, against)
    if shift is None:
        differs = differs or COUNTS_UNKNOWN
        said = f"{model} cannot be compared with {against.model} {where}: {differs}"
        return Verdict(False, said, MARGIN if margin is None else margin)
    others = [against]
    out = ledger.rolled_back_from() - {against.model}
    for use in reversed(ledger.line(year)):
        if use.model.country != model.country:
            continue
        if use.model not in out and not incomparable(metrics, use.metrics):
            if loss_shift(store, model, metrics, use) != shift:
                break  # from before the census was corrected: newer ones were judged by it
            others.append(use)
        if use.entry.explicit:
            break
    # Checkpoints and a student have one part of the loss in common, that of people.
    alone = any(use.model.kind != model.kind for use in others)
    told = [loss_in(use.metrics, of_people=alone) for use in others]
    loss = loss_in(metrics.as_dict(), of_people=alone)
    if loss is None or told[0] is None:
        why = "one of them has no held-out loss of people alone"
        said = f"{model} cannot be compared with {against.model} {where}: {why}"
        return Verdict(False, said, MARGIN if margin is None else margin)
    known = [(float(one), k) for k, one in enumerate(told) if one is not None]
    best, nearest = min(known)
    best_model = others[nearest].model
    if best_model != against.model:
        where = f"in use before {against.model}"
    by_chance = ""
    if margin is None:
        margin = margin_of_chance(store, model, best_model, best)
        if margin is not None:
            units = (metrics.own or {}).get("units", metrics.units) if alone else metrics.units
            by_chance = f", by chance over {units} units"
        margin = MARGIN if margin is None else min(margin, MOST_BY_CHANCE)
    change = f"{loss / best - 1:+.1%}" if best > 0 else f"{loss - best:+.4g}"
    said = (
        f"{model}: held-out loss {'of people ' if alone else ''}{loss:.4g} against {best:.4g} of "
        f"{best_model} {where} "
        f"({change}, at most {margin:+.1%} is allowed{by_chance})"
    )
    low, high = max(best - shift, 0.0), best + shift
    sure = loss <= low * (1 + margin)
    allowed = sure
    if shift:
        said += (
            f"; the census of {model.country}|{model.year} was corrected between the two, and on "
            f"the counts of the former the latter's loss is something from {low:.4g} to {high:.4g}"
        )
        possible = loss <= high * (1 + margin)
        allowed = sure or (possible and lenient and on_current_counts(store, model))
    return Verdict(allowed, said, margin, sure, best)


def _years(years: list[int | None]) -> str:
    named = [str(year) for year in years if year is not None]
    return ", ".join([*named, *(["all other years"] if None in years else [])])
