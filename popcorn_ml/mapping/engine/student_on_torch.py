"""A student in torch: on a GPU, where OpenVINO is not, and as the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from popcorn_ml.grid import Window
from popcorn_ml.mapping.engine.on_torch import arithmetic, to_device, to_numpy
from popcorn_ml.model.stored import Tensors
from popcorn_ml.model.student import Student
from popcorn_ml.model.weights import fill


class TorchStudent:
    """See `Bag`."""

    def __init__(self, weights: Tensors, device: torch.device, precision: str) -> None:
        model = Student(weights["enter.convs.0.weight"].shape[1])
        fill(model, weights, Path("the student"))
        self._model, self._device = model.eval().to(device), device
        self._precision = precision

    def occupancy(self, channels: np.ndarray, core: Window, wanted: np.ndarray) -> np.ndarray:
        """See `Bag`. Its tensors are gone from a GPU when the next tile's turn comes."""
        found = np.full((1, *wanted.shape), np.nan, np.float32)
        with arithmetic(self._device, self._precision):
            x = to_device(channels, self._device)
            whole = to_numpy(self._model.occupancy_unpadded(x)[0][core.slices])
        found[0][wanted] = whole[wanted]
        return found
