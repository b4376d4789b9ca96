"""The networks by `tile.c`, compiled for this machine: float32, the fastest on a CPU.

A window of any shape costs the same a pixel, at a canvas's edge as amidst it, and a pixel's value
depends neither on its window nor on which others are wanted. The head is run on wanted pixels
alone. Every use is computed by the thread that calls.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from popcorn_ml.compute.kernels import COMPILERS, Library, Room, library_of
from popcorn_ml.errors import ConfigError
from popcorn_ml.grid import Window
from popcorn_ml.mapping.engine.api import Ran
from popcorn_ml.mapping.engine.packed import packed_extractor, packed_member
from popcorn_ml.model.stored import Tensors

if TYPE_CHECKING:
    from popcorn_ml.model.popcorn import Sensors

SOURCE = Path(__file__).with_name("tile.c")

_STREAMS = {"s1": 1, "s2": 2, "both": 3}
"""Bits that say which of the U-Nets are run."""


@cache
def compiled() -> Library | None:
    """The source, compiled and loaded once a process; None where this machine cannot."""
    found = library_of(SOURCE)
    if found is not None:
        at, whole, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
        found.calls.popcorn_room.argtypes = [at]
        found.calls.popcorn_room.restype = whole
        found.calls.popcorn_window.argtypes = [
            *[at, whole, whole, at, at, whole, at, whole],
            *[number, number, number, at, at, whole, whole],
        ]
        found.calls.popcorn_window.restype = None
    return found


def require_compiled() -> Library:
    """The compiled source.

    Raises:
        ConfigError: this machine cannot compile it.
    """
    found = compiled()
    if found is None:
        raise ConfigError(
            "the engine compiled needs a C compiler",
            where="engine",
            expected=f"one of {', '.join(COMPILERS)} that compiles {SOURCE.name}",
            found="none",
            remedy="install a C compiler (Debian: apt install gcc libc6-dev), or set the engine to "
            "auto, openvino or torch",
        )
    return found


class CompiledEngine:
    """Networks as packed weights."""

    on_gpu = False

    def __init__(self) -> None:
        self._library = require_compiled()
        self.ran = Ran("compiled", self._library.compiler, "float32", "cpu")

    def extractor(self, weights: Tensors) -> CompiledScores:
        """See `Engine`."""
        return CompiledScores(self._library.calls, weights)

    def bag(self, members: Sequence[Tensors]) -> CompiledBag:
        """See `Engine`."""
        return CompiledBag(self._library.calls, members)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """See `Engine`."""
        yield


class CompiledScores:
    """See `Scores`."""

    def __init__(self, calls: Any, weights: Tensors) -> None:
        self._calls, self._room = calls, Room()
        outputs = calls.popcorn_outputs()
        self._weights = {
            sensors: packed_extractor(weights, sensors, outputs)[None] for sensors in _STREAMS
        }

    def scores(self, channels: np.ndarray, core: Window, sensors: Sensors) -> np.ndarray:
        """See `Scores`."""
        found = np.empty((1, core.height, core.width), np.float32)
        every = np.ones(found.shape[1:], bool)
        network = self._weights[sensors]
        _run(self._calls, self._room, channels, core, every, network, _STREAMS[sensors], found)
        with np.errstate(over="ignore"):  # to infinity, of which the inverse is 0
            return 1 / (1 + np.exp(-found[0]))


class CompiledBag:
    """See `Bag`."""

    def __init__(self, calls: Any, members: Sequence[Tensors]) -> None:
        self._calls, self._room = calls, Room()
        outputs = calls.popcorn_outputs()
        self._weights = np.stack([packed_member(member, outputs) for member in members])

    def occupancy(self, channels: np.ndarray, core: Window, wanted: np.ndarray) -> np.ndarray:
        """See `Bag`."""
        found = np.full((len(self._weights), *wanted.shape), np.nan, np.float32)
        _run(self._calls, self._room, channels, core, wanted, self._weights, 0, found)
        return found


def _run(
    calls: Any,
    room: Room,
    channels: np.ndarray,
    core: Window,
    wanted: np.ndarray,
    weights: np.ndarray,
    streams: int,
    found: np.ndarray,
) -> None:
    """Each network's result of a core's pixels wanted, into `found`.

    Args:
        streams: those of a score; 0 for both and a head.
        found: (networks, rows, columns).
    """
    if channels.dtype != np.float32 or channels.strides[2] != channels.itemsize:
        channels = np.ascontiguousarray(channels, np.float32)
    wanted = np.ascontiguousarray(wanted)
    sides = (*channels.shape[1:], core.row, core.col, core.height, core.width)
    window = np.array(sides, np.int32)
    calls.popcorn_window(
        channels.ctypes.data,
        *(stride // channels.itemsize for stride in channels.strides[:2]),
        window.ctypes.data,
        wanted.ctypes.data,
        wanted.shape[1],
        weights.ctypes.data,
        weights.shape[1],
        len(weights),
        streams or 3,
        int(not streams),
        room.of(calls.popcorn_room(window.ctypes.data)).ctypes.data,
        found.ctypes.data,
        found[0].size,
        found.shape[2],
    )
