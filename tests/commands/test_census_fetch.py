"""`popcorn census fetch`: from a bare folder to lines that the census reads, people conserved."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from popcorn_assets.cli import cli
from popcorn_assets.commands import census as command
from popcorn_assets.country import PACKAGED, load_country
from popcorn_ml.agencies import BOUNDARIES, COUNTS
from popcorn_ml.census.build import prepare_counts, prepare_units
from popcorn_ml.census.settings import CensusSettings
from popcorn_ml.errors import AgencyDown, ConfigError
from popcorn_ml.imagery.backoff import Backoff
from tests.agencies.conftest import services as services
from tests.agencies.services import PEOPLE, Services, table
from tests.census import place
from tests.platforms import enter, make_place


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store of a fresh installation."""
    home = make_place(tmp_path / "home")
    enter(home, monkeypatch)
    return home.data


def fetch(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["census", "fetch", "plc", "--year", "2021", *arguments])


def printed(result: Result) -> dict[str, Any]:
    """The lines for the country's file."""
    text = result.stdout[result.stdout.index("\n# for ") :]
    return yaml.safe_load(text)["census"]


def built(section: dict[str, Any], data: Path, out: Path) -> float:
    """People on the grid, as the assets make them of the printed lines."""
    out.mkdir()
    settings = CensusSettings.model_validate(section)
    folders = [data / "census" / "plc", data]
    units = prepare_units("plc", 2020, settings, place.GRID, out, folders)
    counts = prepare_counts("plc", 2020, settings, out, out, folders)
    assert [c.name for c in (*units.checks, *counts.checks) if c.blocks] == []
    return counts.totals["adm2"]


@pytest.mark.parametrize(
    ("boundaries", "counts"), [("cod", "cod"), ("geoboundaries", "cod"), ("worldpop", "worldpop")]
)
def test_what_is_printed_is_read_by_the_census(
    services: Services, data: Path, tmp_path: Path, boundaries: str, counts: str
) -> None:
    services.geoboundaries()
    services.cod_boundaries()
    services.cod_counts()
    services.worldpop()
    first = fetch("--boundaries", boundaries, "--counts", counts)
    assert first.exit_code == 0, first.output
    assert "12 of 12 units have a count, 7,884 people" in first.stdout
    assert "not joined" not in first.stdout
    section = printed(first)
    level = section["levels"]["adm2"]
    assert level["boundaries"]["licence"]
    assert level["counts"]["url"].startswith(services.url)
    assert built(section, data, tmp_path / "out") == PEOPLE == 7884
    asked = len(services.seen)
    again = fetch("--boundaries", boundaries, "--counts", counts)
    assert printed(again) == section
    assert len(services.seen) == asked
    assert again.stdout.count("there already") == 2
    assert fetch("--boundaries", boundaries, "--counts", counts, "--again").exit_code == 0
    assert len(services.seen) > asked


def test_what_does_not_join_is_said_and_the_exit_code_is_1(services: Services, data: Path) -> None:
    services.cod_boundaries()
    path = services.cod_counts()
    services.files[path] = services.files[path].replace(b",PL00", b",QL00")
    resource = services._resource("plc_admpop_adm2_2020.csv", "CSV", path)
    services._package("cod-ps-plc", [resource])
    result = fetch("--boundaries", "cod", "--counts", "cod")
    assert result.exit_code == 1
    assert "not one id is the same" in result.stdout
    assert "QL0001" in result.stdout
    assert printed(result)["levels"]  # what was fetched is there, and can be corrected


def test_a_file_of_ones_own(services: Services, data: Path, tmp_path: Path) -> None:
    services.geoboundaries()
    own = tmp_path / "population_2020.csv"
    rows = [[u.name, u.people] for u in place.units()]
    own.write_bytes(table([["district", "inhabitants"], *rows]))
    given = ["--boundaries", "geoboundaries", "--counts", str(own)]
    result = fetch(*given)
    assert result.exit_code == 0, result.output
    assert "people: inhabitants" in result.stdout
    assert (data / "census" / "plc" / own.name).read_bytes() == own.read_bytes()
    assert built(printed(result), data, tmp_path / "out") == PEOPLE
    named = ["--name-column", "district", "--people-column", "inhabitants", "--counts-year", "2019"]
    other = printed(fetch(*given, *named))["levels"]["adm2"]["counts"]
    assert (other["file"], other["year"]) == (own.name, 2019)
    own.write_bytes(own.read_bytes() + b"\n")
    assert "another file of this name" in str(fetch(*given).exception)
    assert "neither one of" in fetch("--counts", "nowhere.csv").output
    assert "which units it counts" in fetch("--counts", str(own)).output
    assert fetch().exit_code == 2


def test_a_country_that_lies_elsewhere_is_said(
    services: Services, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services.cod_boundaries()
    services.cod_counts()
    section = printed(fetch("--boundaries", "cod", "--counts", "cod"))
    monkeypatch.setenv("POPCORN_COUNTRIES", str(tmp_path))
    written = yaml.safe_load((PACKAGED / "demo.yaml").read_text())
    (tmp_path / "plc.yaml").write_text(yaml.safe_dump({**written, "census": section}))
    assert load_country("plc").census.train_level == "adm2"
    result = fetch("--boundaries", "cod", "--counts", "cod")
    assert result.exit_code == 1
    assert "box" in result.stdout.partition("\n# for")[0]
    assert f"# for {tmp_path / 'plc.yaml'}, in place of its section `census`" in result.stdout


def test_what_can_never_join_is_refused_before_anything_is_fetched(
    services: Services, data: Path
) -> None:
    result = fetch("--boundaries", "geoboundaries", "--counts", "worldpop")
    assert isinstance(result.exception, ConfigError)
    assert services.seen == []


def test_no_network_says_what_to_put_where(
    services: Services, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services.close()
    monkeypatch.setattr("popcorn_ml.agencies.web.PATIENCE", Backoff(2, 0.001))
    result = fetch("--counts", "worldpop")
    assert isinstance(result.exception, AgencyDown)
    assert "plc_population_2000_2020.csv" in str(result.exception)
    assert str(data / "census" / "plc" / "worldpop-PLC-2000-2020.csv") in str(result.exception)


@pytest.mark.parametrize("code", ["../plc", "PLC", "a"])
def test_what_can_be_no_country_is_refused(data: Path, code: str) -> None:
    given = ["census", "fetch", code, "--boundaries", "cod", "--iso", "PLC"]
    assert isinstance(CliRunner().invoke(cli, given).exception, ConfigError)


def test_a_code_that_is_no_iso_code_needs_one(services: Services, data: Path) -> None:
    given = ["census", "fetch", "place2", "--boundaries", "geoboundaries"]
    assert "--iso RWA" in str(CliRunner().invoke(cli, given).exception)
    services.geoboundaries()
    assert CliRunner().invoke(cli, [*given, "--iso", "plc"]).exit_code == 0
    assert (data / "census" / "place2" / "geoboundaries-PLC-ADM2.geojson").is_file()


def test_the_options_name_every_source() -> None:
    assert (set(command.BOUNDARIES), set(command.COUNTS)) == (set(BOUNDARIES), set(COUNTS))


def test_the_examples_of_the_docs(services: Services, tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "census.md").read_text("utf-8")
    part = text[text.index("## Fetching from agencies") :]
    block = re.search(r"```console\n(.*?)```", part, re.S)
    assert block is not None
    lines = block[1].replace("\\\n", " ").splitlines()
    assert len(lines) == 3
    for line in lines:
        assert line.startswith("popcorn census fetch ")
        command.census_fetch.make_context("fetch", shlex.split(line)[3:])
    services.cod_boundaries()
    services.cod_counts()
    example = re.search(r"```python\n(from popcorn_ml.agencies .*?)```", text, re.S)
    assert example is not None
    names: dict[str, Any] = {"folder": tmp_path}
    exec(example[1].replace("RWA", "PLC"), names)
    assert CensusSettings.model_validate(names["section"]).train_level == "district"
    sources = re.findall(r"^\| `(\w+)` \|", part[: part.index("## The inbox")], re.M)
    assert sorted(sources) == sorted([*BOUNDARIES, *COUNTS])
