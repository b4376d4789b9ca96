"""The map of a country: exact tiles, seasons within members, spread across members."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch

from popcorn_ml import raster
from popcorn_ml.errors import ConfigError, GridMismatch, RasterError, WeightsError
from popcorn_ml.inputs import read_channels
from popcorn_ml.mapping.precision import STEP
from popcorn_ml.mapping.predict import MappingSpec, map_population
from popcorn_ml.mapping.tiles import regular_core
from popcorn_ml.model.weights import load_occupancy, save_occupancy
from popcorn_ml.sentinel import SEASONS
from tests.mapping.places import a_grid, a_spec, write_members

pytestmark = pytest.mark.long(20)

NAMES = ("population", "population_std", "occupancy", "builtup_score", "population_members")


def untiled(spec: MappingSpec) -> dict[str, np.ndarray]:
    """The map from networks that see the whole raster at once, by the definition of each value."""
    models = [load_occupancy(path) for path in spec.members]
    scores = raster.read_float(spec.builtup)
    occupancy = np.full((len(SEASONS), len(models), *spec.grid.shape), np.nan)
    for s, season in enumerate(SEASONS):
        channels, valid = read_channels(*spec.composites[season])
        with torch.inference_mode():
            for m, model in enumerate(models):
                found = model(torch.from_numpy(channels)[None])[0].numpy()
                occupancy[s, m] = np.where(valid, found, np.nan)
    with np.testing.suppress_warnings() as quiet:
        quiet.filter(RuntimeWarning)
        members = np.nanmean(occupancy * scores[:, None], axis=0)
        return {
            "population": members.mean(axis=0),
            "population_std": np.std(members, axis=0, ddof=1),
            "occupancy": np.nanmean(occupancy, axis=0).mean(axis=0),
            "builtup_score": np.nanmean(scores, axis=0),
            "population_members": members,
        }


def read_map(spec: MappingSpec) -> dict[str, np.ndarray]:
    bands = dict.fromkeys(NAMES, 1) | {"population_members": None}
    return {name: raster.read_float(spec.out / f"{name}.tif", bands=bands[name]) for name in NAMES}


@pytest.mark.parametrize(
    ("shape", "tile_px"),
    [
        ((133, 170), 64),  # sides that are padded, tiles that cut the pooling cells
        ((96, 128), 50),  # sides that are not padded
        ((70, 41), 512),  # fault 2: a raster smaller than a tile
        ((7, 90), 32),  # fewer rows than the reflected border
        ((250, 260), 40),  # so many tiles amidst others that they have a graph of their own
    ],
)
def test_tiled_equals_untiled_on_every_pixel(tmp_path, shape, tile_px):
    """Faults 2 and 14: no edge left out, any number of tiles, tiling changes nothing."""
    spec = a_spec(tmp_path, shape, tile_px=tile_px)
    map_population(spec)
    expected, found = untiled(spec), read_map(spec)
    for name in NAMES:
        atol = 1e-5 + (1.5 * STEP if name == "population_members" else 0)
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=atol, err_msg=name)
    everywhere = np.zeros(shape, bool)
    for season in SEASONS:
        everywhere |= read_channels(*spec.composites[season])[1]
    assert (np.isfinite(found["population"]) == everywhere).all()
    assert 0 < everywhere.sum() < everywhere.size
    edge = np.ones(shape, bool)
    edge[1:-1, 1:-1] = False
    assert (found["population"][edge & everywhere] > 0).any()


def test_published_numbers_on_a_real_chip(tmp_path, reference_dir, real_dir, before_step, parity):
    """Parity: tiles of a map on disk hold what the published code computed for the chip at once."""
    s1 = real_dir / "spain" / "s1_grd_db.tif"
    grid = raster.grid_of(s1)
    s2 = raster.read(real_dir / "spain" / "s2_l1c.tif", bands=[2, 3, 4, 8]).astype(np.uint16)
    raster.write(tmp_path / "s2.tif", s2, grid, ["B02", "B03", "B04", "B08"], 0)
    raster.write(tmp_path / "b.tif", parity["builtup_score"][None], grid, ["summer"], np.nan)
    spec = MappingSpec(
        composites={"summer": (s1, tmp_path / "s2.tif")},
        builtup=tmp_path / "b.tif",
        members=[save_occupancy(before_step, tmp_path / "occupancy.safetensors", {})],
        grid=grid,
        out=tmp_path / "map",
        tile_px=200,
        device="cpu",
    )
    map_population(spec)
    found = read_map(spec)
    for name in ("occupancy", "population"):
        np.testing.assert_allclose(found[name], parity[name], rtol=0, atol=1e-5, err_msg=name)
    zones = found["population"].astype(float).reshape(4, 128, 4, 128).sum(axis=(1, 3)).ravel()
    np.testing.assert_allclose(zones, parity["zone_population"], rtol=1e-4)


def test_sums_do_not_depend_on_the_tiles(tmp_path):
    spec = a_spec(tmp_path, (110, 90))
    sums = []
    for tile_px in (32, 48, 512):
        out = replace(spec, tile_px=tile_px, out=tmp_path / str(tile_px))
        map_population(out)
        sums.append(np.nansum(read_map(out)["population"], dtype=np.float64))
    np.testing.assert_allclose(sums, sums[0], rtol=1e-6)


@pytest.mark.parametrize("shape", [(100, 130), (240, 250)], ids=["few tiles", "a graph of its own"])
def test_same_bytes_whoever_does_the_work(tmp_path, shape):
    spec = a_spec(tmp_path, shape, tile_px=40)
    assert regular_core(spec.grid, spec.tile_px, len(spec.composites)) == 40 * (shape[0] > 200)
    map_population(spec)
    threads = replace(spec, threads=3, out=tmp_path / "threads")
    map_population(threads)
    processes = replace(spec, out=tmp_path / "processes", threads=2)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        map_population(processes, pool=pool)
    for name in NAMES:
        first = (spec.out / f"{name}.tif").read_bytes()
        assert first == (threads.out / f"{name}.tif").read_bytes()
        assert first == (processes.out / f"{name}.tif").read_bytes()


def test_spread_of_one_member_is_zero_and_not_its_square(tmp_path):
    """Fault 3: one visit to a pixel gave the square of the prediction as its deviation."""
    spec = a_spec(tmp_path, (40, 40), seeds=(1,))
    map_population(spec)
    found = read_map(spec)
    valid = np.isfinite(found["population"])
    assert (found["population"][valid] > 0).any()
    assert (found["population_std"][valid] == 0).all()
    assert np.isnan(found["population_std"][~valid]).all()


def test_pixel_area_ratio_scales_people_and_occupancy_alone(tmp_path):
    spec = a_spec(tmp_path, (40, 40))
    map_population(spec)
    half = replace(spec, pixel_area_ratio=0.5, out=tmp_path / "half")
    map_population(half)
    before, after = read_map(spec), read_map(half)
    for name in ("population", "population_std", "occupancy", "population_members"):
        atol = 3 * STEP if name == "population_members" else 1e-7
        np.testing.assert_allclose(after[name], before[name] * 0.5, rtol=1e-5, atol=atol)
    np.testing.assert_array_equal(after["builtup_score"], before["builtup_score"])


def test_without_any_input_nothing_is_computed(tmp_path):
    spec = a_spec(tmp_path, (50, 60))
    scores = np.full((4, *spec.grid.shape), np.nan, np.float32)
    raster.write(tmp_path / "empty.tif", scores, spec.grid, SEASONS, np.nan)
    map_population(replace(spec, builtup=tmp_path / "empty.tif"))
    assert all(np.isnan(values).all() for values in read_map(spec).values())


def test_a_score_without_its_composite_is_no_prediction(tmp_path):
    """Fault 5: missing input was filled, and mapped like any other."""
    spec = a_spec(tmp_path, (50, 60))
    scores = np.full((4, *spec.grid.shape), 0.5, np.float32)
    raster.write(tmp_path / "full.tif", scores, spec.grid, SEASONS, np.nan)
    map_population(replace(spec, builtup=tmp_path / "full.tif"))
    observed = [read_channels(*spec.composites[season])[1] for season in SEASONS]
    seen = np.isfinite(read_map(spec)["population"])
    np.testing.assert_array_equal(seen, np.any(observed, axis=0))
    assert not seen.all()


def test_seasons_go_by_name_not_by_place(tmp_path):
    """Fault 8: lists zipped together cut or shift silently."""
    spec = a_spec(tmp_path, (40, 50))
    map_population(spec)
    scores = raster.read_float(spec.builtup)
    raster.write(tmp_path / "turned.tif", scores[::-1], spec.grid, SEASONS[::-1], np.nan)
    turned = replace(
        spec,
        builtup=tmp_path / "turned.tif",
        composites=dict(reversed(spec.composites.items())),
        out=tmp_path / "turned",
    )
    map_population(turned)
    for name in NAMES:
        np.testing.assert_array_equal(read_map(turned)[name], read_map(spec)[name])
    raster.write(tmp_path / "three.tif", scores[:3], spec.grid, SEASONS[:3], np.nan)
    with pytest.raises(RasterError, match="lacks a season"):
        map_population(replace(spec, builtup=tmp_path / "three.tif", out=tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_rasters_say_what_they_are(tmp_path):
    """Fault 12: rasters without nodata, tiles, overviews or tags."""
    import rasterio

    spec = a_spec(tmp_path, (530, 60), tags={"country": "demo"})
    map_population(spec)
    for name in NAMES:
        with rasterio.open(spec.out / f"{name}.tif") as dataset:
            assert np.isnan(dataset.nodata)
            assert dataset.block_shapes == [(256, 256)] * dataset.count
            assert dataset.overviews(1)
            assert dataset.dtypes[0] == "float32"
            assert dataset.tags()["country"] == "demo"
            assert dataset.tags()["content"]
            assert all(dataset.descriptions)
    assert raster.check(spec.out / "population_members.tif", spec.grid, count=2)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"composites": {"monsoon": (None, "x.tif")}}, ConfigError, "monsoon"),
        ({"composites": {}}, ConfigError, "found:    nothing"),
        ({"members": []}, ConfigError, "members"),
        ({"tile_px": 0}, ConfigError, "tile_px"),
        ({"pixel_area_ratio": -1.0}, ConfigError, "pixel_area_ratio"),
        ({"precision": "float8"}, ConfigError, "precision"),
        ({"device": "abacus"}, ConfigError, "device"),
        ({"grid": a_grid(40, 41)}, GridMismatch, "not on the country's grid"),
        ({"members": ["absent.safetensors"]}, WeightsError, "absent.safetensors"),
    ],
)
def test_refuses_what_cannot_be_mapped_before_writing(tmp_path, change, error, said):
    spec = a_spec(tmp_path, (40, 40), seeds=(1,))
    with pytest.raises(error, match=said):
        map_population(replace(spec, **change))
    assert not spec.out.exists()


def test_a_member_counts_once(tmp_path):
    spec = a_spec(tmp_path, (40, 40), seeds=(1,))
    with pytest.raises(ConfigError, match="given twice"):
        map_population(replace(spec, members=[*spec.members, *spec.members]))


def test_a_truncated_composite_leaves_no_map(tmp_path):
    spec = a_spec(tmp_path, (300, 300), seeds=(1,), tile_px=64)
    path = spec.composites["winter"][1]
    path.write_bytes(path.read_bytes()[:-40_000])
    with pytest.raises(RasterError, match="s2_winter"):
        map_population(spec)
    assert list(spec.out.glob("**/*")) == []


def test_spec_survives_json(tmp_path):
    spec = a_spec(tmp_path, (20, 20), seeds=(1,), pixel_area_ratio=0.9, tags={"a": "b"})
    again = MappingSpec.from_json(spec.to_json())
    assert again == replace(spec, members=tuple(spec.members))
    with pytest.raises(ConfigError, match="unknown: tilepx"):
        MappingSpec.from_json(json.dumps(spec.as_dict() | {"tilepx": 3}), "spec.json")
    with pytest.raises(ConfigError, match="no 'grid'"):
        MappingSpec.from_json(json.dumps({k: v for k, v in spec.as_dict().items() if k != "grid"}))
    with pytest.raises(ConfigError, match=r"spec\.json"):
        MappingSpec.from_json("[1, 2", "spec.json")


def test_runs_as_a_command_without_dagster(tmp_path):
    spec = a_spec(tmp_path, (40, 60), tile_px=32)
    (tmp_path / "spec.json").write_text(spec.to_json())
    program = (
        "import sys, runpy\n"
        "sys.modules['dagster'] = None\n"
        "sys.argv = ['mapping', sys.argv[1]]\n"
        "runpy.run_module('popcorn_ml.mapping', run_name='__main__')\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "spec.json"],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [line["done"] for line in lines[:-1]] == [1, 2, 3, 4]
    assert lines[-1]["finished"]
    alone = replace(spec, out=tmp_path / "alone")
    map_population(alone)
    for name in NAMES:
        np.testing.assert_array_equal(read_map(spec)[name], read_map(alone)[name])
    missing = subprocess.run(
        [sys.executable, "-m", "popcorn_ml.mapping", tmp_path / "none.json"],
        capture_output=True,
        text=True,
    )
    assert missing.returncode == 2
    assert "none.json" in missing.stderr


PEAK = """
import sys
from pathlib import Path
from popcorn_ml.mapping.predict import MappingSpec, map_population
map_population(MappingSpec.from_json(Path(sys.argv[1]).read_text()))
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(int(status["VmHWM"].split()[0]) / 1024)
"""
# VmHWM rather than getrusage: the latter starts at what the parent held when it forked


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_memory_is_bounded_by_the_tile(tmp_path):
    """Twelve times the pixels, and no more memory than five of its eleven bands."""
    peaks = []
    for name, shape in (("small", (256, 1024)), ("large", (1536, 2048))):
        grid = a_grid(*shape)
        folder = tmp_path / name
        s1 = np.broadcast_to(np.int16(-1100), (2, *shape))
        s2 = np.broadcast_to(np.uint16(1500), (4, *shape))
        score = np.full((1, *shape), np.nan, np.float32)
        score[:, 100:, :100] = 0.5  # most tiles are read and written, but not predicted
        raster.write(folder / "s1.tif", s1, grid, ["VV", "VH"], -32768, scale=0.01)
        raster.write(folder / "s2.tif", s2, grid, ["B02", "B03", "B04", "B08"], 0)
        raster.write(folder / "score.tif", score, grid, ["summer"], np.nan)
        spec = MappingSpec(
            composites={"summer": (folder / "s1.tif", folder / "s2.tif")},
            builtup=folder / "score.tif",
            members=write_members(folder, (1, 2)),
            grid=grid,
            out=folder / "map",
            tile_px=256,
            device="cpu",
            threads=1,
        )
        (folder / "spec.json").write_text(spec.to_json())
        ran = subprocess.run(
            [sys.executable, "-c", PEAK, folder / "spec.json"],
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(float(ran.stdout))
    one_raster_mb = 1536 * 2048 * 4 / 2**20
    assert peaks[1] - peaks[0] < 5 * one_raster_mb, peaks


def test_pixels_without_a_score_are_not_computed(tmp_path):
    """As beyond a country's imagery; what has one is as it was."""
    spec = a_spec(tmp_path, (200, 260))
    map_population(spec)
    whole = read_map(spec)
    score = raster.read_float(spec.builtup)
    score[:, :, :128] = np.nan
    raster.write(spec.builtup, score, spec.grid, SEASONS, np.nan)
    cut = replace(spec, out=tmp_path / "cut")
    assert map_population(cut).counts["pixels computed"] == 200 * (260 - 128)
    for name, values in read_map(cut).items():
        assert np.isnan(values[..., :128]).all()
        np.testing.assert_allclose(values[..., 128:], whole[name][..., 128:], rtol=0, atol=1e-5)
