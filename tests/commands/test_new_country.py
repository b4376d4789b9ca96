"""A few units of a country, begun by `popcorn new`, run to finished maps."""

from __future__ import annotations

import csv
import os
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from popcorn_assets.cli import cli
from popcorn_assets.country import load_country
from popcorn_assets.store.versions import Address, Store
from popcorn_ml import raster
from tests.platforms import REPOSITORY, Place, copied, enter

pytestmark = pytest.mark.long(40)

RUN = """
import dagster, sys
from popcorn_assets.commands.console import open_console
from popcorn_assets.commands.working import work

with dagster.DagsterInstance.get() as instance:
    for said in sys.argv[1:]:
        country, year, _, job = (said.split() + ["", ""])[:4]
        job = job or "country_year"
        worked = work(instance, job, country, int(year), open_console(99), small=True)
        assert worked.made, said
"""
"""What `popcorn run` does, all of it in one process: the countries are new to this one."""


def counted(place: Place) -> dict[str, int]:
    path = place.data / "demo" / "census" / "counts_coarse_2020.csv"
    with open(path, encoding="utf-8") as stream:
        return {row["id"]: int(row["people"]) for row in csv.DictReader(stream)}


def test_by_the_extractor_alone_and_by_transfer(pristine, tmp_path, monkeypatch):
    place = copied(pristine, tmp_path / "home")
    enter(place, monkeypatch)
    some = dict(sorted(counted(place).items())[3:5])
    asked = ["--like", "demo", "--only", ",".join(some), "--year", "2020"]
    commands = []
    for words in (["few", *asked], ["moved", *asked, "--model", "demo/2020"]):
        said = CliRunner().invoke(cli, ["new", *words])
        assert said.exit_code == 0, (said.output, said.exception)
        assert "2 of 2 units have a count" in said.output
        assert "MISS" not in said.output
        commands.append(said.output.rstrip().rpartition("Go on with:  popcorn run ")[2])
    assert commands == ["few 2020", "moved 2020 --job refresh"]
    assert (load_country("few").training.members, load_country("moved").training.members) == (1, 5)

    done = subprocess.run(
        [sys.executable, "-c", RUN, *commands], capture_output=True, text=True, cwd=place.home,
        check=False, env={**os.environ, **place.environment(), "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    store = Store(place.data)
    for country, trained in (("few", "few"), ("moved", "demo")):
        found = store.latest(Address("adjusted_map", country, 2020))
        people = raster.read_float(found.file("population.tif"), bands=1)
        assert float(np.nansum(people, dtype=float)) == pytest.approx(sum(some.values()))
        model = store.latest(Address("deployed_model", country, 2020)).manifest()
        (used,) = [one for one in model["inputs"] if one["asset"] == "checkpoints"]
        assert used["country"] == trained
