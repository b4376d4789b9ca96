"""Candidates: the models that could map a country, and how they do on what was held out.

What is made of that, and what is written down, is `decide`'s business.
"""

from __future__ import annotations

import re
from typing import Any

from popcorn_assets.country import load_country
from popcorn_assets.promotion.entries import MODELS, InUse, Model, named
from popcorn_assets.promotion.ledger import DEPLOYED, DEPLOYED_FILE, read_ledger
from popcorn_assets.promotion.metrics import (
    COUNTS_UNKNOWN,
    Metrics,
    incomparable,
    loss_in,
    loss_shift,
    metrics_of,
    read_json,
)
from popcorn_assets.promotion.students import is_trained
from popcorn_assets.store.versions import Address, Store, failed_checks
from popcorn_ml.errors import StoreError


def candidates(store: Store, country: str) -> list[dict[str, Any]]:
    """Every checkpoints version, and every student, that could map a country, as rows of a table.

    The newest year is first, and of a year the checkpoints.

    Its own, those of the country its file names, and whatever its ledger names. The loss is set
    against that of the model in use (for the same trained year, where years have their own).
    """
    settings, ledger = load_country(country), read_ledger(store, country)
    places = {country, settings.model.country or country}
    places |= {entry.model.country for entry in ledger.entries}
    standing, out = ledger.standing(), ledger.rolled_back_from()
    used: dict[Model, list[str]] = {}
    for year, use in standing.items():
        used.setdefault(use.model, []).append("all years" if year is None else str(year))
    placed = {entry.model for entry in ledger.placed()}
    refused = {entry.model for entry in ledger.entries if entry.action == "refuse"}
    rows = []
    found = sorted(models_in(store, places), key=lambda m: list(MODELS).index(m.kind))
    for model in sorted(found, key=lambda m: (m.year, m.country), reverse=True):
        metrics, problem = _try_metrics(store, model)
        latest = is_latest(store, model)
        if model in used:
            state = f"in use: {', '.join(sorted(used[model]))}"
        elif problem:
            state = problem
        elif model in out:
            state = "rolled back from"
        elif model in placed:
            state = "was in use"
        elif model in refused:
            state = "refused"
        else:
            state = "candidate" if latest else "older"
        against = ledger.nearest(model.year)
        rows.append(
            {
                "trained as": f"{model.country}|{model.year}",
                "kind": model.kind,
                "version": model.version,
                "state": state,
                "held-out loss": metrics.loss if metrics else None,
                "of people alone": loss_in(metrics.as_dict(), of_people=True) if metrics else None,
                "against in use": _against_text(store, metrics, model, against),
                "spread of members": metrics.loss_spread if metrics else None,
                "held-out total ratio": metrics.total_ratio if metrics else None,
                "held-out MAE, people": metrics.mae_people if metrics else None,
                "units held out": metrics.units if metrics else None,
                "level": metrics.level if metrics else None,
                "members": metrics.members if metrics else None,
                "latest training": latest,
            }
        )
    return rows


def mapped(store: Store, country: str) -> list[dict[str, Any]]:
    """The country-years with a deployed model: which, by which entry, and what is in use now."""
    ledger, rows = read_ledger(store, country), []
    for folder in sorted((store.root / DEPLOYED / country).glob("[0-9]*")):
        year = int(folder.name)
        version = store.find(Address(DEPLOYED, country, year))
        if version is None:
            continue
        kept = read_json(version.file(DEPLOYED_FILE))
        now = ledger.in_use(year)
        same = now is not None and kept.get("entry") == now.entry.id
        rows.append(
            {
                "year": year,
                "model": f"{named(kept.get('kind', 'bag'))}{kept['country']}|{kept['year']}"
                f"@{kept['version']}",
                "entry": kept.get("entry", ""),
                "as decided": same,
                "in use now": str(now.model) if now else "",
            }
        )
    return rows


def models_in(store: Store, countries: set[str]) -> list[Model]:
    """All checkpoints and students of some countries in the store."""
    return [
        Model(country=path.parts[-4], year=int(path.parts[-3]), version=path.parts[-2], kind=kind)
        for country in sorted(countries)
        for kind, asset in MODELS.items()
        for path in sorted((store.root / asset / country).glob("*/*/manifest.json"))
        if re.fullmatch(r"\d{4}", path.parts[-3]) and re.fullmatch(r"[0-9a-f]{16}", path.parts[-2])
        if kind == "bag" or is_trained(path.parent)
    ]


def is_latest(store: Store, model: Model) -> bool:
    """Whether they are the current ones of their country-year."""
    try:
        found = store.find(model.address)
    except StoreError:
        return False
    return found is not None and found.version == model.version


def _try_metrics(store: Store, model: Model) -> tuple[Metrics | None, str]:
    try:
        metrics = metrics_of(store, model)
        failed = failed_checks(store.version(model.address, model.version))
    except (StoreError, KeyError) as error:
        return None, f"cannot be used: {getattr(error, 'what', error)}"
    return metrics, "failed its checks" if failed else ""


def _against_text(
    store: Store, metrics: Metrics | None, model: Model, against: InUse | None
) -> str:
    if metrics is None or against is None or against.model == model:
        return ""
    if against.model.country != model.country:
        return "another country"
    differs = incomparable(metrics, against.metrics)
    alone = model.kind != against.model.kind
    ours, theirs = (loss_in(m, of_people=alone) for m in (metrics.as_dict(), against.metrics))
    if differs or ours is None or not theirs:
        return differs or "not comparable"
    shift = loss_shift(store, model, metrics, against)
    if shift is None:
        return COUNTS_UNKNOWN
    change = f"{ours / theirs - 1:+.1%}"
    return f"{change}, but the census was corrected" if shift else change
