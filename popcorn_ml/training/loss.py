"""The loss of one census unit and its gradient, also of a unit that memory does not hold at once.

Loss = 100 x (|log(predicted + 1) - log(counted + 1)| + w x mean occupancy over the unit's pixels),
averaged over the units of a step. Each unit goes through the network alone, so no unit is padded
to another's size and a large one weighs no more than a small one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from popcorn_ml.model.popcorn import OccupancyModel, population

LOSS_SCALE = 100.0


@dataclass(frozen=True)
class Piece:
    """A unit, or one tile of it, as the network is to see it.

    Attributes:
        channels: (6, h, w), on the canvas, h and w multiples of 4.
        pixels: indices of the unit's own pixels in the flattened (h, w), int64 (pixels,).
        score: their built-up score, float32 (pixels,), as in `samples.Sample`.
    """

    channels: Tensor
    pixels: Tensor
    score: Tensor


@dataclass(frozen=True)
class UnitLoss:
    """What one unit gave: all plain floats but the gradient (None where none was asked for)."""

    loss: float
    log_l1: float
    predicted: float
    occupancy: float
    gradient: tuple[Tensor, ...] | None


Arithmetic = Callable[[], AbstractContextManager]
"""Makes the context that the network runs in, for instance autocast."""


def piece_values(
    model: OccupancyModel, piece: Piece, arithmetic: Arithmetic = nullcontext
) -> tuple[Tensor, Tensor]:
    """People predicted on each of a piece's pixels, and their occupancy, both float32 (pixels,).

    The U-Net runs over the whole piece, the head (half the work) on the unit's own pixels alone.
    """
    with arithmetic():
        image = piece.channels[None].contiguous(memory_format=torch.channels_last)
        features = model.unet(image)[0]
        rows = features.permute(1, 2, 0).reshape(-1, features.shape[0])
        occupancy = model.occupancy_of_features(rows.index_select(0, piece.pixels))
    occupancy = occupancy.float()
    return population(occupancy, piece.score), occupancy


def piece_sums(
    model: OccupancyModel, piece: Piece, arithmetic: Arithmetic = nullcontext
) -> tuple[Tensor, Tensor]:
    """Sums of `piece_values`: people on a piece's pixels and occupancy, both float32 scalars."""
    people, occupancy = piece_values(model, piece, arithmetic)
    return people.sum(), occupancy.sum()


def log_l1(predicted: Tensor, people: float) -> Tensor:
    """|log(predicted + 1) - log(people + 1)|."""
    return (torch.log(predicted + 1) - torch.log(predicted.new_tensor(people + 1))).abs()


def unit_loss(
    model: OccupancyModel,
    pieces: Sequence[Callable[[], Piece]],
    people: float,
    pixels: int,
    occupancy_weight: float,
    parameters: Sequence[Tensor] | None,
    arithmetic: Arithmetic = nullcontext,
) -> UnitLoss:
    """Loss of a unit, with its gradient if `parameters` are given.

    Args:
        model: the network.
        pieces: makers of the unit's pieces. One: the gradient is taken straight. Several: the
            loss is not a sum over pieces (it has a logarithm of the whole), but by the chain rule
            its gradient is, once the whole is known: a first pass without gradients sums the
            unit, a second takes each piece's gradient weighted with d loss / d predicted and lets
            go of its memory. The same gradient as in one go, up to rounding, with no pixel and no
            person left out.
        people: counted in the unit.
        pixels: the unit's pixels over all pieces.
        occupancy_weight: of the mean occupancy.
        parameters: what to differentiate by; None for the loss alone.
        arithmetic: see `Arithmetic`.
    """
    grows = parameters is not None and len(pieces) == 1
    with torch.set_grad_enabled(grows):
        sums = [piece_sums(model, make(), arithmetic) for make in pieces]
    predicted = torch.stack([people_sum for people_sum, _ in sums]).sum()
    occupancy = torch.stack([occupancy_sum for _, occupancy_sum in sums]).sum() / pixels
    if not grows:
        predicted = predicted.detach().requires_grad_(parameters is not None)
    distance = log_l1(predicted, people)
    loss = LOSS_SCALE * (distance + occupancy_weight * occupancy)

    gradient: tuple[Tensor, ...] | None = None
    if parameters is not None and grows:
        gradient = torch.autograd.grad(loss, list(parameters))
    elif parameters is not None:
        (slope,) = torch.autograd.grad(loss, predicted)
        total = [torch.zeros_like(parameter) for parameter in parameters]
        for make in pieces:
            people_sum, occupancy_sum = piece_sums(model, make(), arithmetic)
            share = slope * people_sum + LOSS_SCALE * occupancy_weight / pixels * occupancy_sum
            for whole, part in zip(
                total, torch.autograd.grad(share, list(parameters)), strict=True
            ):
                whole.add_(part)
        gradient = tuple(total)
    return UnitLoss(
        loss=float(loss.detach()),
        log_l1=float(distance.detach()),
        predicted=float(predicted.detach()),
        occupancy=float(occupancy.detach()),
        gradient=gradient,
    )
