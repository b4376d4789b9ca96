"""Decisions on a country's model, and what follows from them: which maps which year.

Plain values in order; how they lie on disk and are guarded is `ledger`'s business.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from popcorn_assets.countries.model import Kind
from popcorn_assets.store.versions import Address

CHECKPOINTS = "checkpoints"
STUDENT = "student"
MODELS: dict[Kind, str] = {"bag": CHECKPOINTS, "student": STUDENT}
"""Kind of a model -> the asset whose versions are such models."""

Action = Literal["promote", "refuse", "roll back", "transfer"]
PLACING: tuple[Action, ...] = ("promote", "roll back", "transfer")
"""Actions after which the entry's model is in use."""


class _Kept(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Model(_Kept):
    """Checkpoints or a student: the country-year it was trained as, and its version.

    What is kept of checkpoints is what was kept before there were students, to the byte: the ids
    and digests of a ledger's entries are worked out over it.
    """

    country: str = Field(pattern=r"^[a-z0-9][a-z0-9_]*$")
    year: int = Field(ge=1900, le=2999)
    version: str = Field(pattern=r"^[0-9a-f]{16}$")
    kind: Kind = "bag"

    @classmethod
    def of(cls, address: Address, version: str) -> Model:
        """A version of the checkpoints, or of the student, at an address."""
        assert address.country is not None
        assert address.year is not None
        kind = kind_of(address.asset)
        return cls(country=address.country, year=address.year, version=version, kind=kind)

    @model_serializer(mode="wrap")
    def _without_what_goes_without_saying(
        self, plain: SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        kept = plain(self)
        if self.kind == "bag":
            del kept["kind"]
        return kept

    @property
    def address(self) -> Address:
        """Where it is in the store."""
        return Address(MODELS[self.kind], self.country, self.year)

    def __str__(self) -> str:
        return f"{named(self.kind)}{self.country}|{self.year}@{self.version}"


def kind_of(asset: str) -> Kind:
    """The kind of model that an asset's versions are."""
    return next(kind for kind, name in MODELS.items() if name == asset)


def named(kind: Kind) -> str:
    """What a model's name begins with; nothing for checkpoints, which there were first."""
    return "" if kind == "bag" else f"{kind} "


def deployed_as(country: str, year: int, version: str, kind: Kind = "bag") -> str:
    """A model's name as maps carry it."""
    return f"{'student of ' if kind == 'student' else ''}{country}|{year}, version {version}"


class Against(_Kept):
    """What was in use when a decision was taken, by which entry, and its metrics."""

    entry: str
    model: Model
    metrics: dict[str, Any]


class Entry(_Kept):
    """One decision.

    Attributes:
        number: from 1.
        id: names the entry: its number, and a hash of what it decided (not of who and when), so
            that the same decisions get the same ids elsewhere.
        previous: sha256 of the entry before; empty for the first.
        year: the mapped year it is for; None: all years.
        model: promoted, refused or gone back to; of that kind, trained as that country-year.
        metrics: of that model on its held-out units.
        against: what was in use before; None: nothing was.
        margin: how much worse, relative to the loss in use, was allowed; None: not compared.
        forced: put in use although it was worse or could not be compared.
        explicit: somebody decided it; otherwise it followed from the country's file.
        configured: country, year and, other than bag, kind that the country's file named under
            `model`.
        who: the OS user, or the Dagster run and what launched it.
        when: ISO 8601, UTC.
    """

    number: int = Field(ge=1)
    id: str
    previous: str
    action: Action
    year: int | None
    model: Model
    metrics: dict[str, Any]
    against: Against | None
    margin: float | None
    forced: bool
    explicit: bool
    reason: str
    configured: dict[str, Any]
    who: str
    when: str


@dataclass(frozen=True)
class InUse:
    """A model in use.

    Attributes:
        entry: the decision it rests on.
    """

    model: Model
    metrics: dict[str, Any]
    entry: Entry

    def as_against(self) -> Against:
        """As the next entry keeps it."""
        return Against(entry=self.entry.id, model=self.model, metrics=self.metrics)


@dataclass(frozen=True)
class Ledger:
    """All decisions for a country, oldest first, and what follows from them."""

    country: str
    path: Path
    entries: tuple[Entry, ...]

    def placed(self) -> list[Entry]:
        """The entries that put a model in use."""
        return [entry for entry in self.entries if entry.action in PLACING]

    def standing(self) -> dict[int | None, InUse]:
        """What is in use: under None for all years without one of their own, then by year.

        What the rules decide for all years leaves the years that have one of their own as they are.
        """
        now: dict[int | None, InUse] = {}
        for entry in self.entries:
            _follow(now, entry)
        return now

    def line(self, year: int | None) -> list[InUse]:
        """All that came into use for a mapped year (None: for those without their own), in order.

        What was in use for other years only, at the time it was decided on, is not among it.
        """
        now: dict[int | None, InUse] = {}
        found = []
        for entry in self.entries:
            _follow(now, entry)
            use = now.get(year) or now.get(None)
            if use is not None and use.entry is entry:
                found.append(use)
        return found

    def in_use(self, year: int) -> InUse | None:
        """The model that decisions put in use for a year."""
        now = self.standing()
        return now.get(year) or now.get(None)

    def nearest(self, year: int | None) -> InUse | None:
        """The model in use for the year, or for the year nearest to it; for all, or the newest."""
        if not self.placed():
            return None
        standing, newest = self.standing(), self.placed()[-1]
        if year is None:
            return standing.get(None) or InUse(newest.model, newest.metrics, newest)
        years = {y: use for y, use in standing.items() if y is not None}
        by_distance = sorted(years, key=lambda y: (abs(y - year), y))
        return self.in_use(year) or years[by_distance[0]]

    def rolled_back_from(self) -> set[Model]:
        """Models that were taken out of use as such, and not put back explicitly since."""
        out: set[Model] = set()
        for entry in self.placed():
            if entry.action == "roll back" and entry.against:
                out.add(entry.against.model)
            if entry.explicit:
                out.discard(entry.model)
        return out

    def find(self, name: str) -> Entry | None:
        """An entry by its id or number."""
        return next((e for e in self.entries if name in (e.id, str(e.number))), None)


def _follow(now: dict[int | None, InUse], entry: Entry) -> None:
    """Change what is in use, as `Ledger.standing` has it, by one more entry."""
    if entry.action in PLACING:
        if entry.year is None and entry.explicit:
            now.clear()
        now[entry.year] = InUse(entry.model, entry.metrics, entry)
    elif (
        # A year's first training was refused: the model it was compared with maps it.
        not entry.explicit
        and entry.against
        and entry.year is not None
        and not {entry.year, None} & now.keys()
    ):
        now[entry.year] = InUse(entry.against.model, entry.against.metrics, entry)
