"""What a student is given: all seasons of a place as one image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from popcorn_ml.raster_values import Meaning, meant
from popcorn_ml.sentinel import BANDS, CHANNEL_MEAN, CHANNEL_STD, SENSORS, Sensor


class SeasonsTogether:
    """What the seasons show of a place on average: the input of a student.

    Of each pixel only the seasons count in which all its channels were observed and it has a
    built-up score, as in an ensemble's map. Where none does, inputs are 0, as of channels that were
    not observed.

    Args:
        shape: rows, columns.
        sensors: whose channels to take.

    Attributes:
        count: float32 (rows, columns), how many seasons count.
    """

    def __init__(self, shape: tuple[int, ...], sensors: Sequence[Sensor] = SENSORS) -> None:
        self._sensors = tuple(sensors)
        self._sums = {s: np.zeros((len(BANDS[s]), *shape), np.float32) for s in sensors}
        self._meanings: dict[Sensor, Meaning] = {}
        self._score = np.zeros(shape, np.float32)
        self.count = np.zeros(shape, np.float32)

    def add(self, read: Mapping[Sensor, tuple[np.ndarray, Meaning]], score: np.ndarray) -> None:
        """Take one season.

        Args:
            read: as `inputs.read_stored` gives it, of these sensors.
            score: built-up score, NaN where there is none.
        """
        counts = ~np.isnan(score)
        stored = {}
        for sensor in self._sensors:
            values, meaning = read[sensor]
            known = self._meanings.setdefault(sensor, meaning)
            if meaning != known:
                values = _said_as(known, values, meaning)
            stored[sensor] = values
            missing = _missing(values, known)
            if missing is not None:
                counts &= ~missing
        if not counts.any():
            return
        every = bool(counts.all())
        for sensor, values in stored.items():
            total = self._sums[sensor]
            # Whole numbers of two bytes: their sums are exact.
            np.add(total, values, out=total, where=True if every else counts, casting="unsafe")
        if every:
            self._score += score
            self.count += 1
        else:
            np.add(self._score, score, out=self._score, where=counts)
            self.count += counts

    def inputs(self) -> np.ndarray:
        """float32 (inputs, rows, columns): of each channel the mean of the seasons, normalised as
        `inputs.read_channels` does, then the mean of the built-up score, from -1 to 1."""
        share = np.float32(1) / np.maximum(self.count, np.float32(1))
        seen = np.minimum(self.count, np.float32(1))
        every = bool(seen.all())
        found = np.empty((inputs_of(self._sensors), *self.count.shape), np.float32)
        place = 0
        for sensor, total in self._sums.items():
            meaning = self._meanings.get(sensor)
            for i, band in enumerate(BANDS[sensor]):
                channel, std = found[place], CHANNEL_STD[band]
                place += 1
                if meaning is None:
                    channel[:] = 0
                    continue
                nil = (meaning.offsets[i] - CHANNEL_MEAN[band]) / std
                np.multiply(total[i], share, out=channel)
                channel *= np.float32(meaning.scales[i] / std)
                channel += np.float32(nil) if every else np.float32(nil) * seen
        np.multiply(self._score, np.float32(2) * share, out=found[-1])
        found[-1] -= seen
        return found

    def score(self) -> np.ndarray:
        """Mean built-up score of the seasons that count, NaN where none does."""
        with np.errstate(invalid="ignore"):
            return self._score / self.count


def _missing(values: np.ndarray, meaning: Meaning) -> np.ndarray | None:
    """Pixels where any band has no value; None where there are none."""
    missing: np.ndarray | None = None
    for band, nodata in zip(values, meaning.nodata, strict=False):
        if band.dtype.kind == "f":
            here = ~np.isfinite(band)
            if nodata is not None:
                here |= band == nodata
        elif nodata is None:
            continue
        else:
            here = band == nodata
        missing = here if missing is None else np.logical_or(missing, here, out=missing)
    return missing if missing is not None and missing.any() else None


def _said_as(known: Meaning, values: np.ndarray, meaning: Meaning) -> np.ndarray:
    """Values of another meaning in the numbers of a known one, NaN where there are none."""
    found = meant(values, range(1, len(values) + 1), meaning)
    for i, band in enumerate(found):
        band -= np.float32(known.offsets[i])
        band /= np.float32(known.scales[i])
    return found


def inputs_of(sensors: Sequence[Sensor]) -> int:
    """How many inputs a student of some sensors has."""
    return sum(len(BANDS[sensor]) for sensor in sensors) + 1


def sensors_of(inputs: int) -> tuple[Sensor, ...]:
    """The sensors of a student with so many inputs; none where there is no such student."""
    for sensors in (SENSORS, *((sensor,) for sensor in SENSORS)):
        if inputs_of(sensors) == inputs:
            return sensors
    return ()
