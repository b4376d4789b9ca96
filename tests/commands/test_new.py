"""`popcorn new`: from an operator's files to a country that is checked, and nothing unasked."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import geopandas as gpd
import pandas as pd
import pytest
import shapely
import yaml
from click.testing import CliRunner

from popcorn_assets.cli import cli
from popcorn_assets.country import load_country
from popcorn_ml.errors import ConfigError
from tests.platforms import REPOSITORY, Place

PEOPLE = [120, 340, 80, 2100, 95, 410, 77, 640, 1305]


@pytest.fixture
def office(tmp_path) -> Path:
    """What a statistics office sends: a shapefile and a table, elsewhere than in the store."""
    folder = tmp_path / "office"
    folder.mkdir()
    corners = [(30 + 0.05 * (k % 3), -2 + 0.05 * (k // 3)) for k in range(9)]
    units = gpd.GeoDataFrame(
        {
            "OBJECTID": range(1, 10),
            "DISTCODE": [f"{k:03d}" for k in (11, 25, 3, 40, 51, 64, 72, 88, 90)],
            "DISTRICT": [f"Ville d'Été {k}" for k in range(9)],
            "POP": PEOPLE,
        },
        geometry=[shapely.box(x, y, x + 0.05, y + 0.05) for x, y in corners],
        crs=4326,
    )
    units.to_file(folder / "districts.shp")
    table = pd.DataFrame(
        {
            "No": range(9, 0, -1),
            "code": list(units["DISTCODE"]),
            "district": [name.upper() for name in units["DISTRICT"]],
            "area_km2": [30.9 + k / 10 for k in range(9)],
            "population": PEOPLE,
        }
    )
    table.to_csv(folder / "census_2022.csv", index=False)
    return folder


def new(*words: object):
    return CliRunner().invoke(cli, ["new", *map(str, words)])


def options(office: Path, **others: object) -> list[object]:
    said = {
        "name": "Ruritania",
        "year": 2022,
        "boundaries": office / "districts.shp",
        "counts": office / "census_2022.csv",
        **others,
    }
    return [part for key, value in said.items() for part in (f"--{key.replace('_', '-')}", value)]


def test_all_that_is_not_said_is_named_where_nobody_can_be_asked(place):
    done = new("ruri", "--name", "Ruritania")
    assert isinstance(done.exception, ConfigError)
    assert "give --boundaries and --counts and --year" in str(done.exception)
    assert "--name (" not in str(done.exception)
    assert not list((place.home / "countries").iterdir())


def test_an_offices_files_make_a_country_that_is_checked(place: Place, office: Path):
    done = new("ruri", *options(office))
    assert done.exit_code == 0, (done.output, done.exception)
    kept = place.data / "census" / "ruri"
    for name in ("districts.shp", "districts.dbf", "districts.prj", "census_2022.csv"):
        assert (kept / name).read_bytes() == (office / name).read_bytes()
        assert f"copied {office / name} to {kept / name}" in done.output
    level = load_country("ruri").census.levels["units"]
    assert (level.boundaries.columns.id, level.boundaries.columns.name) == (
        ("DISTCODE",), "DISTRICT",
    )  # fmt: skip
    (counts,) = level.counts
    assert (counts.columns.id, counts.columns.people, counts.year) == (
        ("code",), "population", 2022,
    )  # fmt: skip
    assert "9 of 9 units have a count; 5,167 people in 2022" in done.output
    assert load_country("ruri").pixel_grid().crs == "EPSG:32736"
    assert "download  about" in done.output
    assert done.output.rstrip().endswith("Go on with:  popcorn run ruri 2022")
    text = (place.home / "countries" / "ruri.yaml").read_text("utf-8")
    assert text.startswith("# Ruritania, begun by `popcorn new ruri`")


def test_again_changes_nothing_unasked_and_says_what_would(place: Place, office: Path):
    path = place.home / "countries" / "ruri.yaml"
    assert new("ruri", *options(office)).exit_code == 0
    path.write_text(path.read_text("utf-8") + "publication: {licence: CC-BY-4.0}\n", "utf-8")
    before = path.read_bytes()

    looked = new("ruri")
    assert (looked.exit_code, path.read_bytes()) == (0, before)
    assert "nothing is written" in looked.output
    assert "9 of 9 units" in looked.output

    asked = new("ruri", *options(office))
    assert (asked.exit_code, path.read_bytes()) == (1, before)
    assert "\n-publication: {licence: CC-BY-4.0}\n" in asked.output
    assert "nothing was changed" in asked.output

    (office / "census_2022.csv").write_text("code,population\n011,1\n", "utf-8")
    kept = (place.data / "census" / "ruri" / "census_2022.csv").read_bytes()
    other = new("ruri", *options(office, boundaries_id_column="DISTCODE", id_column="code"))
    assert other.exit_code == 1
    assert "is another file than" in other.output
    assert (place.data / "census" / "ruri" / "census_2022.csv").read_bytes() == kept

    path.write_bytes(before)
    (office / "census_2022.csv").write_bytes(kept)
    assert new("ruri", *options(office), "--replace").exit_code == 0
    assert "publication" not in path.read_text("utf-8")
    same = new("ruri", *options(office))
    assert same.exit_code == 0
    assert "is as asked for already" in same.output
    assert "copied" not in same.output


def test_who_does_not_join_is_named_and_stands_in_the_way(place: Place, office: Path):
    table = pd.read_csv(office / "census_2022.csv", dtype=str)
    table.loc[0, "code"] = "777"
    table.to_csv(office / "census_2022.csv", index=False)
    done = new("ruri", *options(office))
    assert done.exit_code == 1
    assert "8 of 9 units have a count" in done.output
    assert "units without a count (1): 011 (Ville d'Été 0)" in done.output
    assert "counts without a unit (1): 777 (VILLE D'ÉTÉ 0)" in done.output
    assert "ERROR people_have_polygon" in done.output
    assert done.output.rstrip().endswith("popcorn new ruri")
    table.loc[0, "code"] = "011"
    table.to_csv(place.data / "census" / "ruri" / "census_2022.csv", index=False)
    assert new("ruri").exit_code == 0


def test_a_doubt_lists_the_columns_and_how_to_say_it(place: Place, office: Path):
    table = pd.read_csv(office / "census_2022.csv", dtype=str)
    table["pop_night"] = [str(n + 1) for n in PEOPLE]
    table.to_csv(office / "census_2022.csv", index=False)
    done = new("ruri", *options(office))
    assert "several columns could count the people" in str(done.exception)
    assert "'population', 'pop_night'" in str(done.exception)
    assert "--people-column" in str(done.exception)
    assert not list((place.home / "countries").iterdir())
    assert not (place.data / "census").exists()
    assert new("ruri", *options(office, people_column="pop_night")).exit_code == 0


@pytest.mark.parametrize(
    ("code", "changed", "told"),
    [
        ("Ruri-1", {}, "take ruri_1"),
        ("ruri", {"year": 1999}, "there is no imagery of 1999"),
        ("ruri", {"counts": "nothing.csv"}, "there is no such file"),
        ("ruri", {"box": "1,2,3"}, "west,south,east,north"),
        ("ruri", {"imagery": "landsat"}, "no such source of imagery"),
        ("ruri", {"like": "atlantis"}, "no country 'atlantis'"),
        ("ruri", {"model": "rwa"}, "COUNTRY/YEAR"),
        ("ruri", {"only": "x"}, "--only needs"),
        ("ruri", {"boundaries": "cod"}, "ISO 3166-1"),
    ],
)
def test_a_wrong_answer_is_refused_before_anything_is_written(place, office, code, changed, told):
    if "boundaries" in changed:
        changed = {**changed, "iso": "RW"}
    done = new(code, *options(office, **changed))
    assert isinstance(done.exception, Exception)
    assert told in str(done.exception)
    assert not list((place.home / "countries").iterdir())
    assert not (place.data / "census").exists()


def test_files_in_opened_folders_are_read_where_they_are(place, office, monkeypatch):
    monkeypatch.setenv("POPCORN_FOLDERS", str(office))
    assert new("ruri", *options(office)).exit_code == 0
    assert not (place.data / "census").exists()
    files = yaml.safe_load((place.home / "countries" / "ruri.yaml").read_text("utf-8"))
    assert files["grid"]["boundary"] == str(office / "districts.shp")


def test_without_a_named_folder_it_is_countries_beside_data(place, office, monkeypatch):
    monkeypatch.delenv("POPCORN_COUNTRIES")
    monkeypatch.chdir(office)  # paths are from where one stands, all else from the home
    assert new("ruri", *options(Path())).exit_code == 0
    assert (place.home / "countries" / "ruri.yaml").is_file()
    assert load_country("ruri").name == "Ruritania"


def test_a_few_units_of_a_packaged_country_are_one(place: Place):
    done = new("--like", "pricp2", "--only", "culebra, 72147")
    assert done.exit_code == 0, (done.output, done.exception)
    assert "2 of 2 units have a count; 10,041 people in 2020" in done.output
    part = load_country("pricp2_culebra_2")
    whole = load_country("pricp2").pixel_grid()
    grid = part.pixel_grid()
    assert (grid.crs, grid.step) == (whole.crs, whole.step)
    assert grid.width * grid.height < 0.1 * whole.width * whole.height
    assert not (place.data / "census").exists()
    assert (part.training.members, part.training.epochs) == (1, 1)
    done = new("culeb", "--like", "pricp2", "--only", "Culebra", "--model", "pricp2/2020")
    assert done.output.rstrip().endswith("popcorn run culeb 2020 --job refresh")
    assert load_country("culeb").training == load_country("demo").training.model_validate({})
    done = new("--like", "pricp2", "--only", "Culbra,Atlantis")
    assert "Culbra (Culebra?); Atlantis (none like it)" in str(done.exception)
    done = new("--like", "rwa", "--only", "1")
    assert "census" in str(done.exception)  # its census is not there


def test_a_part_of_an_own_country_joins_as_the_whole_does(place: Place, office: Path):
    """By codes that a table holds without their zeros, from files in another country's folder."""
    table = pd.read_csv(office / "census_2022.csv", dtype=str)
    table["code"] = table["code"].str.lstrip("0")
    table.to_csv(office / "census_2022.csv", index=False)
    assert new("ruri", *options(office)).exit_code == 0
    done = new("low", "--like", "ruri", "--only", "011,Ville d'Ete 2", "--year", "2021-2022")
    assert done.exit_code == 0, (done.output, done.exception)
    assert "2 of 2 units have a count; 200 people in 2022" in done.output
    assert "Go on with:  popcorn run low 2021\n" in done.output
    assert done.output.rstrip().endswith("popcorn run low 2022 --job refresh")
    level = load_country("low").census.levels["units"]
    assert level.boundaries.where == {"DISTCODE": ("003", "011")}
    assert level.counts[0].where == {"code": ("11", "3")}
    assert level.counts[0].file == "census/ruri/census_2022.csv"
    copy = new("other", "--like", "ruri", "--max-scenes", "6")
    assert "9 of 9 units have a count" in copy.output
    assert load_country("other").imagery.max_scenes == 6
    assert load_country("other").model.country == "other"


def test_what_a_boundary_file_does_not_say_is_said_by_an_option(place: Place, office: Path):
    (office / "districts.prj").unlink()
    done = new("ruri", *options(office))
    assert "does not say its CRS" in str(done.exception)
    assert "state --boundaries-crs" in str(done.exception)
    assert new("ruri", *options(office, boundaries_crs="EPSG:4326")).exit_code == 0
    assert load_country("ruri").grid.boundary_crs == "EPSG:4326"


def test_the_packaged_country_itself(place: Place):
    done = new("pricp2")
    assert "78 of 78 units have a count; 3,285,874 people in 2020" in done.output
    assert "checks    21 of 21 pass; 6 more" in done.output
    assert "tiles     137 of 184" in done.output
    own = new("--like", "pricp2")
    assert "it is used instead of" in own.output
    written = yaml.safe_load((place.home / "countries" / "pricp2.yaml").read_text("utf-8"))
    packaged = REPOSITORY / "popcorn_assets" / "countries" / "pricp2.yaml"
    assert written == yaml.safe_load(packaged.read_text("utf-8"))
    assert new("uga").exit_code == 1  # its census has to be handed in
    assert "boundaries_coarse.tif is not there yet" in new("uga").output


def test_at_a_terminal_what_is_missing_is_asked(place: Place, office: Path):
    table = pd.read_csv(office / "census_2022.csv", dtype=str)
    table["pop_night"] = [str(n + 1) for n in PEOPLE]
    table.rename(columns={"population": "pop_day"}).to_csv(office / "census_2022.csv", index=False)
    answers = ["Ruritania", "nowhere.shp", str(office / "districts.shp"),
               str(office / "census_2022.csv"), "22", "2022", "", "2"]  # fmt: skip
    status, said = _at_a_terminal(place, ["new", "ruri"], answers)
    assert status == 0, said
    assert "there is no such file" in said  # both are asked again
    assert "four digits" in said
    level = load_country("ruri").census.levels["units"]
    assert level.counts[0].columns.people == "pop_night"
    assert load_country("ruri").imagery.chosen.profile == "planetary-computer"


def _at_a_terminal(place: Place, words: list[str], answers: list[str]) -> tuple[int, str]:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "popcorn_assets.cli", *words],
        stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, cwd=place.home,
    )  # fmt: skip
    os.close(theirs)
    os.write(ours, "".join(f"{answer}\n" for answer in answers).encode())
    said = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        said += part
    os.close(ours)
    return process.wait(), said.decode(errors="replace")
