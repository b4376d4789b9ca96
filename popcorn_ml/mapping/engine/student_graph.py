"""The student of `model.student` as an OpenVINO graph: the same layers, from the same weights.

Its features are whole lanes of a processor as they are, so that nothing is held in pairs of rows.
What is doubled is never laid out: each pixel as four and a 3 x 3 convolution after it are one
transposed convolution, and of what a layer joins, each part is convolved by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from popcorn_ml.mapping.engine.folding import doubled_and_convolved
from popcorn_ml.mapping.engine.graph import CHANNELS
from popcorn_ml.mapping.engine.quietly import op, ov
from popcorn_ml.model.stored import STUDENT_WIDTHS, Tensors


def student_graph(weights: Tensors, sides: Sequence[int], core: Sequence[int]) -> ov.Model:
    """Occupancy of a window's core: (1, 1, rows, columns).

    Args:
        weights: of a `Student`, by the names in its state dict.
        sides: rows and columns of the window, multiples of four; -1 of any.
        core: first row and column of it, and those behind its last; none for the whole window.
    """
    inputs = weights["enter.convs.0.weight"].shape[1]
    x = op.parameter([1, inputs, *sides], np.float32, name=CHANNELS)
    at_full = _pair(x, weights, "enter")
    at_half = _pair(_halved(at_full), weights, "down1")
    at_quarter = _pair(_halved(at_half), weights, "down2")
    up = _conv(_joined(at_half, at_quarter, weights, "up2"), weights, "up2.convs.1")
    up = _joined(at_full, up, weights, "up1")
    if core:
        begin, end = op.constant(list(core[:2])), op.constant(list(core[2:]))
        steps, axes = op.constant([1, 1]), op.constant([2, 3])
        up = op.slice(up, begin, end, steps, axes)
    up = _conv(up, weights, "head", around=0)
    scale = float(weights["people_per_score"][0])
    # people_per_score is above 0, so that it can be taken into the layer before the ReLU.
    last = {name: weights[name] * scale for name in ("last.weight", "last.bias")}
    return ov.Model([_conv(up, last, "last", around=0)], [x], "student")


def _pair(x: ov.Output, weights: Tensors, block: str) -> ov.Output:
    for i in (0, 1):
        x = _conv(x, weights, f"{block}.convs.{i}")
    return x


def _conv(x: ov.Output, weights: Tensors, layer: str, around: int = 1) -> ov.Output:
    """A convolution, so many zeros around its input, and a ReLU."""
    found = _convolved(x, weights[f"{layer}.weight"], around)
    return op.relu(op.add(found, _across(weights[f"{layer}.bias"])))


def _convolved(x: ov.Output, weight: np.ndarray, around: int) -> ov.Output:
    sides = [around, around]
    return op.convolution(x, _constant(weight), [1, 1], sides, sides, [1, 1])


def _joined(skipped: ov.Output, below: ov.Output, weights: Tensors, block: str) -> ov.Output:
    """The layer that takes what is skipped and, each pixel as four, what is below."""
    weight = weights[f"{block}.convs.0.weight"].astype(float)
    split = {"up2": STUDENT_WIDTHS[1], "up1": STUDENT_WIDTHS[0]}[block]
    count = weight.shape[1] - split
    each = np.broadcast_to(np.eye(count)[:, :, None, None], (count, count, 2, 2))
    doubled = op.convolution_backprop_data(
        below,
        _constant(doubled_and_convolved(each, weight[:, split:])),
        [2, 2],
        pads_begin=[1, 1],
        pads_end=[1, 1],
        dilations=[1, 1],
    )
    both = op.add(_convolved(skipped, weight[:, :split], 1), doubled)
    return op.relu(op.add(both, _across(weights[f"{block}.convs.0.bias"])))


def _halved(x: ov.Output) -> ov.Output:
    return op.max_pool(x, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)


def _across(bias: np.ndarray) -> ov.Output:
    return _constant(bias.reshape(1, -1, 1, 1))


def _constant(values: np.ndarray) -> ov.Output:
    return op.constant(np.ascontiguousarray(values, np.float32))
