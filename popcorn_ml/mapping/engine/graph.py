"""The networks of `model.popcorn` as OpenVINO graphs: the same layers, from the same weights.

Built layer by layer, so that nothing is traced and no converter is needed. Batch norms are folded
into the convolutions before them, and maps of eight features are held two rows at a time (`pairs`).
Windows have sides that are multiples of four; `masks` say where they go beyond the canvas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from popcorn_ml.mapping.engine import pairs
from popcorn_ml.mapping.engine.quietly import op, ov
from popcorn_ml.model.popcorn import Sensors
from popcorn_ml.model.unet import S1_CHANNELS, S2_CHANNELS

Value: TypeAlias = ov.Node | ov.Output
Weights: TypeAlias = Mapping[str, np.ndarray]
Masks: TypeAlias = Mapping[str, Value]

CHANNELS, STARTS, STOPS, WANTED = "channels", "starts", "stops", "wanted"
"""Inputs: a window (1, 6, rows, columns); where in it the core's parts begin and end (row of pairs,
column); which of the core's pixels are wanted, counted row by row of pairs, those of a pair one
after the other."""

NORM_EPSILON = 1e-5
"""Of the batch norms, torch's own."""


@dataclass(frozen=True)
class Fixed:
    """A window and its core that come so often that a graph is made for them alone.

    Attributes:
        height, width: of the window.
        starts, stops: of the core's parts, as the inputs of these names.
    """

    height: int
    width: int
    starts: tuple[tuple[int, int], ...]
    stops: tuple[tuple[int, int], ...]


def extractor_graph(
    weights: Weights, sensors: Sensors, masks: Sequence[str] = (), fixed: Fixed | None = None
) -> ov.Model:
    """Built-up score of a window's core: (1, 2, rows of pairs, columns), a row of pairs a lane.

    Args:
        weights: of a `BuiltupExtractor`, by the names in its state dict.
        sensors: whose streams to use.
        masks: of `pairs`, given as further inputs.
        fixed: for one window only; else any, with its core as further inputs.
    """
    piece, streams = _input(fixed)
    corners, given = _Corners(1, fixed), _masks(masks)
    used = {"both": ("s1", "s2"), "s1": ("s1",), "s2": ("s2",)}[sensors]
    found = [_stream(streams[name], _of(weights, f"unet.{name}"), given) for name in used]
    weight, bias = weights[f"score_{sensors}.weight"], weights[f"score_{sensors}.bias"]
    (features,) = corners.cut(found)
    score = op.sigmoid(_dense(features, pairs.twice(weight[:, :, 0, 0]), pairs.both(bias)))
    return ov.Model([score], [piece, *corners.inputs, *given.values()], "extractor")


def bag_graph(
    members: Sequence[Weights],
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
        parts: into how many the core is cut, one after another.
    """
    piece, streams = _input(fixed)
    corners, given = _Corners(parts, fixed), _masks(masks)
    inputs = [piece, *corners.inputs, *given.values()]
    wanted = None
    if sparse:
        wanted = op.parameter([-1], np.int32, name=WANTED)
        inputs.append(wanted)
    found = []
    for member in members:
        maps = [_stream(x, _of(member, f"unet.{name}"), given) for name, x in streams.items()]
        head = [(member[f"head.{i}.weight"][:, :, 0, 0], member[f"head.{i}.bias"]) for i in _HEAD]
        head[-1] = head[-1][0][:1], head[-1][1][:1]  # of the two outputs, the occupancy
        cores = corners.cut(maps)
        if wanted is None:
            each = [_head_in_pairs(core, head) for core in cores]
            found.append(op.concat(each, 2) if parts > 1 else each[0])
        else:
            found.append(_head_of_some(cores[0], wanted, head))
    return ov.Model([op.concat(found, 0 if sparse else 1)], inputs, "bag")


class _Corners:
    """Where the core's parts lie: inputs, or constants of a fixed window.

    Attributes:
        inputs: to be given to the graph.
    """

    def __init__(self, parts: int, fixed: Fixed | None) -> None:
        self._parts = parts
        self._of: list[ov.Node] = []
        self.inputs: list[ov.Node] = []
        for name in (STARTS, STOPS):
            if fixed is None:
                self.inputs.append(op.parameter([parts, 2], np.int32, name=name))
                self._of.append(self.inputs[-1])
            else:
                self._of.append(op.constant(np.array(getattr(fixed, name), np.int32)))

    def cut(self, maps: Sequence[Value]) -> list[Value]:
        """The streams' features in each part: those of the one row of a pair, then the other's."""
        found = []
        steps, axes = op.constant([1, 1], np.int32), op.constant([2, 3], np.int32)
        for part in range(self._parts):
            begin, end = (op.gather(of, op.constant(part), op.constant(0)) for of in self._of)
            lanes = [
                op.split(op.slice(x, begin, end, steps, axes), op.constant(1), 2) for x in maps
            ]
            found.append(op.concat([rows.output(b) for b in (0, 1) for rows in lanes], 1))
        return found


_HEAD = (0, 2, 4, 6)
"""Positions of the head's layers in its state dict; ReLUs are between them."""


def _input(fixed: Fixed | None) -> tuple[ov.Node, dict[str, Value]]:
    sides = [-1, -1] if fixed is None else [fixed.height, fixed.width]
    piece = op.parameter([1, S1_CHANNELS + S2_CHANNELS, *sides], np.float32, name=CHANNELS)
    parts = op.variadic_split(piece, op.constant(1), op.constant([S1_CHANNELS, S2_CHANNELS]))
    return piece, {"s1": parts.output(0), "s2": parts.output(1)}


def _masks(names: Sequence[str]) -> dict[str, ov.Node]:
    found = {}
    for name in names:
        lanes = 2 * pairs.LANES if name in pairs.IN_PAIRS else 1
        found[name] = op.parameter([1, lanes, -1, -1], np.float32, name=name)
    return found


def _of(weights: Weights, prefix: str) -> Weights:
    """The weights under a name, without it."""
    begin = f"{prefix}."
    return {name[len(begin) :]: w for name, w in weights.items() if name.startswith(begin)}


def _stream(x: Value, unet: Weights, masks: Masks) -> Value:
    """One sensor's U-Net: (1, channels, rows, columns) -> (1, 16, rows / 2, columns), in pairs."""

    def kept(values: Value, mask: str) -> Value:
        return op.multiply(values, masks[mask]) if mask in masks else values

    def conv(values: Value, name: str, how: str) -> Value:
        return _relu_conv([values], [_folded(unet, name)], how)

    full = kept(conv(x, "enter.1", _OPENED), pairs.FULL_ODD)
    full = kept(conv(full, "enter.2", _TO_EVEN), pairs.FULL)
    half = kept(_halved_pairs(full), pairs.HALF)
    half = kept(conv(half, "down1.1", _PLAIN), pairs.HALF)
    half = kept(conv(half, "down1.2", _PLAIN), pairs.HALF)
    quarter = kept(_halved(half), pairs.QUARTER)
    quarter = kept(conv(quarter, "down2.1", _PLAIN), pairs.QUARTER)
    quarter = conv(quarter, "down2.2", _PLAIN)

    weight, bias = unet["up2.raise_.weight"], unet["up2.raise_.bias"]
    below = kept(_doubled(quarter, weight, bias), pairs.RAISED_HALF)
    parts = _split(_folded(unet, "up2.convs.1"), weight.shape[1])
    up = kept(_relu_conv([half, below], parts, _OPENED), pairs.HALF_ODD)
    up = kept(conv(up, "up2.convs.2", _TO_EVEN), pairs.HALF_EVEN)

    weight, bias = unet["up1.raise_.weight"], unet["up1.raise_.bias"]
    below = kept(_doubled(up, pairs.raised(weight), pairs.both(bias)), pairs.RAISED)
    parts = _split(_folded(unet, "up1.convs.1"), weight.shape[1])
    up = kept(_relu_conv([full, below], parts, _TO_ODD), pairs.FULL_ODD)
    return conv(up, "up1.convs.2", _TO_EVEN)


_PLAIN, _OPENED, _TO_ODD, _TO_EVEN = "plain", "opened", "to odd", "to even"
_STRIDE_AND_ROWS = {_PLAIN: (1, 1), _OPENED: (2, 2), _TO_ODD: (1, 1), _TO_EVEN: (1, 0)}
"""Of a convolution from rows to rows, rows to odd pairs, and between pairs: rows that it goes on
at a time, and rows of zeros before and after."""


def _relu_conv(
    inputs: Sequence[Value], layers: Sequence[tuple[np.ndarray, np.ndarray]], how: str
) -> Value:
    """ReLU of a 3 x 3 convolution; of several inputs the sum, which saves laying them together."""
    stride, rows = _STRIDE_AND_ROWS[how]
    total: Value | None = None
    for x, (weight, bias) in zip(inputs, layers, strict=True):
        if how != _PLAIN:
            arranged = pairs.opened(weight) if how == _OPENED else pairs.paired(weight)
            weight, bias = arranged, pairs.both(bias)
        y = op.convolution(x, _constant(weight), [stride, 1], [rows, 1], [rows, 1], [1, 1])
        if bias.any() or len(inputs) == 1:
            y = op.add(y, _constant(bias.reshape(1, -1, 1, 1)))
        total = y if total is None else op.add(total, y)
    return op.relu(total)


def _folded(unet: Weights, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias of a convolution with its batch norm, in float64.

    Args:
        name: of the block, and which of its two.
    """
    block, which = name.rsplit(".", 1)
    layer = {part: unet[f"{block}.conv{which}.{part}"].astype(float) for part in ("weight", "bias")}
    parts = ("weight", "bias", "running_mean", "running_var")
    norm = {part: unet[f"{block}.norm{which}.{part}"].astype(float) for part in parts}
    gain = norm["weight"] / np.sqrt(norm["running_var"] + NORM_EPSILON)
    bias = norm["bias"] + (layer["bias"] - norm["running_mean"]) * gain
    return layer["weight"] * gain[:, None, None, None], bias


def _split(layer: tuple[np.ndarray, np.ndarray], below: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """A convolution of what was skipped and what was raised, as two; the bias is the second's."""
    weight, bias = layer
    skipped = weight.shape[1] - below
    return [(weight[:, :skipped], np.zeros_like(bias)), (weight[:, skipped:], bias)]


def _halved(x: Value) -> Value:
    return op.max_pool(x, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)


def _halved_pairs(x: Value) -> Value:
    """From even pairs to rows at half the resolution."""
    narrow = op.max_pool(x, [1, 2], [1, 1], [0, 0], [0, 0], [1, 2]).output(0)
    rows = op.split(narrow, op.constant(1), 2)
    return op.maximum(rows.output(0), rows.output(1))


def _doubled(x: Value, weight: np.ndarray, bias: np.ndarray) -> Value:
    y = op.convolution_backprop_data(
        x, _constant(weight), [2, 2], pads_begin=[0, 0], pads_end=[0, 0], dilations=[1, 1]
    )
    return op.add(y, _constant(bias.reshape(1, -1, 1, 1)))


def _dense(x: Value, weight: np.ndarray, bias: np.ndarray) -> Value:
    """A 1 x 1 convolution of (out, in)."""
    weights = _constant(weight[:, :, None, None])
    y = op.convolution(x, weights, [1, 1], [0, 0], [0, 0], [1, 1])
    return op.add(y, _constant(bias.reshape(1, -1, 1, 1)))


def _head_in_pairs(x: Value, layers: Sequence[tuple[np.ndarray, np.ndarray]]) -> Value:
    """Occupancy of both rows of pairs: (1, 32, pairs, columns) -> (1, 2, pairs, columns)."""
    for weight, bias in layers[:-1]:
        both = np.stack([weight, weight])[..., None, None]
        x = op.group_convolution(x, _constant(both), [1, 1], [0, 0], [0, 0], [1, 1])
        x = op.relu(op.add(x, _constant(pairs.both(bias).reshape(1, -1, 1, 1))))
    weight, bias = layers[-1]
    return op.relu(_dense(x, pairs.twice(weight), pairs.both(bias)))


def _head_of_some(
    x: Value, wanted: Value, layers: Sequence[tuple[np.ndarray, np.ndarray]]
) -> Value:
    """Occupancy of some pixels: (1, pixels)."""
    by_pixel = op.transpose(x, op.constant([0, 2, 3, 1], np.int32))
    features = op.constant([-1, layers[0][0].shape[1]], np.int32)
    x = op.gather(op.reshape(by_pixel, features, False), wanted, op.constant(0, np.int32))
    for weight, bias in layers:
        x = op.matmul(x, _constant(weight.T), False, False)
        x = op.relu(op.add(x, _constant(bias[None])))
    return op.reshape(x, op.constant([1, -1], np.int32), False)


def _constant(values: np.ndarray) -> Value:
    return op.constant(np.ascontiguousarray(values, np.float32))
