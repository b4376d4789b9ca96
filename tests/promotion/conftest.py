"""An empty platform whose country maps every year with checkpoints of one."""

import pytest

from popcorn_assets.store.versions import Store
from tests.platforms import Place
from tests.promotion.models import configure


@pytest.fixture
def home(place) -> Place:
    """An empty platform whose country `demo` maps every year with checkpoints of 2020."""
    configure(place, country="demo", year=2020)
    return place


@pytest.fixture
def store(home) -> Store:
    return Store(home.data)
