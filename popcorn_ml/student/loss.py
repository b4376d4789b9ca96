"""How far a student's people are from the teacher's, on the small squares of a crop.

Single pixels of a teacher are noisy, and a census unit is too large to tell a roof from a yard; in
between, sums of small squares are compared: their differences over the mean of the teacher's
squares in the step, so that neither towns nor villages rule.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from popcorn_ml.model.popcorn import population
from popcorn_ml.model.student import Student
from popcorn_ml.student.crops import Crop
from popcorn_ml.student.spec import StudentSpec

FLOOR = 0.02
"""People a pixel that the mean is raised by: of empty crops nothing is to be learnt but that."""


def squares(values: Tensor, cell_px: int) -> Tensor:
    """Sums of the squares of a side that fit into (rows, columns), from the first corner on."""
    rows, cols = (max(side // cell_px, 1) * min(cell_px, side) for side in values.shape)
    cell = min(cell_px, *values.shape)
    return F.avg_pool2d(values[None, None, :rows, :cols], cell)[0, 0] * cell**2


def scale_of(crops: Sequence[Crop], cell_px: int) -> float:
    """What the differences of a step are divided by: mean people of the teacher's squares."""
    means = [float(squares(crop.people, cell_px).mean()) for crop in crops]
    return sum(means) / len(means) + FLOOR * cell_px**2


def crop_loss(model: Student, crop: Crop, spec: StudentSpec, scale: float) -> Tensor:
    """Mean over a crop's squares of how far they are apart, over `scale`; a scalar with its graph.

    Absolute differences d; with a delta (Huber 1964, doi 10.1214/aoms/1177703732) half of d squared
    where d is at most delta, and delta * (d - delta / 2) beyond.
    """
    occupancy = model.occupancy_unpadded(crop.inputs)[0][crop.core]
    people = population(occupancy, crop.score)
    apart = squares((people - crop.people) * crop.told, spec.cell_px) / scale
    if not spec.delta:
        return apart.abs().mean()
    return F.huber_loss(apart, torch.zeros_like(apart), delta=spec.delta)
