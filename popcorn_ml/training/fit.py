"""Train one member: the loop on lightning, its state on disk, the choice of the best epoch.

After every epoch the held-out units are scored over all their seasons, without augmentation, as
mapping would; the epoch that does best there is what is kept. What evaluation measures against is
never read here. The state after every epoch lies in the work folder, so that a killed run goes on
from there to the very weights that an undisturbed one reaches.
"""

from __future__ import annotations

import copy
import json
import logging
import math
import os
import pickle
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment
from torch import Tensor

from popcorn_ml.compute.devices import pick_device
from popcorn_ml.errors import TrainingError
from popcorn_ml.files import replacing, write_bytes
from popcorn_ml.model.popcorn import OccupancyModel, from_extractor
from popcorn_ml.model.weights import OCCUPANCY_FILE, load_extractor, save_occupancy
from popcorn_ml.training.augment import Draw, draw, epoch_order
from popcorn_ml.training.loss import LOSS_SCALE, Piece, UnitLoss, unit_loss
from popcorn_ml.training.samples import Samples
from popcorn_ml.training.spec import TrainingSpec
from popcorn_ml.training.units import LeftOut, Unit, Units, find_units, initial_bias

STATE_FILE = "last.ckpt"
HISTORY_FILE = "history.json"
UNITS_FILE = "units.json"
FIGURE_FILE = "loss.png"
AHEAD_STEPS = 4
"""Steps whose samples are read ahead."""

Progress = Callable[[int, int, dict[str, float]], None]
"""Called after every epoch with epochs done, epochs in all, and the epoch's metrics."""


@dataclass(frozen=True)
class MemberResult:
    """What a training gave.

    Attributes:
        folder: holds the weights with their card, `history.json`, `units.json`, `loss.png`.
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
    grid, units = find_units(
        spec.units, spec.builtup, spec.counts, spec.seasons, spec.held_out_share
    )
    bias = initial_bias(units.trained) if spec.initial_bias is None else spec.initial_bias
    model = from_extractor(load_extractor(spec.extractor), bias, spec.seed)
    state = _usable_state(Path(spec.work) / STATE_FILE, spec)
    samples = Samples(spec, grid, (*units.trained, *units.held_out))
    member = _Member(spec, units, samples, model, device, progress)
    try:
        with _quiet(), _one_thread_each(device):
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
    finally:
        member.close()
        samples.close()
    tiled = tuple(
        unit.id for unit in (*units.trained, *units.held_out) if samples.tile_count(unit) > 1
    )
    weights = _write(spec, member, units, tiled, bias)
    return MemberResult(
        folder=Path(spec.out),
        weights=weights,
        best_epoch=member.best_epoch,
        epochs=len(member.history),
        history=member.history,
        trained=len(units.trained),
        held_out=len(units.held_out),
        left_out=units.left_out,
        tiled=tiled,
        resumed_after=member.resumed_after,
        seconds=time.monotonic() - begun,
    )


def parameter_groups(model: OccupancyModel, weight_decay: float) -> list[dict[str, Any]]:
    """Adam's groups: weight decay on all that is trained but the head's last layer."""
    last: Any = model.head[-1]
    spared = {id(parameter) for parameter in last.parameters()}
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if id(p) not in spared], "weight_decay": weight_decay},
        {"params": [p for p in trained if id(p) in spared], "weight_decay": 0.0},
    ]


class _Member(LightningModule):
    """The training loop's body; optimised by hand, because a step is several separate forwards."""

    def __init__(
        self,
        spec: TrainingSpec,
        units: Units,
        samples: Samples,
        model: OccupancyModel,
        device: torch.device,
        progress: Progress | None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.spec, self.units, self.samples = spec, units, samples
        self.model = model
        self.target, self.report = device, progress
        # A submodule, so that it moves to the device and is resumed with the rest.
        self.averaged = None if not spec.average_decay else copy.deepcopy(model)
        if self.averaged is not None:
            self.averaged.requires_grad_(False)
        self.trained_parameters = [p for p in model.parameters() if p.requires_grad]
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Tensor] | None = None
        self.best_epoch = self.resumed_after = 0
        self.fingerprint = spec.fingerprint()
        self._sums: dict[str, float] = {}
        self._begun = time.monotonic()
        # On a GPU one unit at a time keeps it busy; on a CPU two units on two cores are faster
        # than one unit on both, and the result does not depend on the number of threads.
        self._workers = ThreadPoolExecutor(
            spec.threads if device.type == "cpu" else 1,
            thread_name_prefix="unit",
            initializer=partial(torch.set_num_threads, 1) if device.type == "cpu" else None,
        )

    def arithmetic(self) -> AbstractContextManager:
        """What the networks run in, in each worker's own thread."""
        if self.spec.precision == "float32":
            return nullcontext()
        return torch.autocast(self.target.type, dtype=torch.bfloat16)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(
            parameter_groups(self.model, self.spec.weight_decay), lr=self.spec.learning_rate
        )
        schedule = torch.optim.lr_scheduler.StepLR(
            optimizer, self.spec.learning_rate_decay_epochs, self.spec.learning_rate_decay
        )
        return [optimizer], [schedule]

    def train_dataloader(self) -> Any:
        return _Steps(self)

    def drawn(self, unit: Unit) -> Draw:
        """How a unit is seen in the running epoch."""
        spec = self.spec
        return draw(spec.seed, self.current_epoch, unit.number, unit.seasons, spec.stretch)

    @property
    def kept(self) -> OccupancyModel:
        """The model that is scored and kept: the running mean where there is one."""
        return self.model if self.averaged is None else self.averaged

    def average(self, step: int) -> None:
        """Move the running mean towards the weights after the step of a number, from 0.

        Faster in the first steps, so that where training began is soon forgotten.
        """
        if self.averaged is None:
            return
        decay = min(self.spec.average_decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, now in zip(self.averaged.parameters(), self.model.parameters(), strict=True):
                mean.lerp_(now, 1 - decay)

    def loss_of(self, unit: Unit, drawn: Draw, differentiate: bool) -> UnitLoss:
        """One unit's loss; runs in a worker thread."""
        keys = self.samples.keys(unit, drawn.season)

        def piece(key: tuple[int, int, int]) -> Piece:
            return self.samples.get(key).augmented(drawn, self.target)

        return unit_loss(
            self.model if differentiate else self.kept,
            [partial(piece, key) for key in keys],
            unit.people,
            unit.observed[drawn.season],
            self.spec.occupancy_weight,
            self.trained_parameters if differentiate else None,
            self.arithmetic,
        )

    def on_train_epoch_start(self) -> None:
        self._begun = time.monotonic()
        self._sums = dict.fromkeys(("units", "steps", "loss", "log_l1", "occupancy", "norm"), 0.0)

    def training_step(self, batch: list[int], index: int) -> None:
        units = [self.units.trained[i] for i in batch]
        jobs = [self._workers.submit(self.loss_of, u, self.drawn(u), True) for u in units]
        results = [job.result() for job in jobs]
        for unit, result in zip(units, results, strict=True):
            if not math.isfinite(result.loss):
                raise TrainingError(
                    "the loss is no longer a number",
                    where=f"epoch {self.current_epoch + 1}, unit {unit.id}",
                    expected=f"a prediction for {unit.people:.0f} people",
                    found=f"loss {result.loss}, prediction {result.predicted}",
                    remedy="lower the learning rate, and look at this unit's composites",
                )
        for parameter, *parts in zip(
            self.trained_parameters, *(r.gradient or () for r in results), strict=True
        ):
            # In the order of the step's units, so that threads do not change the sum.
            parameter.grad = torch.stack(parts).sum(0).div_(len(parts))
        norm = float(
            torch.nn.utils.clip_grad_norm_(self.trained_parameters, self.spec.gradient_clip)
        )
        if not math.isfinite(norm):
            raise TrainingError(
                "the gradient is no longer a number",
                where=f"epoch {self.current_epoch + 1}, units {', '.join(u.id for u in units)}",
                remedy="lower the learning rate, and look at these units' composites",
            )
        optimizer: Any = self.optimizers()
        optimizer.step()
        steps = math.ceil(len(self.units.trained) / self.spec.batch_units)
        self.average(self.current_epoch * steps + index)
        self._sums["steps"] += 1
        self._sums["norm"] += norm
        for result in results:
            self._sums["units"] += 1
            for name in ("loss", "log_l1", "occupancy"):
                self._sums[name] += getattr(result, name)

    def on_train_epoch_end(self) -> None:
        optimizer: Any = self.optimizers()
        count = self._sums["units"]
        metrics = {
            "epoch": float(self.current_epoch + 1),
            "learning_rate": float(optimizer.param_groups[0]["lr"]),
            "train_loss": self._sums["loss"] / count,
            "train_log_l1": self._sums["log_l1"] / count,
            "train_occupancy": self._sums["occupancy"] / count,
            "gradient_norm": self._sums["norm"] / self._sums["steps"],
            **self._score_held_out(),
        }
        self.history.append(metrics)
        schedule: Any = self.lr_schedulers()
        schedule.step()
        if (
            self.best is None
            or self.spec.keep_epoch == "last"
            or _better(metrics, self.history[self.best_epoch - 1])
        ):
            self.best_epoch = len(self.history)
            self.best = {
                name: value.detach().to("cpu", copy=True)
                for name, value in self.kept.state_dict().items()
            }
        self._save_state()
        if self.report is not None:
            seconds = time.monotonic() - self._begun
            self.report(len(self.history), self.spec.epochs, metrics | {"seconds": seconds})

    def _score_held_out(self) -> dict[str, float]:
        """Loss and errors on the held-out units, each predicted as the mean of its seasons."""
        units = self.units.held_out
        if not units:
            return {}
        jobs = [
            [self._workers.submit(self.loss_of, unit, Draw(s), False) for s in unit.seasons]
            for unit in units
        ]
        log_l1 = occupancy = absolute = predicted_sum = 0.0
        for unit, seasons in zip(units, jobs, strict=True):
            results = [job.result() for job in seasons]
            predicted = sum(r.predicted for r in results) / len(results)
            log_l1 += abs(math.log(predicted + 1) - math.log(unit.people + 1))
            occupancy += sum(r.occupancy for r in results) / len(results)
            absolute += abs(predicted - unit.people)
            predicted_sum += predicted
        count = len(units)
        loss = LOSS_SCALE * (log_l1 + self.spec.occupancy_weight * occupancy) / count
        people = sum(unit.people for unit in units)
        return {
            "held_out_loss": loss,
            "held_out_log_l1": log_l1 / count,
            "held_out_mae_people": absolute / count,
            **({"held_out_total_ratio": predicted_sum / people} if people else {}),
        }

    def _save_state(self) -> None:
        """Everything that the next epoch needs, under its name only when it is on disk."""
        state = Path(self.spec.work) / STATE_FILE
        with replacing(state) as draft:
            self.trainer.save_checkpoint(draft)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["popcorn"] = {
            "fingerprint": self.fingerprint,
            "history": copy.deepcopy(self.history),
            "best_epoch": self.best_epoch,
            "best": self.best,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        kept = checkpoint["popcorn"]
        self.history, self.best_epoch = kept["history"], kept["best_epoch"]
        self.best = kept["best"]
        self.resumed_after = len(self.history)

    def close(self) -> None:
        """Let go of the worker threads."""
        self._workers.shutdown(cancel_futures=True)


def _better(metrics: dict[str, float], best: dict[str, float]) -> bool:
    """Whether an epoch is to be preferred; without held-out units the later always is."""
    if "held_out_loss" not in metrics:
        return True
    return metrics["held_out_loss"] < best["held_out_loss"]


def _chooses(spec: TrainingSpec, units: Units) -> bool:
    """Whether held-out units decide which epoch is kept."""
    return bool(units.held_out) and spec.keep_epoch == "best"


class _Steps:
    """An epoch's steps: which units go together. Reads ahead for the ones to come."""

    def __init__(self, member: _Member) -> None:
        self.member = member

    def __len__(self) -> int:
        return math.ceil(len(self.member.units.trained) / self.member.spec.batch_units)

    def __iter__(self) -> Iterator[list[int]]:
        member, size = self.member, self.member.spec.batch_units
        trained = member.units.trained
        order = epoch_order(member.spec.seed, member.current_epoch, len(trained))
        steps = [order[i : i + size] for i in range(0, len(order), size)]
        for i, step in enumerate(steps):
            for later in steps[i : i + AHEAD_STEPS]:
                for unit in (trained[j] for j in later):
                    keys = member.samples.keys(unit, member.drawn(unit).season)
                    if len(keys) == 1:  # a large unit's tiles might not fit all at once
                        member.samples.request(keys[0])
            yield step


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


@contextmanager
def _one_thread_each(device: torch.device) -> Iterator[None]:
    """One thread an operation on the CPU: units are what runs side by side, and sums stay put."""
    before = torch.get_num_threads()
    # Units come in many shapes, and oneDNN forgets all but 1024 kernels; read at its first use.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16384")
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _write(
    spec: TrainingSpec, member: _Member, units: Units, tiled: Sequence[str], bias: float
) -> Path:
    """The member's folder; the card, written last, says that it is whole."""
    out = Path(spec.out)
    chosen = member.history[member.best_epoch - 1]
    write_bytes(out / HISTORY_FILE, _json(member.history))
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

    write_bytes(out / FIGURE_FILE, loss_figure(member.history, member.best_epoch))
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
        "initial_bias": bias,
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
