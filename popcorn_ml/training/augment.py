"""What is varied between two sights of a unit: season, turning, mirroring, brightness, gamma.

Every draw is a function of (seed, epoch, unit) alone, so a resumed training makes the same ones,
whatever the order in which units are worked on.

The built-up score is not augmented with the image: it is computed once a season from the image as
it is (fault 11 of the published code was to recompute it at every step) and rides along with the
turning and mirroring, which move the pixels it belongs to. A score from a brightened image would
differ a little; the frozen extractor's answer to the true image is the better supervision anyway.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from popcorn_ml.model.unet import S1_CHANNELS
from popcorn_ml.sentinel import CHANNEL_MEAN, CHANNEL_STD, CHANNELS, S2_REFLECTANCE_SCALE

STRETCH_PROBABILITY = 0.9


@dataclass(frozen=True)
class Draw:
    """One sight of a unit.

    Attributes:
        season: index into the spec's seasons.
        quarter_turns: anticlockwise, 0..3, after mirroring.
        mirrored: left and right swapped.
        brightness: factor on Sentinel-2 reflectance (0..1).
        gamma: exponent on the brightened reflectance.
    """

    season: int
    quarter_turns: int = 0
    mirrored: bool = False
    brightness: float = 1.0
    gamma: float = 1.0


def draw(
    seed: int, epoch: int, number: int, seasons: tuple[int, ...], stretch: float = 1.5
) -> Draw:
    """What unit `number` (its `key`, of several countries) looks like in an epoch.

    Args:
        seed, epoch, number: all that the draw depends on.
        seasons: indices to draw from.
        stretch: brightness and gamma lie within 1 / stretch .. stretch; 1 leaves the image as it
            is.
    """
    chance = np.random.default_rng([seed, epoch, number])
    season = seasons[int(chance.integers(len(seasons)))]
    turns, mirrored = int(chance.integers(4)), bool(chance.integers(2))
    factors = [
        float(chance.uniform(1 / stretch, stretch))
        if chance.random() < STRETCH_PROBABILITY
        else 1.0
        for _ in range(2)
    ]
    return Draw(season, turns, mirrored, *factors)


def epoch_order(seed: int, epoch: int, count: int) -> list[int]:
    """Order of the units in an epoch: a permutation of 0..count-1."""
    return np.random.default_rng([seed, epoch]).permutation(count).tolist()


def turned(image: Tensor, drawn: Draw) -> Tensor:
    """Mirror, then turn, (..., h, w); odd turns swap the sides."""
    if drawn.mirrored:
        image = image.flip(-1)
    return torch.rot90(image, drawn.quarter_turns, (-2, -1)) if drawn.quarter_turns else image


def turned_pixels(pixels: Tensor, height: int, width: int, drawn: Draw) -> Tensor:
    """Where pixels, given by index into the flattened (height, width), come to lie by `turned`."""
    row = torch.div(pixels, width, rounding_mode="floor")
    col = pixels - row * width
    if drawn.mirrored:
        col = width - 1 - col
    for _ in range(drawn.quarter_turns):
        row, col = width - 1 - col, row
        height, width = width, height
    return row * width + col


def stretched(channels: Tensor, s2_missing: Tensor | None, drawn: Draw) -> Tensor:
    """Brightness and gamma on Sentinel-2, on reflectance and not on normalised values.

    Args:
        channels: (6, h, w), normalised; left as it is.
        s2_missing: bool (h, w), where Sentinel-2 was not observed: stays exactly 0.
        drawn: the factor and the exponent.
    """
    if drawn.brightness == 1.0 and drawn.gamma == 1.0:
        return channels
    bands = CHANNELS[S1_CHANNELS:]
    scale = channels.new_tensor([CHANNEL_STD[b] / S2_REFLECTANCE_SCALE for b in bands])
    shift = channels.new_tensor([CHANNEL_MEAN[b] / S2_REFLECTANCE_SCALE for b in bands])
    scale, shift = scale[:, None, None], shift[:, None, None]
    out = channels.clone()
    optical = out[S1_CHANNELS:]
    optical.mul_(scale).add_(shift).clamp_(min=0.0).mul_(drawn.brightness)
    if drawn.gamma != 1.0:
        optical.pow_(drawn.gamma)
    optical.sub_(shift).div_(scale)
    if s2_missing is not None:
        optical.masked_fill_(s2_missing, 0.0)
    return out
