"""The networks of `model.popcorn` as OpenVINO graphs: the same layers, from the same weights.

Built layer by layer, so that nothing is traced and no converter is needed. Batch norms are folded
into the convolutions before them, and maps of eight features are held two rows at a time (`pairs`).
Windows have sides that are multiples of four; `masks` say where they go beyond the canvas.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from popcorn_ml.mapping.engine import folding, pairs
from popcorn_ml.mapping.engine.folding import folded
from popcorn_ml.mapping.engine.quietly import op, ov
from popcorn_ml.model.stored import Tensors
from popcorn_ml.sentinel import S1_BANDS, S2_BANDS

if TYPE_CHECKING:
    from popcorn_ml.model.popcorn import Sensors

Value: TypeAlias = ov.Node | ov.Output
Masks: TypeAlias = Mapping[str, Value]

CHANNELS, STARTS, STOPS, WANTED = "channels", "starts", "stops", "wanted"
"""Inputs: a window (1, 6, rows, columns); where in it the core's parts begin and end (row of pairs,
column); which of the core's pixels are wanted, counted row by row of pairs, those of a pair one
after the other."""


@dataclass(frozen=True)
class Fixed:
    """A window and its core that come so often that a graph is made for them alone.

    No edge of the canvas is near. The last layers are run on the core only, strip by strip, so that
    what they make of one stays in a processor's cache.

    Attributes:
        height, width: of the window.
        strips: of the core, from the first to behind the last row of pairs; these are odd.
        cols: from the first to behind the last column of the core; these are even.
    """

    height: int
    width: int
    strips: tuple[tuple[int, int], ...]
    cols: tuple[int, int]


def extractor_graph(
    weights: Tensors, sensors: Sensors, masks: Sequence[str] = (), fixed: Fixed | None = None
) -> ov.Model:
    """Built-up score of a window's core: (1, 2, rows of pairs, columns), a row of pairs a lane.

    Args:
        weights: of a `BuiltupExtractor`, by the names in its state dict.
        sensors: whose streams to use.
        masks: of `pairs`, given as further inputs.
        fixed: for one window only; else any, with its core as further inputs.
    """
    piece, streams = _input(fixed)
    core, given = _core(1, fixed), _masks(masks)
    used = {"both": ("s1", "s2"), "s1": ("s1",), "s2": ("s2",)}[sensors]
    trunks = [_Trunk(streams[name], _of(weights, f"unet.{name}"), given) for name in used]
    weight, bias = weights[f"score_{sensors}.weight"][:, :, 0, 0], weights[f"score_{sensors}.bias"]
    found = [
        op.sigmoid(_layer(part, _each(weight, len(part)), bias, _dense_pairs))
        for part in core.cut(trunks)
    ]
    return ov.Model([_below(found)], [piece, *core.inputs, *given.values()], "extractor")


def bag_graph(
    members: Sequence[Tensors],
    masks: Sequence[str] = (),
    *,
    sparse: bool = False,
    parts: int = 1,
    fixed: Fixed | None = None,
) -> ov.Model:
    """Occupancy by every member; the members share what is read and split.

    The head, half of the work, looks at one pixel at a time and is given the core's only.

    Args:
        members: weights of each `OccupancyModel`, by the names in its state dict.
        masks, fixed: as of `extractor_graph`.
        sparse: of the core's pixels take those that are wanted: (members, pixels), instead of
            (1, 2 x members, rows of pairs, columns).
        parts: into how many the core is cut, one after another, unless it is fixed.
    """
    piece, streams = _input(fixed)
    core, given = _core(parts, fixed), _masks(masks)
    inputs = [piece, *core.inputs, *given.values()]
    wanted = None
    if sparse:
        wanted = op.parameter([-1], np.int32, name=WANTED)
        inputs.append(wanted)
    found = []
    for member in members:
        trunks = [_Trunk(x, _of(member, f"unet.{name}"), given) for name, x in streams.items()]
        head = [(member[f"head.{i}.weight"][:, :, 0, 0], member[f"head.{i}.bias"]) for i in _HEAD]
        head[-1] = head[-1][0][:1], head[-1][1][:1]  # of the two outputs, the occupancy
        if wanted is None:
            found.append(_below([_head_in_pairs(part, head) for part in core.cut(trunks)]))
        else:
            found.append(_head_of_some(core.cut(trunks)[0], wanted, head))
    return ov.Model([op.concat(found, 0 if sparse else 1)], inputs, "bag")


def _core(parts: int, fixed: Fixed | None) -> _AnyCore | _FixedCore:
    return _AnyCore(parts) if fixed is None else _FixedCore(fixed)


class _AnyCore:
    """Parts of the core, which come with each window.

    Attributes:
        inputs: to be given to the graph.
    """

    def __init__(self, parts: int) -> None:
        self._parts = parts
        self.inputs = [op.parameter([parts, 2], np.int32, name=name) for name in (STARTS, STOPS)]

    def cut(self, trunks: Sequence[_Trunk]) -> list[list[Value]]:
        """Features of each part by each stream."""
        whole = [trunk.features() for trunk in trunks]
        corners = [
            [op.gather(of, op.constant(part), op.constant(0)) for of in self.inputs]
            for part in range(self._parts)
        ]
        return [[_sliced(x, *of) for x in whole] for of in corners]


class _FixedCore:
    """Strips of the core of a fixed window; nothing is to be given to the graph for them."""

    inputs: Sequence[ov.Node] = ()

    def __init__(self, fixed: Fixed) -> None:
        self._fixed = fixed

    def cut(self, trunks: Sequence[_Trunk]) -> list[list[Value]]:
        """Features of each strip by each stream."""
        cols = self._fixed.cols
        return [[trunk.features_of(rows, cols) for trunk in trunks] for rows in self._fixed.strips]


_HEAD = (0, 2, 4, 6)
"""Positions of the head's layers in its state dict; ReLUs are between them."""


def _input(fixed: Fixed | None) -> tuple[ov.Node, dict[str, Value]]:
    sides = [-1, -1] if fixed is None else [fixed.height, fixed.width]
    piece = op.parameter([1, len(S1_BANDS) + len(S2_BANDS), *sides], np.float32, name=CHANNELS)
    parts = op.variadic_split(piece, op.constant(1), op.constant([len(S1_BANDS), len(S2_BANDS)]))
    return piece, {"s1": parts.output(0), "s2": parts.output(1)}


def _masks(names: Sequence[str]) -> dict[str, ov.Node]:
    found = {}
    for name in names:
        lanes = 2 * pairs.LANES if name in pairs.IN_PAIRS else 1
        found[name] = op.parameter([1, lanes, -1, -1], np.float32, name=name)
    return found


def _of(weights: Tensors, prefix: str) -> Tensors:
    """The weights under a name, without it."""
    begin = f"{prefix}."
    return {name[len(begin) :]: w for name, w in weights.items() if name.startswith(begin)}


class _Trunk:
    """One sensor's U-Net up to the last doubling.

    Args:
        x: (1, channels, rows, columns).
        unet: its weights.
        masks: without any, the core is so far from the canvas's edges that what lies beyond a
            window does not matter, and two layers can be one.
    """

    def __init__(self, x: Value, unet: Tensors, masks: Masks) -> None:
        self._unet, self._masks = unet, masks
        full = self._kept(self._conv(x, "enter.1", _OPENED), pairs.FULL_ODD)
        self._full = self._kept(self._conv(full, "enter.2", _TO_EVEN), pairs.FULL)
        half = self._kept(_halved_pairs(self._full), pairs.HALF)
        half = self._kept(self._conv(half, "down1.1", _PLAIN), pairs.HALF)
        half = self._kept(self._conv(half, "down1.2", _PLAIN), pairs.HALF)
        quarter = self._kept(_halved(half), pairs.QUARTER)
        quarter = self._kept(self._conv(quarter, "down2.1", _PLAIN), pairs.QUARTER)
        quarter = self._conv(quarter, "down2.2", _PLAIN)
        skip, below, bias = self._joined("up2")
        if masks:
            raised = self._kept(_doubled(quarter, *below.doubling), pairs.RAISED_HALF)
            raised = _conv(raised, pairs.opened(below.weight), _OPENED)
        else:
            raised = _transposed(quarter, pairs.opened_twice(below.as_one()), (1, 2), (0, 1))
            bias = bias + below.bias_as_one()
        up = _relu_sum(_conv(half, pairs.opened(skip), _OPENED), raised, bias)
        self._up = self._conv(self._kept(up, pairs.HALF_ODD), "up2.convs.2", _TO_EVEN)

    def features(self) -> Value:
        """(1, 16, rows / 2, columns), of even pairs, of the whole window."""
        skip, below, bias = self._joined("up1")
        up = self._kept(self._up, pairs.HALF_EVEN)
        if self._masks:
            weight, doubled_bias = below.doubling
            raised = _doubled(up, pairs.raised(weight), pairs.both(doubled_bias))
            raised = _conv(self._kept(raised, pairs.RAISED), pairs.paired(below.weight), _TO_ODD)
        else:
            raised = _transposed(up, pairs.paired_twice(below.as_one()), (2, 2), (0, 1))
            bias = bias + below.bias_as_one()
        up = _relu_sum(_conv(self._full, pairs.paired(skip), _TO_ODD), raised, bias)
        return self._conv(self._kept(up, pairs.FULL_ODD), "up1.convs.2", _TO_EVEN)

    def features_of(self, rows: tuple[int, int], cols: tuple[int, int]) -> Value:
        """The features of a strip; see `Fixed`. Its neighbours are computed, not taken for zero."""
        skip, below, bias = self._joined("up1")
        begin, end = (rows[0] - 1, cols[0] - 2), (rows[1] + 1, cols[1] + 2)
        full = _sliced(self._full, *(op.constant(list(at)) for at in (begin, end)))
        quartered = [op.constant([row // 2, col // 2]) for row, col in (begin, end)]
        up = _sliced(self._up, *quartered)
        raised = _transposed(up, pairs.paired_twice(below.as_one()), (2, 2), (1, 2))
        seen = _conv(full, pairs.paired(skip), _WITHIN)
        up = _relu_sum(seen, raised, bias + below.bias_as_one())
        return self._conv(up, "up1.convs.2", _WITHIN)

    def _kept(self, values: Value, mask: str) -> Value:
        return op.multiply(values, self._masks[mask]) if mask in self._masks else values

    def _conv(self, x: Value, name: str, how: str) -> Value:
        weight, bias = folded(self._unet, name)
        if how == _PLAIN:
            return op.relu(op.add(_conv(x, weight, how), _across(bias)))
        arranged = pairs.opened(weight) if how == _OPENED else pairs.paired(weight)
        return op.relu(op.add(_conv(x, arranged, how), _across(pairs.both(bias))))

    def _joined(self, block: str) -> tuple[np.ndarray, _Below, np.ndarray]:
        """The convolution that joins what is skipped and what is raised, as one of each, and its
        bias."""
        doubling = self._unet[f"{block}.raise_.weight"].astype(float)
        weight, bias = folded(self._unet, f"{block}.convs.1")
        skipped = weight.shape[1] - doubling.shape[1]
        doubled = doubling, self._unet[f"{block}.raise_.bias"].astype(float)
        return weight[:, :skipped], _Below(doubled, weight[:, skipped:]), bias


@dataclass(frozen=True)
class _Below:
    """A doubling, its weight and bias, and the weight of the convolution after it."""

    doubling: tuple[np.ndarray, np.ndarray]
    weight: np.ndarray

    def as_one(self) -> np.ndarray:
        """Weight of both, see `folding.doubled_and_convolved`."""
        return folding.doubled_and_convolved(self.doubling[0], self.weight)

    def bias_as_one(self) -> np.ndarray:
        """What the doubling's bias comes to after the convolution."""
        return self.weight.sum(axis=(2, 3)) @ self.doubling[1]


_PLAIN, _OPENED, _TO_ODD, _TO_EVEN, _WITHIN = "plain", "opened", "to odd", "to even", "within"
_STRIDE_AND_ZEROS = {
    _PLAIN: (1, 1, 1),
    _OPENED: (2, 2, 1),
    _TO_ODD: (1, 1, 1),
    _TO_EVEN: (1, 0, 1),
    _WITHIN: (1, 0, 0),
}
"""Of a convolution from rows to rows, rows to odd pairs, and between pairs: rows that it goes on
at a time, and rows and columns of zeros on each side."""


def _conv(x: Value, weight: np.ndarray, how: str) -> Value:
    stride, rows, cols = _STRIDE_AND_ZEROS[how]
    return op.convolution(x, _constant(weight), [stride, 1], [rows, cols], [rows, cols], [1, 1])


def _transposed(
    x: Value, weight: np.ndarray, strides: tuple[int, int], cut: tuple[int, int]
) -> Value:
    """A transposed convolution, cut by so many rows and columns on each side."""
    return op.convolution_backprop_data(
        x,
        _constant(weight),
        list(strides),
        pads_begin=list(cut),
        pads_end=list(cut),
        dilations=[1, 1],
    )


def _doubled(x: Value, weight: np.ndarray, bias: np.ndarray) -> Value:
    return op.add(_transposed(x, weight, (2, 2), (0, 0)), _across(bias))


def _relu_sum(skipped: Value, raised: Value, bias: np.ndarray) -> Value:
    """ReLU of two convolutions' sum, which saves laying their inputs together."""
    return op.relu(op.add(skipped, op.add(raised, _across(pairs.both(bias)))))


def _halved(x: Value) -> Value:
    return op.max_pool(x, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)


def _halved_pairs(x: Value) -> Value:
    """From even pairs to rows at half the resolution."""
    narrow = op.max_pool(x, [1, 2], [1, 1], [0, 0], [0, 0], [1, 2]).output(0)
    rows = op.split(narrow, op.constant(1), 2)
    return op.maximum(rows.output(0), rows.output(1))


def _sliced(x: Value, begin: Value, end: Value) -> Value:
    steps, axes = op.constant([1, 1], np.int32), op.constant([2, 3], np.int32)
    return op.slice(x, begin, end, steps, axes)


def _below(parts: Sequence[Value]) -> Value:
    """Parts of a core, one below the other."""
    return op.concat(parts, 2) if len(parts) > 1 else parts[0]


def _head_in_pairs(
    features: Sequence[Value], layers: Sequence[tuple[np.ndarray, np.ndarray]]
) -> Value:
    """Occupancy of both rows of pairs, from both streams: (1, 2, pairs, columns)."""
    weight, bias = layers[0]
    x = op.relu(_layer(features, _each(weight, len(features)), bias, _grouped_pairs))
    for weight, bias in layers[1:-1]:
        x = op.relu(_layer([x], [weight], bias, _grouped_pairs))
    weight, bias = layers[-1]
    return op.relu(_layer([x], [weight], bias, _dense_pairs))


def _each(weight: np.ndarray, streams: int) -> list[np.ndarray]:
    """A layer's weight by the stream that it takes."""
    return np.split(weight, streams, axis=1)


def _layer(
    inputs: Sequence[Value],
    weights: Sequence[np.ndarray],
    bias: np.ndarray,
    product: Callable[[Value, np.ndarray], Value],
) -> Value:
    """A layer of single pixels, for both rows of pairs; of several inputs, their sum."""
    total = op.add(product(inputs[-1], weights[-1]), _across(pairs.both(bias)))
    for x, weight in zip(inputs[:-1], weights[:-1], strict=True):
        total = op.add(product(x, weight), total)
    return total


def _grouped_pairs(x: Value, weight: np.ndarray) -> Value:
    both = np.stack([weight, weight])[..., None, None]
    return op.group_convolution(x, _constant(both), [1, 1], [0, 0], [0, 0], [1, 1])


def _dense_pairs(x: Value, weight: np.ndarray) -> Value:
    """For layers with few outputs, which are no multiple of a processor's lanes."""
    both = pairs.twice(weight)[..., None, None]
    return op.convolution(x, _constant(both), [1, 1], [0, 0], [0, 0], [1, 1])


def _head_of_some(
    features: Sequence[Value], wanted: Value, layers: Sequence[tuple[np.ndarray, np.ndarray]]
) -> Value:
    """Occupancy of some pixels: (1, pixels)."""
    lanes = [op.split(x, op.constant(1), 2) for x in features]
    x = op.concat([rows.output(b) for b in (0, 1) for rows in lanes], 1)
    by_pixel = op.transpose(x, op.constant([0, 2, 3, 1], np.int32))
    shape = op.constant([-1, layers[0][0].shape[1]], np.int32)
    x = op.gather(op.reshape(by_pixel, shape, False), wanted, op.constant(0, np.int32))
    for weight, bias in layers:
        x = op.matmul(x, _constant(weight.T), False, False)
        x = op.relu(op.add(x, _constant(bias[None])))
    return op.reshape(x, op.constant([1, -1], np.int32), False)


def _across(bias: np.ndarray) -> Value:
    return _constant(bias.reshape(1, -1, 1, 1))


def _constant(values: np.ndarray) -> Value:
    return op.constant(np.ascontiguousarray(values, np.float32))
