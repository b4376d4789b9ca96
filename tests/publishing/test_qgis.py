"""QGIS, where this machine has it: it opens every file, applies each style, finds units valid."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from popcorn_assets.store.versions import Address, Store
from popcorn_ml.publishing.catalogue import all_facts

SCRIPT = Path(__file__).with_name("qgis_opens.py")
PYTHON = "/usr/bin/python3"
"""Debian's, which its QGIS belongs to."""


def clean() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**kept, "QT_QPA_PLATFORM": "offscreen"}


@pytest.fixture(scope="module")
def opened(tiny, tmp_path_factory) -> tuple[dict, dict]:
    """What QGIS makes of a publication, and its facts."""
    there = (
        shutil.which(PYTHON)
        and not subprocess.run(
            [PYTHON, "-c", "import qgis.core"], env=clean(), capture_output=True, check=False
        ).returncode
    )
    if not there:
        pytest.skip("QGIS is absent: apt install python3-qgis qgis-providers")
    folder = tmp_path_factory.mktemp("qgis") / "out"  # QGIS writes beside what it opens
    folder.mkdir()
    source = Store(tiny.data).latest(Address("publication", "demo", 2021)).path
    for path in source.glob("demo_*"):
        shutil.copyfile(path, folder / path.name)
    done = subprocess.run(
        [PYTHON, str(SCRIPT), str(folder)], env=clean(), capture_output=True, text=True, check=True
    )
    assert "may only be partially supported" not in done.stderr
    (facts,) = all_facts(folder)
    return json.loads(done.stdout.splitlines()[-1]), facts


def test_every_raster_opens_with_its_style(opened) -> None:
    found, facts = opened
    assert set(found["rasters"]) == {one["file"] for one in facts["products"]}
    for product in facts["products"]:
        seen = found["rasters"][product["file"]]
        assert seen["valid"], product["file"]
        assert seen["crs"] == product["grid"]["crs"]
        assert seen["renderer"] in ("singlebandpseudocolor", "paletted")
        assert len(seen["labels"]) == len(product["classes"])
        assert seen["labels"][0].startswith(product["classes"][0]["label"])


def test_the_units_are_valid_and_coloured(opened) -> None:
    found, facts = opened
    levels = {level["level"]: level["units"] for level in facts["census"]["levels"]}
    assert {name.split()[-1] for name in found["layers"]} == set(levels)
    for name, layer in found["layers"].items():
        assert layer["valid"]
        assert layer["invalid"] == []
        assert layer["features"] == levels[name.split()[-1]]
        assert layer["crs"] == facts["grid"]["crs"]
        assert (layer["renderer"], layer["ranges"]) == ("graduatedSymbol", 10)
