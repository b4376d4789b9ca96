"""What a composite's values look like, counted exactly while tiles pass by, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from popcorn_ml.sentinel import S1_SCALE, Sensor

CODES = 65536


@dataclass
class BandStats:
    """Histogram of one band's values at the resolution composites are stored with.

    `scale` is the value of one code: 0.01 dB for Sentinel-1 (codes from -32768), 1 for Sentinel-2
    (codes from 0).
    """

    sensor: Sensor
    counts: np.ndarray = field(default_factory=lambda: np.zeros(CODES, np.int64))

    @property
    def scale(self) -> float:
        return S1_SCALE if self.sensor == "s1" else 1.0

    @property
    def lowest(self) -> int:
        """Value of the first code, in codes."""
        return -32768 if self.sensor == "s1" else 0

    def add(self, values: np.ndarray) -> None:
        """Count stored values: integers in the standard encoding, or floats in dB or x 10000.

        Nodata (the first code, or NaN) is not counted.
        """
        flat = values.reshape(-1)
        if flat.dtype.kind == "f":
            flat = flat[np.isfinite(flat)]
            flat = np.clip(np.rint(flat / self.scale), self.lowest + 1, self.lowest + CODES - 1)
            flat = flat.astype(np.int32)
        codes: np.ndarray
        if flat.dtype == np.int16 and self.lowest:
            codes = flat.view(np.uint16) ^ np.uint16(-self.lowest)  # from -32768 as from 0
        elif flat.dtype == np.uint16:
            codes = flat
        else:
            codes = flat.astype(np.int64) - self.lowest
        seen = np.bincount(codes, minlength=CODES)
        seen[0] = 0
        self.counts += seen

    def as_dict(self) -> dict[str, float | int | None]:
        """Count, mean, standard deviation, minimum, percentiles and maximum, in dB or x 10000."""
        total = int(self.counts.sum())
        if not total:
            return dict.fromkeys(("mean", "std", "min", "p02", "median", "p98", "max")) | {"n": 0}
        values = (np.arange(CODES) + self.lowest) * self.scale
        weights = self.counts / total
        mean = float((values * weights).sum())
        cumulated = np.cumsum(self.counts)

        def at(share: float) -> float:
            place = int(np.searchsorted(cumulated, max(share * total, 1)))
            return round(float(values[place]), 4)

        return {
            "n": total,
            "mean": round(mean, 4),
            "std": round(float(np.sqrt(((values - mean) ** 2 * weights).sum())), 4),
            "min": at(0.0),
            "p02": at(0.02),
            "median": at(0.5),
            "p98": at(0.98),
            "max": at(1.0),
        }


def clear_summary(counts: np.ndarray) -> dict[str, float | int]:
    """What a histogram of clear observations says.

    Args:
        counts: pixels with 0, 1, 2, ... clear observations.
    """
    total = int(counts.sum())
    if not total:
        return {
            "min": 0,
            "median": 0,
            "mean": 0.0,
            "max": 0,
            "none_share": 0.0,
            "single_share": 0.0,
        }
    seen = np.flatnonzero(counts)
    cumulated = np.cumsum(counts)
    return {
        "min": int(seen[0]),
        "median": int(np.searchsorted(cumulated, (total + 1) // 2)),
        "mean": round(float((counts * np.arange(counts.size)).sum() / total), 4),
        "max": int(seen[-1]),
        "none_share": round(float(counts[0] / total), 6),
        "single_share": round(float(counts[1] / total) if counts.size > 1 else 0.0, 6),
    }
