"""What a student's training is told, as plain values that travel as JSON. Nothing here loads torch.

A student has a training of its own for every group of members that held out the same units, beside
the one that the map is made with: what it says of a unit comes from a network that never saw the
unit's count, taught by members that did not either.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from popcorn_ml.errors import ConfigError
from popcorn_ml.sentinel import SEASONS
from popcorn_ml.training.places import BETWEEN
from popcorn_ml.training.spec import MAX_SEED, digest_of, is_number, stamp_of, values_of_json

StudentSensors = Literal["both", "s2", "s1"]

CROP_MULTIPLE_PX = 16

STEPS: dict[str, int] = {"both": 400, "s2": 1200, "s1": 1200}
"""Of each training, unless told otherwise. With one sensor much is alike that people do not live in
alike, bare ground and roofs above all, and the network takes longer to tell it apart."""

HUBER_DELTA: dict[str, float] = {"both": 0.0, "s2": 1.0, "s1": 1.0}
"""Unless told otherwise. With both sensors the absolute difference is better, which does not follow
what a teacher alone believes; with one the student is often unsure, and should then say how many
live there on average, where the absolute difference would let it say the lesser half."""

_ELSEWHERE = ("out", "work", "device", "threads", "cache_mb", "about")
"""Fields that say where and how fast, not what: a training may be taken up under others."""


@dataclass(frozen=True)
class StudentSpec:
    """One student's training.

    Attributes:
        composites: season -> {"s1": path or null, "s2": path or null}, one season at least; those
            of a sensor that is not used may be null.
        builtup: built-up score of the same sensors, a band a season, named by it; NaN = nodata.
        units: raster of census unit numbers, 0 = none.
        counts: JSON list of {"number", "id", "name", "people"}.
        extractor: weights of the built-up area extractor behind `builtup`, where the network
            starts.
        members: weights of the ensemble's members, each in its folder with `units.json`.
        teacher: the ensemble's map of this place before any adjustment, `population_members.tif`:
            a band a member, in the order of `members`.
        teacher_builtup: that map's built-up score, by which people are spread where it sees a
            unit as empty.
        out: folder for the student's weights, card, history, figure and out-of-fold predictions.
        work: folder for the state that a killed run is resumed from.
        sensors: whose composites the student looks at: "both", "s2" or "s1".
        seed: of the first weights and of every draw.
        steps: of each training; None: `STEPS` for its sensors.
        batch: crops a step.
        crop_px: side of a crop in pixels, a multiple of 16; its outer pixels are seen only.
        learning_rate: of Adam at the start; it falls to nothing along a half cosine.
        weight_decay: on all that is trained.
        gradient_clip: largest norm of the gradient.
        average_decay: of the running mean of the weights that is kept, a step.
        cell_px: side of the squares whose people are compared.
        huber_delta: up to which difference, over the squares' mean, the square of the difference
            counts (Huber 1964), beyond it the difference itself; 0: everywhere the difference;
            None: `HUBER_DELTA` for its sensors.
        stretch: factor that Sentinel-2's brightness is varied by, at most, either way; 1 varies
            nothing.
        place: code of this country among those that the members were trained on, with which the
            ids in their `units.json` begin; empty where these are of one country and not named.
        device: "auto", "cpu", "cuda" or "cuda:N".
        threads: crops worked on at the same time on a CPU; does not change the result.
        cache_mb: decoded pixels kept in memory.
        about: said again in the card (country, year, ...); of no consequence.
    """

    composites: dict[str, dict[str, str | None]]
    builtup: str
    units: str
    counts: str
    extractor: str
    members: list[str]
    teacher: str
    teacher_builtup: str
    out: str
    work: str
    sensors: StudentSensors = "both"
    seed: int = 1700
    steps: int | None = None
    batch: int = 2
    crop_px: int = 192
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    gradient_clip: float = 0.1
    average_decay: float = 0.98
    cell_px: int = 5
    huber_delta: float | None = None
    stretch: float = 1.2
    place: str = ""
    device: str = "auto"
    threads: int = 2
    cache_mb: int = 512
    about: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.sensors not in get_args(StudentSensors):
            _refuse("sensors", " or ".join(get_args(StudentSensors)), self.sensors)
        self._check_composites()
        if not isinstance(self.place, str) or BETWEEN in self.place:
            _refuse("place", f"a country's code, without {BETWEEN}, or nothing", self.place)
        if self.huber_delta is not None and not (
            is_number(self.huber_delta) and self.huber_delta >= 0
        ):
            _refuse("huber_delta", "a number, 0 or above, or null", self.huber_delta)
        if not isinstance(self.members, list) or not self.members:
            _refuse("members", "a list of one or more members' weights", self.members)
        if len(set(self.members)) < len(self.members):
            _refuse("members", "each member once", self.members)
        whole = {
            "seed": (self.seed, 0),
            "steps": (self.step_count, 1),
            "batch": (self.batch, 1),
            "crop_px": (self.crop_px, 4 * CROP_MULTIPLE_PX),
            "cell_px": (self.cell_px, 1),
            "threads": (self.threads, 1),
            "cache_mb": (self.cache_mb, 0),
        }
        for name, (value, least) in whole.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                _refuse(name, f"a whole number of at least {least}", value)
        if self.seed > MAX_SEED:
            _refuse("seed", f"a whole number of at most {MAX_SEED}", self.seed)
        if self.crop_px % CROP_MULTIPLE_PX:
            _refuse("crop_px", f"a multiple of {CROP_MULTIPLE_PX}", self.crop_px)
        for name in ("learning_rate", "gradient_clip"):
            value = getattr(self, name)
            if not (is_number(value) and value > 0):
                _refuse(name, "a number above 0", value)
        if not (is_number(self.weight_decay) and self.weight_decay >= 0):
            _refuse("weight_decay", "a number, 0 or above", self.weight_decay)
        if not (is_number(self.average_decay) and 0 <= self.average_decay < 1):
            _refuse("average_decay", "at least 0 and below 1", self.average_decay)
        if not (is_number(self.stretch) and self.stretch >= 1):
            _refuse("stretch", "a number, 1 or above", self.stretch)

    def _check_composites(self) -> None:
        given = self.composites
        wanted = f"one or more of {', '.join(SEASONS)}, each with its {self._sensors_told()}"
        if not isinstance(given, dict) or not given or set(given) - set(SEASONS):
            found = sorted(given) if isinstance(given, dict) else given
            _refuse("composites", wanted, found or "no season")
        for season, pair in given.items():
            if not isinstance(pair, dict) or set(pair) - {"s1", "s2"}:
                _refuse(f"composites of {season}", 'an object with "s1" and "s2"', pair)
            missing = [s for s in self.looks_at if not pair.get(s)]
            if missing:
                _refuse("composites", wanted, f"{season} without {' and '.join(missing)}")

    def _sensors_told(self) -> str:
        names = {"s1": "Sentinel-1", "s2": "Sentinel-2"}
        return " and ".join(f"{names[sensor]} composite" for sensor in self.looks_at)

    @property
    def step_count(self) -> int:
        """Steps of each training."""
        return STEPS[self.sensors] if self.steps is None else self.steps

    @property
    def delta(self) -> float:
        """See `huber_delta`."""
        return HUBER_DELTA[self.sensors] if self.huber_delta is None else self.huber_delta

    @property
    def looks_at(self) -> tuple[str, ...]:
        """The sensors whose composites are read."""
        return ("s1", "s2") if self.sensors == "both" else (self.sensors,)

    @property
    def seasons(self) -> tuple[str, ...]:
        """Seasons given, in the order of the year."""
        return tuple(season for season in SEASONS if season in self.composites)

    def pairs(self) -> dict[str, tuple[Path | None, Path | None]]:
        """Season -> its composites, None of a sensor that is not used; in the order of the year."""
        found: dict[str, tuple[Path | None, Path | None]] = {}
        for season in self.seasons:
            s1, s2 = (
                Path(self.composites[season][sensor] or "") if sensor in self.looks_at else None
                for sensor in ("s1", "s2")
            )
            found[season] = s1, s2
        return found

    def to_json(self) -> str:
        """JSON that `from_json` reads back."""
        return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str | Path | None = None) -> StudentSpec:
        """Read a specification.

        Raises:
            ConfigError: not JSON, an unknown or missing field, or a value that cannot be.
        """
        values = values_of_json(cls, text, "the student's specification", where)
        return cls(**values)

    def hyperparameters(self) -> dict[str, Any]:
        """What was chosen, without paths and without what does not change the result."""
        paths = {"composites", "builtup", "units", "counts", "extractor", "members"}
        paths |= {"teacher", "teacher_builtup", "place"}
        kept = dataclasses.asdict(self) | self._resolved()
        return {k: v for k, v in kept.items() if k not in paths and k not in _ELSEWHERE}

    def _resolved(self) -> dict[str, Any]:
        """What is not told, as it is for these sensors."""
        return {"steps": self.step_count, "huber_delta": self.delta}

    def fingerprint(self) -> str:
        """sha256 of all that a half-done training must share with the one that takes it up.

        Inputs count by their content (weights, counts) or by path, size and time of change
        (rasters).
        """
        told = dataclasses.asdict(self) | self._resolved()
        content = {k: v for k, v in told.items() if k not in _ELSEWHERE}
        if not self.place:
            del content["place"]  # nor had those that came before it
        rasters = [Path(p) for p in (self.builtup, self.units, self.teacher, self.teacher_builtup)]
        rasters += [path for pair in self.pairs().values() for path in pair if path is not None]
        content["rasters"] = [stamp_of(path) for path in rasters]
        content["files"] = [
            digest_of(Path(p)) for p in (self.counts, self.extractor, *self.members)
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _refuse(name: str, expected: str, found: object) -> None:
    raise ConfigError(f"{name} cannot be used", where="student", expected=expected, found=found)
