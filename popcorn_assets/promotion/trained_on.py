"""On whose units checkpoints were trained, as their manifest and a deployed model tell it.

Most were trained on their own country's; those of several say so, and their units' ids begin with
the country's code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from popcorn_ml.training.places import own_ids

COUNTRIES = "countries"
"""Parameter of a manifest, and key of deployed.json, that is only there with other countries'
units: a list with `code`, `level` and in manifests more, in the order of the country's file."""


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


def level_text(told: Mapping[str, Any]) -> str:
    """The level, or with several countries each one's, for people and for comparing."""
    if not told.get(COUNTRIES):
        return str(told.get("level", ""))
    return ", ".join(f"{code} {level}" for code, level in levels_of(told, "").items())
