"""Which simulated countries are for choosing and which for judging, and every look at the latter.

Whoever changes a setting after seeing a score has tuned to it. So settings are chosen on some
seeds; the others are run when a choice is made, and each time that is done is written down in
`judged.json` before anything is looked at, with what came of it once it is known.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from popcorn_ml.errors import ConfigError
from popcorn_ml.files import write_json
from popcorn_ml.simulate.family import SECOND
from popcorn_ml.simulate.spec import FIRST

CHOOSING: dict[str, tuple[int, ...]] = {
    FIRST: (101, 102, 103, 104),
    SECOND: (401, 402, 403, 404),
}
JUDGING: dict[str, tuple[int, ...]] = {
    FIRST: (20, 201, 202, 203, 301, 302, 303, 304, 305, 306),
    SECOND: (501, 502, 503, 504, 505, 506),
}
RECORD = Path(__file__).with_name("judged.json")


def family_of_seed(seed: int, asked: str | None = None) -> str:
    """The family that a seed is drawn by: its own, or what was asked for of a seed of no list.

    Raises:
        ConfigError: a seed that is kept for choosing or judging was asked for of another family.
    """
    for kept in (CHOOSING, JUDGING):
        for family, seeds in kept.items():
            if seed not in seeds:
                continue
            if asked not in (None, family):
                raise ConfigError(
                    f"seed {seed} is kept for another family of worlds",
                    expected=f"--family {family}",
                    found=f"--family {asked}",
                    remedy="leave --family out, or take a seed of no list",
                )
            return family
    return asked or FIRST


def judging(seeds: Sequence[int]) -> list[int]:
    """Those of the seeds that are for judging."""
    kept = {seed for each in JUDGING.values() for seed in each}
    return [seed for seed in seeds if seed in kept]


def allow(seeds: Sequence[int], reason: str | None) -> bool:
    """Whether this is a look at judging seeds, which needs a reason.

    Raises:
        ConfigError: judging seeds without a reason.
    """
    asked = judging(seeds)
    if not asked:
        return False
    if not (reason or "").strip():
        raise ConfigError(
            "these seeds are for judging, and every look at them is on record",
            expected='--judge "why", once a choice is made',
            found=f"seeds {', '.join(str(seed) for seed in asked)} without a reason",
            remedy="choose on " + "; ".join(_listed(CHOOSING)) + " and judge once, at the end",
        )
    return True


def _listed(kept: Mapping[str, Sequence[int]]) -> list[str]:
    return [f"{', '.join(str(s) for s in seeds)} ({family})" for family, seeds in kept.items()]


class Look:
    """One look at judging seeds: on record from its beginning, completed by its result."""

    def __init__(
        self,
        bench: str,
        seeds: Sequence[int],
        reason: str,
        settings: Mapping[str, Any],
        record: Path | None = None,
    ) -> None:
        self.record = record or RECORD
        self.entry: dict[str, Any] = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": commit(),
            "bench": bench,
            "families": sorted({family_of_seed(seed) for seed in seeds}),
            "seeds": list(seeds),
            "settings": dict(settings),
            "reason": reason,
            "result": None,
        }
        self._write()

    @classmethod
    def none(cls) -> Look:
        """No look at all: nothing is written."""
        look = cls.__new__(cls)
        look.entry = {}
        return look

    def found(self, result: Any) -> None:
        """Say what came of it, of as many seeds as are done."""
        if self.entry:
            self.entry["result"] = result
            self._write()

    def _write(self) -> None:
        looks = read(self.record)
        mine = [k for k, look in enumerate(looks) if look["date"] == self.entry["date"]]
        same = [k for k in mine if looks[k]["seeds"] == self.entry["seeds"]]
        if same:
            looks[same[-1]] = self.entry
        else:
            looks.append(self.entry)
        write_json(self.record, looks)


def read(record: Path | None = None) -> list[dict[str, Any]]:
    """All looks, the first first."""
    path = record or RECORD
    return json.loads(path.read_text("utf-8")) if path.exists() else []


def commit() -> str:
    """Of the code at work; with "+ changes" where it is not as committed."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    head = git("rev-parse", "--short", "HEAD") or "unknown"
    changed = git("status", "--porcelain", "--", ":!benchmarks/judged.json")
    return f"{head} + changes" if changed else head
