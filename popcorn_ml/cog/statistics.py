"""What a band's values are like, counted while they are written."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, sqrt

import numpy as np


@dataclass
class BandStatistics:
    """Smallest, largest and mean stored value of a band, and their spread, as it is written.

    Attributes:
        count: values that are not nodata.
        mean, squares: of these; the sum of the squares of what they differ from their mean.
    """

    count: int = 0
    smallest: float = inf
    largest: float = -inf
    mean: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, values: np.ndarray, nodata: float) -> BandStatistics:
        """Of the values of a window."""
        kept = values[~np.isnan(values)] if nodata != nodata else values[values != nodata]
        if kept.size == 0:
            return cls()
        seen = kept.astype(np.float64)
        mean = float(seen.mean())
        squares = float(((seen - mean) ** 2).sum())
        return cls(seen.size, float(seen.min()), float(seen.max()), mean, squares)

    def add(self, other: BandStatistics) -> None:
        """Count in what was written elsewhere (Chan, Golub and LeVeque 1979)."""
        if other.count == 0:
            return
        apart, total = other.mean - self.mean, self.count + other.count
        self.squares += other.squares + apart * apart * self.count * other.count / total
        self.mean += apart * other.count / total
        self.count = total
        self.smallest = min(self.smallest, other.smallest)
        self.largest = max(self.largest, other.largest)

    def as_fact(self) -> dict[str, float]:
        """The same as STAC names it; empty where there is no value."""
        if self.count == 0:
            return {}
        spread = sqrt(self.squares / self.count)
        return {
            "minimum": self.smallest, "maximum": self.largest, "mean": self.mean, "stddev": spread,
        }  # fmt: skip

    def tags(self) -> dict[str, str]:
        """The same under the names that GDAL and QGIS look for."""
        return {f"STATISTICS_{name.upper()}": repr(value) for name, value in self.as_fact().items()}
