"""The head and its gradient, written out: from features to people, over chunks of single pixels.

The same function as `OccupancyModel.occupancy_of_features`. A chunk of pixels stays in a core's
cache through all four layers and back; what it was on the way is kept where memory allows, else
computed again, which costs a third more.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from popcorn_ml.model.popcorn import OccupancyModel
from popcorn_ml.training.stream import Gradients, add_gradient

CHUNK_PX = 2048


class Head:
    """The head's weights, as of when it was made."""

    def __init__(self, model: OccupancyModel) -> None:
        self.layers: list[Any] = [m for m in model.head if isinstance(m, nn.Conv2d)]
        self.weights = [layer.weight.detach().flatten(1) for layer in self.layers]
        self.biases = [layer.bias.detach() for layer in self.layers]
        # Of the last layer's two outputs the second is not even computed.
        self.weights[-1], self.biases[-1] = self.weights[-1][:1], self.biases[-1][:1]

    def forward(self, features: Tensor) -> list[Tensor]:
        """What each layer gives: the features first, the occupancy, (pixels, 1), last."""
        values = [features]
        for weight, bias in zip(self.weights, self.biases, strict=True):
            values.append(torch.addmm(bias, values[-1], weight.t()).relu_())
        return values

    def backward(self, slope: Tensor, values: list[Tensor], sums: list[tuple[Tensor, Tensor]]):
        """Slope by the features, from that by the occupancy, (pixels, 1); adds to `sums`."""
        for number in reversed(range(len(self.weights))):
            slope = torch.ops.aten.threshold_backward(slope, values[number + 1], 0)
            by_weight, by_bias = sums[number]
            by_weight.addmm_(slope.t(), values[number])
            by_bias.add_(slope.sum(0))
            slope = slope @ self.weights[number]
        return slope

    def sums(self) -> list[tuple[Tensor, Tensor]]:
        """Where `backward` adds to."""
        return [
            (torch.zeros_like(weight), torch.zeros_like(bias))
            for weight, bias in zip(self.weights, self.biases, strict=True)
        ]

    def collect(self, sums: list[tuple[Tensor, Tensor]], into: Gradients) -> None:
        """Add the sums to the gradients of the layers' parameters."""
        for layer, (by_weight, by_bias) in zip(self.layers, sums, strict=True):
            for parameter, part in ((layer.weight, by_weight), (layer.bias, by_bias)):
                rest = parameter.shape[0] - part.shape[0]  # of the output that is not computed
                if rest:
                    part = torch.cat([part, part.new_zeros((rest, *part.shape[1:]))])
                add_gradient(into, parameter, part)
