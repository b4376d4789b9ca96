"""Classes and colours of the maps, in one place for styles, reports and pictures.

A class reaches from the bound of the one before it up to its own; the last has none. The steps of
people are about 1, 2, 5, so that a hamlet, a town and a block of flats all have colours of their
own; colours go from light to dark (ColorBrewer's YlOrRd and PuOr, viridis), and can be told apart
by the colour-blind and in grey.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from popcorn_ml.mapping.colours import HEAT, PEOPLE_STEPS

WIDTH = (
    "#f7fcfd", "#e0ecf4", "#bfd3e6", "#9ebcda", "#8c96c6", "#8c6bb1", "#88419d", "#6e016b",
)  # fmt: skip
APART = (
    "#5e3c99", "#8073ac", "#b2abd2", "#d8daeb", "#f7f7f7", "#fee0b6", "#fdb863", "#e08214",
    "#b35806",
)  # fmt: skip
GREYS = ("#ffffff", "#f0f0f0", "#d9d9d9", "#bdbdbd", "#969696", "#636363", "#252525")
GREEN = ("#440154", "#443a83", "#31688e", "#21908d", "#35b779", "#8fd744", "#fde725")


@dataclass(frozen=True)
class Class:
    """A class of values.

    Attributes:
        upper: its upper bound; None for the last.
        colour: `#rrggbb`.
        label: as a legend has it, without the unit.
    """

    upper: float | None
    colour: str
    label: str


@dataclass(frozen=True)
class Value:
    """A value that stands for something by itself, in a raster of such.

    Attributes:
        value: stored.
        colour, label: as of a class.
    """

    value: int
    colour: str
    label: str


Classes = tuple[Class, ...] | tuple[Value, ...]


def classes(bounds: Sequence[float], colours: Sequence[str]) -> tuple[Class, ...]:
    """Classes below, between and above bounds.

    Args:
        bounds: rising.
        colours: one more than bounds.
    """
    if len(colours) != len(bounds) + 1 or list(bounds) != sorted(set(bounds)):
        raise ValueError(f"{len(colours)} colours for bounds {list(bounds)}")
    between = [f"{low:,.9g} to {high:,.9g}" for low, high in pairwise(bounds)]
    labels = [f"below {bounds[0]:,.9g}", *between, f"{bounds[-1]:,.9g} and more"]
    uppers = [*bounds, None]
    return tuple(Class(*row) for row in zip(uppers, colours, labels, strict=True))


PEOPLE = classes(PEOPLE_STEPS, HEAT)
"""People per hectare or per cell of about that size."""
PEOPLE_PER_PIXEL = classes([step / 100 for step in PEOPLE_STEPS], HEAT)
"""The same of 10 m pixels: equal densities have equal colours."""
DENSITY = classes((10, 50, 200, 500, 1000, 2000, 5000, 10_000, 20_000), HEAT)
"""People per square kilometre, of units."""
CHANGE = classes((-50, -20, -5, -1, 1, 5, 20, 50), APART)
INTERVAL = classes((1, 2, 5, 10, 20, 50, 100), WIDTH)
SCORE = classes((0.05, 0.1, 0.2, 0.4, 0.6, 0.8), GREYS)
OCCUPANCY = classes((0.1, 0.2, 0.5, 1, 2, 5), tuple(reversed(GREEN)))
OBSERVATIONS = classes((1, 2, 4, 8, 16, 32), GREEN)
UNIT_NUMBERS = (Value(0, "#ffffff", "outside all units"),)
RELIABILITY = (
    Value(0, "#d7301f", "not to be used at this scale"),
    Value(1, "#4daf4a", "may be used at this scale"),
)
