"""What there is of a country's years: made when, from what that has changed since, how good.

Read from the store alone, in a moment: no database is opened and no library of the science loaded.
The checks that are judged after a version was published are on Dagster's record, not here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from popcorn_assets.country import Country
from popcorn_assets.promotion.decide import model_for
from popcorn_assets.promotion.entries import MODELS, STUDENT
from popcorn_assets.store.newer import PRODUCT, changed_source, newer_input
from popcorn_assets.store.versions import LATEST, REJECTED, Address, Store, Version
from popcorn_ml.errors import ConfigError, StoreError
from popcorn_ml.sentinel import SEASONS, SENSORS

SEASON_COMPOSITES = tuple(f"{sensor}_{season}" for sensor in SENSORS for season in SEASONS)
FILLED = tuple(f"{sensor}_composites" for sensor in SENSORS)
CENSUS = ("census_units", "census_counts")
TRAINED = tuple(MODELS.values())
MAPS = ("builtup_area", "deployed_model", "population_map", "adjusted_map", PRODUCT)
AFTER = ("evaluation", "change", "publication")
ASSETS = (*SEASON_COMPOSITES, *FILLED, *CENSUS, *TRAINED, *MAPS, *AFTER)
"""The assets of a country-year, in the order the data flows."""

State = Literal["current", "outdated", "rejected", "damaged", "missing"]

NO_STUDENT = "not trained"
"""What a student shows where none was asked for when it was made."""

_YEAR = re.compile("[12][0-9]{3}")


@dataclass(frozen=True)
class Part:
    """One asset of a country-year.

    Attributes:
        state: outdated where something it was made from has changed since; rejected where its only
            version failed a check that blocks; damaged where it cannot be read.
        why: what has changed, failed or cannot be read.
        made: when, UTC, in ISO 8601.
        not_passed: verdicts of its own checks that failed, errors and warnings.
        judged: how many of its own checks there are.
    """

    asset: str
    state: State
    why: tuple[str, ...] = ()
    version: str = ""
    made: str = ""
    path: str = ""
    judged: int = 0
    not_passed: tuple[dict[str, Any], ...] = ()
    shown: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def is_there(self) -> bool:
        """Whether there is a version that others may be made from."""
        return self.state in ("current", "outdated")


@dataclass(frozen=True)
class Year:
    """What there is of a country-year.

    Attributes:
        parts: by asset; a student only where the country's file asks for one, or there is one.
        scores: of units predicted by members that never saw them, where they could be scored.
        intervals: share of units that intervals of 80 and 95 % hold, where there are any.
        model_missing: why no model would map it; empty where one would.
    """

    country: str
    year: int
    parts: dict[str, Part]
    scores: dict[str, float]
    intervals: dict[str, float]
    model_missing: str

    def figure(self, asset: str, title: str) -> Any:
        """A figure that an asset shows; None without."""
        return self.parts[asset].shown.get(title) if asset in self.parts else None

    def todo(self) -> list[tuple[str, str]]:
        """What is missing or not up to date, with the command that makes it."""
        return list(_todo(self))


def years_of(store: Store, country: str) -> list[int]:
    """Years of a country that anything was made of."""
    found = {
        int(path.parent.name)
        for asset in ASSETS
        for name in (LATEST, REJECTED)
        for path in (store.root / asset / country).glob(f"*/{name}")
        if _YEAR.fullmatch(path.parent.name)
    }
    return sorted(found)


def standing(store: Store, country: Country, year: int) -> Year:
    """What there is of a country-year."""
    parts: dict[str, Part] = {}
    for asset in ASSETS:
        part = _part(store, Address(asset, country.code, year), parts)
        if asset != STUDENT or not _unasked(part, country):
            parts[asset] = part
    return Year(
        country.code,
        year,
        parts,
        _scores(parts["evaluation"]),
        _intervals(store, parts[PRODUCT], country.code, year),
        _no_model(store, country.code, year),
    )


def _unasked(student: Part, country: Country) -> bool:
    """Whether there is no student, and none was asked for."""
    none = student.state == "missing" or NO_STUDENT in student.shown
    return none and country.model.kind != "student"


def _part(store: Store, address: Address, before: dict[str, Part]) -> Part:
    """One asset, after those that it may be made from."""
    try:
        found, rejected = store.find(address), store.rejected(address)
        if found is None and rejected is None:
            return Part(address.asset, "missing")
        version = found or rejected
        assert version is not None
        return _there(store, version, rejected, before)
    except (StoreError, KeyError, TypeError, ValueError) as error:
        return Part(address.asset, "damaged", (str(error),))


def _there(
    store: Store, version: Version, rejected: Version | None, before: dict[str, Part]
) -> Part:
    manifest = version.manifest()
    failed = [check for check in manifest["checks"] if not check["passed"]]
    why: list[str] = []
    if rejected is not None:
        names = [c["name"] for c in rejected.manifest()["checks"]
                 if not c["passed"] and c["severity"] == "error"]  # fmt: skip
        why.append(f"version {rejected.version} did not become current: {', '.join(names)} failed")
    state: State = "rejected" if rejected is not None and rejected == version else "current"
    changed = list(dict.fromkeys(_changed(store, version, manifest, before)))
    if changed and state == "current":
        state = "outdated"
    return Part(
        version.address.asset,
        state,
        (*why, *changed),
        version.version,
        manifest["finished"],
        str(version.path),
        len(manifest["checks"]),
        tuple(failed),
        dict(manifest["shown"]),
    )


def _changed(
    store: Store, version: Version, manifest: dict[str, Any], before: dict[str, Part]
) -> Iterator[str]:
    """What a version was made from and is no longer as it was."""
    for source in manifest["sources"]:
        if said := changed_source(store.root, source, manifest["finished"]):
            yield said
    for entry in manifest["inputs"]:
        if said := newer_input(store, version.address.asset, entry):
            yield said
            continue
        own = (entry["country"], entry["year"]) == (version.address.country, version.address.year)
        near = before.get(entry["asset"]) if own else None
        if near is not None and near.state == "outdated":
            yield f"{entry['asset']}, which it was made from, is outdated"


def _scores(evaluation: Part) -> dict[str, float]:
    """Figures of the units that were predicted unseen."""
    rows = evaluation.shown.get("out of fold") or []
    return {
        name: value
        for name, value in (rows[0].items() if rows else ())
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _intervals(store: Store, product: Part, country: str, year: int) -> dict[str, float]:
    rows = product.shown.get("intervals hold") or []
    return {name: float(rows[0][f"held_{name}"]) for name in ("80", "95")
            if rows and rows[0].get(f"held_{name}") is not None}  # fmt: skip


def _no_model(store: Store, country: str, year: int) -> str:
    try:
        model = model_for(store, country, year).model
        store.version(model.address, model.version)
    except (StoreError, ConfigError) as error:
        return str(error)
    return ""


# What to do ---------------------------------------------------------------------------------------


def _todo(of: Year) -> Iterator[tuple[str, str]]:
    """What is not there, then what is not up to date, each with one command."""
    run = f"popcorn run {of.country} {of.year}"
    mapped = of.parts[PRODUCT].is_there
    if not mapped:
        if of.model_missing:
            yield "no map, and no model to map with: train one here", run
        else:
            yield "no map", f"{run} --job refresh"
    else:
        missing = [asset for asset in AFTER if of.parts[asset].state == "missing"]
        if missing:
            yield f"no {', '.join(missing)}", f"{run} --job publish"
        outdated = [p.asset for p in of.parts.values() if p.state == "outdated"]
        if outdated:
            yield f"outdated: {', '.join(outdated)}", f"{run} --job {_job_for(outdated)}"
    for part in of.parts.values():
        if part.state == "rejected" or (part.is_there and part.why and part.state == "current"):
            yield (
                f"{part.asset}: {part.why[0]}",
                "put right what the check names, then " + f"{run} --job refresh",
            )
        if part.state == "damaged":
            yield (
                f"{part.asset} cannot be read: {part.why[0].splitlines()[0]}",
                (f"{run} --job refresh"),
            )


def _job_for(outdated: list[str]) -> str:
    """The job that makes what is not up to date."""
    if all(asset in (*MAPS[3:], *AFTER) for asset in outdated):
        return "publish"
    return "distil" if outdated == [STUDENT] else "refresh"


def as_dict(of: Year) -> dict[str, Any]:
    """A year as plain values, for programs."""
    return {
        "country": of.country,
        "year": of.year,
        "people": {
            "on the map": of.figure("population_map", "people on the grid"),
            "adjusted": of.figure("adjusted_map", "people in census units"),
            "census": of.figure("adjusted_map", "census people"),
        },
        "model": of.figure("population_map", "model"),
        "scores": of.scores,
        "intervals hold": of.intervals,
        "assets": [
            {
                "asset": part.asset,
                "state": part.state,
                "why": list(part.why),
                "version": part.version or None,
                "made": part.made or None,
                "path": part.path or None,
                "checks": part.judged,
                "not passed": [
                    {key: check[key] for key in ("name", "severity", "message")}
                    for check in part.not_passed
                ],
            }
            for part in of.parts.values()
        ],
        "to do": [{"what": what, "command": command} for what, command in of.todo()],
    }


def told_json(country: str, years: list[Year], verdicts: dict[int, list[dict[str, Any]]]) -> str:
    """All of it as JSON.

    Args:
        verdicts: year -> of checks that were judged after publication.
    """
    found = [{**as_dict(of), "judged since": verdicts.get(of.year, [])} for of in years]
    return json.dumps({"country": country, "years": found}, indent=1, ensure_ascii=False)
