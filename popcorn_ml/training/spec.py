"""What one training run is told, as plain values that travel as JSON.

Defaults are the published ones (Metzger et al. 2024, arXiv 2311.14006). Nothing here loads torch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from popcorn_ml.errors import ConfigError
from popcorn_ml.sentinel import SEASONS
from popcorn_ml.training.folds import Fold
from popcorn_ml.training.places import BETWEEN, TrainingPlace

Precision = Literal["float32", "bfloat16"]
Kept = Literal["best", "last"]
HeldOut = Literal["folds", "same", "none"]
Kernels = Literal["auto", "compiled", "torch"]

SMALLEST_UNIT_PX = 128 * 128
"""Of a step's pixels, a unit's least share: with less a tile would be mostly halo."""

MAX_SEED = 2**63 - 1
"""The largest that torch takes."""

_ELSEWHERE = ("out", "work", "device", "threads", "kernels", "cache_mb", "epochs", "about")
"""Fields that say where and how fast, not what: a checkpoint may be taken up under others."""


@dataclass(frozen=True)
class TrainingSpec:
    """One member's training.

    Attributes:
        s1, s2: season -> composite, for one season at least, the same seasons in both.
        builtup: raster with a band of built-up scores a season, named by season; NaN = nodata.
        units: raster of census unit numbers, 0 = none, any unsigned integer type.
        counts: JSON list of {"number", "id", "name", "people"}.
        extractor: weights of the built-up area extractor, where the U-Net starts.
        out: folder for the member's weights, history and figure.
        work: folder for the state that a killed run is resumed from.
        seed: of the head's first weights and of every draw.
        member: its number in the ensemble, for the card.
        epochs: how often every unit is seen.
        learning_rate: of Adam at the start.
        learning_rate_decay, learning_rate_decay_epochs: factor, and after how many epochs.
        weight_decay: on everything but the head's last layer.
        gradient_clip: largest norm of the gradient.
        occupancy_weight: of the mean occupancy in the loss.
        stretch: factor that Sentinel-2's brightness and gamma are varied by, at most, either way; 1
            varies neither.
        average_decay: of the running mean of the weights that is scored and kept, a step (Polyak
            & Juditsky 1992); 0 keeps the weights themselves, as published.
        initial_bias: of the head's last layer; None: the people of the units divided by their
            built-up score, so that the first map has about the right total.
        batch_units: census units a step.
        held_out: units that are never trained on: those of this member's fold ("folds"), so that
            together the members of an ensemble predict every unit unseen; a share of all, the
            same in every member ("same"), to choose the best epoch by; or "none", as published.
        held_out_share: of the units, where the same are held out.
        folds, fold: how many folds there are, and which of them, from 0, this member holds out.
        keep_epoch: "best" on the held-out units, or "last" whatever they say; they are scored all
            the same.
        leave_out: share of the people that pixels which are hardly built up may hold together for
            them not to be trained on; 0, as published, trains on every pixel. See `left_out`.
        max_pixels_per_step: of all units of a step together; a unit whose window has more than its
            share is trained on in tiles (exactly). A pixel takes about 1 kB, by autograd 2.1.
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: of the networks' arithmetic; sums and losses are float32 always.
        threads: units worked on at the same time on the CPU; does not change the result.
        kernels: what a CPU's steps are computed with: "compiled" (needs a C compiler when the
            training begins), "torch", or "auto", which takes the first where it can be had. The
            same to rounding.
        cache_mb: decoded pixels kept in memory; see `scratch` for those that it does not hold.
        about: said again in the card (country, year, ...); of no consequence.
        place: code of the country whose files s1, s2, builtup, units and counts are; needed beside
            others only. Where it is given, ids of units begin with it.
        further: other countries whose units are trained on as well, with the same seasons. Their
            people per pixel are scaled to the area of the first country's pixels.
    """

    s1: dict[str, str]
    s2: dict[str, str]
    builtup: str
    units: str
    counts: str
    extractor: str
    out: str
    work: str
    seed: int
    member: int = 0
    epochs: int = 100
    learning_rate: float = 1e-4
    learning_rate_decay: float = 0.75
    learning_rate_decay_epochs: int = 5
    weight_decay: float = 1e-5
    gradient_clip: float = 0.01
    occupancy_weight: float = 0.01
    stretch: float = 1.5
    average_decay: float = 0.0
    initial_bias: float | None = None
    batch_units: int = 2
    held_out: HeldOut = "same"
    held_out_share: float = 0.1
    folds: int = 0
    fold: int = 0
    keep_epoch: Kept = "best"
    leave_out: float = 0.0
    max_pixels_per_step: int = 1_000_000
    device: str = "auto"
    precision: Precision = "float32"
    threads: int = 2
    kernels: Kernels = "auto"
    cache_mb: int = 512
    about: dict[str, Any] = field(default_factory=dict)
    place: str = ""
    further: tuple[TrainingPlace, ...] = ()

    def __post_init__(self) -> None:
        _require_places(self)
        unknown = sorted((set(self.s1) | set(self.s2)) - set(SEASONS))
        if unknown or not self.s1 or set(self.s1) != set(self.s2):
            raise ConfigError(
                "the seasons of the composites do not match",
                expected=f"the same of {', '.join(SEASONS)} for Sentinel-1 and Sentinel-2",
                found=f"Sentinel-1: {sorted(self.s1)}, Sentinel-2: {sorted(self.s2)}",
            )
        whole = {
            "seed": (self.seed, 0),
            "member": (self.member, 0),
            "epochs": (self.epochs, 1),
            "learning_rate_decay_epochs": (self.learning_rate_decay_epochs, 1),
            "batch_units": (self.batch_units, 1),
            "max_pixels_per_step": (
                self.max_pixels_per_step,
                SMALLEST_UNIT_PX * self.batch_units,
            ),
            "folds": (self.folds, 2 if self.held_out == "folds" else 0),
            "fold": (self.fold, 0),
            "threads": (self.threads, 1),
            "cache_mb": (self.cache_mb, 0),
        }
        for name, (value, least) in whole.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                _refuse(name, f"a whole number of at least {least}", value)
        if self.seed > MAX_SEED:
            _refuse("seed", f"a whole number of at most {MAX_SEED}", self.seed)
        for name in ("learning_rate", "learning_rate_decay", "gradient_clip"):
            value = getattr(self, name)
            if not (is_number(value) and value > 0):
                _refuse(name, "a number above 0", value)
        for name in ("weight_decay", "occupancy_weight"):
            value = getattr(self, name)
            if not (is_number(value) and value >= 0):
                _refuse(name, "a number, 0 or above", value)
        if not (is_number(self.stretch) and self.stretch >= 1):
            _refuse("stretch", "a number, 1 or above", self.stretch)
        if not (is_number(self.average_decay) and 0 <= self.average_decay < 1):
            _refuse("average_decay", "at least 0 and below 1", self.average_decay)
        if not (is_number(self.leave_out) and 0 <= self.leave_out < 1):
            _refuse("leave_out", "at least 0 and below 1", self.leave_out)
        if not (is_number(self.held_out_share) and 0 <= self.held_out_share < 1):
            _refuse("held_out_share", "at least 0 and below 1", self.held_out_share)
        if self.held_out not in ("folds", "same", "none"):
            _refuse("held_out", "'folds', 'same' or 'none'", self.held_out)
        if self.held_out == "folds" and self.fold >= self.folds:
            _refuse("fold", f"one of {self.folds} folds, the first being 0", self.fold)
        if self.initial_bias is not None and not is_number(self.initial_bias):
            _refuse("initial_bias", "a number, or null to work it out", self.initial_bias)
        if self.keep_epoch not in ("best", "last"):
            _refuse("keep_epoch", "'best' or 'last'", self.keep_epoch)
        if self.held_out == "folds" and self.keep_epoch == "best":
            # An epoch chosen by the units of a fold has seen them after all.
            _refuse("keep_epoch", "'last' where members hold out folds", self.keep_epoch)
        if self.kernels not in ("auto", "compiled", "torch"):
            _refuse("kernels", "'auto', 'compiled' or 'torch'", self.kernels)
        if self.precision not in ("float32", "bfloat16"):
            _refuse("precision", "'float32' or 'bfloat16'", self.precision)

    @property
    def places(self) -> tuple[TrainingPlace, ...]:
        """All countries whose units are trained on; one without a name, as a rule."""
        own = (self.s1, self.s2, self.builtup, self.units, self.counts)
        return (TrainingPlace(self.place, *own), *self.further)

    @property
    def max_pixels_per_unit(self) -> int:
        """A unit's share of a step: memory holds also when all its units are large."""
        return self.max_pixels_per_step // self.batch_units

    @property
    def seasons(self) -> tuple[str, ...]:
        """Seasons to draw from, in the order of the year."""
        return tuple(season for season in SEASONS if season in self.s1)

    @property
    def share_held_out(self) -> float:
        """Of the units, held out in every member alike."""
        return self.held_out_share if self.held_out == "same" else 0.0

    @property
    def own_fold(self) -> Fold | None:
        """What this member holds out and others do not."""
        return Fold(self.fold, self.folds) if self.held_out == "folds" else None

    def to_json(self) -> str:
        """JSON that `from_json` reads back."""
        return json.dumps(self._values(), indent=2, sort_keys=True) + "\n"

    def _values(self) -> dict[str, Any]:
        """As plain values; what says which country is whose is only there where there are names."""
        values = dataclasses.asdict(self)
        values["further"] = list(values["further"])
        for name in ("place", "further"):
            if not values[name]:
                del values[name]
        return values

    @classmethod
    def from_json(cls, text: str, where: str | Path | None = None) -> TrainingSpec:
        """Read a specification.

        Raises:
            ConfigError: not JSON, an unknown or missing field, or a value that cannot be.
        """
        values = values_of_json(cls, text, "the training specification", where)
        further = _further(values.pop("further", ()), where)
        return cls(**values, further=further)

    def hyperparameters(self) -> dict[str, Any]:
        """What was chosen, without paths and without what does not change the result."""
        paths = ("s1", "s2", "builtup", "units", "counts", "extractor", "place", "further")
        kept = self._values()
        return {
            key: value
            for key, value in kept.items()
            if key not in paths and (key not in _ELSEWHERE or key == "epochs")
        }

    def fingerprint(self) -> str:
        """sha256 of all that a half-done training must share with the one that takes it up.

        Inputs count by their content (weights, counts) or by path, size and time of change
        (rasters); the number of epochs does not, so that a training can be prolonged.
        """
        content = {key: value for key, value in self._values().items() if key not in _ELSEWHERE}
        if not self.leave_out:
            del content["leave_out"]  # nor had those that came before it
        rasters: list[str] = []
        for place in self.places:
            rasters += [place.builtup, place.units]
            for season in self.seasons:
                rasters += [place.s1[season], place.s2[season]]
        files = [self.counts, self.extractor, *(place.counts for place in self.further)]
        content["rasters"] = [stamp_of(Path(path)) for path in rasters]
        content["files"] = [digest_of(Path(path)) for path in files]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _require_places(spec: TrainingSpec) -> None:
    """Several countries have names, each its own, and the same seasons."""
    codes = [place.code for place in spec.places]
    wrong = [code for code in codes if not isinstance(code, str) or BETWEEN in code]
    if wrong or (spec.further and (not all(codes) or len(set(codes)) < len(codes))):
        _refuse("further", f"a code a country, each once and without {BETWEEN}", codes)
    for place in spec.further:
        if set(place.s1) != set(spec.s1) or set(place.s2) != set(spec.s2):
            raise ConfigError(
                "two countries do not have the same seasons",
                where=f"training, {place.code}",
                expected=f"{', '.join(sorted(spec.s1))}, as {spec.place} has them",
                found=f"Sentinel-1: {sorted(place.s1)}, Sentinel-2: {sorted(place.s2)}",
                remedy="make the composites of every season, of every country",
            )


def _further(given: Any, where: str | Path | None) -> tuple[TrainingPlace, ...]:
    try:
        return tuple(TrainingPlace(**place) for place in given)
    except TypeError as error:
        raise ConfigError(
            "a further country of the training specification does not have the right fields",
            where=where,
            expected=", ".join(f.name for f in dataclasses.fields(TrainingPlace)),
            found=str(error),
        ) from None


def values_of_json(cls: type, text: str, what: str, where: str | Path | None) -> dict[str, Any]:
    """The fields of a specification of training, from a JSON object.

    Args:
        cls: a dataclass; fields without a default have to be there, and no others may.
        text: the JSON.
        what: the specification, for messages.
        where: the file it came from, for messages.

    Raises:
        ConfigError: not JSON, or an unknown or missing field.
    """
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{what} is not JSON", where=where, found=str(error)) from error
    if not isinstance(values, dict):
        raise ConfigError(f"{what} is not a JSON object", where=where)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    needed = {
        name
        for name, f in fields.items()
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    unknown, missing = sorted(values.keys() - fields), sorted(needed - values.keys())
    if unknown or missing:
        raise ConfigError(
            f"{what} does not have the right fields",
            where=where,
            expected=f"{', '.join(sorted(needed))} and optionally {', '.join(sorted(fields))}",
            found=f"unknown {unknown}, missing {missing}",
        )
    return values


def is_number(value: object) -> bool:
    """Whether a value of a specification is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _refuse(name: str, expected: str, found: object) -> None:
    raise ConfigError(f"{name} cannot be used", where="training", expected=expected, found=found)


def stamp_of(path: Path) -> list[int] | None:
    """Size and time of change of a raster; None where there is none."""
    if not path.exists():
        return None
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def digest_of(path: Path) -> str | None:
    """sha256 of a small file; None where there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
