"""Settings, grids of countries, estimates: what an operator writes and is told."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import geopandas
import pytest
from shapely import box

from popcorn_ml.errors import ConfigError
from popcorn_ml.grid import EARTH_ENGINE_10M_DEG, Grid
from popcorn_ml.imagery.choice import open_source
from popcorn_ml.imagery.doctor import examine
from popcorn_ml.imagery.estimate import estimate
from popcorn_ml.imagery.presets import (
    PUBLISHED_BOXES,
    grid_of_boundary,
    grid_of_box,
    preset_grid,
    utm_zone,
)
from popcorn_ml.imagery.secrets import Secrets
from popcorn_ml.imagery.settings import ImagerySettings
from popcorn_ml.imagery.source_modules import source_names
from tests.imagery.conftest import YEAR, Place
from tests.imagery.web_server import WebServer


def test_reading_settings_loads_nothing_heavy() -> None:
    code = (
        "import sys; from popcorn_ml.imagery.settings import ImagerySettings as S; S();"
        "[S.parse({'source': n}) for n in ('stac', 'files', 'earthengine')];"
        "heavy = {'numpy', 'torch', 'geopandas', 'rasterio', 'ee', 'pystac_client'};"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_sources_are_found_by_their_files() -> None:
    assert source_names() == ("earthengine", "files", "stac")


def test_a_country_may_prepare_several_sources_and_choose() -> None:
    settings = ImagerySettings.parse(
        {
            "source": "earthengine",
            "stac": {"profile": "earth-search", "s1_profile": "planetary-computer"},
            "s1_orbit": "ascending",
            "keep_snow": True,
            "gaps": {"nearest_px": 5},
        }
    )
    assert settings.chosen.max_cloud_probability == 65
    other = settings.using("stac")
    assert other.chosen.s1_profile == "planetary-computer"
    assert (other.s1_orbit, other.gaps.nearest_px) == ("ascending", 5)
    assert other.clear_classes == (4, 5, 6, 7, 11)
    assert ImagerySettings().clear_classes == (4, 5, 6, 7)
    assert set(other.as_dict()) >= {"source", "stac", "gaps"}
    assert "earthengine" not in other.as_dict()


def test_relative_paths_are_taken_from_a_folder() -> None:
    settings = ImagerySettings.parse({"stac": {"profile": "local", "items": "demo/items.json"}})
    assert settings.rooted(Path("/data")).chosen.items == Path("/data/demo/items.json")
    absolute = ImagerySettings.parse({"stac": {"profile": "local", "items": "/x/items.json"}})
    assert absolute.rooted(Path("/data")).chosen.items == Path("/x/items.json")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"source": "landsat"}, "landsat"),
        ({"stacc": {}}, "'stacc' is neither a setting"),
        ({"stac": {"profile": "nowhere"}}, "profile"),
        ({"stac": {"profil": "local"}}, "profil"),
        ({"tile_px": 10}, "tile_px"),
        ({"gaps": {"nearest": 3}}, "gaps.nearest"),
        ({"earthengine": {"mode": "export"}}, "needs a bucket"),
        ({"s1_orbit": "polar"}, "s1_orbit"),
        ({"max_scenes": 0}, "max_scenes: Input should be greater than or equal to 1"),
        ({"max_scenes": 2.5}, "max_scenes: Input should be a valid integer"),
        ({"max_scenes": True}, "max_scenes: .* should be a number, or be left out for no limit"),
        ({"max_scenes": "few"}, "max_scenes"),
        ({"max_cloud_cover": -1}, "max_cloud_cover: Input should be greater than or equal to 0"),
        ({"max_cloud_cover": 100.5}, "max_cloud_cover: Input should be less than or equal to 100"),
        ({"max_cloud_cover": float("nan")}, "max_cloud_cover: Input should be a finite number"),
        ({"max_cloud_cover": "20 %"}, "max_cloud_cover"),
        ({"max_cloud_covers": 20}, "'max_cloud_covers' is neither a setting"),
    ],
)
def test_mistakes_are_named(given: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ImagerySettings.parse(given, where="rwa.yaml")


def test_limits_of_scenes_are_part_of_what_decides_pixels() -> None:
    """And no limit is no part: what was made before there were any is current."""
    before = {
        "keep_snow": False,
        "s1_orbit": "descending",
        "s1_other_orbit": True,
        "source": "stac",
        "stac": {
            "collections": {},
            "items": None,
            "max_cloud_percent": 100.0,
            "profile": "planetary-computer",
            "s1_profile": None,
            "url": None,
        },
        "tile_px": 1024,
    }
    for unlimited in ({}, {"max_scenes": None}, {"max_cloud_cover": 100}):
        for sensor in ("s1", "s2"):
            assert ImagerySettings.parse(unlimited).pixel_identity(sensor) == before
    some = ImagerySettings.parse({"max_scenes": 12.0, "max_cloud_cover": "60"})
    assert some.pixel_identity("s2") == {**before, "max_scenes": 12, "max_cloud_cover": 60.0}
    assert some.pixel_identity("s1") == {**before, "max_scenes": 12}, "clouds are nothing to it"
    files = {"source": "files", "files": {"root": "/x", "region": "rwa"}}
    finished = ImagerySettings.parse({**files, "max_scenes": 12, "max_cloud_cover": 60})
    assert finished.pixel_identity("s2") == ImagerySettings.parse(files).pixel_identity("s2")
    assert some.using("earthengine").scene_limit == 12
    assert some.limited(max_scenes=3).cloud_limit("s2") == 60
    with pytest.raises(ConfigError, match="max_scenes"):
        some.limited(max_scenes=0)


def test_the_published_countries() -> None:
    """On Earth Engine's lattice, so that published composites fit; hectares nest."""
    assert set(PUBLISHED_BOXES) == {"rwa", "che", "pricp2", "uga"}
    for country, bounds in PUBLISHED_BOXES.items():
        grid = preset_grid(country)
        assert grid.crs == "EPSG:4326"
        assert grid.step == EARTH_ENGINE_10M_DEG
        west, south, east, north = grid.bounds
        assert west <= bounds[0] + 1e-9
        assert south <= bounds[1] + 1e-9
        assert east >= bounds[2] - 1e-9
        assert north >= bounds[3] - 1e-9
        for edge in (grid.west, grid.north):
            assert edge / (10 * grid.step) == pytest.approx(round(edge / (10 * grid.step)))
        assert grid.width % 10 == grid.height % 10 == 0
    with pytest.raises(ConfigError, match="no grid is preset"):
        preset_grid("fra")


def test_new_countries_count_in_metres(tmp_path: Path) -> None:
    assert utm_zone(30.1, -1.9) == "EPSG:32736"
    assert utm_zone(8.5, 47.4) == "EPSG:32632"
    assert utm_zone(180.0, 10.0) == "EPSG:32660"
    grid = grid_of_box((30.0, -2.0, 30.1, -1.9))
    assert (grid.crs, grid.step) == ("EPSG:32736", 10.0)
    assert grid.west % 100 == grid.north % 100 == grid.width % 10 == 0
    file = tmp_path / "country.geojson"
    geopandas.GeoDataFrame(geometry=[box(30.0, -2.0, 30.1, -1.9)], crs=4326).to_file(file)
    assert grid_of_boundary(file).crs == "EPSG:32736"
    assert abs(grid_of_boundary(file).width - grid.width) <= 10
    assert grid_of_boundary(file, "EPSG:3857").crs == "EPSG:3857"
    for wrong in ((30, -2, 29, -1), (0, 0, 400000, 400000)):
        with pytest.raises(ConfigError, match="not a box in degrees"):
            grid_of_box(wrong)
    with pytest.raises(ConfigError, match="cannot be brought"):
        grid_of_box((30.0, -2.0, 30.1, -1.9), "EPSG:999999")


def test_estimate(tmp_path: Path) -> None:
    """Without asking anyone; a boundary makes it smaller."""
    grid = preset_grid("pricp2")
    remote = estimate(grid, ImagerySettings(), 2020)
    assert remote.tiles == remote.tiles_total == grid.tile_count(1024)
    assert remote.requests > 10000
    assert 5e10 < remote.bytes < 1e12
    assert not remote.scenes_counted
    engine = estimate(grid, ImagerySettings.parse({"source": "earthengine"}), 2020)
    assert engine.requests == 8 * engine.tiles
    file = tmp_path / "island.gpkg"
    geopandas.GeoDataFrame(geometry=[box(-66.5, 18.0, -66.0, 18.4)], crs=4326).to_file(file)
    part = estimate(grid, ImagerySettings(), 2020, boundary=file)
    assert 0 < part.tiles < remote.tiles / 4
    assert part.bytes < remote.bytes / 4
    text = "\n".join(part.lines())
    assert f"{part.tiles} of {part.tiles_total}" in text
    assert "assumed from revisit times" in text


def test_estimate_compares_choices_of_scenes() -> None:
    grid = preset_grid("pricp2")
    every = estimate(grid, ImagerySettings(), 2020)
    assert [cost.max_scenes for cost in every.choices] == [None, 24, 12, 6, 3]
    assert (every.choices[0].bytes, every.choices[0].requests) == (every.bytes, every.requests)
    for fewer in ("bytes", "requests"):
        spent = [getattr(cost, fewer) for cost in every.choices]
        assert spent == sorted(spent, reverse=True)
        assert spent[-1] < spent[0] / 3
    empty = [cost.worst[1] for cost in every.choices]
    assert empty == sorted(empty)
    assert 1e-4 < empty[-1] < 1e-3  # 3 of 18 clearest, covers spread evenly: 1/36 * 3/36 * 5/36
    some = estimate(grid, ImagerySettings.parse({"max_scenes": 9, "max_cloud_cover": 30}), 2020)
    assert [cost.max_scenes for cost in some.choices] == [None, 24, 12, 9, 6, 3]
    assert some.bytes == some.choices[3].bytes < every.bytes
    text = "\n".join(some.lines())
    assert "cloud cover up to 30 %" in text
    assert "\n> 9 " in text
    none = estimate(grid, ImagerySettings.parse({"max_cloud_cover": 0}), 2020)
    assert none.empty_share == dict.fromkeys(("spring", "summer", "autumn", "winter"), 1.0)
    engine = {"source": "earthengine", "max_scenes": 3}
    assert "the same bytes" in estimate(grid, ImagerySettings.parse(engine), 2020).lines()[-1]
    files = {"source": "files", "files": {"root": "/x", "region": "rwa"}, "max_scenes": 3}
    finished = estimate(grid, ImagerySettings.parse(files), 2020)
    assert not finished.choices
    assert "no effect" in finished.lines()[-1]


def test_estimate_that_asks_knows_where_scenes_lie_and_their_clouds(
    place: Place, web: WebServer
) -> None:
    """Bytes by the scenes that lie over a pixel; emptiness by what the catalogue says of clouds."""
    settings = ImagerySettings.parse({"stac": {"url": web.api}, "max_scenes": 1})
    found = estimate(place.grid, settings, YEAR, ask=True)
    costs = {cost.max_scenes: cost for cost in found.choices}
    assert found.scenes == costs[1].scenes
    assert costs[1].bytes < costs[3].bytes < costs[None].bytes
    assert costs[24] == replace(costs[None], max_scenes=24)
    assert costs[1].empty_share["spring"] > costs[3].empty_share["spring"] > 0
    for item in web.items:
        item["properties"]["eo:cloud_cover"] = 50.0
    grey = {
        cost.max_scenes: cost for cost in estimate(place.grid, settings, YEAR, ask=True).choices
    }
    for share in grey[1].empty_share.values():
        assert 0.5**3 < share <= 0.5  # where two granules or tracks overlap, two halves
    settings = settings.limited(max_cloud_cover=40)
    overcast = estimate(place.grid, settings, YEAR, ask=True)
    assert set(overcast.empty_share.values()) == {1.0}
    assert overcast.scenes["s2 spring"] == 0
    assert overcast.scenes["s1 spring"] > 0


def test_estimate_that_asks(place: Place, web: WebServer) -> None:
    settings = ImagerySettings.parse({"stac": {"url": web.api}})
    asked = estimate(place.grid, settings, YEAR, ask=True)
    assert asked.scenes_counted
    local = open_source(place.settings())
    from popcorn_ml.imagery.source import SeasonRequest

    request = SeasonRequest("s2", YEAR, "spring", place.grid)
    assert asked.scenes["s2 spring"] == len(local.scenes(request).scenes)
    local.close()


def test_doctor_looks_at_catalogues_and_folders(
    place: Place, web: WebServer, tmp_path: Path
) -> None:
    assert all(one.ok for one in examine(place.settings(), Secrets()))
    missing = ImagerySettings.parse({"stac": {"profile": "local", "items": str(tmp_path / "x")}})
    assert not all(one.ok for one in examine(missing, Secrets()))
    search = ImagerySettings.parse({"stac": {"profile": "earth-search"}})
    refused = [str(one) for one in examine(search, Secrets()) if not one.ok]
    assert any("s1_profile: planetary-computer" in line for line in refused)
    answering = ImagerySettings.parse({"stac": {"url": web.api, "sign_url": web.sas}})
    assert all(one.ok for one in examine(answering, Secrets(), connect=True))
    silent = ImagerySettings.parse({"stac": {"url": "http://127.0.0.1:9", "sign_url": web.sas}})
    assert not all(one.ok for one in examine(silent, Secrets(), connect=True))
    files = ImagerySettings.parse({"source": "files"})
    assert not examine(files, Secrets())[0].ok
    files = ImagerySettings.parse(
        {"source": "files", "files": {"root": str(tmp_path), "region": "rwa"}}
    )
    assert examine(files, Secrets())[0].ok


def test_a_grid_over_the_antimeridian_does_not_hide_scenes() -> None:
    from popcorn_ml.imagery.nearest import bounds_meet, lonlat_bounds

    box = lonlat_bounds(Grid("EPSG:3832", 3300000, -1800000, 10, 9000, 9000))
    west, south, east, north = box
    assert 179 < west < 180
    assert -180 < east < -179
    assert -18 < south < north < -15
    assert bounds_meet(box, (179, -17, 180, -16))
    assert bounds_meet(box, (-180, -17, -179, -16))
