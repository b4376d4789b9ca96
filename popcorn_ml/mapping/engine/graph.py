"""The networks of `model.popcorn` as OpenVINO graphs: the same layers, from the same weights.

Built layer by layer, so that nothing is traced, no shape is frozen and no converter is needed.
Height and width stay open. Batch norms are folded into the convolutions before them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import nn

from popcorn_ml.mapping.engine.quietly import op, ov
from popcorn_ml.model.popcorn import BuiltupExtractor, OccupancyModel, Sensors
from popcorn_ml.model.unet import S1_CHANNELS, S2_CHANNELS, DoubleConv, StreamUNet, Up

Value: TypeAlias = ov.Node | ov.Output

CHANNELS, CORE_BEGIN, CORE_END, WANTED = "channels", "core_begin", "core_end", "wanted"
"""Inputs: a piece of canvas (1, 6, rows, columns); where in it the core begins and ends (row,
column); which of the core's pixels are wanted, as positions in it counted row by row."""


def extractor_graph(model: BuiltupExtractor, sensors: Sensors, aligned: bool) -> ov.Model:
    """Built-up score of a piece of canvas: (1, 6, h, w) -> (1, 1, h, w).

    Args:
        model: in eval mode.
        sensors: whose streams to use.
        aligned: whether h and w are multiples of four. Others need a row or column of zeros
            wherever halving lost one, which only the end of a canvas does.
    """
    piece, s1, s2 = _input()
    unet = model.unet
    if sensors == "s1":
        features, last = _stream(s1, unet.s1, aligned), model.score_s1
    elif sensors == "s2":
        features, last = _stream(s2, unet.s2, aligned), model.score_s2
    else:
        both = [_stream(s1, unet.s1, aligned), _stream(s2, unet.s2, aligned)]
        features, last = op.concat(both, 1), model.score_both
    return ov.Model([op.sigmoid(_conv(features, last.weight, last.bias))], [piece], "extractor")


def bag_graph(members: Sequence[OccupancyModel], sparse: bool) -> ov.Model:
    """Occupancy by every member; the members share what is read and split.

    The head, half of the work, looks at one pixel at a time and is given the core's only.

    Args:
        members: in eval mode.
        sparse: of the core's pixels take those that are wanted: (1, members, pixels, 1), instead
            of (1, members, rows, columns).
    """
    piece, s1, s2 = _input()
    begin = op.parameter([2], np.int32, name=CORE_BEGIN)
    end = op.parameter([2], np.int32, name=CORE_END)
    inputs = [piece, begin, end]
    wanted = None
    if sparse:
        wanted = op.parameter([-1], np.int32, name=WANTED)
        inputs.append(wanted)
    found = []
    for member in members:
        unet = member.unet
        streams = [_stream(s1, unet.s1, True), _stream(s2, unet.s2, True)]
        steps, axes = op.constant([1, 1], np.int32), op.constant([2, 3], np.int32)
        features = op.slice(op.concat(streams, 1), begin, end, steps, axes)
        if wanted is not None:
            flat = op.reshape(features, op.constant([0, 0, -1, 1], np.int32), True)
            features = op.gather(flat, wanted, op.constant(2, np.int32))
        found.append(_head(features, member.head))
    return ov.Model([op.concat(found, 1)], inputs, "bag")


def _input() -> tuple[ov.Node, ov.Output, ov.Output]:
    piece = op.parameter([1, S1_CHANNELS + S2_CHANNELS, -1, -1], np.float32, name=CHANNELS)
    parts = op.variadic_split(piece, op.constant(1), op.constant([S1_CHANNELS, S2_CHANNELS]))
    return piece, parts.output(0), parts.output(1)


def _head(features: Value, head: nn.Sequential) -> Value:
    """The head's first output: occupancy."""
    convs = [layer for layer in head if isinstance(layer, nn.Conv2d)]
    x = features
    for layer in convs[:-1]:
        x = op.relu(_conv(x, layer.weight, layer.bias))
    last = convs[-1]
    assert last.bias is not None
    return op.relu(_conv(x, last.weight[:1], last.bias[:1]))


def _stream(x: Value, unet: StreamUNet, aligned: bool) -> Value:
    full = _double(x, unet.enter)
    half = _double(_halved(full), unet.down1)
    quarter = _double(_halved(half), unet.down2)
    return _up(_up(quarter, half, unet.up2, aligned), full, unet.up1, aligned)


def _double(x: Value, convs: DoubleConv) -> Value:
    for conv, norm in ((convs.conv1, convs.norm1), (convs.conv2, convs.norm2)):
        x = op.relu(_conv(x, *_folded(conv, norm)))
    return x


def _halved(x: Value) -> Value:
    return op.max_pool(x, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)


def _up(below: Value, skip: Value, layers: Up, aligned: bool) -> Value:
    raised: Value = op.convolution_backprop_data(
        below,
        op.constant(_numbers(layers.raise_.weight)),
        [2, 2],
        pads_begin=[0, 0],
        pads_end=[0, 0],
        dilations=[1, 1],
    )
    raised = op.add(raised, op.constant(_across(layers.raise_.bias)))
    if not aligned:
        lost = op.subtract(op.shape_of(skip, "i32"), op.shape_of(raised, "i32"))
        none = op.constant(np.zeros(4, np.int32))
        raised = op.pad(raised, none, lost, "constant", op.constant(np.float32(0)))
    return _double(op.concat([skip, raised], 1), layers.convs)


def _conv(x: Value, weight: torch.Tensor, bias: torch.Tensor | None) -> Value:
    """A convolution that keeps the size, with its bias."""
    border = [weight.shape[-1] // 2] * 2
    y = op.convolution(x, op.constant(_numbers(weight)), [1, 1], border, border, [1, 1])
    return op.add(y, op.constant(_across(bias)))


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of a convolution with its batch norm, worked out in float64."""
    assert conv.bias is not None
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = norm.weight.double() * torch.rsqrt(norm.running_var.double() + norm.eps)
    bias = norm.bias.double() + (conv.bias.double() - norm.running_mean.double()) * gain
    return conv.weight.double() * gain[:, None, None, None], bias


def _numbers(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().float().numpy()


def _across(bias: torch.Tensor | None) -> np.ndarray:
    assert bias is not None
    return _numbers(bias).reshape(1, -1, 1, 1)
