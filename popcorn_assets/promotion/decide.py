"""Which checkpoints map a country: how a candidate comes into use, and goes out of it again.

What is decided goes into the country's `ledger`; what there is to decide on is in `candidates`, and
what is good enough in `judging`.
The assets and jobs that ask for decisions are in `deployment` and `promotion_jobs`.
"""

from __future__ import annotations

import getpass
import os
import re
from dataclasses import dataclass
from typing import Any

from popcorn_assets.country import Country, country_files, load_country
from popcorn_assets.promotion.candidates import (
    Metrics,
    candidates,
    is_latest,
    mapped,
    metrics_of,
    models_in,
)
from popcorn_assets.promotion.judging import judge, last_of, refused_by, taken_out
from popcorn_assets.promotion.ledger import (
    CHECKPOINTS,
    PLACING,
    Action,
    Entry,
    InUse,
    Ledger,
    Model,
    append,
    deciding,
    ledger_versions,
    read_ledger,
    verify,
)
from popcorn_assets.promotion.soundness import finite_training, member_names
from popcorn_assets.store.making import failed_checks
from popcorn_assets.store.versions import Address, Store
from popcorn_ml.errors import ConfigError, PopcornError, StoreError

__all__ = [
    "Decision",
    "Metrics",
    "PromotionRefused",
    "candidates",
    "decide",
    "ledger_versions",
    "mapped",
    "metrics_of",
    "model_for",
    "promote",
    "read_ledger",
    "roll_back",
    "verify",
]

SHOWN_CANDIDATES = 10
"""Candidates named in an error."""

MAX_TEXT = 1000
"""Characters of a reason or a name that are kept."""

_SOURCE = re.compile(r"(?:(?P<country>[a-z][a-z0-9_]*)[|/:])?(?P<year>\d{4})(?:@(?P<version>\w+))?")


class PromotionRefused(PopcornError):
    """An explicit promotion that would have put a worse, or an incomparable, model in use."""


@dataclass(frozen=True)
class Decision:
    """Which model maps a country-year, and what became of the candidate.

    Attributes:
        model: maps it.
        entry: id of the ledger's entry it rests on; None: that entry is yet to be written.
        action: "keep", or what the ledger gets.
        settled: nothing is left for an operator to do.
        message: why, and if not settled what to do.
        candidate: the checkpoints considered; None: there are none.
    """

    model: Model
    entry: str | None
    action: Action | str
    settled: bool
    message: str
    candidate: Model | None


def model_for(store: Store, country: str, year: int) -> Decision:
    """Which model would map a country-year now; nothing is written.

    Raises:
        StoreError: none can, with what to do about it; or the ledger cannot be trusted.
        ConfigError: the country's file cannot be used.
    """
    settings = load_country(country)
    return _consider(store, read_ledger(store, country), settings, year)[0]


def decide(store: Store, country: str, year: int, *, who: str) -> Decision:
    """Which model maps a country-year; a change, or a refusal, goes into the ledger.

    Raises:
        StoreError: as `model_for`.
    """
    settings = load_country(country)
    with deciding(store, country) as ledger:
        decision, entry = _consider(store, ledger, settings, year)
        if entry is None:
            return decision
        ledger = append(ledger, **entry, configured=_configured(settings), who=who)
        in_use = ledger.in_use(year)
        assert in_use is not None
        return Decision(
            in_use.model,
            in_use.entry.id,
            decision.action,
            decision.settled,
            decision.message,
            decision.candidate,
        )


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
        source: `2020`, `rwa|2020` or `rwa|2020@version` (its first digits will do); without a
            version the current one.
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
        raise PromotionRefused(
            "a forced promotion needs a reason", remedy="say why, with --reason TEXT"
        )
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
        expected = {country, *others}
        if expected != {model.country} and not stated:
            raise PromotionRefused(
                f"{model} was trained in another country",
                where=country,
                expected=f"a model of {', '.join(sorted(expected))}",
                remedy="say that this is meant with --transfer, or name the country under `model:` "
                f"in {country_files()[country]}",
            )
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
            said = _across(model, abroad[0], "", said)
        entry: dict[str, Any] = {
            "year": year,
            "model": model,
            "metrics": metrics.as_dict(),
            "against": against,
            "margin": verdict.margin,
            "configured": _configured(settings),
            "who": who,
            "explicit": True,
        }
        if not verdict.allowed and not force:
            if not _refused_before(ledger, model, against, verdict.margin, explicit=True):
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
        raise ConfigError("a roll-back needs a reason", remedy="say why, with --reason TEXT")
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
            configured=_configured(settings),
            who=who,
            reason=reason,
            explicit=True,
        )
        return ledger.entries[-1]


def _require_sound(store: Store, model: Model) -> None:
    """Refuse what nothing can be made from; no force helps. Only inside `deciding`.

    Raises:
        StoreError: it is not in the store, failed a check that blocks, or holds what is no number.
    """
    version = store.version(model.address, model.version)
    failed = [f"{check['name']}: {check['message']}" for check in failed_checks(version)]
    if not failed:  # versions from before the verdict was kept in the manifest are judged here
        verdict = finite_training(version.path, member_names(version))
        failed = [] if verdict.passed else [f"{verdict.name}: {verdict.message}"]
    if failed:
        raise StoreError(
            f"{model} did not pass its checks, and nothing can be made from it",
            where=store.folder(model.address),
            found="; ".join(failed)[:2000],
            remedy="put right what they name and train again",
        )


def os_user() -> str:
    """Who runs this process, as the ledger says it."""
    try:
        return f"user {getpass.getuser()}"
    except (KeyError, OSError):  # an id without a name, as in some containers
        return f"user {os.getuid()}"


def _consider(
    store: Store, ledger: Ledger, settings: Country, year: int
) -> tuple[Decision, dict[str, Any] | None]:
    """The decision for a country-year and, where there is something new, the entry to write."""
    choice, country = settings.model, settings.code
    source = Address(CHECKPOINTS, choice.country or country, choice.year or year)
    current = ledger.in_use(year)
    # A year that was decided on by itself has its own line of decisions from then on.
    own_line = current is not None and current.entry.year == year
    scope = None if choice.year and not own_line else year
    found = store.find(source)

    def keep(message: str, *, settled: bool) -> tuple[Decision, None]:
        assert current is not None
        name = None if found is None else Model(**_named(source), version=found.version)
        text = f"{current.model} maps {country}|{year}, by entry {current.entry.id}"
        text = f"{text}. {message}" if message else text
        return Decision(current.model, current.entry.id, "keep", settled, text, name), None

    if found is None:
        if current is None:
            raise _nothing_maps(store, ledger, settings, year, f"{source} was never trained")
        own = (current.model.country, current.model.year) == (source.country, source.year)
        if choice.year is None or own or current.entry.explicit:
            return keep("", settled=True)
        return keep(
            f"{country_files()[country]} names {source.country}|{source.year}, which was never "
            "trained",
            settled=False,
        )
    model = Model(**_named(source), version=found.version)
    if current is not None and model == current.model:
        return keep("", settled=True)
    against = current or ledger.nearest(year)
    abroad = against is not None and model.country != against.model.country
    try:
        metrics = metrics_of(store, model)
    except StoreError as error:
        if current is None:
            raise
        return keep(f"{model} cannot be considered: {error}", settled=False)
    entry: dict[str, Any] = {
        "year": scope,
        "model": model,
        "metrics": metrics.as_dict(),
        "against": against,
        "margin": None,
    }
    by_hand = f"popcorn promote {country} --from '{model}'"
    if scope is not None:
        by_hand += f" --year {scope}"
    if model.country != country and model.country != choice.country:
        by_hand += " --transfer"
    restated = current is not None and current.entry.configured != _configured(settings)
    instead = ""
    if model in ledger.rolled_back_from():
        instead = f"{model} was rolled back from and does not come back by itself: {by_hand}"
    elif current is not None and not restated and _was_placed(ledger, model, current.entry):
        if current.entry.explicit:
            return keep(f"It was decided so instead of {model}", settled=True)
        instead = f"{model} was in use before and does not come back by itself: {by_hand}"
    elif choice.promotion == "manual":
        instead = f"{model} waits for a decision: {by_hand}"
    if instead:
        if current is None:
            raise _nothing_maps(store, ledger, settings, year, instead)
        return keep(instead, settled=False)

    def refuse(message: str, *, flags: str) -> tuple[Decision, dict[str, Any] | None]:
        if against is None or against.model == model:
            raise _nothing_maps(store, ledger, settings, year, message)
        remedy = f"To map with it all the same: {by_hand}{flags}" if flags else ""
        own = last_of(ledger, model.country, metrics, scope) if abroad else None
        if own is not None:
            remedy += f". To go back to {own.model}: {by_hand.replace(str(model), str(own.model))}"
        text = f"{against.model} maps {country}|{year}. {message}. {remedy}".rstrip()
        new = {**entry, "action": "refuse", "reason": message}
        if current is None:
            new["year"] = year  # what it was compared with maps this year then
        elif _refused_before(ledger, model, current, entry["margin"]):
            return Decision(current.model, current.entry.id, "keep", False, text, model), None
        return Decision(against.model, None, "refuse", False, text, model), new

    failed = failed_checks(found)
    if failed:
        names = ", ".join(check["name"] for check in failed)
        return refuse(f"{model} did not pass its checks ({names})", flags="")
    forcing = " --force --reason TEXT"
    if metrics.broken:
        return refuse(f"{model} is refused: a loss or weight of it is not a number", flags="")
    action: Action = "promote"
    if against is None:
        action = "transfer" if model.country != country else "promote"
    elif abroad:
        if current is not None and not _country_restated(current, settings):
            flags = "" if "--transfer" in by_hand else " --transfer"
            return keep(
                f"{model} was trained in another country than what is in use, which is an explicit "
                f"decision: {by_hand}{flags}",
                settled=current.entry.explicit,
            )
        action = "transfer"
        earlier = refused_by(ledger, model, scope, choice.margin)
        if earlier is not None:
            entry["margin"] = choice.margin
            told = f"{model} was refused by entry {earlier.id} and does not come back by itself"
            return refuse(f"{told}: {earlier.reason}", flags=forcing)
    replaced = {} if against is None else {scope: against}
    verdict = judge(store, ledger, model, metrics, replaced, margin=choice.margin, explicit=False)
    said, entry["margin"] = verdict.said, verdict.margin
    if not verdict.allowed:
        return refuse(said, flags=forcing)
    if against is None:
        said = f"{model} is the first"
    elif against.model == model:
        said = f"{model} maps other years already"
    elif abroad:
        named = f", as {country_files()[country].name} says"
        said = _across(model, against.model, named, said)
    text = f"{model} maps {country}|{year} now: {said}"
    if not verdict.sure:
        text += f". Look at its maps; to undo it: popcorn rollback {country} --reason TEXT"
    return Decision(model, None, action, verdict.sure, text, model), {
        **entry,
        "action": action,
        "reason": said,
    }


def _across(model: Model, before: Model, named: str, said: str) -> str:
    text = f"{model} instead of {before}{named}; metrics of two countries do not compare"
    return f"{text}; {said}" if said else text


def _refused_before(
    ledger: Ledger,
    model: Model,
    against: InUse | None,
    margin: float | None,
    *,
    explicit: bool = False,
) -> bool:
    return any(
        entry.action == "refuse"
        and entry.model == model
        and entry.margin == margin
        and entry.explicit == explicit
        and (entry.against.model if entry.against else None) == (against.model if against else None)
        for entry in ledger.entries
    )


def _was_placed(ledger: Ledger, model: Model, before: Entry) -> bool:
    """Whether a model was in use before an entry; one placed later did not give way to it."""
    return any(e.model == model and e.number < before.number for e in ledger.placed())


def _is_in_use(ledger: Ledger, model: Model, year: int | None) -> bool:
    """Whether a decision for these years would change nothing."""
    standing = ledger.standing()
    if year is None:
        return set(standing) == {None} and standing[None].model == model
    use = ledger.in_use(year)
    return use is not None and use.model == model


def _country_restated(current: InUse, settings: Country) -> bool:
    """Whether the file has come to name another country since the model in use was decided on."""
    return current.entry.configured.get("country") != _configured(settings)["country"]


def _configured(settings: Country) -> dict[str, Any]:
    return {"country": settings.model.country or settings.code, "year": settings.model.year}


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
    """The checkpoints that `2020`, `rwa|2020` or `rwa|2020@version` means."""
    match = _SOURCE.fullmatch(source.strip())
    if match is None:
        raise ConfigError(
            "these are no checkpoints",
            expected="a trained country and year such as 'rwa|2020', with a version after @ if not "
            "the current one is meant",
            found=source,
        )
    address = Address(CHECKPOINTS, match["country"] or settings.code, int(match["year"]))
    if match["version"] is None:
        return Model(**_named(address), version=store.latest(address).version)
    versions = [m for m in models_in(store, {address.country or ""}) if m.address == address]
    hits = [m for m in versions if m.version.startswith(match["version"])]
    if len(hits) != 1:
        raise StoreError(
            f"{'several versions' if hits else 'no version'} of {address} start with "
            f"{match['version']}",
            where=store.folder(address),
            expected=", ".join(m.version for m in versions) or "none was trained",
        )
    return hits[0]


def _nothing_maps(
    store: Store, ledger: Ledger, settings: Country, year: int, why: str
) -> StoreError:
    """No model maps a country-year: why, which there are, and what to write where."""
    country, path = settings.code, country_files()[settings.code]
    trained = sorted(p.name for p in (store.root / CHECKPOINTS).glob("[a-z0-9]*") if p.is_dir())
    known = [m for m in models_in(store, set(trained)) if is_latest(store, m)]
    known.sort(key=lambda m: (m.country != country, abs(m.year - year), m.country))
    example = known[0] if known else None
    named = f"{{country: {example.country}, year: {example.year}}}" if example else ""
    remedies = []
    if example:
        remedies.append(f"name what is to map it, in {path}: `model: {named}`")
        transfer = " --transfer" if example.country != country else ""
        remedies.append(
            f"decide it with popcorn promote {country} --from '{example.country}|{example.year}'"
            f" --year {year}{transfer}"
        )
    else:
        remedies.append(
            f"name a trained country and year in {path}, such as `model: {{country: {country}, "
            f"year: {year - 1}}}`"
        )
    source = f"{settings.model.country or country}|{settings.model.year or year}"
    remedies.append(f"train: materialise {CHECKPOINTS} of {source} (job train)")
    shown = [str(model) for model in known[:SHOWN_CANDIDATES]]
    more = len(known) - len(shown)
    return StoreError(
        f"no model maps {country}|{year}: {why}",
        where=path,
        expected=f"checkpoints of {source}, or a `model:` key that names trained ones",
        found=f"trained: {', '.join(shown) or 'none'}{f' and {more} more' if more else ''}",
        remedy="; or ".join(remedies),
    )


def _line(text: str) -> str:
    """What somebody wrote, on one line and without what a terminal would act on."""
    return "".join(c if c.isprintable() else " " for c in text).strip()[:MAX_TEXT]


def _for_years(country: str, year: int | None) -> str:
    return country if year is None else f"{country}|{year}"


def _named(address: Address) -> dict[str, Any]:
    return {"country": address.country, "year": address.year}
