"""What the model behind a map was trained on, and what it says of units that it never saw.

Of checkpoints a unit is unseen by the members that held it out: bands of the map. Of a student
nothing in the map is unseen where it was trained; what is, are the units that the students of the
folds told when it was made. Scores without truth, intervals and change all ask here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popcorn_assets.assets.census import unit_ids
from popcorn_assets.countries.model import Kind
from popcorn_assets.promotion.entries import MODELS
from popcorn_assets.promotion.ledger import DEPLOYED, DEPLOYED_FILE
from popcorn_assets.promotion.students import units_told
from popcorn_assets.promotion.trained_on import TAUGHT_BY, ids_in, levels_of
from popcorn_assets.store.versions import Address, Store, Version
from popcorn_ml.errors import StoreError
from popcorn_ml.training.out_of_fold import OUT_OF_FOLD_FILE, OutOfFold, read_collected

if TYPE_CHECKING:
    from popcorn_ml.intervals.units import Seen

UNITS = "units.json"


@dataclass(frozen=True)
class Trained:
    """What the model behind a map was trained on, as far as scores and intervals ask.

    Attributes:
        country, year: whose model it is.
        levels: code -> level of the units that it was trained on; its own country's, as a rule. Of
            a student also the countries that its teachers were trained on, without a level.
        model: the version of checkpoints or of a student; None where it is no longer in the store.
        kind: which of them.
        members: folders of the members in the order of the map's bands; one name for a student.
        told: deployed.json, which says so.
    """

    country: str
    year: int
    levels: Mapping[str, str]
    model: Version | None
    kind: Kind = "bag"
    members: tuple[str, ...] = ()
    told: Mapping[str, Any] = field(default_factory=dict)

    def saw_units_of(self, country: str, level: str) -> bool | None:
        """Whether it was trained on units of a level of a country; None: it cannot be told.

        Units of another level of the same country hold the same people: which parts of them it saw
        is not told.
        """
        if country not in self.levels:
            return False
        return True if self.model is not None and self.levels[country] == level else None

    def place_for(self, country: str) -> str:
        """On whose units, as a map of a country says it: that one where it is among them."""
        return country if country in self.levels else ", ".join(self.levels)


def trained_on(store: Store, predicted: Version) -> Trained:
    """What a map's model was trained on.

    Args:
        predicted: a version of population_map.

    Raises:
        StoreError: which model it was is not known: the decision is no longer in the store.
    """
    deployed = store.made_from(predicted, DEPLOYED)
    decision = json.loads(deployed.file(DEPLOYED_FILE).read_text("utf-8"))
    country, year = decision["country"], int(decision["year"])
    kind: Kind = decision.get("kind", "bag")
    try:
        model = store.version(Address(MODELS[kind], country, year), decision["version"])
    except StoreError:  # taken away since; maps outlive their models
        model = None
    members = tuple(decision.get("members", ()))
    by_teachers = dict.fromkeys(decision.get(TAUGHT_BY, ()), "")
    levels = by_teachers | levels_of({"level": "", **decision}, country)
    return Trained(country, year, levels, model, kind, members, decision)


def told_by_folds(trained: Trained, country: str, level: str) -> dict[str, OutOfFold]:
    """Units of a level that students of the folds told, by id; none of any other model.

    They are of the year that the student was trained on, with its counts, whatever year is mapped.

    Raises:
        StoreError: they cannot be read.
    """
    if trained.kind != "student" or not trained.saw_units_of(country, level):
        return {}
    assert trained.model is not None
    return {unit.id: unit for unit in units_told(trained.model)}


def unseen_by(trained: Trained, country: str, level: str, units: Path) -> dict[int, Seen] | None:
    """What never saw which unit of a map, by number; None: the model saw none of them.

    Units of another level than was trained on were seen as parts of others: none is unseen then.
    """
    from popcorn_ml.intervals.units import Seen

    saw = trained.saw_units_of(country, level)
    if not saw:
        return None if saw is False else {}
    assert trained.model is not None
    numbers = {key: number for number, key in unit_ids(units).items()}
    if trained.kind == "student":
        return {
            numbers[unit.id]: Seen((), unit.fold or 0, (unit.people, unit.predicted))
            for unit in units_told(trained.model)
            if unit.id in numbers
        }
    seeds = trained.model.manifest()["facts"]["seeds"]
    bands = {str(seed): band for band, seed in enumerate(seeds)}
    path = trained.model.path / OUT_OF_FOLD_FILE
    found = {}
    for unit in read_collected(path):
        for own in ids_in(trained.told, [unit.id], country) & numbers.keys():
            by = sorted(bands[seed] for seed in unit.by if seed in bands)
            found[numbers[own]] = Seen(tuple(by), unit.fold or 0)
    return found


def units_by_member(trained: Trained, country: str, level: str) -> list[set[str]] | None:
    """Ids of the units of a level that each band of a map was trained on, in the map's order.

    Members that were trained in another country saw none of them.

    Returns:
        None where it cannot be told, and of a student, whose one band saw them all.

    Raises:
        OSError, ValueError, KeyError: a member does not say which units it was trained on.
    """
    saw = trained.saw_units_of(country, level)
    if saw is False:
        return [set() for _ in trained.members]
    if saw is None or trained.kind == "student":
        return None
    assert trained.model is not None
    listed = [trained.model.file(f"{member}/{UNITS}") for member in trained.members]
    return [
        ids_in(trained.told, json.loads(path.read_text("utf-8"))["trained"], country)
        for path in listed
    ]
