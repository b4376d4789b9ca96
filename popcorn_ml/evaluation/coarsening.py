"""How well an adjusted map places people within its units, told from the census alone.

An adjusted map agrees with every count, so its counts say nothing about it. So neighbouring units
are joined into super-units, the map is adjusted to the super-units' sums alone, and the units' own
counts, which nothing has seen then, say how well people were placed within. Uniform and built-up
disaggregation are treated the same way.

Where members hold out folds, only units of one fold are joined: all units of a super-unit are then
predicted by the same members, none of which saw any of their counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from popcorn_ml.evaluation.baselines import disaggregated, disaggregation
from popcorn_ml.grid import Grid, Window
from popcorn_ml.mapping.dasymetric import adjust
from popcorn_ml.zones import BLOCK_PX, zone_table

SIZES = (2, 4, 8)
"""Units that are joined into one, about."""

ALONE = 0
"""Number of the super-unit of a unit that has no neighbour to be joined with."""


@dataclass(frozen=True)
class Coarsened:
    """Units as told by maps that knew only the sums of super-units.

    Attributes:
        size: about how many units a super-unit joins.
        joined: number of each unit's super-unit, from 1, `ALONE` = in none; int64 of n.
        predicted: approach -> people of each unit, float64 of n; NaN for a unit that was not
            joined with another, of which the sum would be its own count.
    """

    size: int
    joined: np.ndarray
    predicted: dict[str, np.ndarray]

    @property
    def super_units(self) -> int:
        return len(np.unique(self.joined[self.joined > ALONE]))


def borders(units: Path, grid: Grid) -> dict[tuple[int, int], int]:
    """Which units touch, and along how many pixel edges; the smaller number first, 0 left out.

    Raises:
        GridMismatch, RasterError: the raster of unit numbers lies elsewhere or is unreadable.
    """
    from popcorn_ml import raster

    raster.check(units, grid)
    found: dict[tuple[int, int], int] = {}
    for tile in grid.tiles(BLOCK_PX):
        core = tile.core
        # One row and one column more, so that edges between blocks count as well.
        height = min(core.height + 1, grid.height - core.row)
        width = min(core.width + 1, grid.width - core.col)
        numbers = raster.read(units, Window(core.row, core.col, height, width), 1)
        inner = numbers[: core.height, : core.width]
        for one, other in (
            (inner[:, : width - 1], numbers[: core.height, 1:]),
            (inner[: height - 1], numbers[1:, : core.width]),
        ):
            touch = (one != other) & (one != 0) & (other != 0)
            pairs = np.sort(np.stack([one[touch], other[touch]], axis=1).astype(np.int64), axis=1)
            for (a, b), edges in zip(*_counted(pairs), strict=True):
                found[int(a), int(b)] = found.get((int(a), int(b)), 0) + int(edges)
    return dict(sorted(found.items()))


def _counted(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if not len(pairs):
        return pairs, np.zeros(0, np.int64)
    return np.unique(pairs, axis=0, return_counts=True)


def joined(
    people: np.ndarray,
    touching: Mapping[tuple[int, int], int],
    size: int,
    group: np.ndarray | None = None,
) -> np.ndarray:
    """Join neighbouring units into super-units of about `size` units.

    The super-unit with the fewest units (of those with the fewest people, then with the smallest
    number) joins the neighbour that it shares the longest border with among those whose sum stays
    smallest in units, until none has fewer than `size` units or a neighbour to join. Which units
    lie together depends on borders and people alone, not on any map.

    Args:
        people: of units 1..n; NaN for a unit without a count of its own, which is not joined.
        touching: as from `borders`.
        size: units in a super-unit at least, where there are so many neighbours.
        group: of units 1..n; only units of one group are joined, negative ones not at all.

    Returns:
        int64 of n: super-units' numbers from 1 in the order of their first units; `ALONE` for a
        unit that was joined with no other.
    """
    count = len(people)
    groups = np.zeros(count, np.int64) if group is None else np.asarray(group)
    usable = ~np.isnan(people) & (groups >= 0)
    members = {n: [n] for n in range(1, count + 1) if usable[n - 1]}
    edges: dict[int, dict[int, int]] = {n: {} for n in members}
    for (a, b), length in touching.items():
        if a in members and b in members and groups[a - 1] == groups[b - 1]:
            edges[a][b] = edges[a].get(b, 0) + length
            edges[b][a] = edges[b].get(a, 0) + length
    total = {n: float(people[n - 1]) for n in members}
    open_ = {n for n in members if edges[n]}
    while open_:
        one = min(open_, key=lambda n: (len(members[n]), total[n], n))
        if len(members[one]) >= size:
            break
        near = edges[one]
        other = min(near, key=lambda n: (len(members[n]), -near[n], n))
        kept, gone = min(one, other), max(one, other)
        members[kept] = sorted(members[kept] + members.pop(gone))
        total[kept] += total.pop(gone)
        for next_, length in edges.pop(gone).items():
            edges[next_].pop(gone)
            if next_ != kept:
                edges[kept][next_] = edges[kept].get(next_, 0) + length
                edges[next_][kept] = edges[kept][next_]
        open_.discard(gone)
        if not edges[kept]:
            open_.discard(kept)
    found = np.full(count, ALONE, np.int64)
    several = [units for _, units in sorted(members.items()) if len(units) > 1]
    for number, units in enumerate(several, start=1):
        found[np.array(units) - 1] = number
    return found


def adjusted_to_super_units(
    predicted: np.ndarray, builtup: np.ndarray, people: np.ndarray, joined_: np.ndarray
) -> np.ndarray:
    """People of units in a map that is adjusted to the sums of super-units alone.

    As `mapping.dasymetric` adjusts a map to its units, fallbacks included, with units for pixels.

    Args:
        predicted: people of units 1..n in the map before any adjustment.
        builtup: their built-up area.
        people: their counts; NaN where there is none.
        joined_: as from `joined`.

    Returns:
        float64 of n; NaN for a unit in no super-unit, and for one without a prediction.
    """
    sums = _super_sums(people, joined_)
    placed, _, _ = adjust(predicted[None], joined_[None], sums, builtup[None])
    return np.where(joined_ > ALONE, placed[0], np.nan)


def _super_sums(people: np.ndarray, joined_: np.ndarray) -> np.ndarray:
    count = int(joined_.max(initial=0))
    return zone_table(joined_, [people], count).sums[0, 1:]


def coarsened(
    people: np.ndarray,
    predicted: np.ndarray,
    builtup: np.ndarray,
    area: np.ndarray,
    touching: Mapping[tuple[int, int], int],
    *,
    group: np.ndarray | None = None,
    sizes: Sequence[int] = SIZES,
) -> list[Coarsened]:
    """The coarsening test, once for every size; sizes for which nothing can be joined left out.

    Args:
        people: counted in units 1..n; NaN where nobody counted.
        predicted: people of each unit in the map before adjustment, by members that did not see
            the unit's count where possible; NaN where there is no value.
        builtup, area: of each unit where the map has a value: built-up score summed, and pixels.
        touching: as from `borders`.
        group: of each unit, see `joined`.
        sizes: how many units to join.
    """
    known = ~(np.isnan(people) | np.isnan(predicted))
    counted = np.where(known, people, np.nan)
    found, last = [], None
    for size in sizes:
        numbers = joined(counted, touching, size, group)
        if not numbers.any() or (last is not None and np.array_equal(numbers, last)):
            continue
        last, sums = numbers, _super_sums(counted, numbers)
        by = {}
        for name, weight in (("uniform", area), ("builtup", builtup)):
            plan = disaggregation(zone_table(numbers, [weight], len(sums)), sums)
            by[name] = disaggregated(plan, numbers, weight)
        by["adjusted"] = adjusted_to_super_units(predicted, builtup, counted, numbers)
        by = {name: np.where(numbers > ALONE, values, np.nan) for name, values in by.items()}
        found.append(Coarsened(size, numbers, by))
    return found
