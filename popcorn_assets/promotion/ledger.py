"""The ledger of a country's deployed models: every decision, in order, none ever changed.

`<store>/deployments/<country>.json` is replaced as a whole, under a lock. Each entry holds the
sha256 of the one before it, so that one altered or taken out afterwards is found. How decisions
are made is `decide`'s business.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from popcorn_assets.promotion.entries import Action, Entry, InUse, Ledger, Model
from popcorn_assets.store.versions import Address, Store
from popcorn_ml.compute.locks import held
from popcorn_ml.errors import StoreError
from popcorn_ml.files import write_json

FOLDER = "deployments"
REMOVING = ".removing"
"""Lock file: whoever decides shares it, whoever removes versions has it alone."""
SCHEMA = 1
DEPLOYED = "deployed_model"
DEPLOYED_FILE = "deployed.json"
FACT = "ledger entry"
"""Under this name a deployed model's manifest keeps the entry it rests on."""


def ledger_path(store: Store, country: str) -> Path:
    """Where a country's ledger is."""
    Address(DEPLOYED, country, 2000)  # a name that leaves the store is refused
    return store.root / FOLDER / f"{country}.json"


def read_ledger(store: Store, country: str) -> Ledger:
    """A country's ledger; empty where nothing was ever decided.

    Raises:
        StoreError: it cannot be read, its chain is broken, or it is gone, older or another than
            what deployed models rest on. It is never begun anew, or gone on with, by itself.
    """
    path = ledger_path(store, country)
    deployed = _deployed(store, country)  # first: an entry is written before a model rests on it
    entries, problems = _read(path, country)
    remedy = "put the file back from a backup; nothing is deployed for this country before"
    resting = sorted({str(address) for address, fact in deployed if fact})
    if entries is None and resting:
        problems = [f"the file is missing, and {', '.join(resting)} rest on it"]
    elif not problems:
        problems = _not_borne_out(deployed, entries or [])
        remedy = (
            "put back a copy of the file that is at least as new as these models; nothing is "
            "deployed for this country before. If there is none, move the folders of these "
            f"models out of {store.root / DEPLOYED / country} and materialise {DEPLOYED} again"
        )
    if problems:
        raise StoreError(
            "the ledger of deployed models cannot be trusted",
            where=path,
            expected="the file as popcorn wrote it, every entry in it",
            found="; ".join(problems[:5]),
            remedy=remedy,
        )
    return Ledger(country, path, tuple(entries or ()))


def verify(store: Store, country: str) -> list[str]:
    """What is wrong with a country's ledger, in words; empty when nothing is.

    The chain finds an entry altered or removed; the entries' digests that deployed models keep in
    their manifests find a ledger that was cut short or written anew as a whole.
    """
    deployed = _deployed(store, country)  # first: an entry is written before a model rests on it
    entries, problems = _read(ledger_path(store, country), country)
    problems += _not_borne_out(deployed, entries or [])
    missing = {
        model
        for entry in entries or ()
        for model in _models_of(entry)
        if not (store.folder(model.address) / model.version).is_dir()
    }
    problems += [f"{model} is no longer in the store" for model in sorted(missing, key=str)]
    return list(dict.fromkeys(problems))


def ledger_countries(store: Store) -> list[str]:
    """Countries with a ledger, or with deployed models, which rest on one."""
    written = {path.stem for path in (store.root / FOLDER).glob("[a-z0-9]*.json")}
    deployed = {path.name for path in (store.root / DEPLOYED).glob("[a-z0-9]*") if path.is_dir()}
    return sorted(written | deployed)


def ledger_versions(store: Store) -> set[tuple[Address, str]]:
    """Every version that a ledger names: what may be gone back to must be kept.

    Raises:
        StoreError: a ledger that cannot be read; nothing may be deleted then.
    """
    return {
        (model.address, model.version)
        for country in ledger_countries(store)
        for entry in read_ledger(store, country).entries
        for model in _models_of(entry)
    }


@contextmanager
def deciding(store: Store, country: str) -> Iterator[Ledger]:
    """The ledger, held for one decision: nobody else's entry comes between.

    Nor is a version removed meanwhile: one that is there when it is decided on stays.

    Raises:
        StoreError: as `read_ledger`, or the folder cannot be written.
    """
    path = ledger_path(store, country)
    with (
        _locked(path.with_name(f".{path.stem}.lock")),
        _locked(path.with_name(REMOVING), shared=True),
    ):
        yield read_ledger(store, country)


@contextmanager
def removing(store: Store) -> Iterator[set[tuple[Address, str]]]:
    """As `ledger_versions`, while nothing is decided for any country: for who removes versions.

    Raises:
        StoreError: as `deciding`.
    """
    with _locked(store.root / FOLDER / REMOVING):
        yield ledger_versions(store)


@contextmanager
def _locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise StoreError(
            "the ledger of deployed models cannot be written",
            where=path.parent,
            found=str(error),
            remedy="make the folder writable",
        ) from error
    with held(path, shared=shared):
        yield


def append(
    ledger: Ledger,
    *,
    action: Action,
    year: int | None,
    model: Model,
    metrics: dict[str, Any],
    against: InUse | None,
    margin: float | None,
    configured: dict[str, Any],
    who: str,
    reason: str,
    forced: bool = False,
    explicit: bool = False,
) -> Ledger:
    """The ledger with one more entry, on disk; only inside `deciding`."""
    last = ledger.entries[-1] if ledger.entries else None
    entry = Entry(
        number=len(ledger.entries) + 1,
        id="",
        previous=digest_of(last) if last else "",
        action=action,
        year=year,
        model=model,
        metrics=metrics,
        against=against.as_against() if against else None,
        margin=margin,
        forced=forced,
        explicit=explicit,
        reason=reason,
        configured=configured,
        who=who,
        when=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    entry = entry.model_copy(update={"id": _id_of(ledger.country, entry)})
    grown = replace(ledger, entries=(*ledger.entries, entry))
    write_json(
        ledger.path,
        {
            "schema": SCHEMA,
            "country": ledger.country,
            "head": digest_of(entry),
            "entries": [e.model_dump(mode="json") for e in grown.entries],
        },
    )
    return grown


def digest_of(entry: Entry) -> str:
    """sha256 of an entry, whole."""
    return _sha256(entry.model_dump(mode="json"))


def _id_of(country: str, entry: Entry) -> str:
    decided = [country, entry.number, entry.action, entry.year, entry.model.model_dump()]
    return f"{entry.number}-{_sha256(decided)[:8]}"


def _sha256(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _models_of(entry: Entry) -> list[Model]:
    return [entry.model, *([entry.against.model] if entry.against else [])]


def _not_borne_out(
    deployed: list[tuple[Address, dict[str, Any]]], entries: list[Entry]
) -> list[str]:
    """Which deployed models rest on an entry that is not among these, or was another then."""
    digests = {entry.id: digest_of(entry) for entry in entries}
    problems = []
    for address, fact in deployed:
        if not fact:
            continue
        entry = str(fact.get("id"))
        if entry not in digests:
            problems.append(f"{address} rests on entry {entry}, which the ledger does not have")
        elif fact.get("sha256") != digests[entry]:
            problems.append(f"{address} rests on entry {entry}, which has been altered since")
    return list(dict.fromkeys(problems))


def _read(path: Path, country: str) -> tuple[list[Entry] | None, list[str]]:
    """Entries (None: there is no file) and what is wrong with them."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None, []
    except (OSError, ValueError, RecursionError) as error:
        return [], [f"it is not readable JSON: {error}"]
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        return [], [f"it is no ledger of schema {SCHEMA}"]
    if content.get("country") != country or not isinstance(content.get("entries"), list):
        return [], [f"it is not the ledger of {country}"]
    entries: list[Entry] = []
    problems: list[str] = []
    head = ""  # digest of the entry before as it is written, not of what was read from it
    if content.keys() != {"schema", "country", "head", "entries"}:
        problems.append(f"it has the keys {', '.join(sorted(content))}")
    for number, raw in enumerate(content["entries"], 1):
        try:
            entry = Entry.model_validate(raw)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            return entries, [*problems, f"entry {number}: {place}: {first['msg']}"]
        if entry.number != number:
            problems.append(f"entry {number} has number {entry.number}")
        if entry.previous != head:
            problems.append(f"entry {number} does not follow the one before: altered or removed")
        if entry.id != _id_of(country, entry):
            problems.append(f"entry {number} does not decide what its id says: altered")
        entries.append(entry)
        head = _sha256(raw)
    if content.get("head") != head:
        problems.append("the last entry is not the one that was written last")
    return entries, problems


def _deployed(store: Store, country: str) -> list[tuple[Address, dict[str, Any]]]:
    """Every deployed model of a country in the store, with the entry its manifest keeps."""
    found = []
    for path in sorted((store.root / DEPLOYED / country).glob("*/*/manifest.json")):
        version = path.parent.name
        if not re.fullmatch(r"[0-9]{4}", path.parts[-3]) or version.startswith("."):
            continue
        address = Address(DEPLOYED, country, int(path.parts[-3]))
        try:
            fact = store.version(address, version).manifest().get("facts", {}).get(FACT)
        except StoreError:  # a damaged version; others than the ledger's own reader say so
            fact = None
        found.append((address, fact if isinstance(fact, dict) else {}))
    return found
