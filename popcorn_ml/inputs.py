"""What the networks are given: composites on disk made into six normalised channels.

A missing observation becomes the channel's mean (0 after normalising) and is marked, never filled
from another band. Reading files is `raster`, making composites is `imagery`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from popcorn_ml.errors import GridMismatch, RasterError
from popcorn_ml.grid import Grid, Window
from popcorn_ml.raster_values import Meaning, meant
from popcorn_ml.sentinel import BANDS, CHANNEL_MEAN, CHANNEL_STD, CHANNELS, Sensor


def read_channels(
    s1: str | Path | None,
    s2: str | Path | None,
    window: Window | None = None,
    grid: Grid | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Read and normalise the composites of one season.

    Args:
        s1: Sentinel-1 composite, bands VV and VH in dB (integer hundredths with a band scale, or
            floats); None leaves that sensor out.
        s2: Sentinel-2 composite, bands B02, B03, B04, B08, reflectance x 10000; None leaves it out.
        window: pixels to read; None reads all.
        grid: refuse composites that lie elsewhere.

    Returns:
        channels: float32 (6, rows, columns) in the order of `sentinel.CHANNELS`,
            (value - mean) / std, exactly 0 where there is no observation or no such sensor.
        valid: bool (rows, columns), True where every channel asked for was observed.

    Raises:
        RasterError: missing, unreadable, truncated, or with another number of bands.
        GridMismatch: not on `grid`, or the two not of one shape.
    """
    return channels_of(read_stored(s1, s2, window, grid))


def read_stored(
    s1: str | Path | None,
    s2: str | Path | None,
    window: Window | None = None,
    grid: Grid | None = None,
) -> dict[Sensor, tuple[np.ndarray, Meaning]]:
    """The composites of one season as their files store them: a third of their channels' memory.

    Args:
        s1, s2, window, grid: as for `read_channels`, which also says what is raised.

    Returns:
        sensor -> (bands, rows, columns) in the order of `sentinel.BANDS`, and what they mean.
    """
    paths: dict[Sensor, str | Path | None] = {"s1": s1, "s2": s2}
    read: dict[Sensor, tuple[np.ndarray, Meaning]] = {
        sensor: _read_bands(path, sensor, window, grid)
        for sensor, path in paths.items()
        if path is not None
    }
    if not read:
        raise ValueError("neither a Sentinel-1 nor a Sentinel-2 composite was given")
    sizes = {sensor: values.shape[1:] for sensor, (values, _) in read.items()}
    if len(set(sizes.values())) > 1:
        raise GridMismatch(
            "the Sentinel-2 composite has another shape than the Sentinel-1 composite",
            where=s2,
            expected=f"{sizes['s1'][0]} x {sizes['s1'][1]} pixels, as {s1}",
            found=f"{sizes['s2'][0]} x {sizes['s2'][1]} pixels",
        )
    return read


def channels_of(read: dict[Sensor, tuple[np.ndarray, Meaning]]) -> tuple[np.ndarray, np.ndarray]:
    """Channels and validity, as `read_channels` gives them, from what `read_stored` gives."""
    return normalised(
        {
            sensor: meant(values, range(1, len(values) + 1), meaning)
            for sensor, (values, meaning) in read.items()
        }
    )


def normalised(read: dict[Sensor, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Channels and validity, as `read_channels` gives them, from decoded bands.

    Args:
        read: sensor -> float32 (bands, rows, columns) in the order of `sentinel.BANDS`, dB or
            reflectance x 10000, NaN where nothing was observed.
    """
    shape = next(iter(read.values())).shape[1:]
    channels = np.zeros((len(CHANNELS), *shape), np.float32)  # of a sensor that is left out, too
    valid = np.ones(shape, bool)
    for sensor, values in read.items():
        observed = np.isfinite(values)
        valid &= observed.all(axis=0)
        for i, band in enumerate(BANDS[sensor]):
            mean, std = np.float32(CHANNEL_MEAN[band]), np.float32(CHANNEL_STD[band])
            channel = channels[CHANNELS.index(band)]
            np.subtract(values[i], mean, out=channel)
            np.divide(channel, std, out=channel)
            if not observed[i].all():
                channel[~observed[i]] = 0
    return channels, valid


def _read_bands(
    path: str | Path, sensor: Sensor, window: Window | None, grid: Grid | None
) -> tuple[np.ndarray, Meaning]:
    from popcorn_ml import raster

    values, meaning = raster.read_stored(path, window, grid)
    expected = BANDS[sensor]
    if len(values) != len(expected):
        raise RasterError(
            "the composite has another number of bands",
            where=path,
            expected=f"{len(expected)}: {', '.join(expected)}",
            found=len(values),
        )
    return values, meaning
