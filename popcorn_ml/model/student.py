"""The student's network: all seasons of a place at once, one small U-Net, people in one pass.

Its inputs are what the seasons show on average (`mapping.together`), so that the speckle and
haze of single seasons are mostly gone before the first layer; its output is the occupancy, people
in a pixel that is fully built up, as of `popcorn.OccupancyModel`. Weights on disk are
`model.weights`' and `model.stored`'s matter, where a window lies is `model.canvas`'.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from popcorn_ml.model.canvas import occupancy_canvas
from popcorn_ml.model.stored import STUDENT_HEAD, STUDENT_WIDTHS


class ConvPair(nn.Module):
    """3 x 3 convolutions (zero-padded), each with a ReLU."""

    def __init__(self, channels_in: int, channels_out: int, count: int = 2) -> None:
        super().__init__()
        widths = [channels_in] + [channels_out] * count
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(widths)
        )

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = F.relu(conv(x), inplace=True)
        return x


class Student(nn.Module):
    """Occupancy of every pixel from what the seasons show together.

    Two halvings, as in the ensemble's members: a pixel depends on what lies within 23 pixels, so
    that tiles and canvas are theirs.

    Args:
        inputs: channels, those of `mapping.together` for some sensors.
    """

    people_per_score: Tensor
    """What occupancies are told in multiples of, (1,)."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        full, half, quarter = STUDENT_WIDTHS
        self.enter = ConvPair(inputs, full)
        self.down1 = ConvPair(full, half)
        self.down2 = ConvPair(half, quarter)
        self.up2 = ConvPair(half + quarter, half)
        self.up1 = ConvPair(full + half, full, 1)
        self.head = nn.Conv2d(full, STUDENT_HEAD, 1)
        self.last = nn.Conv2d(STUDENT_HEAD, 1, 1)
        self.register_buffer("people_per_score", torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """Occupancy of a whole raster: (n, inputs, h, w) -> (n, h, w), >= 0."""
        whole = occupancy_canvas(x.shape[-2], x.shape[-1]).whole()
        return whole.crop(self.occupancy_unpadded(whole.lay(x)))

    def occupancy_unpadded(self, x: Tensor) -> Tensor:
        """Occupancy of a piece of canvas, whose sides are multiples of four."""
        at_full = self.enter(x)
        at_half = self.down1(F.max_pool2d(at_full, 2))
        at_quarter = self.down2(F.max_pool2d(at_half, 2))
        up = self.up2(torch.cat([at_half, _doubled(at_quarter)], 1))
        up = self.up1(torch.cat([at_full, _doubled(up)], 1))
        return F.relu(self.last(F.relu(self.head(up), inplace=True)))[:, 0] * self.people_per_score


def _doubled(x: Tensor) -> Tensor:
    """Each pixel as four."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def new_student(inputs: int, people_per_score: float, seed: int) -> Student:
    """Where training begins: random weights after He et al. 2015 (arXiv 1502.01852), and a first
    guess of one and the same occupancy nearly everywhere.

    Args:
        people_per_score: that occupancy, people per built-up pixel.
        seed: of the weights; the global generator is left alone.
    """
    chance = torch.Generator().manual_seed(seed)
    model = Student(inputs)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=chance)
                bias: Any = module.bias
                bias.zero_()
        model.last.weight.normal_(0.0, 0.01, generator=chance)
        bias = model.last.bias
        bias.fill_(1.0)
        model.people_per_score.fill_(people_per_score)
    return model
