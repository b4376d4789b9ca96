"""Somebody's decision: checkpoints put in use, or gone back to, whatever the rules would say.

What the rules decide by themselves is in `decide`.
"""

from __future__ import annotations

import re
from typing import Any, cast

from popcorn_assets.countries.model import Kind
from popcorn_assets.country import Country, country_files, load_country
from popcorn_assets.promotion.candidates import models_in
from popcorn_assets.promotion.decide import SHOWN_CANDIDATES, across, configured, refused_before
from popcorn_assets.promotion.entries import (
    MODELS,
    PLACING,
    Action,
    Entry,
    Ledger,
    Model,
)
from popcorn_assets.promotion.judging import judge, taken_out
from popcorn_assets.promotion.ledger import append, deciding
from popcorn_assets.promotion.metrics import metrics_of
from popcorn_assets.promotion.soundness import finite_training, member_names
from popcorn_assets.promotion.students import finite_student, is_trained
from popcorn_assets.store.versions import Address, Store, failed_checks
from popcorn_ml.errors import ConfigError, PopcornError, StoreError

SAY_WHY = "say why, with --reason TEXT"

MAX_TEXT = 1000
"""Characters of a reason or a name that are kept."""

_SOURCE = re.compile(
    r"(?:(?P<kind>bag|student)\s+)?(?:(?P<country>[a-z][a-z0-9_]*)[|/:])?(?P<year>\d{4})(?:@(?P<version>\w+))?"
)


class PromotionRefused(PopcornError):
    """An explicit promotion that would have put a worse, or an incomparable, model in use."""


def promote(
    store: Store,
    country: str,
    source: str,
    *,
    who: str,
    year: int | None = None,
    force: bool = False,
    reason: str = "",
    transfer: bool = False,
) -> Entry:
    """Put checkpoints in use by somebody's decision.

    Args:
        source: `2020`, `rwa|2020` or `rwa|2020@version` (its first digits will do), perhaps with
            `student` or `bag` before it; without a version the current one, of the kind that the
            country's file says where none is named.
        year: the mapped year it is for; None: all years.
        force: also if they are worse than the margin allows or cannot be compared.
        reason: why; needed with force.
        transfer: says that checkpoints of another country are meant.

    Returns:
        The ledger's entry.

    Raises:
        PromotionRefused: worse or incomparable, and not forced; of another country, and not said
            so. The former is in the ledger too.
        ConfigError, StoreError: no such checkpoints, they failed a check, or nothing would change.
    """
    settings, reason, who = load_country(country), _line(reason), _line(who)
    if force and not reason:
        raise PromotionRefused("a forced promotion needs a reason", remedy=SAY_WHY)
    model = _chosen(store, settings, source)
    stated = transfer or (settings.model.country or country) == model.country
    with deciding(store, country) as ledger:
        _require_sound(store, model)
        metrics = metrics_of(store, model)
        against = ledger.nearest(year)
        replaced = taken_out(ledger, year, against)
        if against is not None and against.model == model:  # it is another that stands against it
            against = next((use for use in replaced.values() if use.model != model), against)
        others = {use.model.country for use in replaced.values()}
        if not stated:
            _require_own(settings, model, {country, *others})
        if _is_in_use(ledger, model, year):
            raise ConfigError(f"{model} is in use already", where=_for_years(country, year))
        changes_country = bool(others - {model.country})
        verdict = judge(
            store, ledger, model, metrics, replaced, margin=settings.model.margin, explicit=True
        )
        said = verdict.said
        if not replaced:
            said = f"{model}: nothing was in use"
        elif changes_country and verdict.allowed:
            abroad = [use.model for use in replaced.values() if use.model.country != model.country]
            said = across(model, abroad[0], "", said)
        entry: dict[str, Any] = {
            "year": year,
            "model": model,
            "metrics": metrics.as_dict(),
            "against": against,
            "margin": verdict.margin,
            "configured": configured(settings),
            "who": who,
            "explicit": True,
        }
        if not verdict.allowed and not force:
            if not refused_before(ledger, model, against, verdict.margin, explicit=True):
                append(ledger, **entry, action="refuse", reason=said)
            raise PromotionRefused(
                said,
                where=_for_years(country, year),
                remedy="keep what is in use, or decide otherwise with --force --reason TEXT",
            )
        foreign = model.country != country
        action: Action = "transfer" if changes_country or (foreign and not against) else "promote"
        forced = force and not verdict.allowed
        ledger = append(ledger, **entry, action=action, reason=reason or said, forced=forced)
        return ledger.entries[-1]


def roll_back(
    store: Store, country: str, *, who: str, reason: str, to: str = "", year: int | None = None
) -> Entry:
    """Put a model in use again that was in use before; the one in use will not come back by itself.

    Args:
        to: the ledger's entry (id or number) or the model's version that was in use; empty: the
            one before the present one.
        year: the mapped year it is for; None: the years of the entry gone back to or undone.

    Returns:
        The ledger's entry.

    Raises:
        ConfigError: no reason, nothing to go back to, or no such entry.
        StoreError: the model is no longer in the store, failed a check, or the ledger cannot be
            trusted.
    """
    settings, reason, who = load_country(country), _line(reason), _line(who)
    if not reason:
        raise ConfigError("a roll-back needs a reason", remedy=SAY_WHY)
    with deciding(store, country) as ledger:
        target, years = _earlier(ledger, country, to, year)
        _require_sound(store, target.model)
        # Of another year nothing is rolled back.
        against = ledger.nearest(None) if years is None else ledger.in_use(years)
        if _is_in_use(ledger, target.model, years):
            raise ConfigError(f"{target.model} is in use", where=_for_years(country, years))
        ledger = append(
            ledger,
            action="roll back",
            year=years,
            model=target.model,
            metrics=target.metrics,
            against=against,
            margin=None,
            configured=configured(settings),
            who=who,
            reason=reason,
            explicit=True,
        )
        return ledger.entries[-1]


def _require_own(settings: Country, model: Model, expected: set[str]) -> None:
    """Refuse checkpoints of another country than expected; nobody said that this is meant."""
    if expected != {model.country}:
        raise PromotionRefused(
            f"{model} was trained in another country",
            where=settings.code,
            expected=f"a model of {', '.join(sorted(expected))}",
            remedy="say that this is meant with --transfer, or name the country under `model:` "
            f"in {country_files()[settings.code]}",
        )


def _require_sound(store: Store, model: Model) -> None:
    """Refuse what nothing can be made from; no force helps. Only inside `deciding`.

    Raises:
        StoreError: it is not in the store, failed a check that blocks, or holds what is no number.
    """
    version = store.version(model.address, model.version)
    failed = [f"{check['name']}: {check['message']}" for check in failed_checks(version)]
    if not failed:  # versions from before the verdict was kept in the manifest are judged here
        if model.kind == "student":
            verdict = finite_student(version.path)
        else:
            verdict = finite_training(version.path, member_names(version))
        failed = [] if verdict.passed else [f"{verdict.name}: {verdict.message}"]
    if failed:
        raise StoreError(
            f"{model} did not pass its checks, and nothing can be made from it",
            where=store.folder(model.address),
            found="; ".join(failed)[:2000],
            remedy="put right what they name and train again",
        )


def _is_in_use(ledger: Ledger, model: Model, year: int | None) -> bool:
    """Whether a decision for these years would change nothing."""
    standing = ledger.standing()
    if year is None:
        return set(standing) == {None} and standing[None].model == model
    use = ledger.in_use(year)
    return use is not None and use.model == model


def _earlier(ledger: Ledger, country: str, to: str, year: int | None) -> tuple[Entry, int | None]:
    """The entry to go back to, and for which years."""
    placed = ledger.placed()
    if not placed:
        raise ConfigError("no model was ever in use", where=ledger.path)
    if to:
        entry = ledger.find(to)
        if entry is None and re.fullmatch(r"[0-9a-f]{4,16}", to):
            named = [e for e in placed if e.model.version.startswith(to)]
            entry = named[-1] if len({e.model for e in named}) == 1 else None
        if entry is None or entry not in placed:
            raise ConfigError(
                f"no entry put {to!r} in use",
                where=ledger.path,
                expected="the number or id of an entry that put a model in use, or a version: "
                + ", ".join(f"{e.id} ({e.model})" for e in placed[-SHOWN_CANDIDATES:]),
            )
        return entry, entry.year if year is None else year
    covering = placed if year is None else _placed_for(ledger, year)
    undone = covering[-1] if covering else placed[-1]
    years = undone.year if year is None else year
    out = ledger.rolled_back_from() | {undone.model}
    before = [e for e in placed if e.number < undone.number and e.model not in out]
    own = {e.number for e in _placed_for(ledger, years)}
    near = [e for e in before if e.number in own] or before
    if not near:
        raise ConfigError(
            f"there is nothing before {undone.model} to go back to",
            where=ledger.path,
            remedy=f"promote other checkpoints: popcorn models {country}",
        )
    return near[-1], years


def _placed_for(ledger: Ledger, year: int | None) -> list[Entry]:
    """The entries that put a model in use for a year, or for those without their own."""
    return [use.entry for use in ledger.line(year) if use.entry.action in PLACING]


def _chosen(store: Store, settings: Country, source: str) -> Model:
    """The model that `2020`, `rwa|2020`, `rwa|2020@version` or `student rwa|2020` means."""
    match = _SOURCE.fullmatch(source.strip())
    if match is None:
        raise ConfigError(
            "these are no checkpoints, and no student",
            expected="a trained country and year such as 'rwa|2020', with a version after @ if not "
            "the current one is meant, and 'student' before it for a student",
            found=source,
        )
    country, year = match["country"] or settings.code, int(match["year"])
    kind = cast(Kind, match["kind"] or settings.model.kind)
    address = Address(MODELS[kind], country, year)
    if match["version"] is None:
        latest = store.latest(address)
        if kind == "student" and not is_trained(latest.path):
            raise StoreError(
                f"there is no student of {country}|{year}",
                where=latest.path,
                found="none was asked for: the country's file said kind: bag when it was made",
                remedy=f"popcorn run {country} {year} --job distil",
            )
        return Model.of(address, latest.version)
    versions = [
        m for m in models_in(store, {country}) if m.year == year and match["kind"] in (None, m.kind)
    ]
    hits = [m for m in versions if m.version.startswith(match["version"])]
    if len(hits) != 1:
        raise StoreError(
            f"{'several versions' if hits else 'no version'} of {address} start with "
            f"{match['version']}",
            where=store.folder(address),
            expected=", ".join(m.version for m in versions) or "none was trained",
        )
    return hits[0]


def _line(text: str) -> str:
    """What somebody wrote, on one line and without what a terminal would act on."""
    return "".join(c if c.isprintable() else " " for c in text).strip()[:MAX_TEXT]


def _for_years(country: str, year: int | None) -> str:
    return country if year is None else f"{country}|{year}"
