"""People gained and lost between two years of one model's maps, per hectare, and which are real.

Two maps of one model are wrong in the same places by nearly the same: what a hall is taken for in
one year it is taken for in the next. So a change is known far better than either year's people,
and the law of the intervals says nothing of how well. What tells is the pair of maps itself. Few
hectares change from one year to another; how far those of one density *usually* differ is what
light, season and clouds do, and where a hectare differs by much more, people came or left.

    usual(P) = the spread of the difference among hectares of about P people, about none, taken
               from its middle (median and 80th percentile), which the few real changes do not move

What people came or left is then as uncertain as so many people are anywhere on the map, on top of
the usual difference. Where at least half of the hectares of a density did change, the usual
difference is itself change, and less is found: never more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from popcorn_ml.grid import Grid, Window

BANDS = ("change", "p2.5", "p10", "p90", "p97.5", "significant")
"""Of `change.tif`, on the grid of hectares; people per cell, the last one -1, 0 or 1."""

QUANTILES = BANDS[1:5]

FALSE_DISCOVERIES = 0.10
"""Expected share of the cells called significant that did not change (Benjamini and Hochberg 1995,
J. R. Stat. Soc. B 57, 289-300)."""

INHABITED = 1.0
"""People in one of the two years for a cell to be judged: elsewhere there is nobody to count."""

LEAST_CELLS = 100
"""Cells of about one number of people that the usual difference is taken from."""

MOST_CLASSES = 25

DEGREES_OF_FREEDOM = 8
"""Of the t distribution that differences of cells without change follow in units of the usual one:
they have longer tails than a normal distribution (docs/method.md says on which countries)."""

WIDTHS = (-2.306, -1.2816, 1.2816, 2.306)
"""The usual difference's quantiles in its own unit, in the order of `QUANTILES`: by the t
distribution the outer ones; the inner ones are where it was measured."""

SAMPLE = 1_000_000
"""Cells that are looked at to measure, in a large country; every so many."""


@dataclass(frozen=True)
class Usual:
    """How far cells differ between the two years without having changed, by their people.

    Attributes:
        people: mean people of each class of cells, increasing.
        spread: standard deviation of their difference, people.
    """

    people: np.ndarray
    spread: np.ndarray

    def of(self, people: np.ndarray) -> np.ndarray:
        """The standard deviation for cells of so many people, mean of the two years.

        Below the least of the classes it shrinks with the people; above the largest it grows with
        them.
        """
        people = np.maximum(people, 1e-6)
        found = np.interp(np.log(people), np.log(self.people), self.spread)
        low, high = self.people[0], self.people[-1]
        return found * np.minimum(people / low, 1.0) * np.maximum(people / high, 1.0)

    def as_dict(self) -> dict[str, list[float]]:
        """Plain values."""
        return {"people": self.people.tolist(), "spread": self.spread.tolist()}


def usual_difference(before: np.ndarray, now: np.ndarray) -> Usual | None:
    """What cells usually differ by; None with fewer than `LEAST_CELLS` inhabited ones.

    Args:
        before, now: people per cell in the two years, of one shape; NaN where not known.
    """
    before, now = _inhabited(before, now)
    if len(before) < LEAST_CELLS:
        return None
    step = -(-len(before) // SAMPLE)
    before, now = before[::step], now[::step]
    mean, apart = (before + now) / 2, np.abs(now - before)
    order = np.argsort(mean, kind="stable")
    classes = min(max(len(order) // LEAST_CELLS, 1), MOST_CLASSES)
    people, spread = [], []
    for part in np.array_split(order, classes):
        middle, high = np.quantile(apart[part], [0.5, 0.8])
        people.append(float(np.exp(np.log(mean[part]).mean())))
        # of a normal distribution both are the same; the larger one counts
        spread.append(max(middle / 0.6745, high / 1.2816, 1e-3))
    keep = np.flatnonzero(np.diff(people, prepend=0.0) > 0)
    return Usual(np.array(people)[keep], np.array(spread)[keep])


def _inhabited(before: np.ndarray, now: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with np.errstate(invalid="ignore"):
        chosen = np.maximum(before, now) >= INHABITED  # False where one is NaN
    return before[chosen].astype(np.float64), now[chosen].astype(np.float64)


@dataclass(frozen=True)
class Known:
    """How well so many people are known, wherever they live: from a map's own intervals.

    Attributes:
        people: of each class of cells, increasing.
        shares: quantile over estimate, (4, classes), in the order of `QUANTILES`.
    """

    people: np.ndarray
    shares: np.ndarray

    def of(self, people: np.ndarray) -> np.ndarray:
        """Quantiles of so many people, (4, ...)."""
        at = np.log(np.maximum(people, 1e-6))
        found = np.stack([np.interp(at, np.log(self.people), s) * people for s in self.shares])
        found[:2], found[2:] = np.minimum(found[:2], people), np.maximum(found[2:], people)
        return found


def known_people(people: np.ndarray, quantiles: np.ndarray) -> Known | None:
    """What a map's intervals say of cells by their people; None where there are too few.

    Args:
        people: per cell.
        quantiles: (4, ...) of the same cells, in the order of `QUANTILES`.
    """
    with np.errstate(invalid="ignore"):
        chosen = (people >= INHABITED) & np.isfinite(quantiles).all(axis=0)
    if chosen.sum() < LEAST_CELLS:
        return None
    step = -(-int(chosen.sum()) // SAMPLE)
    people, quantiles = people[chosen][::step].astype(float), quantiles[:, chosen][:, ::step]
    order = np.argsort(people, kind="stable")
    parts = np.array_split(order, min(max(len(order) // LEAST_CELLS, 1), MOST_CLASSES))
    centres = np.array([np.exp(np.log(people[part]).mean()) for part in parts])
    shares = np.array([np.median(quantiles[:, part] / people[part], axis=1) for part in parts]).T
    keep = np.flatnonzero(np.diff(centres, prepend=0.0) > 0)
    return Known(centres[keep], shares[:, keep])


def chances(change: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """How often as large a difference comes about where nobody came or left (two-sided).

    Args:
        change: people.
        spread: the usual difference.
    """
    from scipy import special

    ratio = np.abs(change) / np.maximum(spread, 1e-9)
    return 2 * special.stdtr(DEGREES_OF_FREEDOM, -ratio)


def discoveries(p: np.ndarray, share: float = FALSE_DISCOVERIES) -> float:
    """The largest chance that is still called significant; -1 where none is.

    Args:
        p: chances of all cells that are judged.
        share: of false ones among those called significant, at most, on average.
    """
    ordered = np.sort(p)
    passed = np.flatnonzero(ordered <= share * np.arange(1, len(p) + 1) / max(len(p), 1))
    return float(ordered[passed[-1]]) if passed.size else -1.0


def interval(change: np.ndarray, spread: np.ndarray, real: np.ndarray, known: Known) -> np.ndarray:
    """Quantiles of a change, (4, ...), in the order of `QUANTILES`.

    Args:
        change: people.
        spread: the usual difference.
        real: where the change is called significant. There the people who came or left are
            themselves known as well as so many people are; both add up in squares, on either side
            of the estimate (Zou and Donner 2008, Stat. Med. 27, 1693-1702).
        known: how well people are known.
    """
    moved = np.where(real, np.abs(change), 0.0)
    of_moved = known.of(moved) - moved  # (4, ...): two below zero, two above
    gained = np.where(change >= 0, of_moved, -of_moved[::-1])
    found = np.empty((4, *np.shape(change)))
    for k, width in enumerate(WIDTHS):
        away = np.hypot(gained[k], width * spread)
        found[k] = change + (away if width > 0 else -away)
    return found


@dataclass(frozen=True)
class Found:
    """What two years' hectares say of change.

    Attributes:
        usual: what cells usually differ by; None where there are too few to tell.
        known: how well people are known; None without intervals in both years.
        threshold: the chance up to which a change is called significant.
        cells: judged; `gaining` and `losing` of them significant.
        gained, lost: people in those.
        total: people gained on all cells that have a value in both years.
        outward: by how much more neighbouring cells differ together than by chance, from 1 up.
    """

    usual: Usual | None
    known: Known | None
    threshold: float
    cells: int
    gaining: int
    losing: int
    gained: float
    lost: float
    total: float
    outward: float


def compare(
    before: np.ndarray, now: np.ndarray, intervals: tuple[np.ndarray, np.ndarray] | None
) -> Found:
    """Measure what two years usually differ by, and count what differs by more.

    Args:
        before, now: people per cell, (rows, columns); NaN where not known.
        intervals: quantiles of both years, (4, rows, columns) each.
    """
    usual = usual_difference(before, now)
    apart = now.astype(np.float64) - before
    total = float(np.nansum(apart))
    known = None
    if intervals is not None:
        known = known_people(
            np.concatenate([before.ravel(), now.ravel()]),
            np.concatenate([q.reshape(4, -1) for q in intervals], axis=1),
        )
    if usual is None:
        return Found(None, known, -1.0, 0, 0, 0, 0.0, 0.0, total, 1.0)
    one, two = _inhabited(before, now)
    change = two - one
    p = chances(change, usual.of((one + two) / 2))
    threshold = discoveries(p)
    real = change[p <= threshold]
    return Found(
        usual,
        known,
        threshold,
        len(change),
        int((real > 0).sum()),
        int((real < 0).sum()),
        float(real[real > 0].sum()),
        float(-real[real < 0].sum()),
        total,
        outward(apart, usual.of((before + now) / 2)),
    )


SIDE = 3
"""Cells along a side of the squares that show how far neighbours differ together."""


def outward(change: np.ndarray, spread: np.ndarray) -> float:
    """How many times more sums over 3 x 3 cells usually differ than if cells did so by chance.

    Args:
        change, spread: per cell, (rows, columns); NaN where not known.
    """
    from popcorn_ml.mapping.aggregate import cell_sums

    together = cell_sums(change, SIDE)
    variance = cell_sums(np.where(np.isnan(change), np.nan, spread**2), SIDE)
    with np.errstate(invalid="ignore"):
        told = variance >= 1.0
    if told.sum() < LEAST_CELLS:
        return 2.0
    ratio = np.abs(together[told]) / np.sqrt(variance[told])
    middle, high = np.quantile(ratio, [0.5, 0.8])
    return float(max(middle / 0.6745, high / 1.2816, 1.0))


def values(before: np.ndarray, now: np.ndarray, found: Found) -> np.ndarray:
    """The bands of `change.tif` for some cells, float64 (6, rows, columns).

    NaN where a year has no value; the quantiles also without intervals, and `significant` also
    where too few cells are inhabited to tell what is usual.
    """
    change = now.astype(np.float64) - before
    out = np.full((len(BANDS), *change.shape), np.nan)
    out[0] = change
    if found.usual is None:
        return out
    spread = found.usual.of((before.astype(np.float64) + now) / 2)
    with np.errstate(invalid="ignore"):
        judged = np.maximum(before, now) >= INHABITED
        real = judged & (chances(change, spread) <= found.threshold)
    out[5] = np.where(np.isnan(change), np.nan, np.where(real, np.sign(change), 0.0))
    if found.known is not None:
        out[1:5] = interval(change, spread, real, found.known)
        out[1:5, np.isnan(change)] = np.nan
    return out


def write_change(
    before: Path,
    now: Path,
    intervals: tuple[Path, Path] | None,
    grid: Grid,
    out: Path,
    *,
    tags: dict[str, object] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Found:
    """Compare two years' people per cell, and write `change.tif`.

    Args:
        before, now: people per cell of 10 x 10 pixels (float32, NaN nodata).
        intervals: their four quantiles, in the order of `QUANTILES`; None where one year has none.
        grid: of the cells, on which all of them lie.
        out: the raster to write.
        tags: what it says about itself.
        progress: called with (blocks done, blocks).

    Raises:
        GridMismatch, RasterError: a raster lies elsewhere or is unreadable.
    """
    from popcorn_ml import raster

    people = [raster.read_float(path, None, 1, grid) for path in (before, now)]
    quantiles = None
    if intervals is not None:
        one, two = (raster.read_float(path, None, (1, 2, 3, 4), grid) for path in intervals)
        quantiles = (one, two)
    found = compare(people[0], people[1], quantiles)
    del quantiles
    tiles = list(grid.tiles(BLOCK_CELLS))
    with raster.CogWriter(out, grid, BANDS, "float32", np.nan, tags=tags) as writer:
        for done, tile in enumerate(tiles, start=1):
            window: Window = tile.core
            part = window.slices
            writer.write(values(people[0][part], people[1][part], found), window)
            if progress is not None:
                progress(done, len(tiles))
    return found


BLOCK_CELLS = 1024
"""Side of a block of cells that is worked on at once."""
