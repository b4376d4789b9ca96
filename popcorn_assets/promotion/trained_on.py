"""On whose units checkpoints were trained, as their manifest and a deployed model tell it.

Most were trained on their own country's; those of several say so, and their units' ids begin with
the country's code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from popcorn_ml.training.out_of_fold import OutOfFold
from popcorn_ml.training.places import own_ids, qualified

T = TypeVar("T")

COUNTRIES = "countries"
"""Parameter of a manifest, and key of deployed.json, that is only there with other countries'
units: a list with `code`, `level` and in manifests more, in the order of the country's file."""

TAUGHT_BY = "taught_by_units_of"
"""Parameter of a student's manifest, and key of deployed.json, that is only there where its
teachers were trained on several countries: their codes. It has learnt what they learnt there."""


def levels_of(told: Mapping[str, Any], country: str) -> dict[str, str]:
    """Code -> level of the units that checkpoints were trained on.

    Args:
        told: the parameters of the checkpoints' manifest, or deployed.json.
        country: whose checkpoints they are.
    """
    several = told.get(COUNTRIES)
    if not several:
        return {country: told["level"]}
    return {one["code"]: one["level"] for one in several}


def ids_in(told: Mapping[str, Any], ids: Iterable[str], country: str) -> set[str]:
    """Of the ids of units that checkpoints name, those of a country, as its census has them."""
    return own_ids(ids, country) if told.get(COUNTRIES) else set(ids)


def units_in(told: Mapping[str, Any], units: Iterable[OutOfFold], country: str) -> list[OutOfFold]:
    """Of the units that checkpoints tell of, those of a country, as its census has them."""
    if not told.get(COUNTRIES):
        return list(units)
    return [
        replace(unit, id=own, country="") for unit in units for own in own_ids([unit.id], country)
    ]


def values_in(told: Mapping[str, Any], by_id: Mapping[str, T], country: str) -> dict[str, T]:
    """Of values by the ids that checkpoints name, those of a country, by its census's ids."""
    named = country if told.get(COUNTRIES) else ""
    return {own: by_id[qualified(named, own)] for own in ids_in(told, by_id, country)}


def level_text(told: Mapping[str, Any]) -> str:
    """The level, or with several countries each one's, for people and for comparing."""
    if not told.get(COUNTRIES):
        return str(told.get("level", ""))
    return ", ".join(f"{code} {level}" for code, level in levels_of(told, "").items())
