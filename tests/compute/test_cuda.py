"""What a GPU gives against what the CPU gives. Runs where there is one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from popcorn_ml import raster
from tests.mapping.places import an_extractor
from tests.mapping.test_predict import a_spec
from tests.training.places import block_units, write_place

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA device: GPU and CPU cannot be compared"
)


def the_map(spec, folder: Path, **changes) -> dict[str, np.ndarray]:
    from popcorn_ml.mapping.predict import map_population

    map_population(replace(spec, out=folder, **changes))
    return {path.name: raster.read_float(path) for path in folder.glob("*.tif")}


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference, relative to the largest value; nodata has to agree."""
    np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
    return float(np.nanmax(np.abs(a - b)) / np.nanmax(np.abs(a)))


def test_maps_in_float32_agree_with_the_cpus(tmp_path):
    spec = a_spec(tmp_path, (96, 160), tile_px=64)
    cpu, gpu = the_map(spec, tmp_path / "cpu"), the_map(spec, tmp_path / "gpu", device="cuda")
    for name, values in cpu.items():
        assert difference(values, gpu[name]) < 1e-4, name
    again = the_map(spec, tmp_path / "again", device="cuda")
    for name, values in gpu.items():
        np.testing.assert_array_equal(values, again[name])


def test_maps_in_bfloat16_are_near(tmp_path):
    spec = a_spec(tmp_path, (96, 160), tile_px=64)
    cpu = the_map(spec, tmp_path / "cpu")["population.tif"]
    gpu = the_map(spec, tmp_path / "gpu", device="cuda", precision="bfloat16")["population.tif"]
    assert 0 < difference(cpu, gpu) < 0.05
    assert np.nansum(gpu) == pytest.approx(np.nansum(cpu), rel=0.02)


def test_built_up_score_agrees_with_the_cpus(tmp_path):
    from popcorn_ml.mapping.builtup import map_builtup

    spec = a_spec(tmp_path, (96, 160))
    scores = []
    for device in ("cpu", "cuda"):
        out = tmp_path / f"{device}.tif"
        map_builtup(an_extractor(), spec.composites, spec.grid, out, device=device)
        scores.append(raster.read_float(out))
    assert difference(*scores) < 1e-4


def test_training_in_float32_follows_the_cpus(tmp_path):
    from popcorn_ml.training.fit import train_member

    place = write_place(tmp_path, block_units(80, 120, 2, 4))
    cpu = train_member(place.spec("cpu", epochs=3))
    gpu = train_member(place.spec("gpu", epochs=3, device="cuda"))
    for ours, theirs in zip(cpu.history, gpu.history, strict=True):
        assert theirs["train_loss"] == pytest.approx(ours["train_loss"], rel=1e-2)
        assert theirs["held_out_loss"] == pytest.approx(ours["held_out_loss"], rel=1e-2)


def test_training_in_bfloat16_is_finite_and_learns(tmp_path):
    from popcorn_ml.training.fit import train_member

    place = write_place(tmp_path, block_units(80, 120, 2, 4))
    found = train_member(
        place.spec("gpu", epochs=12, learning_rate=1e-3, device="cuda", precision="bfloat16")
    )
    losses = [epoch["train_loss"] for epoch in found.history]
    assert np.isfinite(losses).all()
    assert min(losses) < losses[0]
