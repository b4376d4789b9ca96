"""Train one member: the loop on lightning, its state on disk, the choice of the best epoch.

After every epoch the held-out units are scored over all their seasons, without augmentation, as
mapping would; the epoch that does best there is what is kept. What evaluation measures against is
never read here. The state after every epoch lies in the work folder, so that a killed run goes on
from there to the very weights that an undisturbed one reaches.
"""

from __future__ import annotations

import json
import logging
import pickle
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment

from popcorn_ml import raster
from popcorn_ml.compute.devices import one_thread_each, pick_device
from popcorn_ml.errors import TrainingError, WeightsError
from popcorn_ml.files import write_bytes
from popcorn_ml.mapping.builtup import EXTRACTOR_TAG, extractor_of_score
from popcorn_ml.mapping.members import PIXEL_AREA
from popcorn_ml.model.popcorn import BuiltupExtractor, OccupancyModel, from_extractor
from popcorn_ml.model.stored import OCCUPANCY_FILE
from popcorn_ml.model.weights import fingerprint, load_extractor, save_occupancy
from popcorn_ml.training.countries import grids_of, units_of
from popcorn_ml.training.left_out import LEFT_OUT, LeftOutPixels, pixels_left_out
from popcorn_ml.training.loop import STATE_FILE, Member, Progress
from popcorn_ml.training.loss import LOSS_SCALE
from popcorn_ml.training.out_of_fold import (
    OUT_OF_FOLD_FILE,
    Unseen,
    as_json,
    by_country,
    losses,
)
from popcorn_ml.training.samples import Samples
from popcorn_ml.training.spec import TrainingSpec
from popcorn_ml.training.units import LeftOut, Units, initial_bias
from popcorn_ml.training.ways import KERNELS, Ways, library_for

HISTORY_FILE = "history.json"
UNITS_FILE = "units.json"
FIGURE_FILE = "loss.png"
COUNTRIES = "countries"
"""In the card of a member of several countries: how many units of each, and how it does on them."""


@dataclass(frozen=True)
class MemberResult:
    """What a training gave.

    Attributes:
        folder: holds the weights with their card, `history.json`, `units.json`, `loss.png` and
            `out_of_fold.json`.
        weights: the occupancy model of the best epoch.
        best_epoch, epochs: counted from 1.
        history: metrics of every epoch, those of earlier runs of a resumed training included.
        trained, held_out: how many units.
        left_out: the units that are neither, and why.
        tiled: ids of the units that were trained on in tiles.
        resumed_after: epoch after which an earlier run was taken up; 0 for a fresh start.
        seconds: of this run.
    """

    folder: Path
    weights: Path
    best_epoch: int
    epochs: int
    history: list[dict[str, float]]
    trained: int
    held_out: int
    left_out: tuple[LeftOut, ...]
    tiled: tuple[str, ...]
    resumed_after: int
    seconds: float


def train_member(
    spec: TrainingSpec, progress: Progress | None = None, *, bar: bool = False
) -> MemberResult:
    """Train one member from start to end, or from where a killed run of the same spec stopped.

    Args:
        spec: all there is to say about it.
        progress: see `Progress`; the metrics are those of `history.json`, and `seconds`.
        bar: show a progress bar on standard error.

    Raises:
        CensusError, RasterError, GridMismatch, WeightsError, ConfigError: an input that cannot be
            used; nothing is written to the out folder then.
        TrainingError: the loss is no longer a number.
    """
    begun = time.monotonic()
    device = pick_device(spec.device)
    ways = Ways(spec, device, library_for(spec, device))
    extractor = load_extractor(spec.extractor)
    belongs_to = _of_the_score(spec, extractor)
    grid, units = units_of(spec)
    bias = initial_bias(units.trained) if spec.initial_bias is None else spec.initial_bias
    model = from_extractor(extractor, bias, spec.seed)
    state = _usable_state(Path(spec.work) / STATE_FILE, spec)
    left_out = [
        pixels_left_out(spec, one, place.builtup)
        for place, one in zip(spec.places, grids_of(spec, grid), strict=True)
    ]
    samples = Samples(
        spec, grid, (*units.trained, *units.held_out), [one.below for one in left_out]
    )
    member = Member(spec, units, samples, model, device, progress, ways)
    try:
        with _quiet(), one_thread_each(device), raster.bounded_cache():
            trainer = _trainer(spec, device, bar)
            trainer.fit(member, ckpt_path=state, weights_only=None if state is None else True)
            if member.best is None:
                raise TrainingError(
                    "the training was stopped before its first epoch was over", where=spec.work
                )
            if len(member.history) < spec.epochs:
                raise TrainingError(
                    "the training was stopped before its last epoch was over",
                    where=spec.work,
                    expected=f"{spec.epochs} epochs",
                    found=len(member.history),
                    remedy="run it again: it goes on from there",
                )
            unseen = member.predict_held_out()
    finally:
        member.close()
        samples.close()
    tiled = tuple(
        unit.id for unit in (*units.trained, *units.held_out) if samples.tile_count(unit) > 1
    )
    about = {
        "initial_bias": bias,
        EXTRACTOR_TAG: belongs_to,
        PIXEL_AREA: grid.pixel_area_m2,
        KERNELS: ways.told,
        LEFT_OUT: {"allowed": spec.leave_out, **_of_places(spec, left_out)},
        **_countries(spec, units, unseen),
    }
    history = _scored(member, unseen)
    weights = _write(spec, member, history, units, unseen, tiled, about)
    return MemberResult(
        folder=Path(spec.out),
        weights=weights,
        best_epoch=member.best_epoch,
        epochs=len(member.history),
        history=history,
        trained=len(units.trained),
        held_out=len(units.held_out),
        left_out=units.left_out,
        tiled=tiled,
        resumed_after=member.resumed_after,
        seconds=time.monotonic() - begun,
    )


def _of_the_score(spec: TrainingSpec, extractor: BuiltupExtractor) -> str:
    """Fingerprint of the extractor, which is the one behind the built-up score.

    Raises:
        WeightsError: the score says that another made it.
    """
    found = fingerprint(extractor)
    for place in spec.places:
        score = extractor_of_score(place.builtup)
        if score not in (None, found):
            raise WeightsError(
                "training would begin from another extractor than the built-up score was made with",
                where=spec.extractor,
                expected=f"the extractor of {place.builtup}, fingerprint {score}",
                found=f"fingerprint {found}",
                remedy="make the built-up score again with this extractor",
            )
    return found


def _of_places(spec: TrainingSpec, left_out: Sequence[LeftOutPixels]) -> dict[str, Any]:
    """What pixels are left out, as the card says it: of each country where they have names."""
    if not spec.place:
        return asdict(left_out[0])
    return {p.code: asdict(one) for p, one in zip(spec.places, left_out, strict=True)}


def _countries(spec: TrainingSpec, units: Units, unseen: Sequence[Unseen]) -> dict[str, Any]:
    """What the card says of each country, where they have names."""
    if not spec.place:
        return {}
    scores = {score.country: score.as_row() for score in by_country(unseen)}
    return {
        COUNTRIES: {
            place.code: {
                "trained": sum(unit.place == index for unit in units.trained),
                "held_out": sum(unit.place == index for unit in units.held_out),
                **scores.get(place.code, {}),
            }
            for index, place in enumerate(spec.places)
        }
    }


def _scored(member: Member, unseen: Sequence[Unseen]) -> list[dict[str, float]]:
    """The history, in which the epoch that is kept says how it does on what it never saw."""
    history, kept = list(member.history), member.best_epoch - 1
    if "held_out_loss" not in history[kept]:
        history[kept] = history[kept] | losses(unseen, LOSS_SCALE, member.spec.occupancy_weight)
    return history


def _chooses(spec: TrainingSpec, units: Units) -> bool:
    """Whether held-out units decide which epoch is kept."""
    return bool(units.held_out) and spec.keep_epoch == "best"


def _trainer(spec: TrainingSpec, device: torch.device, bar: bool) -> Trainer:
    callbacks: list[Any] = []
    if bar:
        from lightning.pytorch.callbacks import RichProgressBar

        callbacks.append(
            RichProgressBar(refresh_rate=1, leave=False, console_kwargs={"stderr": True})
        )
    return Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=[device.index or 0] if device.type == "cuda" else 1,
        max_epochs=spec.epochs,
        deterministic="warn" if device.type == "cuda" else None,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=bar,
        num_sanity_val_steps=0,
        callbacks=callbacks,
        default_root_dir=spec.work,
        plugins=[LightningEnvironment()],  # not whatever cluster it believes to run on
    )


def _usable_state(path: Path, spec: TrainingSpec) -> Path | None:
    """The state of a killed run of the same spec and inputs; any other is removed."""
    if not path.is_file():
        return None
    try:
        kept = torch.load(path, map_location="cpu", weights_only=True)["popcorn"]
        if kept["fingerprint"] == spec.fingerprint() and len(kept["history"]) <= spec.epochs:
            return path
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, KeyError, TypeError):
        pass
    path.unlink()
    return None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep lightning's announcements to itself."""
    loggers = [logging.getLogger(n) for n in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _write(
    spec: TrainingSpec,
    member: Member,
    history: list[dict[str, float]],
    units: Units,
    unseen: Sequence[Unseen],
    tiled: Sequence[str],
    about: dict[str, Any],
) -> Path:
    """The member's folder; the card, written last, says that it is whole.

    Args:
        unseen: what the member says of the units held out.
        about: what the card says of what the member was trained from.
    """
    out = Path(spec.out)
    chosen = history[member.best_epoch - 1]
    write_bytes(out / HISTORY_FILE, _json(history))
    fold = spec.own_fold
    write_bytes(
        out / OUT_OF_FOLD_FILE,
        as_json(unseen, fold.index if fold else None, fold.count if fold else 0),
    )
    write_bytes(
        out / UNITS_FILE,
        _json(
            {
                "trained": [unit.id for unit in units.trained],
                "held_out": [unit.id for unit in units.held_out],
                "left_out": [asdict(unit) for unit in units.left_out],
                "tiled": list(tiled),
            }
        ),
    )
    from popcorn_ml.training.figure import loss_figure

    write_bytes(out / FIGURE_FILE, loss_figure(history, member.best_epoch))
    model = OccupancyModel()
    assert member.best is not None
    model.load_state_dict(member.best)
    card = {
        "name": f"occupancy model, member {spec.member}",
        "seed": spec.seed,
        "member": spec.member,
        "best_epoch": member.best_epoch,
        "epochs": len(member.history),
        "chosen_by": "held_out_loss" if _chooses(spec, units) else "last epoch",
        "metrics": chosen,
        **about,
        "units": {
            "trained": len(units.trained),
            "held_out": len(units.held_out),
            "left_out": len(units.left_out),
            "tiled": len(tiled),
        },
        "hyperparameters": spec.hyperparameters(),
        "about": spec.about,
    }
    return save_occupancy(model, out / OCCUPANCY_FILE, card)


def _json(content: object) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()
