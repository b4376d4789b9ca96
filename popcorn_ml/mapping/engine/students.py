"""Which engine runs a student, and a student in OpenVINO."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import numpy as np

from popcorn_ml.errors import ConfigError
from popcorn_ml.grid import Window
from popcorn_ml.mapping.engine.api import Bag, Engine, Ran, check_precision
from popcorn_ml.mapping.engine.choice import require_engine
from popcorn_ml.model.canvas import ALIGN_PX, HALO_PX
from popcorn_ml.model.stored import Tensors

PIECE_PX = 512
"""Side of the largest core that a graph which takes any window is given at once: such graphs need
much memory for large ones."""


class StudentEngine:
    """An `Engine` whose bag is one student, of one engine or the other.

    Args:
        engine: in which it runs.
        make: makes a student ready from its weights.
    """

    def __init__(self, engine: Engine, make: Callable[[Tensors], Bag]) -> None:
        self._engine, self._make = engine, make
        self.ran: Ran = engine.ran
        self.on_gpu = engine.on_gpu

    def bag(self, members: Sequence[Tensors]) -> Bag:
        """Made ready from the weights of one `Student`."""
        (student,) = members
        return self._make(student)

    def at_work(self) -> AbstractContextManager[None]:
        """See `Engine`."""
        return self._engine.at_work()


def open_student_engine(
    name: str = "auto",
    device: str = "auto",
    precision: str = "float32",
    threads: int = 1,
    regular: int = 0,
) -> StudentEngine:
    """The engine that runs students.

    Args:
        name, device, precision, threads, regular: as of `choice.open_engine`; whichever engine
            members are to run in, a student runs in OpenVINO where that is there, and in torch if
            that is asked for, on a GPU, or where OpenVINO is not.

    Raises:
        ConfigError: see there.
    """
    check_precision(precision)
    require_engine(name, device, precision)
    if name == "openvino" or (name != "torch" and _openvino_suits(device, precision)):
        from popcorn_ml.compute.devices import cpus
        from popcorn_ml.mapping.engine.on_openvino import OpenVinoEngine

        count = threads or cpus()
        return StudentEngine(
            OpenVinoEngine(count, regular), lambda w: OpenVinoStudent(w, count, regular)
        )
    from popcorn_ml.mapping.engine.on_torch import TorchEngine
    from popcorn_ml.mapping.engine.student_on_torch import TorchStudent

    engine = TorchEngine(device, precision)
    return StudentEngine(engine, lambda w: TorchStudent(w, engine.device, precision))


def _openvino_suits(device: str, precision: str) -> bool:
    from popcorn_ml.compute.devices import device_name

    there = importlib.util.find_spec("openvino") is not None
    if not there or device_name(device) != "cpu" or precision != "float32":
        return False
    from popcorn_ml.mapping.engine.on_openvino import require_float32

    try:
        require_float32()
    except ConfigError:
        return False
    return True


class OpenVinoStudent:
    """See `Bag`: a student as compiled graphs.

    Args:
        weights: of a `Student`.
        threads, regular: as of `OpenVinoEngine`.
    """

    def __init__(self, weights: Tensors, threads: int, regular: int) -> None:
        from popcorn_ml.mapping.engine.on_openvino import Runners
        from popcorn_ml.mapping.engine.student_graph import student_graph

        self._regular = regular
        self._runners = Runners(
            lambda *kind: student_graph(weights, kind[:2], kind[2:]), max(threads, 1)
        )

    def occupancy(self, channels: np.ndarray, core: Window, wanted: np.ndarray) -> np.ndarray:
        """See `Bag`."""
        found = np.full((1, *wanted.shape), np.nan, np.float32)
        if core.height == core.width == self._regular:
            found[0][wanted] = self._whole(channels, core)[wanted]
            return found
        for row in range(0, core.height, PIECE_PX):
            for col in range(0, core.width, PIECE_PX):
                there = slice(row, row + PIECE_PX), slice(col, col + PIECE_PX)
                here = wanted[there]
                if here.any():
                    inner = Window(core.row + row, core.col + col, *here.shape)
                    found[(0, *there)][here] = self._piece(channels, inner)[here]
        return found

    def _whole(self, channels: np.ndarray, core: Window) -> np.ndarray:
        """Of a window that comes so often that a graph is made for it alone."""
        cut = core.row, core.col, core.row + core.height, core.col + core.width
        return self._run((*channels.shape[1:], *cut), channels)

    def _piece(self, channels: np.ndarray, core: Window) -> np.ndarray:
        """Of a part of a window, of which no more is computed than has to be."""
        (top, bottom), (left, right) = (
            _span(first, length, limit)
            for first, length, limit in zip(
                (core.row, core.col), (core.height, core.width), channels.shape[1:], strict=True
            )
        )
        found = self._run((-1, -1), channels[:, top:bottom, left:right])
        rows, cols = core.row - top, core.col - left
        return found[rows : rows + core.height, cols : cols + core.width]

    def _run(self, kind: tuple[int, ...], channels: np.ndarray) -> np.ndarray:
        from popcorn_ml.mapping.engine.graph import CHANNELS

        batch = np.ascontiguousarray(channels, np.float32)[None]
        return self._runners.run(kind, {CHANNELS: batch})[0, 0]


def _span(first: int, length: int, limit: int) -> tuple[int, int]:
    """From where to where a part is to be computed along an axis, begun at a multiple of four."""
    begin = max((first - HALO_PX) // ALIGN_PX * ALIGN_PX, 0)
    end = min(-(-(first + length + HALO_PX) // ALIGN_PX) * ALIGN_PX, limit)
    return begin, end
