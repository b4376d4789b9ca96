"""`popcorn show`: what there is, how good, how old, what is missing, and what makes it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from popcorn_assets.cli import cli
from popcorn_assets.country import load_country
from popcorn_assets.store.versions import Address, Store
from popcorn_assets.upkeep.judged import JUDGED_AFTER
from popcorn_assets.upkeep.standing import ASSETS, standing, years_of
from popcorn_ml.errors import ConfigError
from tests.platforms import Place, copied, enter

pytestmark = [pytest.mark.long(15), pytest.mark.timeout(300)]


@pytest.fixture
def own(pristine, tmp_path, monkeypatch) -> Place:
    """The small country, to be changed by one test."""
    place = copied(pristine, tmp_path / "home")
    enter(place, monkeypatch)
    return place


def shown(*arguments: str) -> str:
    done = CliRunner().invoke(cli, ["show", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def year(place: Place, of: int = 2021):
    return standing(Store(place.data), load_country("demo"), of)


def states(of) -> dict[str, str]:
    return {part.asset: part.state for part in of.parts.values() if part.state != "current"}


@pytest.mark.usefixtures("in_tiny")
def test_both_years_are_a_line_each_with_people_scores_and_age():
    said = shown("demo")
    lines = {line.split("│")[1].strip(): line for line in said.splitlines() if "│ 20" in line}
    assert list(lines) == ["2020", "2021"]
    for line, people in zip(lines.values(), ("13,143", "14,879"), strict=True):
        assert "10 of 10" in line
        assert people in line
        assert "current" in line
        assert "20" in line.split("│")[6], "when it was made"
    assert "Nothing is missing, and all of it is up to date." in said


def test_a_year_is_told_as_manifests_and_dagster_have_it(in_tiny):
    found = json.loads(shown("demo", "2021", "--json"))["years"][0]
    store = Store(in_tiny.data)
    asked_for = [asset for asset in ASSETS if asset != "student"]
    assert [part["asset"] for part in found["assets"]] == asked_for
    for part in found["assets"]:
        version = store.find(Address(part["asset"], "demo", 2021))
        assert (part["version"] or None) == (version.version if version else None)
        if version is not None:
            assert part["made"] == version.manifest()["finished"]
            assert part["checks"] == len(version.manifest()["checks"])
            assert Path(part["path"]) == version.path
    metrics = json.loads(
        store.latest(Address("evaluation", "demo", 2021)).file("metrics.json").read_text()
    )
    assert found["people"]["on the map"] == pytest.approx(metrics["totals"]["map"], abs=0.1)
    assert found["people"]["census"] == found["people"]["adjusted"]
    assert found["model"].startswith("demo|2020")
    judged = {(one["asset"], one["name"]) for one in found["judged since"]}
    kept = {(asset, name) for asset, names in JUDGED_AFTER.items() for name in names}
    assert judged == {one for one in kept if one[0] != "checkpoints"}  # of 2020 alone
    told = " ".join(shown("demo", "2021").split())
    for check in (*found["judged since"], *(c for p in found["assets"] for c in p["not passed"])):
        if not check.get("passed"):
            assert f"{check['name']} on" in told
            assert " ".join(check["message"].split())[:60] in told
    assert f"report: {store.latest(Address('publication', 'demo', 2021)).path}" in told


@pytest.mark.usefixtures("own")
def test_what_was_never_made_is_said_with_the_command_that_makes_it(own):
    assert years_of(Store(own.data), "demo") == [2020, 2021]
    of = year(own, 2019)
    assert set(states(of).values()) == {"missing"}
    assert of.todo() == [("no map", "popcorn run demo 2019 --job refresh")]  # 2020's model maps it
    shutil.rmtree(own.data / "checkpoints")
    (what, command), *_ = year(own, 2018).todo()
    assert "no model to map with" in what
    assert command == "popcorn run demo 2018"
    shutil.rmtree(own.data / "evaluation" / "demo" / "2021")
    shutil.rmtree(own.data / "publication" / "demo" / "2021")
    assert ("no evaluation, publication", "popcorn run demo 2021 --job publish") in year(own).todo()
    assert "Nothing is made yet." in shown("rwa")
    assert "popcorn imagery estimate rwa YEAR" in shown("rwa")


def test_a_changed_file_outdates_what_was_made_from_it_and_nothing_else(own):
    table = own.data / "demo" / "census" / "counts_coarse_2021.csv"
    before = table.stat()
    table.write_bytes(table.read_bytes())  # written anew, the same
    assert states(year(own)) == {"checkpoints": "missing"}
    table.write_bytes(table.read_bytes().replace(b"1", b"2", 1))
    assert table.stat().st_size == before.st_size
    of = year(own)
    assert set(states(of)) == {
        "checkpoints", "census_units", "census_counts", "adjusted_map", "hectare_map", "evaluation",
        "change", "publication",
    }  # fmt: skip
    assert (
        of.parts["census_counts"].why[0] == "demo/census/counts_coarse_2021.csv has changed since"
    )
    assert "census_units, which it was made from, is outdated" in of.parts["adjusted_map"].why
    ((what, command),) = of.todo()
    assert what.startswith("outdated: census_units, census_counts, adjusted_map")
    assert command == "popcorn run demo 2021 --job refresh"
    assert "outdated" in shown("demo")
    table.unlink()
    assert "is no longer there" in year(own).parts["census_counts"].why[0]


def test_an_input_with_a_newer_version_is_named(own):
    store = Store(own.data)
    score, before = Address("builtup_area", "demo", 2021), Address("builtup_area", "demo", 2020)
    other = store.latest(before)
    folder = store.folder(score)
    shutil.copytree(other.path, folder / other.version)
    (folder / "LATEST").write_text(f"{other.version}\n")
    used = store.made_from(store.latest(Address("population_map", "demo", 2021)), "builtup_area")
    assert used.version != other.version
    (why,) = year(own).parts["population_map"].why
    assert why == (
        f"builtup_area demo|2021 is now {other.version}, population_map has {used.version}"
    )


def test_what_cannot_be_read_is_told_and_hides_nothing_else(own):
    store = Store(own.data)
    store.latest(Address("evaluation", "demo", 2021)).file("manifest.json").write_text("{")
    (store.folder(Address("change", "demo", 2021)) / "LATEST").write_text("gone\n")
    of = year(own)
    assert {of.parts[name].state for name in ("evaluation", "change")} == {"damaged"}
    assert of.parts["hectare_map"].state == "current"
    said = shown("demo", "2021")
    assert "the manifest is not readable JSON" in said
    assert "evaluation cannot be read" in said


def test_arguments_that_cannot_be_used(place):
    for arguments, said in (
        (["nowhere"], "no country"),
        (["demo", "1900"], "no imagery of 1900"),
        (["Demo"], "no country"),
    ):
        done = CliRunner().invoke(cli, ["show", *arguments])
        assert isinstance(done.exception, ConfigError)
        assert said in str(done.exception)


def test_the_overview_loads_nothing_that_takes_long(in_tiny):
    heavy = ("torch", "dagster", "numpy", "pandas", "rasterio", "duckdb", "geopandas")
    code = (
        "import sys; sys.argv = ['popcorn', 'show', 'demo']\n"
        "from popcorn_assets.cli import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    environment = {**os.environ, **in_tiny.environment()}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
