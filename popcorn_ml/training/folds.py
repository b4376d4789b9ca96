"""Which member holds out which census units, so that each is predicted by one that never saw it.

Units are held out in blocks of neighbours: a unit whose neighbours on all sides were trained on is
predicted better than one in a place that the model does not know, and it is the latter that a map
is asked about. A block is a square of a quadtree over the country's grid, split until it holds few
units; so a unit that is added or taken away moves no border but those of its own square, and where
the units of a country are small (in town) the squares are.

Blocks are dealt to the folds so that every fold holds about as many people and about as many units
as any other.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

ROUNDS = 20
SWAPPED = 400
"""Blocks of which pairs are tried: more of them are balanced well enough as they were dealt."""
BLOCKS_A_FOLD = 3
"""Blocks a fold were all of them full; as squares of a quadtree are half full, about twice as many,
so that no fold is one corner of a country."""
HEAVIEST = 3
"""Of a fold's people at most the part that one block of several units may hold, as 1 / this."""
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
    people = sum(unit.people for unit in units) or 1.0
    blocks = blocks_of(units, block_size(len(units), count), people / (HEAVIEST * count))
    shares = [(sum(unit.people for unit in b) / people, len(b) / len(units)) for b in blocks]
    dealt = _dealt(shares, count)
    return {u.number: fold for block, fold in zip(blocks, dealt, strict=True) for u in block}


def _dealt(shares: Sequence[tuple[float, float]], count: int) -> list[int]:
    """The fold of each block, by its share of all people and of all units.

    What is made small is the sum of the folds' squared shares. The weightiest block is dealt first;
    afterwards single blocks change places for as long as that helps.
    """
    loads = [(0.0, 0.0)] * count
    dealt = [0] * len(shares)

    def better(i: int, folds: Iterable[int]) -> int:
        """Where block i, which is in no fold now, adds least."""
        a, b = shares[i]
        return min(folds, key=lambda f: (round(a * loads[f][0] + b * loads[f][1], 12), f))

    def add(i: int, fold: int, sign: float = 1.0) -> None:
        loads[fold] = (loads[fold][0] + sign * shares[i][0], loads[fold][1] + sign * shares[i][1])

    # Among equals the first along the quadtree's curve.
    for i in sorted(range(len(shares)), key=lambda i: (-max(shares[i]), i)):
        dealt[i] = better(i, range(count))
        add(i, dealt[i])
    for _ in range(ROUNDS):
        before = list(dealt)
        for i, fold in enumerate(before):
            add(i, fold, -1.0)
            dealt[i] = better(i, [fold, *range(count)])
            add(i, dealt[i])
        for i, j in itertools.combinations(range(min(len(shares), SWAPPED)), 2):
            f, g = dealt[i], dealt[j]
            apart = [shares[j][k] - shares[i][k] for k in (0, 1)]
            gain = sum(apart[k] * (loads[g][k] - loads[f][k] - apart[k]) for k in (0, 1))
            if f != g and gain > 1e-9:
                for block, old, new in ((i, f, g), (j, g, f)):
                    add(block, old, -1.0)
                    add(block, new)
                dealt[i], dealt[j] = g, f
        if dealt == before:
            break
    return dealt


def block_size(units: int, folds: int) -> int:
    """How many units a block may hold: a power of two, so that it seldom changes with the units."""
    most = max(units // (BLOCKS_A_FOLD * folds), 1)
    return min(1 << (most.bit_length() - 1), MOST_IN_A_BLOCK)


def blocks_of(units: Sequence[Placed], most: int, people: float = math.inf) -> list[list[Placed]]:
    """Neighbouring units together, along the quadtree's curve.

    Args:
        most: units in a block.
        people: in a block of several units, at most.
    """
    reach = max(max(unit.row, unit.col) for unit in units)
    side = 1.0
    while side <= reach:
        side *= 2
    return _split(sorted(units, key=lambda unit: unit.number), 0.0, 0.0, side, most, people)


def _split(
    units: list[Placed], top: float, left: float, side: float, most: int, people: float
) -> list[list[Placed]]:
    light = len(units) < 2 or sum(unit.people for unit in units) <= people
    if len(units) <= most and light:
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
        for block in _split(
            quarter, top + half * (i // 2), left + half * (i % 2), half, most, people
        )
    ]
