"""How far a student is from its teacher: absolute differences of squares, or Huber's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from popcorn_ml.model.student import Student
from popcorn_ml.student.crops import Crop
from popcorn_ml.student.loss import crop_loss, squares
from popcorn_ml.student.spec import StudentSpec
from tests.student.test_spec import values

SIDE = 20


class Says(Student):
    """Says the same occupancy everywhere."""

    def __init__(self, occupancy: float) -> None:
        super().__init__(3)
        self.occupancy = occupancy

    def occupancy_unpadded(self, x: torch.Tensor) -> torch.Tensor:
        return torch.full((1, SIDE, SIDE), self.occupancy)


def crop_of(people: np.ndarray, told: np.ndarray) -> Crop:
    whole = slice(0, SIDE)
    return Crop(
        torch.zeros(1, 3, SIDE, SIDE),
        (whole, whole),
        torch.ones(SIDE, SIDE),
        torch.from_numpy(people.astype(np.float32)),
        torch.from_numpy(told.astype(np.float32)),
    )


def expected(apart: np.ndarray, delta: float) -> float:
    """Huber's loss as it is defined, or the absolute difference."""
    size = np.abs(apart)
    if delta == 0:
        return float(size.mean())
    return float(np.where(size <= delta, size**2 / 2, delta * (size - delta / 2)).mean())


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.3, 1.0, 50.0]), st.floats(0.0, 3.0))
def test_it_is_what_it_says(seed: int, delta: float, occupancy: float) -> None:
    chance = np.random.default_rng(seed)
    people, told = chance.gamma(0.5, 4.0, (SIDE, SIDE)), chance.random((SIDE, SIDE)) < 0.8
    spec = StudentSpec(**values(huber_delta=delta, cell_px=5))
    found = crop_loss(Says(occupancy), crop_of(people, told), spec, scale=10.0)
    apart = np.where(told, occupancy - people, 0).reshape(4, 5, 4, 5).sum((1, 3)) / 10
    assert float(found) == pytest.approx(expected(apart, delta), rel=1e-4, abs=1e-6)


def test_unsure_students_say_the_mean_with_a_delta_and_the_lesser_half_without() -> None:
    """Of squares that look alike a quarter hold 40 people, the others none."""
    people = np.zeros((SIDE, SIDE))
    people[:5] = 40 / 25
    crop = crop_of(people, np.ones((SIDE, SIDE), bool))

    def best(delta: float) -> float:
        spec = StudentSpec(**values(huber_delta=delta, cell_px=5))
        tried = np.linspace(0, 2, 81)
        losses = [float(crop_loss(Says(each), crop, spec, scale=10.0)) for each in tried]
        return float(tried[int(np.argmin(losses))]) * SIDE**2

    assert best(0.0) == 0
    assert best(100.0) == pytest.approx(people.sum(), rel=0.05)


def test_squares_hold_the_people_of_their_pixels() -> None:
    values_ = torch.rand(23, 11)
    found = squares(values_, 5)
    assert found.shape == (4, 2)
    assert float(found.sum()) == pytest.approx(float(values_[:20, :10].sum()), rel=1e-5)
