"""People gained and lost in census units, with intervals, and how errors of two years go together.

The people of a unit that both maps are adjusted to are counted: its change is the census' own and
has no interval. What is told of a part of such units follows from its hectares: their usual
differences add up in squares, times how much more neighbours differ together than by chance, and
what all of an adjusted unit shares is not an error of its parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from popcorn_ml.evaluation.change import (
    INHABITED,
    Found,
    chances,
    discoveries,
    interval,
)
from popcorn_ml.grid import PIXELS_PER_HECTARE_SIDE, Grid
from popcorn_ml.zones import BLOCK_PX, zone_table

COUNTED = 1e-4
"""Share of a unit's usual difference below which nothing but the census tells its change."""

LEAST_UNITS = 20
"""Units counted in both years and unseen by a member, for the correlation of errors to be told."""


@dataclass(frozen=True)
class UnitChange:
    """People of some zones in two years. Arrays with an item a zone 0..n.

    Attributes:
        before, now: NaN where a year has no value in the zone.
        spread: standard deviation of the difference without change; 0 where both are counted.
    """

    before: np.ndarray
    now: np.ndarray
    spread: np.ndarray

    @property
    def change(self) -> np.ndarray:
        """People gained."""
        return self.now - self.before


def sum_units(
    zones: Path,
    count: int,
    maps: tuple[Path, Path],
    adjusted_to: Path,
    counted: Sequence[bool] | np.ndarray,
    grid: Grid,
    found: Found,
) -> UnitChange:
    """Sum two years' maps over zones, and what they usually differ by.

    Args:
        zones: numbers 0..count on the grid, 0 for none.
        maps: people per pixel of the earlier and of the later adjusted map.
        adjusted_to: the units that the later map is adjusted to.
        counted: for units 1..n of those, whether the earlier map is adjusted to the same unit and
            both to a count: then no difference between the sums is an error.
        grid: of the pixels.
        found: what hectares say.

    Raises:
        GridMismatch, RasterError: a raster lies elsewhere or is unreadable.
    """
    from popcorn_ml import raster
    from popcorn_ml.intervals.parts import no_parts, parts_of
    from popcorn_ml.mapping.aggregate import cell_sums
    from popcorn_ml.raster import bounded_cache
    from popcorn_ml.zones import ZoneSums

    for path in (zones, adjusted_to, *maps):
        raster.check(path, grid)
    total, parts = ZoneSums.none(2, count), no_parts()
    side = PIXELS_PER_HECTARE_SIDE
    with bounded_cache():
        for tile in grid.tiles(BLOCK_PX):
            window = tile.core
            numbers = raster.read(zones, window, 1)
            years = [raster.read_float(path, window, 1) for path in maps]
            total += zone_table(numbers, years, count)
            if found.usual is None:
                continue
            mean = (years[0].astype(np.float64) + years[1]) / 2
            cells = cell_sums(mean)
            with np.errstate(divide="ignore", invalid="ignore"):
                per_person = np.where(cells > 0, found.usual.of(cells) ** 2 / cells, 0.0)
            spread = per_person.repeat(side, 0).repeat(side, 1)[: window.height, : window.width]
            units = raster.read(adjusted_to, window, 1)
            parts = parts.joined(parts_of(numbers, units, mean, mean * spread))
    sums = np.where(total.valid > 0, total.sums, np.nan)
    if found.usual is None:
        return UnitChange(sums[0], sums[1], np.full(count + 1, np.nan))
    variance = parts.crowding  # of each part, were its hectares on their own
    whole = np.bincount(parts.unit, variance, len(counted) + 1)
    known = np.concatenate([[False], np.asarray(counted, bool)])[parts.unit]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(whole[parts.unit] > 0, variance / whole[parts.unit], 0.0)
    left = variance * np.where(known, np.clip(1 - share, 0.0, 1.0), 1.0)
    left[left < COUNTED**2 * variance] = 0.0
    summed = np.bincount(parts.zone, left, count + 1)
    return UnitChange(sums[0], sums[1], found.outward * np.sqrt(summed))


def rows(
    units: UnitChange, ids: Mapping[int, str], level: str, from_year: int, found: Found
) -> list[dict[str, object]]:
    """Rows of `map_change`: zones with a value in both years.

    A change is significant by the same rule as of hectares, among the units of the level that the
    maps tell; of one that is counted in both years, wherever the counts differ. Quantiles are null
    where intervals are.
    """
    numbers = np.array(sorted(ids), int)
    change, spread = units.change[numbers], units.spread[numbers]
    judged = np.maximum(units.before[numbers], units.now[numbers]) >= INHABITED
    told = judged & (spread > 0)
    p = np.where(told, chances(change, spread), 1.0)
    real = told & (p <= discoveries(p[told]))
    counted = spread == 0
    quantiles = np.full((4, len(numbers)), np.nan)
    if found.known is not None:
        quantiles = interval(change, spread, real, found.known)
    quantiles[:, counted] = change[counted]
    made: list[dict[str, object]] = []
    for k, number in enumerate(numbers):
        if np.isnan(change[k]):
            continue
        significant: bool | None = bool(real[k]) or bool(counted[k] and abs(change[k]) >= 0.5)
        made.append(
            {
                "from_year": from_year,
                "level": level,
                "unit_id": ids[int(number)],
                "people": float(change[k]),
                **dict(zip(COLUMNS, map(float, quantiles[:, k]), strict=True)),
                "significant": None if np.isnan(spread[k]) else significant,
            }
        )
    return made


COLUMNS = ("p2_5", "p10", "p90", "p97_5")


@dataclass(frozen=True)
class Together:
    """How the errors of one model in two years go together.

    Attributes:
        units: counted in both years and unseen by a member.
        correlation: of the errors over the root of the people; NaN with fewer than `LEAST_UNITS`.
        least: its lower limit, 90 % one-sided (Fisher's z).
        of_one_year, of_change: root mean square error over the root of the people, of the people
            of a year and of their change.
    """

    units: int
    correlation: float
    least: float
    of_one_year: float
    of_change: float

    def as_dict(self) -> dict[str, float | int]:
        """Plain values."""
        return dict(vars(self))

    def told(self) -> str:
        """In words."""
        if np.isnan(self.correlation):
            return (
                f"not measured: {self.units} units are counted in both years and were unseen by a "
                f"member; {LEAST_UNITS} are needed"
            )
        return (
            f"errors of the two years correlate at {self.correlation:.2f} (at least "
            f"{self.least:.2f}) over {self.units} units that members had not seen; the change is "
            f"off by {self.of_change / self.of_one_year:.0%} of what a year is"
        )


def errors_together(
    before: tuple[np.ndarray, np.ndarray], now: tuple[np.ndarray, np.ndarray]
) -> Together:
    """Measure the correlation from units that are counted in both years.

    Args:
        before, now: predicted and counted people of the same units, NaN where one is not known.
    """
    known = np.isfinite(np.stack([*before, *now])).all(axis=0)
    one, two = ((predicted - people)[known] for predicted, people in (before, now))
    n = int(known.sum())
    if n < LEAST_UNITS:
        return Together(n, np.nan, np.nan, np.nan, np.nan)
    scale = np.sqrt(np.maximum((before[1] + now[1])[known] / 2, 1.0))
    one, two = one / scale, two / scale
    squares = float((one**2).sum()), float((two**2).sum())
    correlation = float((one * two).sum()) / max(np.sqrt(squares[0] * squares[1]), 1e-12)
    z = np.arctanh(np.clip(correlation, -0.999999, 0.999999)) - 1.2816 / np.sqrt(n - 3)
    return Together(
        n,
        correlation,
        float(np.tanh(z)),
        float(np.sqrt(sum(squares) / (2 * n))),
        float(np.sqrt(((two - one) ** 2).mean())),
    )
