"""The two networks of POPCORN: built-up area extractor and occupancy model.

After Metzger et al. 2024 (arXiv 2311.14006). Inputs are normalised channels in the order of
`sentinel.CHANNELS` (`inputs.read_channels` makes them); outputs are per pixel. Reading rasters,
tiles and weights on disk are elsewhere.
"""

from __future__ import annotations

import copy
import itertools
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from popcorn_ml.model.canvas import extractor_canvas, occupancy_canvas
from popcorn_ml.model.unet import S1_CHANNELS, STREAM_FEATURES, DualStreamUNet

Sensors = Literal["both", "s1", "s2"]

HEAD_WIDTH = 64
HEAD_OUTPUTS = 2
"""As published; only the first is the occupancy. The second is kept so that weights fit."""


class BuiltupExtractor(nn.Module):
    """Built-up score of every pixel, 0..1, from both sensors or from one.

    Frozen wherever the method uses it: call `.eval()` (loading does) before reading its scores.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unet = DualStreamUNet()
        self.score_both = nn.Conv2d(2 * STREAM_FEATURES, 1, 1)
        self.score_s1 = nn.Conv2d(STREAM_FEATURES, 1, 1)
        self.score_s2 = nn.Conv2d(STREAM_FEATURES, 1, 1)

    def forward(self, x: Tensor, sensors: Sensors = "both") -> Tensor:
        """Score of a whole raster.

        Args:
            x: (n, 6, h, w), normalised; with one sensor the other's channels are not looked at.
            sensors: which streams to use.

        Returns:
            (n, h, w), 0..1.
        """
        whole = extractor_canvas(x.shape[-2], x.shape[-1]).whole()
        return whole.crop(self.score_unpadded(whole.lay(x), sensors))

    def score_unpadded(self, x: Tensor, sensors: Sensors = "both") -> Tensor:
        """Score of a piece of canvas, which already holds its border: (n, 6, h, w) -> (n, h, w)."""
        return torch.sigmoid(self.logits_unpadded(x, sensors))

    def logits_unpadded(self, x: Tensor, sensors: Sensors = "both") -> Tensor:
        """What the sigmoid is taken of: (n, 6, h, w) -> (n, h, w)."""
        if sensors == "both":
            return self.score_both(self.unet(x))[:, 0]
        if sensors == "s1":
            return self.score_s1(self.unet.s1(x[:, :S1_CHANNELS]))[:, 0]
        if sensors == "s2":
            return self.score_s2(self.unet.s2(x[:, S1_CHANNELS:]))[:, 0]
        raise ValueError(f"sensors must be 'both', 's1' or 's2', not {sensors!r}")


class OccupancyModel(nn.Module):
    """Occupancy: people in a pixel that is fully built up. The part that is trained.

    Its batch norms stay as the extractor left them, statistics, scale and shift (the published
    training step agrees only so): `train()` does not wake them and they take no gradient.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unet = DualStreamUNet()
        widths = (2 * STREAM_FEATURES, HEAD_WIDTH, HEAD_WIDTH, HEAD_WIDTH, HEAD_OUTPUTS)
        layers: list[nn.Module] = []
        for width_in, width_out in itertools.pairwise(widths):
            layers += [nn.Conv2d(width_in, width_out, 1), nn.ReLU()]
        self.head = nn.Sequential(*layers[:-1])
        for module in self.unet.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> OccupancyModel:
        """Set the mode of everything but the batch norms, which stay frozen."""
        super().train(mode)
        for module in self.unet.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Occupancy of a whole raster: (n, 6, h, w) -> (n, h, w), people a built-up pixel, >= 0."""
        whole = occupancy_canvas(x.shape[-2], x.shape[-1]).whole()
        return whole.crop(self.occupancy_unpadded(whole.lay(x)))

    def occupancy_unpadded(self, x: Tensor) -> Tensor:
        """Occupancy of a piece of canvas, which already holds its border."""
        features = self.unet(x)
        n, channels, height, width = features.shape
        pixels = features.permute(0, 2, 3, 1).reshape(-1, channels)
        return self.occupancy_of_features(pixels).reshape(n, height, width)

    def occupancy_of_features(self, features: Tensor) -> Tensor:
        """Occupancy of single pixels from the U-Net's features: (pixels, 16) -> (pixels,).

        The head looks at one pixel at a time, so that it can be run where it is needed only. Of
        its two outputs the second is not even computed.
        """
        x = features
        for layer in list(self.head)[:-1]:
            if isinstance(layer, nn.Conv2d):
                x = F.linear(x, layer.weight.flatten(1), layer.bias)
            else:
                x = F.relu(x, inplace=True)
        last: Any = self.head[-1]
        return F.relu(F.linear(x, last.weight[:1].flatten(1), last.bias[:1]))[:, 0]


def population(occupancy: Any, builtup_score: Any) -> Any:
    """People in each pixel (a count, not a density): occupancy x built-up score, any shape."""
    return occupancy * builtup_score


def from_extractor(extractor: BuiltupExtractor, initial_bias: float, seed: int) -> OccupancyModel:
    """Where training starts: the extractor's U-Net, and a head drawn from `seed`.

    Args:
        extractor: its U-Net is copied.
        initial_bias: bias of the head's last layer, so to say the first guess at the occupancy in
            people per built-up pixel.
        seed: of the head's random weights; the global generator is left alone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = OccupancyModel()
    model.unet.load_state_dict(copy.deepcopy(extractor.unet.state_dict()))
    last: Any = model.head[-1]
    with torch.no_grad():
        last.bias.fill_(initial_bias)
    return model.train()
