"""Countries begun by `popcorn new` run to finished maps: own files, and a few units of another."""

from __future__ import annotations

import csv
import os
import subprocess
import sys

import numpy as np
import pytest

from popcorn_assets.country import load_country
from popcorn_assets.store.versions import Address, Store
from popcorn_ml import raster
from tests.platforms import REPOSITORY, Place, copied, enter

pytestmark = pytest.mark.long(90)


@pytest.fixture(scope="module")
def demo(pristine, tmp_path_factory) -> Place:
    """The small demo country, trained and mapped, in a place of this module's own."""
    return copied(pristine, tmp_path_factory.mktemp("new") / "home")


@pytest.fixture
def place(demo, monkeypatch) -> Place:
    enter(demo, monkeypatch)
    return demo


def popcorn(place: Place, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "popcorn_assets.cli", *words],
        capture_output=True, text=True, check=False, cwd=place.home, stdin=subprocess.DEVNULL,
        env={**os.environ, **place.environment(), "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def begun_and_run(place: Place, *words: str, printed: str) -> str:
    """What `popcorn new` said; the command that it prints is the only other one that is typed."""
    said = popcorn(place, "new", *words)
    assert "MISS" not in said
    command = said.rstrip().rpartition("Go on with:  popcorn ")[2]
    assert command == printed
    popcorn(place, *command.split())
    return said


def people_on_the_map(place: Place, country: str) -> float:
    found = Store(place.data).latest(Address("adjusted_map", country, 2020))
    return float(np.nansum(raster.read_float(found.file("population.tif"), bands=1), dtype=float))


def counted(place: Place) -> dict[str, int]:
    path = place.data / "demo" / "census" / "counts_coarse_2020.csv"
    with open(path, encoding="utf-8") as stream:
        return {row["id"]: int(row["people"]) for row in csv.DictReader(stream)}


def test_the_demos_files_as_an_own_country(place: Place):
    demo = place.data / "demo"
    said = begun_and_run(
        place, "mine", "--name", "Mine", "--year", "2020", "--like", "demo",
        "--boundaries", str(demo / "census" / "units_coarse.gpkg"),
        "--counts", str(demo / "census" / "counts_coarse_{year}.csv"),
        "--imagery", str(demo / "items.json"),
        printed="run mine 2020",
    )  # fmt: skip
    assert "12 of 12 units have a count" in said
    assert people_on_the_map(place, "mine") == pytest.approx(sum(counted(place).values()))


@pytest.mark.parametrize("model", [None, "demo/2020"])
def test_two_units_by_the_extractor_alone_or_by_transfer(place: Place, model: str | None):
    some = dict(sorted(counted(place).items())[3:5])
    code = "few" if model is None else "moved"
    words = [code, "--like", "demo", "--only", ",".join(some), "--year", "2020"]
    refresh = "" if model is None else " --job refresh"
    said = begun_and_run(
        place, *words, *(["--model", model] if model else []), printed=f"run {code} 2020{refresh}"
    )
    assert "2 of 2 units have a count" in said
    assert people_on_the_map(place, code) == pytest.approx(sum(some.values()))
    made = Store(place.data).latest(Address("deployed_model", code, 2020)).manifest()
    (trained,) = [one for one in made["inputs"] if one["asset"] == "checkpoints"]
    assert trained["country"] == (code if model is None else "demo")
    assert load_country(code).training.members == (1 if model is None else 5)
