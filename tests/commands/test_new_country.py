"""The demo's own files, begun as somebody's country, run to a finished map."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from popcorn_assets.store.versions import Address, Store
from popcorn_ml import raster
from tests.platforms import REPOSITORY, copied, enter

pytestmark = pytest.mark.long(40)


def popcorn(place, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "popcorn_assets.cli", *words],
        capture_output=True, text=True, check=False, cwd=place.home, stdin=subprocess.DEVNULL,
        env={**os.environ, **place.environment(), "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_two_commands_lead_from_files_to_a_map(pristine, tmp_path, monkeypatch):
    place = copied(pristine, tmp_path / "home")
    enter(place, monkeypatch)
    for made in place.data.iterdir():  # nothing is left of the demo but its files
        if made.name not in ("demo", "census", "inbox"):
            shutil.rmtree(made) if made.is_dir() else made.unlink()
    demo = place.data / "demo"
    said = popcorn(
        place, "new", "mine", "--name", "Mine", "--year", "2020",
        "--boundaries", str(demo / "census" / "units_coarse.gpkg"),
        "--counts", str(demo / "census" / "counts_coarse_{year}.csv"),
        "--imagery", str(demo / "items.json"), "--like", "demo",
    )  # fmt: skip
    assert "12 of 12 units have a count" in said
    assert "MISS" not in said
    command = said.rstrip().rpartition("Go on with:  popcorn ")[2]
    assert command == "run mine 2020"
    popcorn(place, *command.split())
    found = Store(place.data).latest(Address("adjusted_map", "mine", 2020))
    people = raster.read_float(found.file("population.tif"), bands=1)
    counted = sum(
        int(line.rpartition(",")[2])
        for line in (demo / "census" / "counts_coarse_2020.csv").read_text().splitlines()[1:]
    )
    assert float(np.nansum(people, dtype=float)) == pytest.approx(counted, rel=1e-6)
