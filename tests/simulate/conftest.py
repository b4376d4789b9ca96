"""A small simulated country, written once for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from popcorn_ml.simulate.country import CountrySummary, write_country
from popcorn_ml.simulate.spec import MARGIN_PX, CountrySpec
from popcorn_ml.simulate.world import World, make_world

SMALL = CountrySpec(code="small", seed=5, width=160, height=150, urban_share=0.35, coarse_units=12)
INNER = (slice(MARGIN_PX, -MARGIN_PX), slice(MARGIN_PX, -MARGIN_PX))
"""The country's pixels in an array of the place."""


@pytest.fixture(scope="session")
def spec() -> CountrySpec:
    return SMALL


@pytest.fixture(scope="session")
def place() -> World:
    """A place large enough to hold every kind of settlement."""
    return make_world(20, (420, 400), 2020, 0.3)


@pytest.fixture(scope="session")
def country(tmp_path_factory: pytest.TempPathFactory, spec: CountrySpec) -> CountrySummary:
    """The small country with its scenes of 2021, and census and truth. Read only."""
    return write_country(tmp_path_factory.mktemp("country"), spec, [2021])


@pytest.fixture(scope="session")
def by_kind(place: World) -> Callable[[np.ndarray], dict[str, float]]:
    """Mean of an array of the place over the old neighbourhoods of each kind."""
    from popcorn_ml.simulate.settlements import KIND_NAMES

    made = place.settlements
    kind = np.where(made.founded <= 2018, made.kind, -2)[made.neighbourhood]
    kind[(kind == -1) | ((made.kind[made.neighbourhood] == -1) & (made.village > 0.4))] = 4

    def means(values: np.ndarray) -> dict[str, float]:
        return {name: float(values[kind == i].mean()) for i, name in enumerate(KIND_NAMES)}

    return means
