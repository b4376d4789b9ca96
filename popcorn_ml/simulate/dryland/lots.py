"""From footprints to buildings with roofs, heights and people.

People come by dwellings: how many there are, which of them are lived in, how large a household is.
Floor area decides only in blocks of flats, by the number of dwellings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from popcorn_ml.simulate.buildings import Buildings
from popcorn_ml.simulate.dryland.kinds import KIND_NAMES, KINDS, ROOFS


@dataclass(frozen=True)
class Lots:
    """Footprints of one project or village; all arrays of the same length.

    Attributes:
        row, col: middle, in pixels of the place.
        length_m, width_m: of the rectangle.
        angle: of its long side from the direction of the columns, in radians.
        house: number of the house that a rectangle is part of, 0..n-1.
    """

    row: np.ndarray
    col: np.ndarray
    length_m: np.ndarray
    width_m: np.ndarray
    angle: np.ndarray
    house: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    def where(self, chosen: np.ndarray) -> Lots:
        """Only the chosen rectangles, houses numbered again."""
        return Lots(
            self.row[chosen],
            self.col[chosen],
            self.length_m[chosen],
            self.width_m[chosen],
            self.angle[chosen],
            np.unique(self.house[chosen], return_inverse=True)[1],
        )


def inhabit(rng: np.random.Generator, name: str, lots: Lots, built: np.ndarray) -> Buildings:
    """Put up the buildings of one project or village, and let people move in.

    Args:
        rng: source of all that is drawn.
        name: of the kind.
        lots: the footprints.
        built: of each house, when it was built, as a decimal year.
    """
    kind, count = KINDS[name], len(lots)
    houses = int(lots.house.max()) + 1 if count else 0
    alike = name in ("flats", "terrace")  # one builder, one height
    storeys = np.asarray(kind.storeys)[rng.integers(0, len(kind.storeys), 1 if alike else houses)]
    storeys = np.broadcast_to(storeys, houses)[lots.house]
    height = kind.storey_m * storeys * rng.uniform(0.93, 1.07, count)
    mixture = rng.gamma(np.array(kind.roofs) * 8 + 1e-9)
    roof_of_house = rng.choice(len(ROOFS), houses, p=mixture / mixture.sum())
    return Buildings(
        lots.row,
        lots.col,
        lots.length_m,
        lots.width_m,
        height,
        lots.angle,
        kind.glint * np.exp(rng.normal(-0.1, 0.45, count)),
        np.full(count, KIND_NAMES.index(name)),
        roof_of_house[lots.house],
        built[lots.house],
        _people(rng, name, lots, storeys, houses),
    )


def _people(
    rng: np.random.Generator, name: str, lots: Lots, storeys: np.ndarray, houses: int
) -> np.ndarray:
    """People of each rectangle: drawn by house, then spread over its parts."""
    kind = KINDS[name]
    if kind.household == 0 or not houses:
        return np.zeros(len(lots), np.int64)
    floor = np.bincount(lots.house, lots.length_m * lots.width_m * storeys, houses)
    dwellings = np.ones(houses, np.int64)
    if kind.dwelling_m2:
        dwellings = np.maximum((floor / kind.dwelling_m2).astype(np.int64), 1)
    lived_in = rng.binomial(dwellings, 1 - kind.empty)
    household = kind.household * np.exp(rng.normal(0, 0.1))  # a project's own
    people = np.where(lived_in > 0, rng.poisson(household * np.maximum(lived_in, 1)), 0)
    parts = np.bincount(lots.house, minlength=houses)
    order = np.argsort(lots.house, kind="stable")
    first = np.concatenate([[0], np.cumsum(parts)[:-1]])
    home = np.repeat(np.arange(houses), people)
    part = order[first[home] + (rng.random(home.size) * parts[home]).astype(np.int64)]
    return np.bincount(part, minlength=len(lots))
