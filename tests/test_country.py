"""Country files: a wrong key is refused with file, line and what is allowed; the others load."""

from __future__ import annotations

import geopandas
import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from shapely.geometry import box

from popcorn_assets.commands.countries import countries
from popcorn_assets.country import (
    PACKAGED,
    broken_countries,
    country_codes,
    country_files,
    load_country,
)
from popcorn_ml import raster
from popcorn_ml.errors import ConfigError
from popcorn_ml.grid import EARTH_ENGINE_10M_DEG, Grid


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("POPCORN_COUNTRIES", str(tmp_path))
    return tmp_path


def write(folder, code="abc", **changes):
    data = yaml.safe_load((PACKAGED / "demo.yaml").read_text())
    for key, value in changes.items():
        place, _, last = key.rpartition("__")
        section = data
        for part in filter(None, place.split("__")):
            section = section[part]
        if value is None:
            del section[last]
        else:
            section[last] = value
    path = folder / f"{code}.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True))
    return path


def line_of(path, text):
    lines = path.read_text().splitlines()
    return next(i for i, line in enumerate(lines, 1) if line.strip().startswith(text))


def test_every_packaged_country_loads():
    assert "demo" in country_codes()
    for path in PACKAGED.glob("*.yaml"):
        assert load_country(path.stem).pixel_grid().width > 0


def test_an_operators_folder_adds_countries_and_wins_over_the_packaged(folder):
    write(folder, "abc", name="Own")
    write(folder, "demo", name="Other demo")
    assert load_country("abc").name == "Own"
    assert load_country("demo").name == "Other demo"
    assert load_country("abc").code == "abc"


def test_unknown_country_lists_the_known():
    with pytest.raises(ConfigError, match=r"no country 'atlantis'\n.*demo"):
        load_country("atlantis")


def test_an_unknown_key_is_refused_with_line_and_allowed_keys(folder):
    path = write(folder, training__epoch=3)
    with pytest.raises(ConfigError) as caught:
        load_country("abc")
    text = str(caught.value)
    assert f"{path}:{line_of(path, 'epoch:')}: training.epoch: unknown key" in text
    assert "epochs" in text
    assert "learning_rate" in text


def test_a_missing_key_is_refused_with_the_line_of_its_section(folder):
    path = write(folder, census__levels=None)
    with pytest.raises(ConfigError) as caught:
        load_country("abc")
    line = line_of(path, "census:")
    assert f"{path}:{line}: census.levels: this key is missing" in str(caught.value)


def test_a_wrong_value_is_refused_with_its_line(folder):
    path = write(folder, training__members=0)
    with pytest.raises(ConfigError) as caught:
        load_country("abc")
    assert f"{path}:{line_of(path, 'members:')}: training.members" in str(caught.value)


def test_a_key_given_twice_is_refused_with_its_second_line(folder):
    path = write(folder)
    path.write_text(path.read_text() + "extractor: demo\n")
    with pytest.raises(ConfigError) as caught:
        load_country("abc")
    line = len(path.read_text().splitlines())
    assert f"{path}:{line}: extractor: given a second time" in str(caught.value)


def test_text_that_is_no_yaml_is_refused_with_its_line(folder):
    (folder / "abc.yaml").write_text("name: x\ngrid: [1, 2\nother: {\n")
    with pytest.raises(ConfigError, match=r"abc\.yaml:\d+: the file is not YAML"):
        load_country("abc")


def test_a_broken_file_does_not_hide_the_other_countries(folder):
    write(folder, "abc", name=None)
    write(folder, "abd")
    codes = country_codes()
    assert "abd" in codes
    assert "demo" in codes
    assert "abc" not in codes
    assert set(broken_countries()) == {"abc"}


def test_names_of_files_that_cannot_be_codes_are_left_alone(folder):
    (folder / "..yaml").write_text("x: 1")
    (folder / "A B.yaml").write_text("x: 1")
    assert set(country_files()) == {p.stem for p in PACKAGED.glob("*.yaml")}


def test_a_grid_in_degrees_has_the_published_step_unless_told(folder):
    """Ten, meant as metres, were ten degrees: one pixel for a country, without a word."""
    box = {"box": [28.8, -2.9, 30.9, -1.0], "crs": "EPSG:4326"}
    write(folder, grid=box)
    assert load_country("abc").pixel_grid().step == EARTH_ENGINE_10M_DEG
    write(folder, "bounded", grid={"bounds": box["box"], "crs": "EPSG:4326"})
    assert load_country("bounded").pixel_grid() == load_country("abc").pixel_grid()
    path = write(folder, "coarse", grid=box | {"step": 10})
    with pytest.raises(ConfigError) as caught:
        load_country("coarse").pixel_grid()
    assert str(caught.value).startswith(f"{path}: grid.step: ")
    assert "8.983e-06 to 0.008983 degrees" in str(caught.value)


@pytest.mark.parametrize("way", ["box", "bounds", "like", "boundary"])
def test_a_grid_whose_areas_are_wrong_is_refused_with_its_file(folder, way, monkeypatch):
    """However the grid is given: a box, bounds, a raster's own, a boundary's."""
    monkeypatch.setenv("POPCORN_DATA", str(folder / "data"))
    mercator = Grid("EPSG:3857", 946_000, 6_000_000, 10.0, 20, 20)
    grid = {
        "box": {"box": [8.5, 47.3, 8.6, 47.4], "crs": mercator.crs},
        "bounds": {"bounds": list(mercator.bounds), "crs": mercator.crs},
        "like": {"like": "given.tif"},
        "boundary": {"boundary": "given.geojson", "crs": mercator.crs},
    }[way]
    if way == "like":
        values = np.zeros((1, *mercator.shape), np.float32)
        raster.write(folder / "data" / "given.tif", values, mercator, ["x"], np.nan)
    elif way == "boundary":
        place = geopandas.GeoDataFrame(geometry=[box(8.5, 47.3, 8.6, 47.4)], crs=4326)
        (folder / "data").mkdir()
        place.to_file(folder / "data" / "given.geojson")
    path = write(folder, grid=grid)
    with pytest.raises(ConfigError) as caught:
        load_country("abc").pixel_grid()
    assert str(caught.value).startswith(f"{path}: grid.crs: areas in the grid's CRS")
    assert "UTM zone" in str(caught.value)


def test_a_grid_that_cannot_be_does_not_hide_the_other_countries(folder):
    write(folder, grid={"box": [8.5, 47.3, 8.6, 47.4], "crs": "EPSG:3857"})
    said = CliRunner().invoke(countries)
    assert said.exit_code == 1
    assert "demo " in said.output
    assert "grid.crs: areas" in said.output
