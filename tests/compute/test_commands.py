"""`python -m popcorn_ml.mapping` on each task, and what its specification may not say."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from popcorn_ml.compute.command import describe, restored
from popcorn_ml.errors import ConfigError, PopcornError, WeightsError
from popcorn_ml.mapping.builtup import BuiltupSpec, run_builtup
from popcorn_ml.model.weights import save_extractor
from tests.mapping.places import a_grid, an_extractor, write_composites

ROOT = Path(__file__).resolve().parents[2]


def command(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "popcorn_ml.mapping", str(path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )


def test_the_built_up_score_as_a_command(tmp_path):
    grid = a_grid(40, 60)
    spec = BuiltupSpec(
        write_composites(tmp_path, grid),
        save_extractor(an_extractor(), tmp_path / "extractor.safetensors", {"name": "test"}),
        grid,
        tmp_path / "score.tif",
        tile_px=32,
        device="cpu",
        threads=1,
    )
    path = tmp_path / "spec.json"
    path.write_text(spec.to_json())
    done = command(path)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["done"] for line in lines[:-1]] == [1, 2, 3, 4]
    assert lines[-1]["out"] == str(spec.out)
    made = spec.out.read_bytes()
    run_builtup(spec)
    assert spec.out.read_bytes() == made
    assert BuiltupSpec.from_json(spec.to_json()) == spec

    path.write_text(json.dumps(json.loads(spec.to_json()) | {"task": "roads"}))
    done = command(path)
    assert done.returncode == 2
    assert "population or builtup" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_specification_that_cannot_be_used():
    spec = {"composites": {}, "extractor": "e", "grid": a_grid(4, 4).as_dict(), "out": "o"}
    with pytest.raises(ConfigError, match="unknown: tilepx"):
        BuiltupSpec.from_json(json.dumps(spec | {"tilepx": 3}), "spec.json")
    with pytest.raises(ConfigError, match="no 'grid'"):
        BuiltupSpec.from_json(json.dumps({k: v for k, v in spec.items() if k != "grid"}))
    with pytest.raises(ConfigError, match=r"spec\.json"):
        BuiltupSpec.from_json("[1, 2]", "spec.json")


def test_an_error_travels_as_text():
    error = WeightsError("altered", where=Path("a/b"), expected=1, found=2, remedy="fetch again")
    back = restored(json.loads(json.dumps(describe(error))))
    assert type(back) is WeightsError
    assert str(back) == str(error)
    assert type(restored(describe(error) | {"kind": "Unknown"})) is PopcornError


def test_the_specifications_of_the_documentation_can_be_read():
    from popcorn_ml.mapping.__main__ import split_task
    from popcorn_ml.mapping.predict import MappingSpec
    from popcorn_ml.training.spec import TrainingSpec

    text = (ROOT / "docs" / "compute.md").read_text("utf-8")
    training, builtup, population = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    assert TrainingSpec.from_json(training).member == 1
    task, rest = split_task(builtup, Path("spec.json"))
    assert (task, BuiltupSpec.from_json(rest).grid.width) == ("builtup", 4000)
    task, rest = split_task(population, Path("spec.json"))
    assert (task, len(MappingSpec.from_json(rest).members)) == ("population", 2)
