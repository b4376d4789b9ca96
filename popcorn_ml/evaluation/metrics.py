"""Agreement between true and predicted people: R2, MAE, RMSE, bias.

What was not predicted is never scored as zero: such cells are left out of every figure and counted
beside them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Scores:
    """Sums behind the metrics of some cells; `+` joins those of two sets of cells.

    Attributes:
        n: cells with a true and a predicted value.
        truth_mean, truth_m2: mean of the true values, and sum of their squared distances from it.
        error, absolute, squared: sums of predicted - true, of its absolute value, of its square.
        unpredicted: cells with a true value and no predicted one.
        unpredicted_people: true people in them.
    """

    n: int = 0
    truth_mean: float = 0.0
    truth_m2: float = 0.0
    error: float = 0.0
    absolute: float = 0.0
    squared: float = 0.0
    unpredicted: int = 0
    unpredicted_people: float = 0.0

    @classmethod
    def of(cls, truth: np.ndarray, predicted: np.ndarray) -> Scores:
        """Scores of cells.

        Args:
            truth, predicted: people per cell, of one shape. NaN in `truth`: the cell is not known
                and is ignored. NaN in `predicted` alone: the cell counts as unpredicted.

        Raises:
            ValueError: the shapes differ.
        """
        if truth.shape != predicted.shape:
            raise ValueError(f"truth of shape {truth.shape}, predicted of {predicted.shape}")
        known = ~np.isnan(truth)
        both = known & ~np.isnan(predicted)
        left_out = truth[known & ~both].astype(np.float64)
        t = truth[both].astype(np.float64)
        if t.size == 0:
            return cls(unpredicted=left_out.size, unpredicted_people=float(left_out.sum()))
        difference = predicted[both].astype(np.float64) - t
        mean = float(t.mean())
        return cls(
            n=t.size,
            truth_mean=mean,
            truth_m2=float(((t - mean) ** 2).sum()),
            error=float(difference.sum()),
            absolute=float(np.abs(difference).sum()),
            squared=float((difference**2).sum()),
            unpredicted=left_out.size,
            unpredicted_people=float(left_out.sum()),
        )

    def __add__(self, other: Scores) -> Scores:
        """Both together (Chan, Golub and LeVeque 1983 for the sum of squares about the mean)."""
        n = self.n + other.n
        apart = other.truth_mean - self.truth_mean
        share = other.n / n if n else 0.0
        return Scores(
            n=n,
            truth_mean=self.truth_mean + apart * share,
            truth_m2=self.truth_m2 + other.truth_m2 + apart**2 * self.n * share,
            error=self.error + other.error,
            absolute=self.absolute + other.absolute,
            squared=self.squared + other.squared,
            unpredicted=self.unpredicted + other.unpredicted,
            unpredicted_people=self.unpredicted_people + other.unpredicted_people,
        )

    @property
    def r2(self) -> float:
        """Coefficient of determination, 1 - SSE / SST; NaN where the truth does not vary."""
        return 1.0 - self.squared / self.truth_m2 if self.truth_m2 > 0 else math.nan

    @property
    def mae(self) -> float:
        """Mean absolute error, people per cell."""
        return self.absolute / self.n if self.n else math.nan

    @property
    def rmse(self) -> float:
        """Root of the mean squared error, people per cell."""
        return math.sqrt(self.squared / self.n) if self.n else math.nan

    @property
    def bias(self) -> float:
        """Mean of predicted - true, people per cell."""
        return self.error / self.n if self.n else math.nan

    def as_dict(self) -> dict[str, float | int | None]:
        """r2 (a fraction), mae, rmse, bias, n, unpredicted, unpredicted_people; NaN as None."""
        figures = {"r2": self.r2, "mae": self.mae, "rmse": self.rmse, "bias": self.bias}
        return {
            **{name: None if math.isnan(value) else value for name, value in figures.items()},
            "n": self.n,
            "unpredicted": self.unpredicted,
            "unpredicted_people": self.unpredicted_people,
        }
