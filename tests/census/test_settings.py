"""The census section of a country's file: refuses what it does not know, imports nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from popcorn_ml.census.settings import CensusSettings

from .place import settings


def test_exactly_one_level_is_trained_on() -> None:
    section = settings()
    section["levels"]["other"] = section["levels"]["district"]
    with pytest.raises(ValidationError, match="exactly one must have the role train"):
        CensusSettings.model_validate(section)
    section["levels"]["other"] = {**section["levels"]["district"], "role": "evaluate"}
    made = CensusSettings.model_validate(section)
    assert (made.train_level, made.evaluation_levels) == ("district", ("other",))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, "Extra inputs"),
        ({"reader": "shapefile"}, "Input should be"),
        ({"boundaries": None}, "needs them"),
        ({"counts": []}, "at least one table"),
        ({"small_units": "drop"}, "best_pixel"),
    ],
)
def test_unknown_words_are_refused(change: dict, message: str) -> None:
    section = settings()
    section["levels"]["district"].update(change)
    with pytest.raises(ValidationError, match=message):
        CensusSettings.model_validate(section)


def test_a_level_name_cannot_leave_its_folder() -> None:
    section = settings()
    section["levels"] = {"../evil": section["levels"]["district"]}
    with pytest.raises(ValidationError, match="letters, digits"):
        CensusSettings.model_validate(section)


def test_a_date_in_yaml_is_text() -> None:
    import yaml

    section = settings()
    section["levels"]["district"]["counts"]["retrieved"] = yaml.safe_load("2024-05-01")
    level = CensusSettings.model_validate(section).levels["district"]
    assert level.counts[0].retrieved == "2024-05-01"


def test_settings_import_nothing_heavy() -> None:
    code = (
        "import sys, popcorn_ml.census.settings, popcorn_ml.census.findings;"
        "import popcorn_ml.warehouse.warehouse;"
        "heavy = {'torch', 'pandas', 'geopandas', 'rasterio', 'numpy', 'duckdb', 'pyarrow'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.stdout.strip() == "[]"
