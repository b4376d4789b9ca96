"""Checks of a country-year's checkpoints, and of the map's gain over the simplest one."""

import json
import math
from collections.abc import Iterable
from typing import Any

import dagster as dg

from popcorn_assets.assets.builtup import BUILTUP
from popcorn_assets.assets.evaluation import METRICS, evaluation, levels_kept_out
from popcorn_assets.assets.training import CHECKPOINTS
from popcorn_assets.checks.verdict import FEWEST, kept, newest, not_judged, said, verdict
from popcorn_assets.partitions import COUNTRY_YEAR
from popcorn_assets.promotion import soundness
from popcorn_assets.promotion.soundness import HISTORY
from popcorn_assets.promotion.trained_on import COUNTRIES, levels_of
from popcorn_assets.resources import NOTHING, StoreResource
from popcorn_assets.store.versions import Store, Version
from popcorn_ml.errors import StoreError
from popcorn_ml.training.places import qualified

UNITS, CARD = "units.json", "card.json"

AS_JOINED = 4
"""Units joined into one, of the coarsening test, where there is nothing else to compare maps by."""

MOST_OFF = 0.2
"""People predicted in all units that were not seen, more or less than counted, as a share."""

UNSCORED = "this evaluation is from before units were scored that no member saw"

SIMPLEST = "builtup"
"""What a map must beat: the census spread by built-up score."""


@dg.asset_check(
    asset=CHECKPOINTS, blocking=True, partitions_def=COUNTRY_YEAR, config_schema=NOTHING
)
def finite_training(
    context: dg.AssetCheckExecutionContext, store: StoreResource
) -> dg.AssetCheckResult:
    """Every loss of every epoch and every weight of every member is a number."""
    version = newest(context, store, CHECKPOINTS)
    found = soundness.finite_training(version.path, _members(version))
    return verdict(
        found.passed,
        found.message,
        remedy=soundness.REMEDY,
        rows=found.rows,
        epochs=found.epochs,
        weights=found.weights,
    )


@dg.asset_check(asset=CHECKPOINTS, partitions_def=COUNTRY_YEAR, config_schema=NOTHING)
def training_helped(
    context: dg.AssetCheckExecutionContext, store: StoreResource
) -> dg.AssetCheckResult:
    """Every member kept an epoch that does better on the held-out units than its first."""
    version = newest(context, store, CHECKPOINTS)
    rows = []
    for member in _members(version):
        history, kept = _json(version, member, HISTORY), _kept(version, member)
        if "held_out_loss" in history[0] and len(history) > 1:
            first, best = history[0]["held_out_loss"], kept["held_out_loss"]
            rows.append({"member": member, "first epoch": first, "kept": best})
    if not rows:
        return not_judged(
            "no unit was held out, or there was one epoch only: nothing to compare",
            remedy="hold units out (training.held_out: folds) and train for more epochs",
        )
    stuck = [row for row in rows if not row["kept"] < row["first epoch"]]
    return verdict(
        not stuck,
        f"{len(stuck)} of {len(rows)} members do no better on held-out units than after their "
        "first epoch",
        remedy="train longer or with another training.learning_rate; look at the loss curves, and "
        "whether the held-out units are like the others",
        warns=True,
        rows=stuck or rows,
        members=len(rows),
        stuck=len(stuck),
    )


@dg.asset_check(asset=CHECKPOINTS, partitions_def=COUNTRY_YEAR, config_schema=NOTHING)
def model_beats_builtup(
    context: dg.AssetCheckExecutionContext, store: StoreResource
) -> dg.AssetCheckResult:
    """On held-out units the members do better than people in proportion to built-up score.

    Both are given the training units only: where members hold out folds, these are other units for
    each, and all units are told by a member that never saw them. The simplest model has one figure,
    the training units' people by their built-up score; error is the mean |log ratio| of people a
    held-out unit.
    """
    version = newest(context, store, CHECKPOINTS)
    members = _members(version)
    errors = [_kept(version, member).get("held_out_log_l1") for member in members]
    known = [float(error) for error in errors if error is not None]
    if len(known) < len(members):
        return not_judged(
            "no unit was held out: nothing to compare",
            remedy="hold units out (training.held_out: folds), of a larger census if need be",
        )
    simple, ratio = builtup_error(store.open(), version)
    mean = sum(known) / len(known)
    held_out = len({unit for m in members for unit in _json(version, m, UNITS)["held_out"]})
    found = (
        f"mean |log ratio| on {held_out} held-out units: members {mean:.3f}, built-up score "
        f"alone {simple:.3f}"
    )
    numbers: dict[str, Any] = {
        "members": mean,
        "builtup": simple,
        "people_per_builtup_pixel": ratio,
        "held_out_units": held_out,
    }
    if held_out < FEWEST:
        return not_judged(
            f"{held_out} held-out units are too few to tell, at least {FEWEST} are needed; {found}",
            remedy="hold more units out (training.held_out: folds), on a census of more and "
            "smaller units if need be",
            **numbers,
        )
    return verdict(
        mean < simple,
        found,
        remedy="train longer, and look at the built-up area of the units that are worst; a model "
        "that does no better than built-up score adds nothing",
        warns=True,
        **numbers,
    )


def builtup_error(store: Store, version: Version) -> tuple[float, float]:
    """How built-up score alone does on the units that some checkpoints were not trained on.

    Returns:
        Mean |log((predicted + 1) / (counted + 1))| of the held-out units, and people per pixel of
        full built-up score in the training units (mean of the folds, where there are any).

    Raises:
        StoreError: what the checkpoints were trained from is no longer in the store.
    """
    parameters = version.manifest()["parameters"]
    by_id: dict[str, tuple[float, float]] = {}
    for code, level in levels_of(parameters, version.address.country or "").items():
        named = code if COUNTRIES in parameters else ""
        found = _people_and_score(store, version, code, level, parameters["pixel_area_m2"])
        by_id |= {qualified(named, unit): values for unit, values in found.items()}
    logs, ratios = [], []
    for units_of in _distinct(_json(version, member, UNITS) for member in _members(version)):
        trained, held_out = ([by_id[i] for i in units_of[key]] for key in ("trained", "held_out"))
        people, score = (sum(values) for values in zip(*trained, strict=True))
        ratios.append(people / max(score, 1e-9))
        logs += [
            abs(math.log((ratios[-1] * score + 1) / (people + 1))) for people, score in held_out
        ]
    return float(sum(logs) / len(logs)), float(sum(ratios) / len(ratios))


def _people_and_score(
    store: Store, version: Version, country: str, level: str, pixel_area_m2: float
) -> dict[str, tuple[float, float]]:
    """People and built-up score of a country's counted units, by id; mean of the seasons.

    Args:
        pixel_area_m2: of the pixels that the score is summed in.
    """
    import numpy as np
    import pyarrow.parquet as pq

    from popcorn_ml import raster
    from popcorn_ml.zones import raster_zone_sums

    units = store.made_from(version, "census_units", country)
    score = store.made_from(version, "builtup_area", country).file(BUILTUP)
    table = store.made_from(version, "census_counts", country).file(f"counts_{level}.json")
    numbered = units.file(f"units_{level}.tif")
    size = pq.read_metadata(units.file(f"units_{level}.parquet")).num_rows
    with raster.opened(score) as dataset:
        bands = [(score, band) for band in dataset.indexes]
    grid = raster.grid_of(numbered)
    sums = raster_zone_sums(numbered, bands, grid, size, by_area=True)
    seen = sums.valid > 0
    mean_score = np.where(seen, sums.sums, 0.0).sum(0) / np.maximum(seen.sum(0), 1)
    mean_score *= grid.pixel_area_m2 / pixel_area_m2
    return {
        count["id"]: (count["people"], mean_score[count["number"]])
        for count in json.loads(table.read_text("utf-8"))
    }


def _distinct(lists: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """What members say of their units, once for all that hold out the same ones."""
    return list({"\0".join(sorted(units["held_out"])): units for units in lists}.values())


@dg.asset_check(asset=evaluation, partitions_def=COUNTRY_YEAR, config_schema=NOTHING)
def map_beats_builtup(
    context: dg.AssetCheckExecutionContext, store: StoreResource
) -> dg.AssetCheckResult:
    """The adjusted map is nearer to what is known than the census spread by built-up score.

    Per hectare where the truth is known, else per unit of a level that was kept out, else per unit
    of the training level within joined units, whose sums alone both were given.
    """
    metrics = json.loads(newest(context, store, "evaluation").file(METRICS).read_text("utf-8"))
    found = metrics["metrics"]
    per = "hectare" if "hectare" in found["adjusted"] else "unit"
    ours, simple = (_scores(found, approach, per) for approach in ("adjusted", SIMPLEST))
    joined = _joined(metrics)
    if ours is None and per == "unit" and joined is not None:
        ours, simple = (joined["metrics"][approach] for approach in ("adjusted", SIMPLEST))
        per = f"unit, of about {joined['joined']} joined into one that both were adjusted to"
    if ours is None or simple is None:
        known = "true" if per == "hectare" else "counted"
        return not_judged(
            f"no {per} has both {known} people and a value on every map"
            if per in found["adjusted"] and metrics["unit_level"] != "coarse"
            else "no level was kept out of training, and both match the census anyhow; "
            f"{metrics.get('without_truth', {}).get('why_not', UNSCORED)}",
            remedy="give a finer level of the census the role evaluate in the country's file, or "
            "train with training.held_out: folds"
            if per == "unit"
            else "look at where the truth and the maps have values",
        )
    # A hectare is told with its area where it is none; older evaluations did not say.
    title = metrics.get("cell", {}).get("name", per) if per == "hectare" else per
    sentence = (
        f"mean absolute error per {title}: adjusted map {ours['mae']:,.2f} people, census spread "
        f"by built-up score {simple['mae']:,.2f}, on {ours['n']} of them"
    )
    numbers = {"adjusted_map": ours["mae"], "builtup": simple["mae"], "compared": ours["n"]}
    if ours["n"] < FEWEST:
        return not_judged(
            f"{ours['n']} are too few to tell, at least {FEWEST} are needed; {sentence}",
            remedy="evaluate on a level of more and smaller units",
            **numbers,
        )
    return verdict(
        ours["mae"] < simple["mae"],
        sentence,
        remedy="compare the model with others (popcorn models), train on more units or longer; "
        "until then built-up score alone would serve users better",
        warns=True,
        **numbers,
    )


@dg.asset_check(asset=evaluation, partitions_def=COUNTRY_YEAR)
def scored_without_truth(
    context: dg.AssetCheckExecutionContext, store: StoreResource
) -> dg.AssetCheckResult:
    """Enough census units were predicted by what never saw them, and their sum is right.

    A score needs no truth then. The people predicted in them all may be off by a fifth: a count is
    known of every unit, so that the adjusted map is not, but what is beyond the census is.
    """
    metrics = json.loads(newest(context, store, "evaluation").file(METRICS).read_text("utf-8"))
    found = metrics.get("without_truth", {"why_not": UNSCORED})
    if found["why_not"]:
        return not_judged(
            found["why_not"],
            remedy="train with training.held_out: folds, on a census of more and smaller units if "
            "need be, and evaluate again",
            units_predicted_unseen=found.get("units"),
            counted_units=found.get("counted"),
        )
    scores = found["out_of_fold"]
    mean = scores["mae"] / scores["mae_share"] if scores["mae_share"] else math.nan
    off = scores["bias"] / mean if mean else math.nan
    r2 = "not defined" if scores["r2"] is None else f"{scores['r2']:.2f}"
    return verdict(
        abs(off) <= MOST_OFF,
        f"{scores['n']} units predicted by {found.get('told_by', 'members')} that never saw them: "
        f"R2 {r2}, mean absolute error {scores['mae']:,.0f} people, RMSE {scores['rmse']:,.0f}, "
        f"bias {scores['bias']:+,.0f} ({off:+.1%} of their people, at most {MOST_OFF:.0%} either "
        "way)",
        remedy="look at the units that are worst in the warehouse's table out_of_fold; counts that "
        "are too high or too low, or images of another season, show there",
        warns=True,
        units_predicted_unseen=scores["n"],
        mae=scores["mae"],
        rmse=scores["rmse"],
        bias=scores["bias"],
    )


def _joined(metrics: dict[str, Any]) -> dict[str, Any] | None:
    """Of the coarsening test the size of join nearest to `AS_JOINED`, if there was such a test."""
    entries = metrics.get("without_truth", {}).get("coarsened", [])
    return min(entries, key=lambda entry: abs(entry["joined"] - AS_JOINED), default=None)


def _scores(
    metrics: dict[str, dict[str, dict[str, Any]]], approach: str, per: str
) -> dict[str, Any] | None:
    """What an approach scored, if anything could be scored at all."""
    scores = metrics.get(approach, {}).get(per)
    return scores if scores and scores["mae"] is not None else None


@dg.asset_check(asset=evaluation, blocking=True, partitions_def=COUNTRY_YEAR, config_schema=NOTHING)
def evaluation_levels_kept_out(
    context: dg.AssetCheckExecutionContext, store: StoreResource
) -> dg.AssetCheckResult:
    """No level that the map is evaluated on was trained on."""
    version = newest(context, store, "evaluation")
    found = kept(context, version, "evaluation_levels_kept_out")
    return found or said(levels_kept_out(store.open(), version))


def _members(version: Version) -> list[str]:
    return [f"member_{seed}" for seed in version.manifest()["facts"]["seeds"]]


def _json(version: Version, member: str, name: str) -> Any:
    path = version.file(f"{member}/{name}")
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise StoreError(
            "a member's record of its training is not readable JSON",
            where=path,
            found=str(error),
            remedy=f"materialise {version.address} again",
        ) from error


def _kept(version: Version, member: str) -> dict[str, Any]:
    """Metrics of the epoch that a member kept."""
    return _json(version, member, HISTORY)[_json(version, member, CARD)["best_epoch"] - 1]


checks = [
    finite_training,
    training_helped,
    model_beats_builtup,
    map_beats_builtup,
    scored_without_truth,
    evaluation_levels_kept_out,
]
