"""The training loop of one lesson, and the state of all of them that a killed run goes on from.

Crops are what runs side by side, in threads; the sums do not depend on how many. After every part
of a lesson the state is on disk, so that a run that was killed goes on to the very weights that an
undisturbed one reaches.
"""

from __future__ import annotations

import copy
import math
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from popcorn_ml.errors import TrainingError
from popcorn_ml.files import replacing
from popcorn_ml.model.student import Student
from popcorn_ml.student.crops import Crop, Crops
from popcorn_ml.student.loss import crop_loss, scale_of
from popcorn_ml.student.spec import StudentSpec

STATE_FILE = "student.ckpt"

PART_STEPS = 25
"""Steps between two states on disk."""

WARM_STEPS = 20
"""Steps in which the learning rate rises."""

Weights = dict[str, Tensor]


@dataclass
class State:
    """How far all lessons are.

    Attributes:
        fingerprint: of the specification.
        done: the weights of the lessons that are over, in their order.
        step: of the lesson that is running.
        running: what that lesson needs to go on: see `Loop.state`.
        history: metrics of every part so far.
    """

    fingerprint: str
    done: list[Weights] = field(default_factory=list)
    step: int = 0
    running: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Put it under its name when it is whole."""
        with replacing(folder / STATE_FILE) as draft:
            torch.save(vars(self), draft)


def state_of(folder: Path, spec: StudentSpec) -> State:
    """The state of a killed run of the same spec and inputs; any other is removed."""
    path, fingerprint = folder / STATE_FILE, spec.fingerprint()
    if path.is_file():
        try:
            kept = State(**torch.load(path, map_location="cpu", weights_only=True))
            if kept.fingerprint == fingerprint:
                return kept
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, KeyError, TypeError):
            pass
        path.unlink()
    return State(fingerprint)


class Loop:
    """One lesson's weights and their optimiser.

    Args:
        spec: how to train.
        crops: what to train on.
        model: as training begins.
        device: where.
        workers: threads that crops are worked on in.
    """

    def __init__(
        self,
        spec: StudentSpec,
        crops: Crops,
        model: Student,
        device: torch.device,
        workers: ThreadPoolExecutor,
    ) -> None:
        self._spec, self._crops, self._device, self._workers = spec, crops, device, workers
        self._model = model.to(device).train()
        self._averaged = copy.deepcopy(self._model).requires_grad_(False)
        self._parameters = list(self._model.parameters())
        self._means = list(self._averaged.parameters())
        self._optimizer = torch.optim.AdamW(
            self._parameters,
            lr=spec.learning_rate,
            weight_decay=spec.weight_decay,
            foreach=True,
        )

    @property
    def weights(self) -> Weights:
        """The running mean, which is kept."""
        kept = self._averaged.state_dict()
        return {name: value.detach().to("cpu", copy=True) for name, value in kept.items()}

    def state(self) -> dict[str, Any]:
        """What `resume` takes."""
        return {
            "model": self._model.state_dict(),
            "averaged": self._averaged.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._model.load_state_dict(state["model"])
        self._averaged.load_state_dict(state["averaged"])
        self._optimizer.load_state_dict(state["optimizer"])

    def part(self, first: int) -> dict[str, float]:
        """Steps from `first` to the part's end; their mean loss and the last learning rate."""
        last = min(first + PART_STEPS, self._spec.step_count)
        losses = [self._step(step) for step in range(first, last)]
        return {
            "step": float(last),
            "loss": sum(losses) / len(losses),
            "learning_rate": self._rate(last - 1),
        }

    def _rate(self, step: int) -> float:
        """A short rise, then half a cosine down to nothing."""
        falling = 0.5 * (1 + math.cos(math.pi * step / self._spec.step_count))
        return self._spec.learning_rate * min(1.0, (step + 1) / WARM_STEPS) * falling

    def _step(self, step: int) -> float:
        spec = self._spec
        sights = [self._crops.sight(step, number) for number in range(spec.batch)]
        crops = list(self._workers.map(self._crops.read, sights))
        scale = scale_of(crops, spec.cell_px)
        found = list(self._workers.map(partial(self._gradient, scale=scale), crops))
        loss = sum(value for value, _ in found) / len(found)
        if not math.isfinite(loss):
            raise TrainingError(
                "the loss is no longer a number",
                where=f"step {step + 1}",
                found=loss,
                remedy="lower the learning rate, and look at the composites and the teacher's map",
            )
        for parameter, *parts in zip(
            self._parameters, *(gradient for _, gradient in found), strict=True
        ):
            # In the order of the step's crops, so that threads do not change the sum.
            parameter.grad = torch.stack(parts).sum(0).div_(len(parts))
        torch.nn.utils.clip_grad_norm_(self._parameters, spec.gradient_clip)
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate(step)
        self._optimizer.step()
        decay = min(spec.average_decay, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_([*self._means], [*self._parameters], 1 - decay)
        return loss

    def _gradient(self, crop: Crop, scale: float) -> tuple[float, tuple[Tensor, ...]]:
        there = crop if self._device.type == "cpu" else crop.to(self._device)
        loss = crop_loss(self._model, there, self._spec, scale)
        return float(loss.detach()), torch.autograd.grad(loss, self._parameters)
