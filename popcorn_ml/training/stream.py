"""One sensor's U-Net and its gradient, written out: the fast way to train it on a CPU.

The same function as `model.unet.StreamUNet` with frozen batch norms, on `regions` alone. Written
out, and not left to autograd, because the networks are so small that what surrounds the
arithmetic costs as much as the arithmetic itself: every stage's part of the window is cut without
a gradient of the whole, batch norms are folded once a step and not once a unit, and memory is
written once where a sum or a ReLU can be taken in place. All tensors are channels-last.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from popcorn_ml.model.unet import DoubleConv, StreamUNet
from popcorn_ml.training.regions import AxisRegions, Regions

Gradients = dict[Tensor, Tensor]
"""A sum over pieces, by what it is the gradient of."""

_LAST = torch.channels_last


def add_gradient(into: Gradients, parameter: Tensor, gradient: Tensor) -> None:
    """Add a part, of any shape with as many values."""
    known = into.get(parameter)
    if known is None:
        into[parameter] = gradient.reshape(parameter.shape).contiguous()
    else:
        known.add_(gradient.reshape(parameter.shape))


class FoldedConv:
    """A 3 x 3 convolution with its frozen batch norm folded in, and a ReLU after it."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        assert conv.bias is not None
        assert norm.running_mean is not None
        assert norm.running_var is not None
        self.conv = conv
        self.gain = (norm.weight * torch.rsqrt(norm.running_var + norm.eps)).detach()
        weight = conv.weight.detach() * self.gain[:, None, None, None]
        self.weight = weight.contiguous(memory_format=_LAST)
        self.bias = (norm.bias + (conv.bias - norm.running_mean) * self.gain).detach()

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, padding=1).relu_()

    def backward(
        self, slope: Tensor, x: Tensor, y: Tensor, into: Gradients, further: bool = True
    ) -> Tensor:
        """Slope by `x`, from that by `y`, which is written over; none is asked for at the input.

        Args:
            slope: d loss / d y.
            x, y: what went in and came out.
            into: gets the gradients of weight and bias.
            further: whether the slope by `x` is wanted.
        """
        torch.ops.aten.threshold_backward.grad_input(slope, y, 0, grad_input=slope)
        by_x, by_weight, by_bias = torch.ops.aten.convolution_backward(
            slope,
            x,
            self.weight,
            [slope.shape[1]],
            [1, 1],
            [1, 1],
            [1, 1],
            False,
            [0, 0],
            1,
            [further, True, True],
        )
        add_gradient(into, self.conv.weight, by_weight * self.gain[:, None, None, None])
        assert self.conv.bias is not None
        add_gradient(into, self.conv.bias, by_bias * self.gain)
        return by_x


class FoldedPair:
    """`model.unet.DoubleConv`."""

    def __init__(self, block: DoubleConv) -> None:
        self.first = FoldedConv(block.conv1, block.norm1)
        self.second = FoldedConv(block.conv2, block.norm2)

    def forward(self, x: Tensor, tape: list[Tensor]) -> Tensor:
        """Leaves on the tape what `backward` takes from it."""
        middle = self.first.forward(x)
        y = self.second.forward(middle)
        tape += [x, middle, y]
        return y

    def backward(
        self, slope: Tensor, tape: list[Tensor], into: Gradients, further: bool = True
    ) -> Tensor:
        y, middle, x = tape.pop(), tape.pop(), tape.pop()
        slope = self.second.backward(slope, middle, y, into)
        return self.first.backward(slope, x, middle, into, further)


class Raise:
    """The 2 x 2 transposed convolution of stride 2: each pixel gives four, by one product."""

    def __init__(self, layer: nn.ConvTranspose2d) -> None:
        self.layer = layer
        channels = layer.weight.shape[0]
        # (channels below, row and column among the four, channels raised)
        self.weight = layer.weight.detach().permute(0, 2, 3, 1).reshape(channels, -1).contiguous()
        assert layer.bias is not None
        self.bias = layer.bias.detach().repeat(4)

    def forward(self, below: Tensor, joined: Tensor, skipped: int) -> None:
        """Write the raised pixels of `below` behind the first `skipped` channels of `joined`."""
        _, channels, height, width = below.shape
        four = torch.addmm(self.bias, _rows(below), self.weight)
        four = four.view(height, width, 2, 2, channels).permute(0, 2, 1, 3, 4)
        raised = joined[0, skipped:].permute(1, 2, 0)
        raised.unflatten(1, (width, 2)).unflatten(0, (height, 2)).copy_(four)

    def backward(self, slope: Tensor, below: Tensor, skipped: int, into: Gradients) -> Tensor:
        _, channels, height, width = below.shape
        raised = slope[0, skipped:].permute(1, 2, 0)
        raised = raised.unflatten(1, (width, 2)).unflatten(0, (height, 2))
        four = raised.permute(0, 2, 1, 3, 4).reshape(height * width, -1)
        by_weight = _rows(below).t() @ four
        add_gradient(
            into, self.layer.weight, by_weight.view(channels, 2, 2, channels).permute(0, 3, 1, 2)
        )
        assert self.layer.bias is not None
        add_gradient(into, self.layer.bias, four.sum(0).view(4, channels).sum(0))
        return _image(four @ self.weight.t(), height, width)


@dataclass
class StreamTape:
    """What a stream's gradient is taken from."""

    regions: Regions
    steps: list[Tensor]
    full: Tensor
    half: Tensor
    quarter: Tensor
    half_up: Tensor
    pooled: list[Tensor]


class Stream:
    """`model.unet.StreamUNet` with its weights folded, as of when it was made."""

    def __init__(self, unet: StreamUNet) -> None:
        self.enter = FoldedPair(unet.enter)
        self.down1, self.down2 = FoldedPair(unet.down1), FoldedPair(unet.down2)
        self.raise2, self.up2 = Raise(unet.up2.raise_), FoldedPair(unet.up2.convs)
        self.raise1, self.up1 = Raise(unet.up1.raise_), FoldedPair(unet.up1.convs)

    def forward(self, x: Tensor, regions: Regions) -> tuple[Tensor, StreamTape]:
        """Features of the last stage's region: (1, channels, h, w) -> (1, 8, up1's h, up1's w)."""
        steps: list[Tensor] = []
        full = self.enter.forward(_cut(x, regions, "enter"), steps)
        at_half, where1 = F.max_pool2d(full, 2, return_indices=True)
        half = self.down1.forward(_within(at_half, regions, "down1", "enter", 2), steps)
        at_quarter, where2 = F.max_pool2d(half, 2, return_indices=True)
        quarter = self.down2.forward(_within(at_quarter, regions, "down2", "down1", 2), steps)
        joined = _joined(_within(half, regions, "up2", "down1"), quarter.shape[1])
        self.raise2.forward(_below(quarter, regions, "up2", "down2"), joined, half.shape[1])
        half_up = self.up2.forward(joined, steps)
        joined = _joined(_within(full, regions, "up1", "enter"), half_up.shape[1])
        self.raise1.forward(_below(half_up, regions, "up1", "up2"), joined, full.shape[1])
        features = self.up1.forward(joined, steps)
        tape = StreamTape(regions, steps, full, half, quarter, half_up, [where1, where2])
        return features, tape

    def backward(self, slope: Tensor, tape: StreamTape, into: Gradients) -> None:
        """Add the gradient, from the slope by the features, which is written over.

        The tape is used up.
        """
        regions, steps = tape.regions, tape.steps
        slope = self.up1.backward(slope, steps, into)
        below = _below(tape.half_up, regions, "up1", "up2")
        skipped = tape.full.shape[1]
        by_full = slope[:, :skipped]
        by_half_up = torch.zeros_like(tape.half_up)
        _below(by_half_up, regions, "up1", "up2").copy_(
            self.raise1.backward(slope, below, skipped, into)
        )
        slope = self.up2.backward(by_half_up, steps, into)
        below = _below(tape.quarter, regions, "up2", "down2")
        skipped = tape.half.shape[1]
        by_half = slope[:, :skipped]
        by_quarter = torch.zeros_like(tape.quarter)
        _below(by_quarter, regions, "up2", "down2").copy_(
            self.raise2.backward(slope, below, skipped, into)
        )
        slope = self.down2.backward(by_quarter, steps, into)
        slope = _unpooled(slope, tape.half, tape.pooled[1], regions, "down2", "down1")
        _within(slope, regions, "up2", "down1").add_(by_half)
        slope = self.down1.backward(slope, steps, into)
        slope = _unpooled(slope, tape.full, tape.pooled[0], regions, "down1", "enter")
        _within(slope, regions, "up1", "enter").add_(by_full)
        self.enter.backward(slope, steps, into, further=False)


def _unpooled(
    slope: Tensor, x: Tensor, where: Tensor, regions: Regions, stage: str, above: str
) -> Tensor:
    """Slope by what was pooled, from that by the part of it that the next stage looked at."""
    whole = torch.zeros(where.shape, dtype=x.dtype).contiguous(memory_format=_LAST)
    _within(whole, regions, stage, above, 2).copy_(slope)
    return torch.ops.aten.max_pool2d_with_indices_backward(
        whole, x, [2, 2], [2, 2], [0, 0], [1, 1], False, where
    )


def _joined(skip: Tensor, raised: int) -> Tensor:
    """Room for the skip, filled, and as many raised channels behind it, not filled."""
    _, channels, height, width = skip.shape
    joined = torch.empty((1, channels + raised, height, width), memory_format=_LAST)
    joined[:, :channels].copy_(skip)
    return joined


def _cut(x: Tensor, regions: Regions, stage: str) -> Tensor:
    rows, cols = (getattr(axis, stage) for axis in (regions.rows, regions.cols))
    return x[..., rows[0] : rows[1], cols[0] : cols[1]].contiguous(memory_format=_LAST)


def _within(x: Tensor, regions: Regions, stage: str, of: str, pooled: int = 1) -> Tensor:
    """The part of `x` that a stage looks at, `x` being stage `of`, perhaps pooled since."""

    def along(axis: AxisRegions) -> slice:
        (first, last), start = getattr(axis, stage), getattr(axis, of)[0] // pooled
        return slice(first - start, last - start)

    return x[..., along(regions.rows), along(regions.cols)]


def _below(x: Tensor, regions: Regions, stage: str, of: str) -> Tensor:
    """The part of `x` that is raised for a stage, `x` being stage `of` at half its resolution."""

    def along(axis: AxisRegions) -> slice:
        (first, last), start = getattr(axis, stage), getattr(axis, of)[0]
        return slice(first // 2 - start, last // 2 - start)

    return x[..., along(regions.rows), along(regions.cols)]


def _rows(x: Tensor) -> Tensor:
    """(1, channels, h, w) as (h x w, channels)."""
    return x[0].permute(1, 2, 0).reshape(-1, x.shape[1])


def _image(rows: Tensor, height: int, width: int) -> Tensor:
    """(h x w, channels) as (1, channels, h, w), channels-last."""
    return rows.view(height, width, -1).permute(2, 0, 1)[None]
