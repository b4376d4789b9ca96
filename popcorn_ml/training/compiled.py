"""A piece's sums and their gradient by `unit.c`, compiled for this machine: the fastest on a CPU.

Compiled where there is a C compiler (`compute.kernels`). Without one `written_out` does the same,
to rounding.
"""

from __future__ import annotations

import ctypes
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from popcorn_ml.compute.kernels import Library, aligned, library_of
from popcorn_ml.model.popcorn import OccupancyModel
from popcorn_ml.model.unet import S1_CHANNELS, S2_CHANNELS, STREAM_FEATURES, DoubleConv, StreamUNet
from popcorn_ml.training.loss import Piece
from popcorn_ml.training.regions import AxisRegions, Regions, regions_for, span_of

SOURCE = Path(__file__).with_name("unit.c")

STAGES = ("enter", "down1", "down2", "up2", "up1")


def compiled() -> Library | None:
    """The source, compiled and loaded once a process; None where this machine cannot."""
    found = library_of(SOURCE)
    return None if found is None else Library(_declared(found.calls), found.compiler)


def _declared(library: Any) -> Any:
    at, whole, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
    library.popcorn_sizes.argtypes = [at] * 4
    library.popcorn_forward.argtypes = [at, at, *[ctypes.c_int] * 3, *[at] * 4]
    library.popcorn_backward.argtypes = [at, ctypes.c_int, *[at] * 5, whole, at]
    library.popcorn_head_floats.restype = whole
    library.popcorn_head_forward.argtypes = [at, at, at, whole, whole, at, at, whole, at, at, at]
    library.popcorn_head_backward.argtypes = [
        *[at, at, at, whole, whole, at, at, whole],
        *[real, real, at, at, at, at],
    ]
    for name in ("sizes", "forward", "backward", "head_forward", "head_backward"):
        getattr(library, f"popcorn_{name}").restype = None
    return library


@dataclass
class Tape:
    """What a piece's gradient is taken from.

    Attributes:
        people, occupancy: sums over its pixels.
        each: occupancy of each pixel, (pixels,).
    """

    people: float
    occupancy: float
    each: np.ndarray
    score: np.ndarray
    pixels: np.ndarray
    regions: np.ndarray
    kept: _Taken
    places: tuple[np.ndarray, np.ndarray]

    @property
    def bytes(self) -> int:
        """Of memory that is held."""
        return self.kept.whole.nbytes


class Compiled:
    """An occupancy model's forward and backward, with the weights as they are now."""

    def __init__(self, library: Library, layout: Layout, room: Room) -> None:
        self._do, self._layout, self._room = library.calls, layout, room
        with torch.no_grad():
            *self._streams, self._head = [part.weights() for part in layout.parts]
        self._channels = S1_CHANNELS, S2_CHANNELS

    def occupancy(self, piece: Piece) -> Tensor:
        """Of each of a piece's pixels, (pixels,)."""
        tape = self.forward(piece)
        if tape is None:
            return piece.score
        self.let_go(tape)
        return torch.from_numpy(tape.each)

    def let_go(self, tape: Tape) -> None:
        """Of a tape that no gradient will be taken from."""
        self._room.give(tape.kept)

    def forward(self, piece: Piece) -> Tape | None:
        """Sums over a piece's pixels, and what `backward` needs; None where it has no pixel."""
        count = len(piece.pixels)
        if not count:
            return None
        channels = piece.channels.contiguous().numpy()
        height, width = channels.shape[-2:]
        rows = torch.div(piece.pixels, width, rounding_mode="floor")
        cols = piece.pixels - rows * width
        regions = regions_for(span_of(rows), span_of(cols), height, width)
        # In the planes of `unit.c` there is a column of zeros between two rows.
        places = (rows - regions.rows.up1[0]) * (regions.width + 1) + cols - regions.cols.up1[0]
        pixels = places.to(torch.int32).numpy()
        score = piece.score.contiguous().numpy()
        numbers = _numbers(regions)
        sizes = np.empty(3, np.int64)
        self._do.popcorn_sizes(_at(numbers), _at(sizes), _at(sizes[1:]), _at(sizes[2:]))
        kept = self._room.take(sizes[:2].tolist())
        passing = self._room.passing(int(sizes[2]))
        found = np.empty((2, 3), np.int64)
        first = 0
        for number, (stream, many) in enumerate(zip(self._streams, self._channels, strict=True)):
            self._do.popcorn_forward(
                _at(stream),
                _at(channels[first:]),
                many,
                height,
                width,
                _at(numbers),
                _at(kept.parts[number]),
                _at(passing),
                _at(found[number]),
            )
            first += many
        each, sums = np.empty(count, np.float32), np.empty(2)
        self._do.popcorn_head_forward(
            *self._head_sees(kept, found, pixels, score), _at(self._of_head()), _at(each), _at(sums)
        )
        return Tape(
            float(sums[0]),
            float(sums[1]),
            each,
            score,
            pixels,
            numbers,
            kept,
            (found[0], found[1]),
        )

    def backward(self, tape: Tape, by_people: float, by_occupancy: float, into: np.ndarray) -> None:
        """Add a piece's gradient, its sums' slopes being given. The tape is used up."""
        count = len(tape.pixels)
        parts = np.split(into, np.cumsum(self._layout.sizes[:-1]).tolist())
        by_features = np.empty((2, count, STREAM_FEATURES), np.float32)
        found = np.stack(tape.places)
        self._do.popcorn_head_backward(
            *self._head_sees(tape.kept, found, tape.pixels, tape.score),
            by_people,
            by_occupancy,
            _at(self._of_head()),
            _at(by_features[0]),
            _at(by_features[1]),
            _at(parts[2]),
        )
        sizes = np.empty(3, np.int64)
        self._do.popcorn_sizes(_at(tape.regions), _at(sizes), _at(sizes[1:]), _at(sizes[2:]))
        passing = self._room.passing(int(sizes[2]))
        for number, stream in enumerate(self._streams):
            self._do.popcorn_backward(
                _at(stream),
                self._channels[number],
                _at(tape.regions),
                _at(tape.kept.parts[number]),
                _at(passing),
                _at(by_features[number]),
                _at(tape.pixels),
                count,
                _at(parts[number]),
            )
        self._room.give(tape.kept)

    def zeros(self) -> np.ndarray:
        """Where `backward` adds to."""
        return np.zeros(sum(self._layout.sizes), np.float32)

    def by_parameter(self, sums: np.ndarray) -> dict[Tensor, Tensor]:
        """What `backward` has added up, as gradients of the model's parameters."""
        return self._layout.by_parameter(sums)

    def _head_sees(
        self,
        kept: _Taken,
        found: np.ndarray,
        pixels: np.ndarray,
        score: np.ndarray,
    ) -> tuple:
        features = [_at(kept.parts[i][found[i, 0] :]) for i in range(2)]
        planes = found[:, 2].tolist()
        return (_at(self._head), *features, *planes, _at(pixels), _at(score), len(pixels))

    def _of_head(self) -> np.ndarray:
        return self._room.of_head(int(self._do.popcorn_head_floats()))


class Layout:
    """Where a model's parameters go in the weights of `unit.c`: one after another, folded.

    Made once a model, whose batch norms are frozen, so that weights are folded by one product.
    """

    def __init__(self, model: OccupancyModel) -> None:
        with torch.no_grad():
            self.parts = _stream(model.unet.s1), _stream(model.unet.s2), _head(model)
        self.sizes = [sum(size for _, size in part.parameters) for part in self.parts]

    def by_parameter(self, sums: np.ndarray) -> dict[Tensor, Tensor]:
        """Gradients by all parts' weights, as gradients of the parameters."""
        found: dict[Tensor, Tensor] = {}
        for part, mine in zip(self.parts, torch.from_numpy(sums).split(self.sizes), strict=True):
            if part.gains is not None:
                mine = mine * part.gains
            each = mine.split([size for _, size in part.parameters])
            for (parameter, size), own in zip(part.parameters, each, strict=True):
                if size < parameter.numel():  # of an output that is not computed
                    own = torch.cat([own, own.new_zeros(parameter.numel() - size)])
                found[parameter] = own.view(parameter.shape)
        return found


@dataclass(frozen=True)
class _Part:
    """One stream, or the head.

    Attributes:
        parameters: one after another as `unit.c` has them, with how many of their values are there.
        gains, shifts: what batch norms do to them; None where there is none.
    """

    parameters: list[tuple[Tensor, int]]
    gains: Tensor | None = None
    shifts: Tensor | None = None

    def weights(self) -> np.ndarray:
        """As they are now."""
        flat = torch.cat([parameter.flatten()[:size] for parameter, size in self.parameters])
        if self.gains is not None and self.shifts is not None:
            flat = flat.mul_(self.gains).add_(self.shifts)
        return flat.numpy()


def _stream(unet: StreamUNet) -> _Part:
    blocks: list[DoubleConv] = [unet.enter, unet.down1, unet.down2, unet.up2.convs, unet.up1.convs]
    pairs = [pair for b in blocks for pair in ((b.conv1, b.norm1), (b.conv2, b.norm2))]
    gains, shifts, parameters = [], [], []
    for conv, norm in pairs:
        assert conv.bias is not None
        assert norm.running_mean is not None
        assert norm.running_var is not None
        gain = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        gains += [gain.repeat_interleave(conv.weight[0].numel()), gain]
        shifts += [torch.zeros(conv.weight.numel()), norm.bias - norm.running_mean * gain]
        parameters += [conv.weight, conv.bias]
    for layer in (unet.up2.raise_, unet.up1.raise_):
        assert layer.bias is not None
        for parameter in (layer.weight, layer.bias):
            gains.append(torch.ones(parameter.numel()))
            shifts.append(torch.zeros(parameter.numel()))
            parameters.append(parameter)
    told = [(parameter, parameter.numel()) for parameter in parameters]
    return _Part(told, torch.cat(gains), torch.cat(shifts))


def _head(model: OccupancyModel) -> _Part:
    layers: list[Any] = [m for m in model.head if isinstance(m, nn.Conv2d)]
    parameters = [p for layer in layers[:-1] for p in (layer.weight, layer.bias)]
    told = [(parameter, parameter.numel()) for parameter in parameters]
    # Of the last layer's two outputs the second is not even computed.
    last = layers[-1]
    return _Part([*told, (last.weight, last.weight[0].numel()), (last.bias, 1)])


@dataclass(frozen=True)
class _Taken:
    """Memory, and its parts for the two streams."""

    whole: np.ndarray
    parts: tuple[np.ndarray, np.ndarray]


class Room(threading.local):
    """Memory that a thread uses again and again: to get it anew each time costs as much as the
    work done in it."""

    def __init__(self) -> None:
        self._free: list[np.ndarray] = []
        self._passing = self._head = np.empty(0, np.float32)

    def take(self, sizes: list[int]) -> _Taken:
        """Two pieces of one memory, until they are given back."""
        whole = sum(sizes)
        free = self._free.pop() if self._free else None
        if free is None or len(free) < whole:
            free = aligned(whole)
        return _Taken(free, (free[: sizes[0]], free[sizes[0] :]))

    def give(self, kept: _Taken) -> None:
        """Back; the largest is what is kept free."""
        if not self._free or len(self._free[0]) < len(kept.whole):
            self._free = [kept.whole]

    def passing(self, size: int) -> np.ndarray:
        """Memory until the next call."""
        if len(self._passing) < size:
            self._passing = aligned(size)
        return self._passing

    def of_head(self, size: int) -> np.ndarray:
        """Memory until the next call."""
        if len(self._head) < size:
            self._head = aligned(size)
        return self._head


def _numbers(regions: Regions) -> np.ndarray:
    """As `unit.c` has them: first row, rows, first column, columns of each stage."""

    def along(axis: AxisRegions, stage: str) -> tuple[int, int]:
        first, last = getattr(axis, stage)
        return first, last - first

    found = [(*along(regions.rows, stage), *along(regions.cols, stage)) for stage in STAGES]
    return np.array(found, np.int32)


def _at(array: np.ndarray) -> int:
    return array.ctypes.data
