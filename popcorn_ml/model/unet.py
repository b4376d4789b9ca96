"""The dual-stream U-Net: one small U-Net a sensor, its features side by side.

Architecture of Metzger et al. 2024 (arXiv 2311.14006). No heads, no padding and no weights on
disk; those are `popcorn`, `canvas` and `weights`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

S1_CHANNELS = 2
S2_CHANNELS = 4
STREAM_FEATURES = 8
"""Features that each sensor's stream gives, at full resolution."""


class DoubleConv(nn.Module):
    """Twice a 3 x 3 convolution (zero-padded), batch norm and ReLU.

    While its batch norms are frozen (eval mode) they are folded into the convolutions' weights,
    with the gradients still flowing to all four: the same function, and a third less time.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return _conv_norm_relu(_conv_norm_relu(x, self.conv1, self.norm1), self.conv2, self.norm2)


def _conv_norm_relu(x: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
    if norm.training:
        return F.relu(norm(conv(x)), inplace=True)
    assert conv.bias is not None
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    weight = conv.weight * gain[:, None, None, None]
    bias = norm.bias + (conv.bias - norm.running_mean) * gain
    return F.relu(F.conv2d(x, weight, bias, padding=1), inplace=True)


class Up(nn.Module):
    """Double the resolution with a transposed convolution, join the skip, double conv."""

    def __init__(self, channels_below: int, channels_skip: int, channels_out: int) -> None:
        super().__init__()
        self.raise_ = nn.ConvTranspose2d(channels_below, channels_below, 2, stride=2)
        self.convs = DoubleConv(channels_skip + channels_below, channels_out)

    def forward(self, below: Tensor, skip: Tensor) -> Tensor:
        raised = self.raise_(below)
        rows, cols = skip.shape[-2] - raised.shape[-2], skip.shape[-1] - raised.shape[-1]
        if rows or cols:
            # Halving an odd side loses one row, so the difference is at most one pixel, and
            # centring it puts the zero after the last row or column.
            raised = F.pad(raised, (cols // 2, cols - cols // 2, rows // 2, rows - rows // 2))
        return self.convs(torch.cat([skip, raised], dim=1))


class StreamUNet(nn.Module):
    """U-Net of one sensor, widths 8 and 16, two halvings.

    (n, channels, h, w) -> (n, 8, h, w), any h and w of at least 4.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter = DoubleConv(channels, 8)
        self.down1 = DoubleConv(8, 16)
        self.down2 = DoubleConv(16, 16)
        self.up2 = Up(16, 16, 8)
        self.up1 = Up(8, 8, STREAM_FEATURES)

    def forward(self, x: Tensor) -> Tensor:
        full = self.enter(x)
        half = self.down1(F.max_pool2d(full, 2))
        quarter = self.down2(F.max_pool2d(half, 2))
        return self.up1(self.up2(quarter, half), full)


class DualStreamUNet(nn.Module):
    """A `StreamUNet` for Sentinel-1 and one for Sentinel-2.

    Channels are those of `sentinel.CHANNELS`: VV, VH, then B02, B03, B04, B08.
    """

    def __init__(self) -> None:
        super().__init__()
        self.s1 = StreamUNet(S1_CHANNELS)
        self.s2 = StreamUNet(S2_CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 6, h, w) -> (n, 16, h, w): Sentinel-1's features, then Sentinel-2's."""
        return torch.cat([self.s1(x[:, :S1_CHANNELS]), self.s2(x[:, S1_CHANNELS:])], dim=1)
