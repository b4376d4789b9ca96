"""What a student is given: all seasons of a place as one image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from popcorn_ml.sentinel import BANDS, CHANNELS, SENSORS, Sensor


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
        self._channels = [CHANNELS.index(band) for sensor in sensors for band in BANDS[sensor]]
        self._sum = np.zeros((len(self._channels), *shape), np.float32)
        self._score = np.zeros(shape, np.float32)
        self.count = np.zeros(shape, np.float32)

    def add(self, channels: np.ndarray, valid: np.ndarray, score: np.ndarray) -> None:
        """Take one season.

        Args:
            channels, valid: as `read_channels` gives them.
            score: built-up score, NaN where there is none.
        """
        counts = valid & ~np.isnan(score)
        if not counts.any():
            return
        first, last = self._channels[0], self._channels[-1] + 1
        used = channels[first:last]
        if counts.all():
            self._sum += used
            self._score += score
            self.count += 1
            return
        used = np.where(counts, used, np.float32(0))
        self._sum += used
        self._score += np.where(counts, score, np.float32(0))
        self.count += counts

    def inputs(self) -> np.ndarray:
        """float32 (inputs, rows, columns): of each channel the mean of the seasons, then the mean
        of the built-up score, from -1 to 1."""
        share = np.float32(1) / np.maximum(self.count, np.float32(1))
        found = np.empty((len(self._channels) + 1, *self.count.shape), np.float32)
        np.multiply(self._sum, share, out=found[:-1])
        np.multiply(self._score, np.float32(2) * share, out=found[-1])
        found[-1] -= np.minimum(self.count, np.float32(1))
        return found

    def score(self) -> np.ndarray:
        """Mean built-up score of the seasons that count, NaN where none does."""
        with np.errstate(invalid="ignore"):
            return self._score / self.count


def inputs_of(sensors: Sequence[Sensor]) -> int:
    """How many inputs a student of some sensors has."""
    return sum(len(BANDS[sensor]) for sensor in sensors) + 1


def sensors_of(inputs: int) -> tuple[Sensor, ...]:
    """The sensors of a student with so many inputs; none where there is no such student."""
    for sensors in (SENSORS, *((sensor,) for sensor in SENSORS)):
        if inputs_of(sensors) == inputs:
            return sensors
    return ()
