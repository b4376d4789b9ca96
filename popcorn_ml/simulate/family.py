"""Families of simulated worlds: what differs between them, under one form.

A family draws land, settlements and census units, and says what its surfaces look like. What is the
same for all lies beside it: `buildings` (from rectangles to pixels), what instruments and skies do
(`optics`, `radar`), scenes, census files. Families share no settlement, no land and no spectrum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from popcorn_ml.errors import ConfigError
from popcorn_ml.sentinel import Orbit
from popcorn_ml.simulate import census, dryland, optics, radar, settlements, world
from popcorn_ml.simulate.buildings import Buildings, Surface
from popcorn_ml.simulate.census import Level
from popcorn_ml.simulate.spec import FIRST, CountrySpec

SECOND = "second"


class Made(Protocol):
    """What people have made in a place."""

    @property
    def buildings(self) -> Buildings: ...


class World(Protocol):
    """A place at all times."""

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def settlements(self) -> Made: ...


@dataclass(frozen=True)
class Family:
    """One way to draw places.

    Attributes:
        kinds: names of its kinds of settlement, as `Buildings.kind` numbers them.
        materials: what covers the ground, as `Surface.share` is ordered; "water" among them.
        code: modules of its own that what it draws depends on, from `popcorn_ml/simulate`.
        make_world: (seed, shape, base year, urban share) -> a place.
        surface: (place, year) -> what covers each pixel.
        people: (place, year) -> who lives in each pixel.
        make_units: (spec, people of the country, place) -> census units by level.
        rains: 0..1 of the year -> how rainy it is, 0..1.
        reflectance: (place, surface, 0..1 of the year, generator) -> float32 (4, rows, columns).
        gamma_nought: (place, surface, orbit, 0..1 of the year, wetness) -> (2, rows, columns).
    """

    kinds: tuple[str, ...]
    materials: tuple[str, ...]
    code: tuple[str, ...]
    make_world: Callable[[int, tuple[int, int], int, float], Any]
    surface: Callable[[Any, int], Surface]
    people: Callable[[Any, int], np.ndarray]
    make_units: Callable[[CountrySpec, np.ndarray, Any], dict[str, Level]]
    rains: Callable[[float], float]
    reflectance: Callable[[Any, Surface, float, np.random.Generator], np.ndarray]
    gamma_nought: Callable[[Any, Surface, Orbit, float, float], np.ndarray]


FAMILIES = {
    FIRST: Family(
        kinds=settlements.KIND_NAMES,
        materials=world.MATERIALS,
        code=("settlements.py", "world.py"),
        make_world=world.make_world,
        surface=world.surface,
        people=world.people,
        make_units=lambda spec, people, _: census.make_units(spec, people),
        rains=optics.rains,
        reflectance=optics.reflectance,
        gamma_nought=radar.gamma_nought,
    ),
    SECOND: Family(
        kinds=dryland.KIND_NAMES,
        materials=dryland.MATERIALS,
        code=tuple(f"dryland/{name}.py" for name in dryland.MODULES),
        make_world=dryland.make_world,
        surface=dryland.surface,
        people=dryland.people,
        make_units=dryland.make_units,
        rains=dryland.rains,
        reflectance=dryland.reflectance,
        gamma_nought=dryland.gamma_nought,
    ),
}


def family_of(name: str) -> Family:
    """The family of a name.

    Raises:
        ConfigError: there is none of that name.
    """
    try:
        return FAMILIES[name]
    except KeyError:
        raise ConfigError(
            "no such family of worlds", expected=f"one of {', '.join(FAMILIES)}", found=name
        ) from None
