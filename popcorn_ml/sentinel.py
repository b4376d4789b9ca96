"""Facts about Sentinel-1 and Sentinel-2 that the method relies on, and nothing that reads a file.

Season windows, bands, channel statistics (Metzger et al. 2024, arXiv 2311.14006), how composites
are encoded on disk, Sentinel-2's processing baselines and scene classes, decibels.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

Season = Literal["spring", "summer", "autumn", "winter"]
Sensor = Literal["s1", "s2"]
Orbit = Literal["ascending", "descending"]

SEASONS: tuple[Season, ...] = ("spring", "summer", "autumn", "winter")
SENSORS: tuple[Sensor, ...] = ("s1", "s2")

S2_BANDS = ("B02", "B03", "B04", "B08")
"""Order of the bands in a Sentinel-2 composite: blue, green, red, near infrared."""

S1_BANDS = ("VV", "VH")
"""Order of the bands in a Sentinel-1 composite."""

BANDS: dict[Sensor, tuple[str, ...]] = {"s1": S1_BANDS, "s2": S2_BANDS}

CHANNELS = ("VV", "VH", "B02", "B03", "B04", "B08")
"""Order of the channels that the networks take."""

CHANNEL_MEAN: dict[str, float] = {
    "VV": -11.4260,
    "VH": -17.7530,
    "B02": 1383.4556,
    "B03": 1468.2986,
    "B04": 1460.4567,
    "B08": 2226.6821,
}
"""dB for VV and VH, reflectance x 10000 for the others."""

CHANNEL_STD: dict[str, float] = {
    "VV": 5.5983,
    "VH": 5.0076,
    "B02": 1053.3217,
    "B03": 1129.0261,
    "B04": 1130.7949,
    "B08": 1724.3213,
}

S2_NODATA = 0
"""Sentinel-2 composites: uint16 surface reflectance x 10000, 0 = no observation."""

S1_NODATA = -32768
S1_SCALE = 0.01
"""Sentinel-1 composites: int16 hundredths of dB, -32768 = no observation (GDAL band scale 0.01)."""

S1_DB_LIMITS = (-90.0, 50.0)
"""Between these lies every backscatter that Sentinel-1 products can hold; beyond is a filler.

Ground range detected numbers are uint16 and are divided by a calibration constant of a few hundred:
at most 20 log10(65535 / 300) = 47 dB. Where the thermal noise exceeds the signal, the Sentinel-1
Toolbox, which also made Earth Engine's scenes, sets the power to 0.0123 before that division:
-68 to -79 dB for constants of 300 to 1000. So -70 dB may occur (calm water, VH); -99 may not.
"""

S2_REFLECTANCE_SCALE = 10000.0

BASELINE_OFFSET_FROM = (4, 0)
S2_BASELINE_OFFSET = 1000
"""Digital numbers that products of baseline 04.00 and later carry on top of reflectance x 10000."""

SCL_CLEAR = (4, 5, 6, 7)
"""Scene classes kept: vegetation, bare soil, water, unclassified."""

SCL_SNOW = 11


@dataclass(frozen=True)
class Period:
    """A span of time, start inclusive, end exclusive, both in UTC."""

    start: datetime
    end: datetime

    def __contains__(self, moment: object) -> bool:
        return isinstance(moment, datetime) and self.start <= moment < self.end


def season_period(year: int, season: Season) -> Period:
    """When a season of a year begins and ends; winter runs into the following year."""
    start_month = {"spring": 3, "summer": 6, "autumn": 9, "winter": 12}[season]
    end_year, end_month = (year + 1, 3) if season == "winter" else (year, start_month + 3)
    return Period(
        datetime(year, start_month, 1, tzinfo=UTC),
        datetime(end_year, end_month, 1, tzinfo=UTC),
    )


def baseline_offset(processing_baseline: str | None) -> int:
    """What to subtract from a Sentinel-2 L2A item's digital numbers, by its own baseline.

    The date of acquisition says nothing: archives hold reprocessed scenes of any year.

    Raises:
        ValueError: the baseline is missing or not of the form "04.00".
    """
    if not processing_baseline:
        raise ValueError("the item carries no s2:processing_baseline")
    major, _, minor = processing_baseline.partition(".")
    if not (major.isdigit() and (minor or "0").isdigit()):
        raise ValueError(f"processing baseline {processing_baseline!r} is not like '04.00'")
    parsed = (int(major), int(minor or 0))
    return S2_BASELINE_OFFSET if parsed >= BASELINE_OFFSET_FROM else 0
