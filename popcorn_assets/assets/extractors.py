"""Which extractor is behind a built-up score, checkpoints or a map, and whether two are the same.

Occupancy is people per pixel of one extractor's built-up score: on another's it is meaningless.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from popcorn_assets.store.versions import Address, Store, Version
from popcorn_ml.errors import StoreError

EXTRACTOR = "builtup_extractor"
SCORE = "builtup_area"

FACT = "extractor"
"""Of a manifest: name and fingerprint of the extractor that its contents belong to."""

SAME_EXTRACTOR = "same_extractor"

CARD_FILE, CARD_KEY = "card.json", "extractor_fingerprint"
"""What `popcorn_ml.training` says it in."""

UNKNOWN = "an extractor that is no longer known"


@dataclass(frozen=True)
class Extractor:
    """An extractor as manifests keep it.

    Attributes:
        name: as in the country's file; empty where only members' cards tell of it.
        fingerprint: of its values (`weights.fingerprint`), whatever file holds them.
    """

    name: str
    fingerprint: str

    def __str__(self) -> str:
        return f"{self.name or 'an extractor'} ({self.fingerprint[:12]})"

    def as_fact(self) -> dict[str, Any]:
        """For a manifest's facts."""
        return {FACT: {"name": self.name, "fingerprint": self.fingerprint}}

    @classmethod
    def of_file(cls, path: Path) -> Extractor:
        """The extractor in a file of the store.

        Raises:
            WeightsError: it is missing, altered or of another architecture.
        """
        from popcorn_ml.model.weights import fingerprint, load_extractor

        return cls(path.stem, fingerprint(load_extractor(path)))


def extractor_of(store: Store, version: Version) -> Extractor | None:
    """The extractor behind a built-up score, or that of the score behind checkpoints.

    Newer manifests name it, and so do members' cards; of older ones it is looked up in what they
    were made from.

    Returns:
        None where that is no longer in the store either.
    """
    manifest = version.manifest()
    said = (manifest.get("facts") or {}).get(FACT)
    if said:
        return Extractor(said["name"], said["fingerprint"])
    cards = {
        _told_by(version.path / name) for name in manifest.get("files") or () if _is_card(name)
    }
    if len(cards) == 1 and (told := cards.pop()):
        return Extractor("", told)
    inputs = {entry["asset"]: entry for entry in manifest["inputs"]}
    # Of checkpoints it is the score's, even where their networks began from another one.
    if SCORE in inputs:
        entry = inputs[SCORE]
        try:
            address = Address(SCORE, entry["country"], entry["year"])
            return extractor_of(store, store.version(address, entry["version"]))
        except StoreError:
            pass  # it was removed; the checkpoints name an extractor of their own
    return _of_entry(store, inputs[EXTRACTOR]) if EXTRACTOR in inputs else None


def _is_card(name: str) -> bool:
    return name.startswith("member_") and name.endswith(f"/{CARD_FILE}")


def _told_by(card: Path) -> str | None:
    """The extractor's fingerprint in a member's card."""
    try:
        return json.loads(card.read_text("utf-8")).get(CARD_KEY)
    except (OSError, ValueError, AttributeError):
        return None  # another check tells of a card that cannot be read


def _of_entry(store: Store, entry: dict[str, Any]) -> Extractor | None:
    """The extractor of an input; a file of the same digest in the current version is as good."""
    files: dict[str, str] = entry.get("files") or {}
    if len(files) != 1:
        return None
    ((name, digest),) = files.items()
    try:
        noted = store.version(Address(EXTRACTOR), entry["version"])
    except StoreError:
        noted = None
    for version in (noted, store.find(Address(EXTRACTOR))):
        if version is None:
            continue
        for kept, file in version.manifest()["files"].items():
            if file["sha256"] == digest and kept.endswith(".safetensors"):
                found = Extractor.of_file(version.file(kept))
                return Extractor(Path(name).stem, found.fingerprint)
    return None


@dataclass(frozen=True)
class SameExtractor:
    """Whether a model meets the score that it was trained on, as `Outcome.checks` takes it.

    Attributes:
        score, model: extractor of the score to map, and of the one trained on; None: not known,
            and then it does not pass.
    """

    score: Extractor | None
    model: Extractor | None
    name: str = SAME_EXTRACTOR
    severity: str = "error"

    @property
    def passed(self) -> bool:
        if self.score is None or self.model is None:
            return False
        return self.score.fingerprint == self.model.fingerprint

    @property
    def message(self) -> str:
        if self.passed:
            return f"score and model are of one extractor, {self.score}"
        return (
            f"the score to map is that of {self.score or UNKNOWN}, and the model was trained on "
            f"that of {self.model or UNKNOWN}. To do: {self._remedy}"
        )

    @property
    def _remedy(self) -> str:
        if self.score is None:
            return "materialise builtup_area again"
        if self.model is None:
            return "train the model again"
        return (
            f"train on this score and put that model in use; or name {self.model.name} as "
            "`extractor` in the country's file and materialise builtup_area again"
        )

    @property
    def metadata(self) -> dict[str, Any]:
        return {"score": str(self.score or UNKNOWN), "model": str(self.model or UNKNOWN)}
