"""How a model does on census units that it never saw, and whether two models compare.

A model is checkpoints or a student; both are told by the same units. Which models there are is in
`candidates`, and which is good enough in `judging`.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from popcorn_assets.countries.model import Kind
from popcorn_assets.promotion import students
from popcorn_assets.promotion.entries import InUse, Model
from popcorn_assets.promotion.soundness import finite_training
from popcorn_assets.promotion.trained_on import (
    COUNTRIES,
    ids_in,
    level_text,
    levels_of,
    units_in,
    values_in,
)
from popcorn_assets.store.versions import Address, Store, Version
from popcorn_ml.errors import StoreError, TrainingError
from popcorn_ml.training.out_of_fold import (
    OUT_OF_FOLD_FILE,
    OutOfFold,
    collected,
    log_ratio,
    read_collected,
    read_member,
)
from popcorn_ml.training.places import qualified

COUNTS = "census_counts"
CERTAIN = 1.645
"""Standard errors that chance alone exceeds, one way, once in twenty times."""
COUNTS_UNKNOWN = "it is not known whether the same people were counted in their held-out units"


@dataclass(frozen=True)
class Metrics:
    """How a model does on the census units that it was not trained on.

    Each member counts with the epoch it kept. Where members hold out folds, the figures are means
    over all units, each by the member that never saw it; else means over members. Of a student
    they are means over the units as the students of the folds told them, and its loss is that of
    people alone.

    Attributes:
        loss: held-out loss (100 x |log ratio| and the occupancy's weight); None: nothing was held
            out, or the loss is no number.
        loss_spread: standard deviation of the members' losses; None for one member.
        log_l1, total_ratio, mae_people: of the same units.
        members: how many.
        units: census units held out.
        level: census level of the units.
        held_out: digest of the held-out units' ids.
        occupancy_weight: of the regulariser in the loss.
        chosen_by: how the members' epochs were chosen.
        broken: a member's loss or weight is no number.
        people: digest of what was counted in the held-out units, which the loss was measured
            against; empty: the counts are no longer in the store, or the ledger entry that keeps
            these metrics was written before it was noted.
        kind: of the model.
        own: of checkpoints of several countries: `units`, `level`, `log_l1`, `held_out`, `people`
            of their own country's units alone, by which a student of theirs is compared.
    """

    loss: float | None
    loss_spread: float | None
    log_l1: float | None
    total_ratio: float | None
    mae_people: float | None
    members: int
    units: int
    level: str
    held_out: str
    occupancy_weight: float | None
    chosen_by: str
    broken: bool = False
    people: str = ""
    kind: Kind = "bag"
    own: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """As a ledger keeps them; of checkpoints as before there were students."""
        unsaid = {"kind": "bag", "own": None}
        return {k: v for k, v in asdict(self).items() if k not in unsaid or v != unsaid[k]}


def metrics_of(store: Store, model: Model) -> Metrics:
    """The held-out metrics of a model.

    Raises:
        StoreError: it is not in the store, or its history cannot be read.
    """
    version = store.version(model.address, model.version)
    of = _of_student if model.kind == "student" else _of_members
    return of(store, model, version)


def _of_student(store: Store, model: Model, version: Version) -> Metrics:
    """Of all units that the students of the folds told, each by one that never saw it."""
    units, by_unit = students.units_told(version), unit_losses(store, model)
    found = _over_units(units) if units else {}
    return Metrics(
        loss=statistics.fmean(by_unit.values()) if by_unit else None,
        loss_spread=None,
        log_l1=found.get("log_l1"),
        total_ratio=found.get("total_ratio"),
        mae_people=found.get("mae_people"),
        members=1,
        units=len(units),
        level=str(version.manifest()["parameters"].get("level", "")),
        held_out=_digest({"\n".join(sorted(by_unit))}),
        occupancy_weight=None,
        chosen_by="last epoch",  # a student is trained for as many steps as it is told
        broken=not students.finite_student(version.path).passed,
        people=_digest_of_people(held_out_people(store, model)),
        kind="student",
    )


def _of_members(store: Store, model: Model, version: Version) -> Metrics:
    manifest = version.manifest()
    seeds = manifest.get("facts", {}).get("seeds")
    if not seeds:
        raise StoreError("the checkpoints do not say which members they have", where=version.path)
    kept: list[dict[str, float]] = []
    weights: set[float | None] = set()
    chosen_by: set[str] = set()
    held_out: set[str] = set()
    for seed in seeds:
        folder = f"member_{seed}"
        card = read_json(version.file(f"{folder}/card.json"))
        history = read_json(version.file(f"{folder}/history.json"))
        units = read_json(version.file(f"{folder}/units.json"))
        try:
            kept.append(history[int(card["best_epoch"]) - 1])
            weights.add(card.get("hyperparameters", {}).get("occupancy_weight"))
            chosen_by.add(str(card.get("chosen_by", "")))
            held_out.add("\n".join(sorted(units["held_out"])))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise StoreError(
                "a member's history does not say how it did",
                where=version.path / folder,
                expected="best_epoch in card.json, that epoch in history.json, held_out in units",
                found=repr(error),
                remedy=f"materialise {model.address} again",
            ) from error

    def mean(name: str) -> float | None:
        values = [epoch.get(name) for epoch in kept]
        if not values or not all(is_number(value) for value in values):
            return None
        return statistics.fmean(float(value) for value in values if value is not None)

    losses = [epoch.get("held_out_loss") for epoch in kept]
    loss, units = mean("held_out_loss"), next(iter(held_out)).split("\n") if any(held_out) else []
    found = {name: mean(f"held_out_{name}") for name in ("log_l1", "total_ratio", "mae_people")}
    if by_unit := unit_losses(store, model):
        # Every unit once, by a member that never saw it; which member it was is of no consequence.
        told = collected({str(seed): version.path / f"member_{seed}" for seed in seeds})
        units, held_out = [unit.id for unit in told], {"\n".join(sorted(by_unit))}
        loss, found = statistics.fmean(by_unit.values()), _over_units(told)
    return Metrics(
        loss=loss,
        loss_spread=None
        if loss is None or len(losses) < 2 or not all(is_number(value) for value in losses)
        else statistics.stdev(float(value) for value in losses if value is not None),
        log_l1=found["log_l1"],
        total_ratio=found["total_ratio"],
        mae_people=found["mae_people"],
        members=len(kept),
        units=len(units),
        level=level_text(manifest["parameters"]),
        held_out=_digest(held_out),
        occupancy_weight=next(iter(weights)) if len(weights) == 1 else None,
        chosen_by=", ".join(sorted(chosen_by)),
        broken=not finite_training(version.path, [f"member_{seed}" for seed in seeds]).passed,
        people=_digest_of_people(held_out_people(store, model)),
        own=_own_part(store, model, version) if COUNTRIES in manifest["parameters"] else None,
    )


def _own_part(store: Store, model: Model, version: Version) -> dict[str, Any] | None:
    """See `Metrics.own`."""
    parameters = version.manifest()["parameters"]
    told = units_in(parameters, read_collected(version.path / OUT_OF_FOLD_FILE), model.country)
    if not told:
        return None
    people = _people(store, model, _counts_of(store, model), own=True)
    return {
        "units": len(told),
        "level": levels_of(parameters, model.country)[model.country],
        "log_l1": _over_units(told)["log_l1"],
        "held_out": _digest({"\n".join(sorted(unit.id for unit in told))}),
        "people": _digest_of_people(people),
    }


def _as_compared(metrics: Mapping[str, Any], *, of_people: bool) -> Mapping[str, Any]:
    """Metrics as a ledger keeps them, or what of them a model of the other kind has too."""
    return {**metrics, **(metrics.get("own") or {})} if of_people else metrics


def _digest(held_out: set[str]) -> str:
    return hashlib.sha256("\0".join(sorted(held_out)).encode()).hexdigest()[:16]


def unit_losses(store: Store, model: Model, *, of_people: bool = False) -> dict[str, float]:
    """The loss of every census unit by what never saw it, by the unit's id.

    Empty where all members hold out the same units, or the checkpoints are from before there were
    folds, or a loss is no number.

    Args:
        of_people: the loss's part that people make alone, of the country's own units, which is all
            that a student has.

    Raises:
        StoreError: the checkpoints are not in the store, or what they say cannot be read.
    """
    from popcorn_ml.training.loss import LOSS_SCALE  # only here: it loads PyTorch

    version = store.version(model.address, model.version)
    found: dict[str, float] = {}
    if model.kind == "student":
        told = students.units_told(version)
        found = {u.id: LOSS_SCALE * abs(log_ratio(u.predicted, u.people)) for u in told}
        return found if all(is_number(value) for value in found.values()) else {}
    for seed in version.manifest()["facts"]["seeds"]:
        folder = version.path / f"member_{seed}"
        if not (folder / OUT_OF_FOLD_FILE).exists():
            return {}
        try:
            fold, unseen = read_member(folder)
        except TrainingError as error:
            raise StoreError(
                error.what, where=error.where, found=error.found, remedy=error.remedy
            ) from error
        if fold is None:
            return {}
        card = read_json(folder / "card.json")
        weight = 0.0 if of_people else card["hyperparameters"]["occupancy_weight"]
        for unit in unseen:
            distance = abs(log_ratio(unit.predicted, unit.people))
            found[unit.id] = LOSS_SCALE * (distance + weight * unit.occupancy)
    if of_people:
        found = values_in(version.manifest()["parameters"], found, model.country)
    return found if all(is_number(value) for value in found.values()) else {}


def _over_units(units: Sequence[OutOfFold]) -> dict[str, float | None]:
    """What `Metrics` has beside the loss, over all units that were predicted unseen."""
    people = sum(unit.people for unit in units)
    return {
        "log_l1": statistics.fmean(abs(log_ratio(unit.predicted, unit.people)) for unit in units),
        "total_ratio": sum(unit.predicted for unit in units) / people if people else None,
        "mae_people": statistics.fmean(abs(unit.predicted - unit.people) for unit in units),
    }


def margin_of_chance(store: Store, model: Model, other: Model, best: float) -> float | None:
    """How much worse than another a model may look by chance, relative to the other's loss.

    Both predicted the same units unseen. Their losses differ from unit to unit, here one way, there
    the other; the mean of these differences is uncertain by their standard deviation over the root
    of the number of units, and `CERTAIN` times that is what chance makes of equals at most once in
    twenty trainings.

    Of a student and checkpoints it is the loss of people alone.

    Returns:
        None where the losses of single units are not known, or fewer than two are.
    """
    alone = model.kind != other.kind
    try:
        ours, theirs = (unit_losses(store, one, of_people=alone) for one in (model, other))
    except (StoreError, KeyError, TypeError, ValueError):
        return None
    if len(ours) < 2 or ours.keys() != theirs.keys() or best <= 0:
        return None
    apart = [ours[unit] - theirs[unit] for unit in sorted(ours)]
    return CERTAIN * statistics.stdev(apart) / math.sqrt(len(apart)) / best


def loss_in(metrics: Mapping[str, Any], *, of_people: bool) -> float | None:
    """The held-out loss among metrics as a ledger keeps them, or its part of people alone."""
    from popcorn_ml.training.loss import LOSS_SCALE  # only here: it loads PyTorch

    if not of_people:
        return metrics.get("loss")
    alone = _as_compared(metrics, of_people=True).get("log_l1")
    return None if alone is None or not is_number(alone) else LOSS_SCALE * float(alone)


def incomparable(metrics: Metrics, other: Mapping[str, Any]) -> str:
    """Why two models' held-out losses do not compare; empty if they do.

    A student and checkpoints compare by the part of the loss that people make, over the same units:
    those of the student's country, where the checkpoints are of several.
    """
    if metrics.loss is None or not is_number(other.get("loss")):
        return "one of them has no held-out loss"
    one_kind = metrics.kind == other.get("kind", "bag")
    ours = _as_compared(metrics.as_dict(), of_people=not one_kind)
    other = _as_compared(other, of_people=not one_kind)
    if ours["level"] != other.get("level"):
        return f"trained on level {ours['level']!r}, not {other.get('level')!r}"
    if ours["held_out"] != other.get("held_out"):
        return "they hold out different census units"
    if one_kind and metrics.occupancy_weight != other.get("occupancy_weight"):
        return "their losses weigh occupancy differently"
    if metrics.chosen_by != other.get("chosen_by"):  # the best epoch's loss flatters
        return f"epochs were chosen by {metrics.chosen_by}, not by {other.get('chosen_by')}"
    return ""


def held_out_people(store: Store, model: Model) -> dict[str, float] | None:
    """People by id of the units that were held out, as counted when the model was trained.

    None: the counts it was trained from are no longer in the store.
    """
    return _people(store, model, _counts_of(store, model))


def on_current_counts(store: Store, model: Model) -> bool:
    """Whether the model's held-out units count as many people in the newest census counts."""
    used = _counts_of(store, model)
    newest = {code: store.find(one.address) for code, one in (used or {}).items()}
    there = {code: one for code, one in newest.items() if one is not None}
    if not used or len(there) < len(used):
        return False
    return there == used or _people(store, model, there) == _people(store, model, used)


def loss_shift(store: Store, model: Model, metrics: Metrics, other: InUse) -> float | None:
    """By how much, at most, the held-out losses of two models differ for what was counted alone.

    A unit's loss is 100 x |log(predicted + 1) - log(counted + 1)|; with other counts it differs by
    no more than 100 x |log(counted + 1) - log(counted anew + 1)|, whatever was predicted.

    Returns:
        0.0 with equal counts of the held-out units, and for models of different countries or
        years, whose counts differ by nature; None where the older counts are not known.
    """
    if (model.country, model.year) != (other.model.country, other.model.year):
        return 0.0
    alone = model.kind != other.model.kind
    own, kept = (
        _as_compared(one, of_people=alone).get("people") or ""
        for one in (metrics.as_dict(), other.metrics)
    )
    if own and own == kept:
        return 0.0
    used, others = _counts_of(store, model), _counts_of(store, other.model)
    if used is not None and used == others:
        return 0.0
    ours, theirs = (_people(store, model, counts, own=alone) for counts in (used, others))
    if ours is None or theirs is None:
        nothing_known = not (own or kept or used or others)
        return 0.0 if nothing_known else None
    from popcorn_ml.training.loss import LOSS_SCALE  # only here: it loads PyTorch

    logs = [abs(math.log(ours[unit] + 1) - math.log(theirs[unit] + 1)) for unit in ours]
    return LOSS_SCALE * statistics.fmean(logs) if logs else 0.0


def _counts_of(store: Store, model: Model) -> dict[str, Version] | None:
    """The census counts that a model was trained on, by country; None: not all are in the store."""
    try:
        inputs = store.version(model.address, model.version).manifest()["inputs"]
        found = {
            entry["country"]: store.version(
                Address(COUNTS, entry["country"], entry["year"]), entry["version"]
            )
            for entry in inputs
            if entry["asset"] == COUNTS
        }
    except (StoreError, KeyError, TypeError, ValueError):
        return None
    return found or None


def _people(
    store: Store, model: Model, counts: dict[str, Version] | None, *, own: bool = False
) -> dict[str, float] | None:
    """People by id of a model's held-out units in some counts; None: they are not all there.

    Args:
        own: of its own country's units alone, by the ids of its census.
    """
    if counts is None:
        return None
    try:
        version = store.version(model.address, model.version)
        manifest, parameters = version.manifest(), version.manifest()["parameters"]
        if model.kind == "student":
            held_out = {unit.id for unit in students.units_told(version)}
        else:
            held_out = {
                unit
                for seed in manifest["facts"]["seeds"]
                for unit in read_json(version.file(f"member_{seed}/units.json"))["held_out"]
            }
        levels, people = levels_of(parameters, model.country), {}
        if own:
            held_out = ids_in(parameters, held_out, model.country)
            levels = {model.country: levels[model.country]}
        for code, level in levels.items():
            named = code if COUNTRIES in parameters and not own else ""
            for row in read_json(counts[code].file(f"counts_{level}.json")):
                if (unit := qualified(named, row["id"])) in held_out:
                    people[unit] = float(row["people"])
    except (StoreError, KeyError, TypeError, ValueError):
        return None
    return people if people.keys() == held_out else None


def _digest_of_people(people: dict[str, float] | None) -> str:
    if people is None:
        return ""
    return hashlib.sha256(json.dumps(sorted(people.items())).encode()).hexdigest()[:16]


def is_number(value: object) -> bool:
    """Whether it is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read_json(path: Path) -> Any:
    """The content of a file of a version.

    Raises:
        StoreError: it is not JSON.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError("the file is not readable JSON", where=path, found=str(error)) from error
