"""Which member holds out which census units, so that each is predicted by one that never saw it.

Units are held out in blocks of neighbours: a unit whose neighbours on all sides were trained on is
predicted better than one in a place that the model does not know, and it is the latter that a map
is asked about. A block is a square of a quadtree over the country's grid, split until it holds few
units; so a unit that is added or taken away moves no border but those of its own square, and where
the units of a country are small (in town) the squares are.

Blocks are dealt to the folds, the weightiest first, each to the fold that lacks most: so every
fold holds about as many people and about as many units as any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

BLOCKS_A_FOLD = 4
"""At least so many blocks a fold are wanted, so that no fold is one corner of a country."""
MOST_IN_A_BLOCK = 32
"""More units in a block would leave whole regions to members that never saw their like."""


@dataclass(frozen=True)
class Fold:
    """What a member holds out: the `index`-th, from 0, of `count` parts of all units."""

    index: int
    count: int


@dataclass(frozen=True)
class Placed:
    """A census unit as far as folds depend on it.

    Attributes:
        number: in the raster of units.
        row, col: the middle of its box on the grid, in pixels.
        people: counted.
    """

    number: int
    row: float
    col: float
    people: float


def folds_of(units: Sequence[Placed], count: int) -> dict[int, int]:
    """The fold of every unit, by its number.

    Args:
        units: in any order.
        count: how many folds.

    Returns:
        Unit number -> 0..count-1. Empty where there is nothing to divide: fewer than two units or
        two folds. With fewer units than folds some folds have none.
    """
    if count < 2 or len(units) < 2:
        return {}
    blocks = blocks_of(units, block_size(len(units), count))
    people = sum(unit.people for unit in units) or 1.0
    shares = [(sum(unit.people for unit in b) / people, len(b) / len(units)) for b in blocks]
    # The largest first; among equals the first along the quadtree's curve.
    order = sorted(range(len(blocks)), key=lambda i: (-max(shares[i]), i))
    loads = [(0.0, 0.0)] * count
    found: dict[int, int] = {}
    for i in order:
        a, b = shares[i]
        # What the sum of squared loads grows by: least where people and units are both lacking.
        fold = min(range(count), key=lambda f: (round(a * loads[f][0] + b * loads[f][1], 12), f))
        loads[fold] = (loads[fold][0] + a, loads[fold][1] + b)
        found |= {unit.number: fold for unit in blocks[i]}
    return found


def block_size(units: int, folds: int) -> int:
    """How many units a block may hold: a power of two, so that it seldom changes with the units."""
    most = max(units // (BLOCKS_A_FOLD * folds), 1)
    return min(1 << (most.bit_length() - 1), MOST_IN_A_BLOCK)


def blocks_of(units: Sequence[Placed], most: int) -> list[list[Placed]]:
    """Neighbouring units together, at most so many, along the quadtree's curve."""
    reach = max(max(unit.row, unit.col) for unit in units)
    side = 1.0
    while side <= reach:
        side *= 2
    return _split(sorted(units, key=lambda unit: unit.number), 0.0, 0.0, side, most)


def _split(
    units: list[Placed], top: float, left: float, side: float, most: int
) -> list[list[Placed]]:
    if len(units) <= most:
        return [units] if units else []
    if side < 1:  # at one and the same place, as an island within a ring of land is
        return [units[i : i + most] for i in range(0, len(units), most)]
    half = side / 2
    quarters: list[list[Placed]] = [[], [], [], []]
    for unit in units:
        quarters[2 * (unit.row >= top + half) + (unit.col >= left + half)].append(unit)
    return [
        block
        for i, quarter in enumerate(quarters)
        for block in _split(quarter, top + half * (i // 2), left + half * (i % 2), half, most)
    ]
