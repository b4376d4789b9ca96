"""The training loop of one member: its steps, its running mean, its state after every epoch.

Units are what runs side by side, in threads; the sums do not depend on how many.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from popcorn_ml.errors import TrainingError
from popcorn_ml.files import replacing
from popcorn_ml.model.popcorn import OccupancyModel, population
from popcorn_ml.training.augment import Draw, draw, epoch_order
from popcorn_ml.training.loss import LOSS_SCALE, Piece, UnitLoss, piece_values, unit_loss
from popcorn_ml.training.out_of_fold import Unseen
from popcorn_ml.training.samples import Samples
from popcorn_ml.training.spec import TrainingSpec
from popcorn_ml.training.units import Unit, Units
from popcorn_ml.training.unseen import predict_unseen
from popcorn_ml.training.ways import BYTES_PER_PX, Way, Ways, unit_loss_by

STATE_FILE = "last.ckpt"

SCORED_EVERY = 5
"""Epochs between two looks at a fold, which is large: looking at it at every one would take half as
long as the training. The first is looked at too, and what is kept."""

AHEAD_STEPS = 4
"""Steps whose samples are read ahead."""

Progress = Callable[[int, int, dict[str, float]], None]
"""Called after every epoch with epochs done, epochs in all, and the epoch's metrics."""


def parameter_groups(model: OccupancyModel, weight_decay: float) -> list[dict[str, Any]]:
    """Adam's groups: weight decay on all that is trained but the head's last layer."""
    last: Any = model.head[-1]
    spared = {id(parameter) for parameter in last.parameters()}
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if id(p) not in spared], "weight_decay": weight_decay},
        {"params": [p for p in trained if id(p) in spared], "weight_decay": 0.0},
    ]


class Member(LightningModule):
    """The training loop's body; optimised by hand, because a step is several separate forwards."""

    def __init__(
        self,
        spec: TrainingSpec,
        units: Units,
        samples: Samples,
        model: OccupancyModel,
        device: torch.device,
        progress: Progress | None,
        ways: Ways,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.spec, self.units, self.samples = spec, units, samples
        self.model = model
        self.target, self.report, self.ways = device, progress, ways
        # A submodule, so that it moves to the device and is resumed with the rest.
        self.averaged = None if not spec.average_decay else copy.deepcopy(model)
        self.trained_parameters = [p for p in model.parameters() if p.requires_grad]
        if self.averaged is not None:
            averaged = self.averaged.parameters()
            pairs = zip(averaged, model.parameters(), strict=True)
            self._averaged_parameters: list[Tensor] = [m for m, now in pairs if now.requires_grad]
            self.averaged.requires_grad_(False)
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
            parameter_groups(self.model, self.spec.weight_decay),
            lr=self.spec.learning_rate,
            foreach=True,
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
        return draw(spec.seed, self.current_epoch, unit.key, unit.seasons, spec.stretch)

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
            torch._foreach_lerp_(self._averaged_parameters, [*self.trained_parameters], 1 - decay)

    def loss_of(
        self, unit: Unit, drawn: Draw, differentiate: bool, way: Way | None = None
    ) -> UnitLoss:
        """One unit's loss, by a way or by autograd; runs in a worker thread."""
        keys = self.samples.keys(unit, drawn.season)

        def piece(key: tuple[int, int, int]) -> Piece:
            return self.samples.get(key).augmented(drawn, self.target)

        told = (
            [partial(piece, key) for key in keys],
            unit.people,
            unit.observed[drawn.season],
            self.spec.occupancy_weight,
            self.trained_parameters if differentiate else None,
        )
        if way is not None:
            return unit_loss_by(way, *told, self.spec.max_pixels_per_unit * BYTES_PER_PX)
        return unit_loss(self.model if differentiate else self.kept, *told, self.arithmetic)

    def on_train_epoch_start(self) -> None:
        self._begun = time.monotonic()
        self._sums = dict.fromkeys(("units", "steps", "loss", "log_l1", "occupancy", "norm"), 0.0)

    def training_step(self, batch: list[int], index: int) -> None:
        units = [self.units.trained[i] for i in batch]
        way = self.ways.now(self.model)
        jobs = [self._workers.submit(self.loss_of, u, self.drawn(u), True, way) for u in units]
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
        units, epoch = self.units.held_out, self.current_epoch + 1
        often = self.spec.own_fold is None or epoch == 1 or epoch % SCORED_EVERY == 0
        if not (units and often):
            return {}
        way = self.ways.now(self.kept)
        jobs = [
            [self._workers.submit(self.loss_of, unit, Draw(s), False, way) for s in unit.seasons]
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

    def predict_held_out(self) -> list[Unseen]:
        """What the weights that are kept say of the units that they never saw."""
        model = OccupancyModel().to(self.target).eval()
        assert self.best is not None
        model.load_state_dict(self.best)
        way = self.ways.now(model)

        def values(piece: Piece) -> tuple[Tensor, Tensor]:
            if way is None:
                return piece_values(model, piece, self.arithmetic)
            occupancy = way.occupancy(piece)
            return population(occupancy, piece.score), occupancy

        return predict_unseen(values, self.samples, self.units.held_out, self.target, self._workers)

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


class _Steps:
    """An epoch's steps: which units go together. Reads ahead for the ones to come."""

    def __init__(self, member: Member) -> None:
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
                    # A large unit's tiles might not fit all at once.
                    if member.samples.pixels(unit) <= member.spec.max_pixels_per_unit:
                        for key in member.samples.keys(unit, member.drawn(unit).season):
                            member.samples.request(key)
            yield step
