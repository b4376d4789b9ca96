"""Country files: a wrong key is refused with file, line and what is allowed; the others load."""

from __future__ import annotations

import os
import re

import geopandas
import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from shapely.geometry import box

from popcorn_assets import country
from popcorn_assets.commands.countries import countries
from popcorn_assets.country import (
    PACKAGED,
    TrainingSettings,
    broken_countries,
    country_codes,
    country_files,
    load_country,
    unused_files,
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


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("CIV.yaml", "rename it to civ.yaml"),
        ("civ.yml", "rename it to civ.yaml"),
        (" civ.yaml", "rename it to civ.yaml"),
        ("civ .yaml", "rename it to civ.yaml"),
        ("civ.yaml ", "rename it to civ.yaml"),
        ("Côte d'Ivoire.YAML", "rename it to c_te_d_ivoire.yaml"),
        ("civ.yaml.txt", "rename it to civ.yaml"),
        ("1civ.yaml", "beginning with a letter"),
    ],
)
def test_files_that_only_look_like_a_countrys_are_named_with_why(folder, name, told):
    (folder / name).write_text((PACKAGED / "demo.yaml").read_text())
    said = CliRunner().invoke(countries)
    assert said.exit_code == 1
    assert f"{folder / name}: not used" in said.output
    assert told in said.output


def test_other_files_beside_them_are_nobodys_business(folder):
    for name in ("README.md", ".civ.yaml.swp", ".abc.yaml", "civ.yaml~", "civ.yaml.orig"):
        (folder / name).write_text("x")
    write(folder)
    assert unused_files() == {}
    assert CliRunner().invoke(countries).exit_code == 0


def test_a_folder_or_a_file_that_is_not_there_is_said(folder, monkeypatch):
    (folder / "abc.yaml").symlink_to(folder / "gone")
    assert "cannot be read" in str(broken_countries()["abc"])
    monkeypatch.setenv("POPCORN_COUNTRIES", str(folder / "none"))
    (why,) = unused_files().values()
    assert "there is no such folder" in why


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("name:", "name: NO", "name: NO is read as false: 'NO'?"),
        ("name:", "name: 02", "name: 02 is read as 2"),
        ("name:", "name: 12:30", "name: 12:30 is read as 750"),
        ("  step:", "  step: 010", "step: 010 is read as 8"),
        ("extractor:", "extractor: off", "extractor: off is read as false"),
    ],
)
def test_what_yaml_reads_otherwise_than_it_stands_is_refused(folder, before, after, told):
    lines = (PACKAGED / "demo.yaml").read_text().splitlines()
    number = next((i for i, line in enumerate(lines) if line.startswith(before)), None)
    if number is None:
        lines.insert(lines.index("grid:") + 1 if before.startswith(" ") else 0, after)
        number = lines.index(after)
    lines[number] = after
    (folder / "abc.yaml").write_text("\n".join(lines))
    with pytest.raises(ConfigError) as caught:
        load_country("abc")
    assert f"abc.yaml:{number + 1}: {told}" in str(caught.value)
    assert "in quotes" in str(caught.value)


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("{ISO: NO}", "NO is read as False"),
        ("{STATEFP: 02}", "02 is read as 2"),
        ("{STATEFP: [01, 02]}", "01 is read as 1"),
        ("{CODE: 1.10}", "1.10 is read as 1.1"),
        ("{CODE: ~}", "~ is read as None"),
        ("{ISO: 'NO'}", None),
        ("{STATEFP: '02', YEAR: 2020, ISO: RWA}", None),
        ("{STATEFP: 08}", None),  # no octal number: a text as it stands
    ],
)
def test_values_that_rows_are_kept_by_are_those_that_stand_there(folder, where, found):
    from popcorn_assets.countries.yaml_text import read_otherwise, switches
    from popcorn_assets.country import Country

    text = (
        f"census:\n  levels:\n    - counts:\n        where: {where}\nautomation: {{refresh: yes}}"
    )
    told = read_otherwise(yaml.compose(text, Loader=yaml.SafeLoader), switches(Country))
    assert [found in what for _, what in told[:1]] == ([True] if found else [])


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("max_pixels_per_step", 20_000),  # less than two units a step need
        ("batch_units", 100),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("initial_bias", float("nan")),
        ("stretch", float("inf")),
        ("leave_out", 0.5),
        ("first_seed", 2**63),
        ("first_seed", 2**63 - 1),  # the second member's is too large
    ],
)
def test_training_settings_that_cannot_be_are_refused_with_the_file(folder, setting, value):
    """They were, hours later, when the imagery had been fetched."""
    path = write(folder, training__members=2, **{f"training__{setting}": value})
    with pytest.raises(ConfigError) as caught:
        load_country("abc")
    assert str(path) in str(caught.value)
    assert "training" in str(caught.value)


def test_training_settings_at_their_bounds_are_taken(folder):
    write(folder, training__batch_units=4, training__max_pixels_per_step=4 * 128 * 128)
    assert load_country("abc").training.batch_units == 4


@pytest.mark.parametrize(
    ("said", "held_out", "keep_epoch"),
    [
        ({}, "folds", "last"),
        ({"members": 3, "keep_epoch": "last"}, "folds", "last"),
        ({"keep_epoch": "best"}, "same", "best"),
        ({"held_out_share": 0.2}, "same", "best"),
        ({"held_out_share": 0.2, "keep_epoch": "last"}, "same", "last"),
        ({"held_out_share": 0}, "none", "last"),
        ({"members": 1}, "same", "best"),
        ({"held_out": "none"}, "none", "last"),
        ({"held_out": "folds", "held_out_share": 0.2}, "folds", "last"),
    ],
)
def test_what_is_held_out_follows_from_what_a_file_says(said, held_out, keep_epoch):
    """Also of files from before there were folds: what they ask for is what they get."""
    settings = TrainingSettings(**said)
    assert (settings.held_out, settings.keep_epoch) == (held_out, keep_epoch)
    specs = [settings.of_member(number) for number in range(1, settings.members + 1)]
    assert [spec["seed"] for spec in specs] == settings.seeds()
    folds = [spec["fold"] for spec in specs]
    assert folds == (list(range(settings.members)) if held_out == "folds" else [0] * len(specs))


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"held_out": "folds", "members": 1}, "needs two members"),
        ({"held_out": "folds", "keep_epoch": "best"}, "keep_epoch cannot be used"),
        ({"held_out": "half"}, "'folds', 'same' or 'none'"),
    ],
)
def test_folds_that_cannot_be_are_refused_before_any_imagery(said, told):
    with pytest.raises(ValueError, match=told):
        TrainingSettings(**said)


def test_three_hundred_files_are_each_read_once(tmp_path, monkeypatch):
    """However often codes and settings are asked for, and in whatever order."""
    text = (PACKAGED / "rwa.yaml").read_text("utf-8")
    for number in range(300):
        (tmp_path / f"c{number:03d}.yaml").write_text(text, "utf-8")
    monkeypatch.setenv("POPCORN_COUNTRIES", str(tmp_path))
    read, listed = [], []
    load, files = country._load, country.country_files
    monkeypatch.setattr(country, "_load", lambda path: read.append(path) or load(path))
    monkeypatch.setattr(country, "country_files", lambda: listed.append(1) or files())
    for _ in range(2):
        codes = country.country_codes()
        assert len([code for code in codes if re.fullmatch("c[0-9]{3}", code)]) == 300
        for code in codes:
            assert country.load_country(code).code == code
    assert len([path for path in read if path.parent == tmp_path]) == 300
    assert len(listed) == 2
    changed = tmp_path / "c123.yaml"
    changed.write_text(text.replace("name: ", "name: New ", 1), "utf-8")
    os.utime(changed, ns=(1, 1))
    assert country.load_country("c123").name.startswith("New ")


def test_whose_units_are_trained_on(folder):
    """Its own, where nothing is said or its own code alone; others must have files."""
    write(folder, "abc")
    write(folder, "alone", training__countries=["alone"])
    write(folder, "mix", training__countries=["abc", "mix"])
    write(folder, "pure", training__countries=["abc"])
    found = {code: load_country(code) for code in ("abc", "alone", "mix", "pure")}
    assert {code: (one.trained_on(), one.trained_with_others) for code, one in found.items()} == {
        "abc": (["abc"], False),
        "alone": (["alone"], False),
        "mix": (["abc", "mix"], True),
        "pure": (["abc"], True),
    }
    assert "countries" not in found["mix"].training.of_member(1)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["abc", "nowhere"], "nowhere"),
        (["abc", "abc"], "more than once: abc"),
        ([], "at least 1 item"),
        (["ABC"], "ABC"),
        (["../abc"], "abc"),
        ("abc", "list"),
        (["abc", 1], "string"),
    ],
)
def test_countries_that_cannot_be_trained_on_are_refused_with_the_line(folder, given, told):
    write(folder, "abc")
    path = write(folder, "mix", training__countries=given)
    with pytest.raises(ConfigError, match=r"training\.countries") as raised:
        load_country("mix")
    assert told in str(raised.value)
    lines = path.read_text().splitlines()
    number = int(re.search(r"mix\.yaml:(\d+)", str(raised.value))[1])
    assert any("countries:" in line for line in lines[max(number - 3, 0) : number])
    assert "abc" in country_codes()


def test_a_student_may_be_taught_by_members_of_several_countries(folder):
    write(folder, "abc")
    write(folder, "mix", training__countries=["abc", "mix"], model={"kind": "student"})
    found = load_country("mix")
    assert (found.model.kind, found.trained_on()) == ("student", ["abc", "mix"])


@pytest.mark.parametrize(
    ("section", "key", "value", "told"),
    [
        ("model", "kind", "pupil", "allowed: 'bag' or 'student'; found: 'pupil'"),
        ("model", "kind", True, "allowed: 'bag' or 'student'; found: True"),
        ("model", "sensors", "s3", "allowed: 'both', 's2' or 's1'; found: 's3'"),
        ("model", "sensors", "s2", "sensors: s2 is for kind: student; the Bag needs both sensors"),
        ("student", "steps", 0, "greater than or equal to 1; found: 0"),
        ("student", "epoch", 3, "unknown key; allowed here: seed, steps"),
    ],
)
def test_a_student_that_cannot_be_is_refused_with_its_line(folder, section, key, value, told):
    given = {"steps": 5} if section == "student" else {"country": "demo"}
    path = write(folder, **{section: {**given, key: value}})
    with pytest.raises(ConfigError) as caught:
        load_country("abc")
    line = line_of(path, f"{section}:" if "the Bag needs" in told else f"{key}:")
    assert f"{path}:{line}: {section}" in str(caught.value)
    assert told in str(caught.value)


def test_a_country_is_mapped_by_the_bag_unless_its_file_says_a_student(folder):
    write(folder)
    assert (load_country("abc").model.kind, load_country("abc").model.sensors) == ("bag", "both")
    write(folder, "abd", model={"kind": "student", "sensors": "s2"}, student={"steps": 7})
    told = load_country("abd")
    assert (told.model.kind, told.model.sensors, told.student.steps) == ("student", "s2", 7)
