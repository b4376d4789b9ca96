"""The networks in OpenVINO: float32 on a CPU, several times as fast as torch.

Left to itself OpenVINO computes a float32 network in bfloat16 on processors that can, which moves
totals by half a percent; it is told float32, and what it made of that is looked at before it runs.
Every use is computed by one thread, so that a tile's bytes are the same however many there are,
and threads are not tied to cores: worker processes beside one another would share the first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

from popcorn_ml.errors import ConfigError
from popcorn_ml.grid import Window
from popcorn_ml.mapping.engine.api import Ran
from popcorn_ml.mapping.engine.graph import (
    CHANNELS,
    CORE_BEGIN,
    CORE_END,
    WANTED,
    bag_graph,
    extractor_graph,
)
from popcorn_ml.mapping.engine.quietly import ov
from popcorn_ml.model.canvas import ALIGN_PX
from popcorn_ml.model.popcorn import BuiltupExtractor, OccupancyModel, Sensors

SPARSE_BELOW = 0.6
"""Share of a core's pixels wanted below which the head is given them alone: gathering costs."""

FLOAT32 = "f32"


class OpenVinoEngine:
    """Networks as compiled graphs.

    Args:
        threads: how many will use them at once; more than that wait for one another.
    """

    on_gpu = False

    def __init__(self, threads: int = 1) -> None:
        self._threads = max(threads, 1)
        self.ran = Ran("openvino", ov.__version__.split("-")[0], "float32", "cpu")

    def extractor(self, model: BuiltupExtractor) -> OpenVinoScores:
        """See `Engine`."""
        return OpenVinoScores(model, self._threads)

    def bag(self, members: Sequence[OccupancyModel]) -> OpenVinoBag:
        """See `Engine`."""
        return OpenVinoBag(members, self._threads)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """See `Engine`."""
        yield


class OpenVinoScores:
    """See `Scores`."""

    def __init__(self, model: BuiltupExtractor, threads: int) -> None:
        self._runners = Runners(
            lambda sensors, aligned: extractor_graph(model, sensors, aligned), threads
        )

    def scores(self, channels: np.ndarray, sensors: Sensors) -> np.ndarray:
        """See `Scores`."""
        aligned = all(side % ALIGN_PX == 0 for side in channels.shape[1:])
        return self._runners.run((sensors, aligned), {CHANNELS: _batch(channels)})[0, 0].copy()


class OpenVinoBag:
    """See `Bag`."""

    def __init__(self, members: Sequence[OccupancyModel], threads: int) -> None:
        self._count = len(members)
        self._runners = Runners(lambda sparse: bag_graph(members, sparse), threads)

    def occupancy(self, channels: np.ndarray, core: Window, wanted: np.ndarray) -> np.ndarray:
        """See `Bag`."""
        inputs = {
            CHANNELS: _batch(channels),
            CORE_BEGIN: np.array([core.row, core.col], np.int32),
            CORE_END: np.array([core.row + core.height, core.col + core.width], np.int32),
        }
        found = np.full((self._count, *wanted.shape), np.nan, np.float32)
        if wanted.mean() < SPARSE_BELOW:
            inputs[WANTED] = np.flatnonzero(wanted).astype(np.int32)
            found[:, wanted] = self._runners.run((True,), inputs)[0, :, :, 0]
        else:
            np.copyto(found, self._runners.run((False,), inputs)[0], where=wanted)
        return found


class Runners:
    """Graphs compiled when first used, each thread with requests of its own.

    Args:
        graph: makes the graph of some kind.
        threads: see `OpenVinoEngine`.
    """

    def __init__(self, graph: Callable[..., ov.Model], threads: int) -> None:
        self._graph, self._threads = graph, threads
        self._compiled: dict[tuple, ov.CompiledModel] = {}
        self._lock = threading.Lock()
        self._own = threading.local()

    def run(self, kind: tuple, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """A graph's one result, good until this thread's next call."""
        requests: dict[tuple, ov.InferRequest] = self._own.__dict__.setdefault("requests", {})
        if kind not in requests:
            with self._lock:
                if kind not in self._compiled:
                    self._compiled[kind] = compiled(self._graph(*kind), self._threads)
            requests[kind] = self._compiled[kind].create_infer_request()
        request = requests[kind]
        # Inputs are copied, which is nothing beside the networks; shared ones have to outlive it.
        request.infer(inputs, share_inputs=False, share_outputs=True)
        return request.get_output_tensor().data


@cache
def _core() -> ov.Core:
    return ov.Core()


def compiled(graph: ov.Model, threads: int) -> ov.CompiledModel:
    """A graph made ready for the CPU, in float32, each use on one thread.

    Raises:
        ConfigError: this processor computes part of it in another precision.
    """
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": FLOAT32,
        "NUM_STREAMS": threads,
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,
    }
    model = _core().compile_model(graph, "CPU", settings)
    other = other_precisions(model)
    if other:
        raise ConfigError(
            "OpenVINO does not compute in float32 on this processor",
            where="engine openvino",
            expected=FLOAT32,
            found=", ".join(sorted(other)),
            remedy="set the engine to torch (POPCORN_ENGINE=torch), which does",
        )
    return model


@cache
def require_float32() -> None:
    """Refuse a processor that computes networks of this kind in another precision.

    Raises:
        ConfigError: so.
    """
    compiled(extractor_graph(BuiltupExtractor().eval(), "both", aligned=True), 1)


def other_precisions(model: ov.CompiledModel) -> set[str]:
    """In which other floating point a compiled graph computes anything."""
    infos = (op.get_rt_info() for op in model.get_runtime_model().get_ops())
    found = {str(told["runtimePrecision"].value) for told in infos if "runtimePrecision" in told}
    return {name for name in found if name.startswith(("f", "bf")) and name != FLOAT32}


def _batch(channels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(channels, np.float32)[None]
