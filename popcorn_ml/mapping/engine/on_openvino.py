"""The networks in OpenVINO: float32 on a CPU, several times as fast as torch.

Left to itself OpenVINO computes a float32 network in bfloat16 on processors that can, which moves
totals by half a percent; it is told float32, and what it made of that is looked at before it runs.
Every use is computed by one thread, so that a tile's bytes are the same however many there are,
and threads are not tied to cores: worker processes beside one another would share the first.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from popcorn_ml.errors import ConfigError
from popcorn_ml.grid import Window
from popcorn_ml.mapping.engine.api import Ran
from popcorn_ml.mapping.engine.graph import (
    CHANNELS,
    STARTS,
    STOPS,
    WANTED,
    Fixed,
    bag_graph,
    extractor_graph,
)
from popcorn_ml.mapping.engine.pairs import edge_masks, end_masks, in_rows
from popcorn_ml.mapping.engine.quietly import ov
from popcorn_ml.model.canvas import ALIGN_PX, HALO_PX
from popcorn_ml.model.stored import Tensors, extractor_shapes

if TYPE_CHECKING:
    from popcorn_ml.model.popcorn import Sensors

SPARSE_BELOW = 0.6
"""Share of a core's pixels wanted below which the head is given them alone: gathering costs."""

STRIP_PX = 20480
"""Pixels of the strips that a window with a graph of its own is finished in."""

PIECE_PX = 256
"""Side of the largest core that is computed at once by a graph that takes any window."""

PARTS = 4
WHOLE_PX = 16384
"""Cores of more pixels than this are cut into so many parts for the head: what it makes of one
stays in a processor's cache."""

FLOAT32 = "f32"


class OpenVinoEngine:
    """Networks as compiled graphs.

    Args:
        threads: how many will use them at once; more than that wait for one another.
        regular: side of the cores that come so often that a graph for them alone pays, in pixels;
            0 if there are none. The results depend on it in the last bits.
    """

    on_gpu = False

    def __init__(self, threads: int = 1, regular: int = 0) -> None:
        self._threads, self._regular = max(threads, 1), regular
        self.ran = Ran("openvino", ov.__version__.split("-")[0], "float32", "cpu")

    def extractor(self, weights: Tensors) -> OpenVinoScores:
        """See `Engine`."""
        return OpenVinoScores(weights, self._threads, self._regular)

    def bag(self, members: Sequence[Tensors]) -> OpenVinoBag:
        """See `Engine`."""
        return OpenVinoBag(members, self._threads, self._regular)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """See `Engine`."""
        yield


class OpenVinoScores:
    """See `Scores`."""

    def __init__(self, weights: Tensors, threads: int, regular: int) -> None:
        self._regular = regular
        self._runners = Runners(functools.partial(extractor_graph, weights), threads)

    def scores(self, channels: np.ndarray, core: Window, sensors: Sensors) -> np.ndarray:
        """See `Scores`."""
        found = np.empty((core.height, core.width), np.float32)
        for there, piece, inner in pieces(channels, core, self._regular):
            cut = Cut(piece, inner, self._regular)
            result = self._runners.run((sensors, cut.mask_names, cut.fixed), cut.inputs)
            found[there] = cut.in_rows(result)[0]
        return found


class OpenVinoBag:
    """See `Bag`."""

    def __init__(self, members: Sequence[Tensors], threads: int, regular: int) -> None:
        self._count, self._regular = len(members), regular
        self._runners = Runners(lambda *kind: _bag(members, *kind), threads)

    @property
    def fixed_graphs(self) -> int:
        """How many graphs have been made for one window each."""
        return sum(isinstance(kind[-1], Fixed) for kind in self._runners.compiled)

    def occupancy(self, channels: np.ndarray, core: Window, wanted: np.ndarray) -> np.ndarray:
        """See `Bag`."""
        found = np.full((self._count, *wanted.shape), np.nan, np.float32)
        regular = self._regular if wanted.mean() >= SPARSE_BELOW else 0
        for there, piece, inner in pieces(channels, core, regular):
            here = wanted[there]
            if here.any():
                self._fill(found[(slice(None), *there)], piece, inner, here, regular)
        return found

    def _fill(
        self,
        found: np.ndarray,
        channels: np.ndarray,
        core: Window,
        wanted: np.ndarray,
        regular: int,
    ) -> None:
        if wanted.mean() < SPARSE_BELOW:
            cut = Cut(channels, core)
            inputs = {**cut.inputs, WANTED: cut.positions(wanted)}
            found[:, wanted] = self._runners.run((cut.mask_names, True, 1, None), inputs)
            return
        parts = PARTS if core.height * core.width > WHOLE_PX and core.height > 4 * PARTS else 1
        cut = Cut(channels, core, regular, parts)
        result = self._runners.run((cut.mask_names, False, parts, cut.fixed), cut.inputs)
        np.copyto(found, cut.in_rows(result), where=wanted)


Piece: TypeAlias = tuple[tuple[slice, slice], np.ndarray, Window]
"""Where in a core it lies, its window, and where in that its own core lies."""


def pieces(channels: np.ndarray, core: Window, regular: int) -> Iterator[Piece]:
    """A window in pieces of at most `PIECE_PX`, with their halos; whole if it is a regular one.

    Graphs that take any window need much memory for large ones.
    """
    rows, cols = channels.shape[1:]
    if core.height == core.width == regular and _amidst(rows, cols, core):
        yield (slice(None), slice(None)), channels, core
        return
    for row, height, top, tall in _spans(core.row, core.height, rows):
        for col, width, left, wide in _spans(core.col, core.width, cols):
            there = (
                slice(row - core.row, row - core.row + height),
                slice(col - core.col, col - core.col + width),
            )
            piece = channels[:, top : top + tall, left : left + wide]
            yield there, piece, Window(row - top, col - left, height, width)


def _spans(start: int, length: int, limit: int) -> Iterator[tuple[int, int, int, int]]:
    """Parts of a core along one axis: first pixel and length, and those of its window."""
    step = math.ceil(length / math.ceil(length / PIECE_PX) / ALIGN_PX) * ALIGN_PX
    for first in range(start, start + length, step):
        size = min(step, start + length - first)
        begin = max((first - HALO_PX) // ALIGN_PX * ALIGN_PX, 0)
        end = min(math.ceil((first + size + HALO_PX) / ALIGN_PX) * ALIGN_PX, limit)
        yield first, size, begin, end - begin


def _amidst(rows: int, cols: int, core: Window) -> bool:
    """Whether a core is so far from its window's edges that nothing beyond them matters."""
    beyond = (rows - core.row - core.height, cols - core.col - core.width)
    return min(core.row, core.col, *beyond) >= HALO_PX


def _bag(
    members: Sequence[Tensors],
    masks: tuple[str, ...],
    sparse: bool,
    parts: int,
    fixed: Fixed | None,
) -> ov.Model:
    return bag_graph(members, masks, sparse=sparse, parts=parts, fixed=fixed)


class Cut:
    """A window as a graph is to be given it, and what the graph says of its core.

    Args:
        channels: (6, rows, columns) of the window.
        core: in the window.
        regular: as of `OpenVinoEngine`.
        parts: into how many the core is cut.

    Attributes:
        inputs: of the graph.
        mask_names: which masks are among them.
        fixed: the window, if it is one of those that have a graph of their own.
    """

    def __init__(
        self, channels: np.ndarray, core: Window, regular: int = 0, parts: int = 1
    ) -> None:
        rows, cols = channels.shape[1:]
        height, width = (math.ceil(side / ALIGN_PX) * ALIGN_PX for side in (rows, cols))
        last_row, last_col = core.row + core.height, core.col + core.width
        masks: dict[str, np.ndarray] = {}
        if (height, width) != (rows, cols):
            channels = np.pad(channels, ((0, 0), (0, height - rows), (0, width - cols)))
            masks = end_masks(height, width, rows, cols)
        elif not _amidst(rows, cols, core):
            masks = edge_masks(height)
        self.mask_names = tuple(masks)
        self.inputs: dict[str, np.ndarray] = {CHANNELS: _batch(channels), **masks}
        self.fixed = None
        if not masks and core.height == core.width == regular:
            self.fixed = _fixed(height, width, core)
            first = 2 * self.fixed.strips[0][0], self.fixed.cols[0]
        else:
            first = core.row // 2 * 2, core.col
            between = np.linspace(core.row // 2, (last_row + 1) // 2, parts + 1).astype(np.int32)
            self.inputs[STARTS] = np.stack([between[:-1], np.full(parts, core.col, np.int32)], 1)
            self.inputs[STOPS] = np.stack([between[1:], np.full(parts, last_col, np.int32)], 1)
        self._core = Window(core.row - first[0], core.col - first[1], core.height, core.width)

    def in_rows(self, found: np.ndarray) -> np.ndarray:
        """(1, 2 x maps, rows of pairs, columns) as (maps, rows, columns) of the core."""
        in_pairs = found.reshape(-1, 2, *found.shape[2:])
        return in_rows(in_pairs)[(slice(None), *self._core.slices)]

    def positions(self, wanted: np.ndarray) -> np.ndarray:
        """Where the core's pixels wanted lie, counted pair by pair of rows."""
        rows, cols = np.nonzero(wanted)
        rows += self._core.row
        return ((rows // 2 * self._core.width + cols) * 2 + rows % 2).astype(np.int32)


def _fixed(height: int, width: int, core: Window) -> Fixed:
    """Strips of an odd first row of pairs, about `STRIP_PX` pixels each, that cover a core."""
    first, last = (core.row // 2 - 1) // 2 * 2 + 1, (core.row + core.height + 1) // 2
    step = max(STRIP_PX // core.width // 4 * 2, 2)
    begins = range(first, last, step)
    end = last + 1 - last % 2
    return Fixed(
        height,
        width,
        tuple((row, min(row + step, end)) for row in begins),
        (core.col // 2 * 2, (core.col + core.width + 1) // 2 * 2),
    )


class Runners:
    """Graphs compiled when first used, each thread with requests of its own.

    Args:
        graph: makes the graph of some kind.
        threads: see `OpenVinoEngine`.

    Attributes:
        compiled: the graphs so far, by their kind.
    """

    def __init__(self, graph: Callable[..., ov.Model], threads: int) -> None:
        self._graph, self._threads = graph, threads
        self.compiled: dict[tuple, ov.CompiledModel] = {}
        self._lock = threading.Lock()
        self._own = threading.local()

    def run(self, kind: tuple, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """A graph's one result, good until this thread's next call."""
        requests: dict[tuple, ov.InferRequest] = self._own.__dict__.setdefault("requests", {})
        if kind not in requests:
            with self._lock:
                if kind not in self.compiled:
                    self.compiled[kind] = compiled(self._graph(*kind), self._threads)
            requests[kind] = self.compiled[kind].create_infer_request()
        request = requests[kind]
        # Shared, inputs have to outlive the call, and do: the caller holds them.
        request.infer(inputs, share_inputs=True, share_outputs=True)
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
    any_weights = {name: np.ones(shape, np.float32) for name, shape in extractor_shapes().items()}
    compiled(extractor_graph(any_weights, "both"), 1)


def other_precisions(model: ov.CompiledModel) -> set[str]:
    """In which other floating point a compiled graph computes anything."""
    infos = (op.get_rt_info() for op in model.get_runtime_model().get_ops())
    found = {str(told["runtimePrecision"].value) for told in infos if "runtimePrecision" in told}
    return {name for name in found if name.startswith(("f", "bf")) and name != FLOAT32}


def _batch(channels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(channels, np.float32)[None]
