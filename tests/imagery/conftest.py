"""A small simulated place for imagery tests, and servers in front of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import ee.deprecation
import pytest

from popcorn_ml.grid import Grid
from popcorn_ml.imagery.settings import ImagerySettings
from popcorn_ml.simulate.country import write_country
from popcorn_ml.simulate.spec import CountrySpec
from tests.imagery.ee_server import Archive, EarthEngineServer
from tests.imagery.web_server import WebServer

YEAR = 2020
TILE_PX = 100


@dataclass(frozen=True)
class Place:
    """Scenes on disk: item collection and grid of the country, season spring of `YEAR`."""

    items: Path
    grid: Grid

    def settings(self, **options: object) -> ImagerySettings:
        """Reads the scenes from disk."""
        return ImagerySettings.parse(
            {
                "source": "stac",
                "stac": {"profile": "local", "items": str(self.items)},
                "tile_px": TILE_PX,
                **options,
            }
        )


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A simulated country of 200 x 200 pixels and its scenes of one year."""
    spec = CountrySpec(width=200, height=200, coarse_units=4, fine_units_each=2, seed=5)
    made = write_country(tmp_path_factory.mktemp("place"), spec, [YEAR])
    return Place(made.items, spec.grid)


@pytest.fixture
def web(place: Place):
    """The place's scenes behind HTTP: STAC API, links with byte ranges, tokens."""
    server = WebServer(place.items)
    yield server
    server.close()


@pytest.fixture
def earth_engine(place: Place, monkeypatch: pytest.MonkeyPatch):
    """A local Earth Engine over the place's scenes."""
    monkeypatch.setattr(ee.deprecation, "_FetchDataCatalogStac", dict)
    server = EarthEngineServer(Archive(place.items))
    yield server
    server.close()
    ee.Reset()
