"""The networks in torch: on a GPU, where OpenVINO is not, and as the reference.

On a GPU tiles are computed one after the other, while others are read.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from popcorn_ml.compute.devices import pick_device
from popcorn_ml.grid import Window
from popcorn_ml.mapping.engine.api import Ran
from popcorn_ml.model.popcorn import BuiltupExtractor, OccupancyModel, Sensors
from popcorn_ml.model.stored import Tensors
from popcorn_ml.model.weights import fill

HEAD_PIXELS = 16384
"""Pixels that the head is given at once: its 64 features of them stay in a core's cache."""

_GPU_TURN = threading.RLock()
"""Held by the thread that computes on a GPU; see `arithmetic`."""


class TorchEngine:
    """Networks as torch modules on one device."""

    def __init__(self, device: str, precision: str = "float32") -> None:
        self.device, self.precision = pick_device(device), precision
        self.on_gpu = self.device.type == "cuda"
        self.ran = Ran("torch", torch.__version__, precision, self.device.type)

    def extractor(self, weights: Tensors) -> TorchScores:
        """See `Engine`; the score is always of float32."""
        model = BuiltupExtractor()
        fill(model, weights, Path("the extractor"))
        return TorchScores(model.eval().to(self.device), self.device)

    def bag(self, members: Sequence[Tensors]) -> TorchBag:
        """See `Engine`."""
        models = []
        for number, weights in enumerate(members, start=1):
            model = OccupancyModel()
            fill(model, weights, Path(f"member {number}"))
            models.append(model.eval().to(self.device))
        return TorchBag(models, self.device, self.precision)

    def at_work(self) -> Any:
        """See `Engine`."""
        return one_thread_a_tile()


class TorchScores:
    """See `Scores`."""

    def __init__(self, model: BuiltupExtractor, device: torch.device) -> None:
        self._model, self._device = model, device

    def scores(self, channels: np.ndarray, core: Window, sensors: Sensors) -> np.ndarray:
        """See `Scores`."""
        with arithmetic(self._device, "float32"):
            x = to_device(channels, self._device)
            return to_numpy(self._model.score_unpadded(x, sensors)[0][core.slices])


class TorchBag:
    """See `Bag`."""

    def __init__(
        self, members: Sequence[OccupancyModel], device: torch.device, precision: str
    ) -> None:
        self._members, self._device, self._precision = members, device, precision

    def occupancy(self, channels: np.ndarray, core: Window, wanted: np.ndarray) -> np.ndarray:
        """See `Bag`. Its tensors are gone from a GPU when the next tile's turn comes."""
        found = np.full((len(self._members), *wanted.shape), np.nan, np.float32)
        with arithmetic(self._device, self._precision):
            self._fill(found, channels, core, wanted)
        return found

    def _fill(
        self, found: np.ndarray, channels: np.ndarray, core: Window, wanted: np.ndarray
    ) -> None:
        x = to_device(channels, self._device)
        there = torch.from_numpy(wanted).to(self._device)
        for i, member in enumerate(self._members):
            features = member.unet(x)[0][(..., *core.slices)].permute(1, 2, 0)[there]
            parts = [member.occupancy_of_features(part) for part in features.split(HEAD_PIXELS)]
            found[i, wanted] = to_numpy(torch.cat(parts))


def to_device(channels: np.ndarray, device: torch.device) -> Tensor:
    """Channels (6, rows, columns) as a batch of one, laid out by pixel: twice as fast on a CPU."""
    batch = torch.from_numpy(np.ascontiguousarray(channels))[None]
    return batch.to(device).contiguous(memory_format=torch.channels_last)


@contextmanager
def arithmetic(device: torch.device, precision: str) -> Iterator[None]:
    """Run networks without gradients, in true float32 (a GPU's TF32 shortcuts off) or bfloat16.

    On a GPU the threads of this process take turns. Whether TF32 is allowed is set for the whole
    process: a thread that left would put it back while another still computes. Nothing is lost, as
    a GPU works off what it is given in order anyway, and its memory has to hold one tile only, so
    no tensor on it should outlive this.
    """
    reduced = (
        torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()
    )
    exact = _exact_on_the_gpu() if device.type == "cuda" else nullcontext()
    with exact, torch.inference_mode(), reduced:
        yield


@contextmanager
def _exact_on_the_gpu() -> Iterator[None]:
    """Deterministic convolutions, and neither these nor matrix products in TF32; afterwards as
    it was."""
    with _GPU_TURN:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            with torch.backends.cudnn.flags(
                enabled=True, benchmark=False, deterministic=True, allow_tf32=False
            ):
                yield
        finally:
            torch.set_float32_matmul_precision(before)


@contextmanager
def one_thread_a_tile() -> Iterator[None]:
    """Keep torch from sharing one tile among threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def to_numpy(values: Any) -> np.ndarray:
    """A result of the networks as float32 in this machine's memory."""
    return values.float().cpu().numpy()
