"""Which model maps a country-year by the rules: whether a candidate comes into use by itself.

What is decided goes into the country's `ledger`; what there is to decide on is in `candidates`, and
what is good enough in `judging`. What somebody decides is in `by_hand`, and the asset that asks is
`assets.deployed_model`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from popcorn_assets.country import Country, country_files, load_country
from popcorn_assets.promotion.candidates import is_latest, models_in
from popcorn_assets.promotion.entries import MODELS, Action, Entry, InUse, Ledger, Model, named
from popcorn_assets.promotion.judging import Verdict, judge, last_of, refused_by
from popcorn_assets.promotion.ledger import append, deciding, read_ledger
from popcorn_assets.promotion.metrics import Metrics, metrics_of
from popcorn_assets.promotion.students import is_trained, sensors_of
from popcorn_assets.store.versions import Address, Store, failed_checks
from popcorn_ml.errors import StoreError

SHOWN_CANDIDATES = 10
"""Candidates named in an error."""


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
    return _Case(store, read_ledger(store, country), settings, year).decided()[0]


def decide(store: Store, country: str, year: int, *, who: str) -> Decision:
    """Which model maps a country-year; a change, or a refusal, goes into the ledger.

    Raises:
        StoreError: as `model_for`.
    """
    settings = load_country(country)
    with deciding(store, country) as ledger:
        decision, entry = _Case(store, ledger, settings, year).decided()
        if entry is None:
            return decision
        ledger = append(ledger, **entry, configured=configured(settings), who=who)
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


_Outcome = tuple[Decision, dict[str, Any] | None]
"""A decision and, where there is something new, the ledger's entry to write."""

FORCING = " --force --reason TEXT"


class _Case:
    """One country-year to decide on: what is in use, what the country's file names, what is there.

    Attributes:
        source: the country-year whose checkpoints, or student, the file names.
        candidate: its current one; None: it was never trained.
        scope: the mapped year a decision is for; None: all years.
        current: in use for this year; None: nothing is.
        against: what the candidate is compared with; None: nothing was ever in use.
    """

    def __init__(self, store: Store, ledger: Ledger, settings: Country, year: int) -> None:
        self.store, self.ledger, self.settings, self.year = store, ledger, settings, year
        self.choice, self.country = settings.model, settings.code
        trained = (self.choice.country or self.country, self.choice.year or year)
        self.source = Address(MODELS[self.choice.kind], *trained)
        found = store.find(self.source)
        if found is not None and self.choice.kind == "student" and not is_trained(found.path):
            found = None  # it says that none was asked for
        self.failed = [] if found is None else [c["name"] for c in failed_checks(found)]
        self.candidate = None if found is None else Model.of(self.source, found.version)
        self.current = ledger.in_use(year)
        # A year that was decided on by itself has its own line of decisions from then on.
        own_line = self.current is not None and self.current.entry.year == year
        self.scope = None if self.choice.year and not own_line else year
        self.against = self.current or ledger.nearest(year)

    def decided(self) -> _Outcome:
        """The decision.

        Raises:
            StoreError: no model can map this year.
        """
        model = self.candidate
        if model is None:
            return self._without_candidate()
        if self.current is not None and model == self.current.model:
            return self._keep("", settled=True)
        try:
            metrics = metrics_of(self.store, model)
        except StoreError as error:
            if self.current is None:
                raise
            return self._keep(f"{model} cannot be considered: {error}", settled=False)
        return self._left_alone(model) or self._considered(model, metrics)

    def _without_candidate(self) -> _Outcome:
        if self.current is None:
            raise self._nothing(f"{self.source} was never trained")
        model = self.current.model
        same_kind = model.kind == self.choice.kind
        own = (model.country, model.year) == (self.source.country, self.source.year)
        if self.current.entry.explicit or (same_kind and (own or self.choice.year is None)):
            return self._keep("", settled=True)
        return self._keep(
            f"{country_files()[self.country]} names {named(self.choice.kind)}"
            f"{self.source.country}|{self.source.year}, which was never trained",
            settled=False,
        )

    def _left_alone(self, model: Model) -> _Outcome | None:
        """What keeps a candidate from being considered at all; None: nothing does."""
        current, by_hand = self.current, self._by_hand(model)
        restated = current is not None and current.entry.configured != configured(self.settings)
        other = self._other_sensors(model)
        if other and (current is None or current.model != model):
            why = f"{model} {other}: train it again (job train), or {by_hand}"
        elif model in self.ledger.rolled_back_from():
            why = f"{model} was rolled back from and does not come back by itself: {by_hand}"
        elif (
            current is not None and not restated and _was_placed(self.ledger, model, current.entry)
        ):
            if current.entry.explicit:
                return self._keep(f"It was decided so instead of {model}", settled=True)
            why = f"{model} was in use before and does not come back by itself: {by_hand}"
        elif self.choice.promotion == "manual":
            why = f"{model} waits for a decision: {by_hand}"
        else:
            return None
        if current is None:
            raise self._nothing(why)
        return self._keep(why, settled=False)

    def _other_sensors(self, model: Model) -> str:
        """How a student looks at other sensors than the country's file says; empty otherwise."""
        if model.kind != "student":
            return ""
        found = sensors_of(self.store.version(model.address, model.version))
        wanted = self.choice.sensors
        return "" if found == wanted else f"looks at sensors: {found}, and the file says {wanted}"

    def _considered(self, model: Model, metrics: Metrics) -> _Outcome:
        """A candidate that nothing holds back: is it good enough?"""
        against, by_hand = self.against, self._by_hand(model)
        if self.failed:
            names = ", ".join(self.failed)
            return self._refuse(model, metrics, f"{model} did not pass its checks ({names})")
        if metrics.broken:
            message = f"{model} is refused: a loss or weight of it is not a number"
            return self._refuse(model, metrics, message)
        if self._abroad(model):
            if self.current is not None and not _country_restated(self.current, self.settings):
                flags = "" if "--transfer" in by_hand else " --transfer"
                return self._keep(
                    f"{model} was trained in another country than what is in use, which is an "
                    f"explicit decision: {by_hand}{flags}",
                    settled=self.current.entry.explicit,
                )
            earlier = refused_by(self.ledger, model, self.scope, self.choice.margin)
            if earlier is not None:
                told = f"{model} was refused by entry {earlier.id} and does not come back by itself"
                said, allowed = f"{told}: {earlier.reason}", self.choice.margin
                allowed = earlier.margin if allowed is None else allowed
                return self._refuse(model, metrics, said, margin=allowed, flags=FORCING)
        replaced = {} if against is None else {self.scope: against}
        verdict = judge(
            self.store,
            self.ledger,
            model,
            metrics,
            replaced,
            margin=self.choice.margin,
            explicit=False,
        )
        if not verdict.allowed:
            said, margin = verdict.said, verdict.margin
            return self._refuse(model, metrics, said, margin=margin, flags=FORCING)
        return self._place(model, metrics, verdict)

    def _place(self, model: Model, metrics: Metrics, verdict: Verdict) -> _Outcome:
        """The candidate comes into use."""
        against, said = self.against, verdict.said
        if against is None:
            said = f"{model} is the first"
        elif against.model == model:
            said = f"{model} maps other years already"
        elif self._abroad(model):
            named = f", as {country_files()[self.country].name} says"
            said = across(model, against.model, named, said)
        foreign = model.country != self.country if against is None else self._abroad(model)
        action: Action = "transfer" if foreign else "promote"
        text = f"{model} maps {self.country}|{self.year} now: {said}"
        if not verdict.sure:
            undo = f"popcorn rollback {self.country} --reason TEXT"
            text += f". Look at its maps; to undo it: {undo}"
        entry = self._entry(model, metrics, verdict.margin)
        decision = Decision(model, None, action, verdict.sure, text, model)
        return decision, {**entry, "action": action, "reason": said}

    def _refuse(
        self,
        model: Model,
        metrics: Metrics,
        message: str,
        *,
        margin: float | None = None,
        flags: str = "",
    ) -> _Outcome:
        """The candidate does not come into use; what is there stays.

        Args:
            flags: with which somebody may put it in use all the same; empty: nobody can.
        """
        against, current, by_hand = self.against, self.current, self._by_hand(model)
        if against is None or against.model == model:
            raise self._nothing(message)
        remedy = f"To map with it all the same: {by_hand}{flags}" if flags else ""
        own = None
        if self._abroad(model):
            own = last_of(self.ledger, model.country, metrics, self.scope)
        if own is not None:
            remedy += f". To go back to {own.model}: {by_hand.replace(str(model), str(own.model))}"
        text = f"{against.model} maps {self.country}|{self.year}. {message}. {remedy}".rstrip()
        new = {**self._entry(model, metrics, margin), "action": "refuse", "reason": message}
        if current is None:
            new["year"] = self.year  # what it was compared with maps this year then
        elif refused_before(self.ledger, model, current, margin):
            return Decision(current.model, current.entry.id, "keep", False, text, model), None
        return Decision(against.model, None, "refuse", False, text, model), new

    def _keep(self, message: str, *, settled: bool) -> _Outcome:
        """What is in use stays in use, and the ledger as it is."""
        current = self.current
        assert current is not None
        text = f"{current.model} maps {self.country}|{self.year}, by entry {current.entry.id}"
        text = f"{text}. {message}" if message else text
        entry = current.entry.id
        return Decision(current.model, entry, "keep", settled, text, self.candidate), None

    def _abroad(self, model: Model) -> bool:
        """Whether it was trained in another country than what it is compared with."""
        return self.against is not None and model.country != self.against.model.country

    def _entry(self, model: Model, metrics: Metrics, margin: float | None) -> dict[str, Any]:
        return {
            "year": self.scope,
            "model": model,
            "metrics": metrics.as_dict(),
            "against": self.against,
            "margin": margin,
        }

    def _by_hand(self, model: Model) -> str:
        """The command with which somebody puts it in use."""
        command = f"popcorn promote {self.country} --from '{model}'"
        if self.scope is not None:
            command += f" --year {self.scope}"
        if model.country != self.country and model.country != self.choice.country:
            command += " --transfer"
        return command

    def _nothing(self, why: str) -> StoreError:
        return _nothing_maps(self.store, self.ledger, self.settings, self.year, why)


def across(model: Model, before: Model, named: str, said: str) -> str:
    text = f"{model} instead of {before}{named}; metrics of two countries do not compare"
    return f"{text}; {said}" if said else text


def refused_before(
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


def configured(settings: Country) -> dict[str, Any]:
    choice = settings.model
    kind = {} if choice.kind == "bag" else {"kind": choice.kind}
    return {"country": choice.country or settings.code, "year": choice.year, **kind}


def _was_placed(ledger: Ledger, model: Model, before: Entry) -> bool:
    """Whether a model was in use before an entry; one placed later did not give way to it."""
    return any(e.model == model and e.number < before.number for e in ledger.placed())


def _country_restated(current: InUse, settings: Country) -> bool:
    """Whether the file has come to name another country since the model in use was decided on."""
    return current.entry.configured.get("country") != configured(settings)["country"]


def _nothing_maps(
    store: Store, ledger: Ledger, settings: Country, year: int, why: str
) -> StoreError:
    """No model maps a country-year: why, which there are, and what to write where."""
    country, path = settings.code, country_files()[settings.code]
    kind = settings.model.kind
    folders = (p for asset in MODELS.values() for p in (store.root / asset).glob("[a-z0-9]*"))
    trained = {path.name for path in folders if path.is_dir()}
    known = [m for m in models_in(store, trained) if is_latest(store, m)]
    known.sort(key=lambda m: (m.country != country, m.kind != kind, abs(m.year - year), m.country))
    example = known[0] if known else None
    remedies = []
    if example:
        which = "" if example.kind == kind else f", kind: {example.kind}"
        shown_as = f"{{country: {example.country}, year: {example.year}{which}}}"
        remedies.append(f"name what is to map it, in {path}: `model: {shown_as}`")
        transfer = " --transfer" if example.country != country else ""
        remedies.append(
            f"decide it with popcorn promote {country} --from '{named(example.kind)}"
            f"{example.country}|{example.year}' --year {year}{transfer}"
        )
    else:
        remedies.append(
            f"name a trained country and year in {path}, such as `model: {{country: {country}, "
            f"year: {year - 1}}}`"
        )
    source = f"{settings.model.country or country}|{settings.model.year or year}"
    asset = MODELS[kind]
    remedies.append(f"train: materialise {asset} of {source} (job train)")
    shown = [str(model) for model in known[:SHOWN_CANDIDATES]]
    more = len(known) - len(shown)
    return StoreError(
        f"no model maps {country}|{year}: {why}",
        where=path,
        expected=f"{'a student' if kind == 'student' else asset} of {source}, or a `model:` key "
        "that names trained ones",
        found=f"trained: {', '.join(shown) or 'none'}{f' and {more} more' if more else ''}",
        remedy="; or ".join(remedies),
    )
