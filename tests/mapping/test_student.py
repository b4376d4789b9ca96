"""A student maps a place as the ensemble does: the same rasters, whoever computes them."""

from __future__ import annotations

import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from popcorn_ml import raster
from popcorn_ml.errors import ConfigError, WeightsError
from popcorn_ml.grid import Grid, Window
from popcorn_ml.inputs import read_channels
from popcorn_ml.mapping.builtup import map_builtup
from popcorn_ml.mapping.engine.students import open_student_engine
from popcorn_ml.mapping.predict import map_population
from popcorn_ml.mapping.sparing import COMPUTED, PEOPLE, SPARED
from popcorn_ml.mapping.spec import MappingSpec, in_season_order
from popcorn_ml.mapping.together import inputs_of
from popcorn_ml.model.student import Student, new_student
from popcorn_ml.model.weights import save_student, tensors_of
from popcorn_ml.sentinel import SEASONS, SENSORS
from tests.mapping.places import a_grid, a_spec, an_extractor, write_composites

RASTERS = (
    "population", "population_std", "occupancy", "builtup_score", "population_members",
)  # fmt: skip


def a_student(sensors=SENSORS, seed: int = 3) -> Student:
    """A student that sees people nearly everywhere and looks as far as it can."""
    model = new_student(inputs_of(sensors), 2.0, seed)
    with torch.no_grad():
        model.last.weight.abs_().mul_(30)
    return model.eval()


def write_student(folder: Path, sensors=SENSORS, **card) -> Path:
    return save_student(a_student(sensors), folder / "student.safetensors", {"seed": 3, **card})


@pytest.fixture(scope="module")
def spec(tmp_path_factory) -> MappingSpec:
    """A place with holes, of no round size, mapped by a student of both sensors."""
    folder = tmp_path_factory.mktemp("student")
    made = a_spec(folder, (150, 203))
    return replace(
        made, kind="student", members=[write_student(folder / "student")], tile_px=64, out=folder
    )


def values(spec: MappingSpec) -> dict[str, np.ndarray]:
    return {name: raster.read(spec.out / f"{name}.tif") for name in RASTERS}


def bytes_of(spec: MappingSpec) -> dict[str, bytes]:
    return {name: (spec.out / f"{name}.tif").read_bytes() for name in RASTERS}


def expected(spec: MappingSpec) -> np.ndarray:
    """People per pixel by the network in torch, over the whole raster at once."""
    scores = raster.read_float(spec.builtup)
    season_inputs = []
    for pair, score in zip(in_season_order(spec.composites).values(), scores, strict=True):
        channels, valid = read_channels(*pair)
        one = np.concatenate([channels, 2 * score[None] - 1]).astype(np.float64)
        one[:, ~valid | np.isnan(score)] = np.nan
        season_inputs.append(one)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice")
        mean = np.nanmean(season_inputs, axis=0)
    inputs = np.nan_to_num(mean).astype(np.float32)
    with torch.no_grad():
        occupancy = a_student()(torch.from_numpy(inputs)[None])[0].numpy()
    return occupancy * (mean[-1] + 1) / 2


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_tiles_give_what_the_whole_raster_would(spec, tmp_path, engine):
    """In either engine to 1e-5, holes included; the members' raster has the one band of it."""
    spec = replace(spec, engine=engine, out=tmp_path)
    written = map_population(spec)
    assert {ran.engine for ran in written.ran} == {engine}
    found, people = values(spec), expected(spec)
    assert np.isnan(people).any()
    assert (people > 0).any()
    np.testing.assert_allclose(found["population"][0], people, atol=1e-5, rtol=1e-5)
    assert found["population_members"].shape == (1, *spec.grid.shape)
    np.testing.assert_allclose(found["population_members"][0], people, atol=2e-4)
    known = ~np.isnan(people)
    assert (found["population_std"][0][known] == 0).all()
    np.testing.assert_array_equal(np.isnan(found["population_std"][0]), ~known)
    assert written.counts[PEOPLE] == pytest.approx(np.nansum(people), rel=1e-5)


def test_threads_and_processes_write_the_same_bytes(spec, tmp_path):
    one = replace(spec, threads=1, out=tmp_path / "one")
    three = replace(spec, threads=3, out=tmp_path / "three")
    others = replace(spec, threads=2, out=tmp_path / "others")
    map_population(one)
    map_population(three)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        map_population(others, pool=pool)
    assert bytes_of(one) == bytes_of(three) == bytes_of(others)


@settings(max_examples=10, deadline=None)
@given(
    rows=st.integers(14, 40),
    cols=st.integers(14, 40),
    share=st.sampled_from([0.01, 0.5, 1.0]),
    seed=st.integers(0, 99),
    sensors=st.sampled_from([SENSORS, ("s1",), ("s2",)]),
)
def test_engines_agree_on_any_window(rows, cols, share, seed, sensors):
    """Also where a window is cut into pieces, and where one has a graph of its own."""
    weights = tensors_of(a_student(sensors, seed))
    chance = np.random.default_rng(seed)
    x = chance.standard_normal((inputs_of(sensors), 12 * rows, 12 * cols)).astype(np.float32)
    core = Window(24, 20, 12 * rows - 48, 12 * cols - 44 + 7)
    wanted = chance.random((core.height, core.width)) < share
    wanted[0, 0] = True
    bags = [open_student_engine(name, "cpu").bag([weights]) for name in ("openvino", "torch")]
    ours, reference = (bag.occupancy(x, core, wanted) for bag in bags)
    assert np.isnan(ours[0][~wanted]).all()
    np.testing.assert_allclose(ours[0][wanted], reference[0][wanted], rtol=1e-5, atol=1e-5)


def test_a_window_with_a_graph_of_its_own_gives_the_same():
    weights = tensors_of(a_student())
    x = np.random.default_rng(1).standard_normal((7, 112, 112)).astype(np.float32)
    core, wanted = Window(24, 24, 64, 64), np.ones((64, 64), bool)
    ours = open_student_engine("openvino", "cpu", regular=64).bag([weights])
    reference = open_student_engine("torch", "cpu").bag([weights])
    np.testing.assert_allclose(
        ours.occupancy(x, core, wanted), reference.occupancy(x, core, wanted), rtol=1e-5, atol=1e-5
    )


def test_a_missing_season_is_left_out_of_the_mean(spec, tmp_path):
    """Three seasons map as if the fourth had not been observed anywhere, and none gives none."""
    three = {s: pair for s, pair in spec.composites.items() if s != "winter"}
    without = replace(spec, composites=three, out=tmp_path / "without")
    map_population(without)
    scores = raster.read_float(spec.builtup)
    scores[SEASONS.index("winter")] = np.nan
    raster.write(tmp_path / "score.tif", scores, spec.grid, SEASONS, float("nan"))
    unseen = replace(spec, builtup=tmp_path / "score.tif", out=tmp_path / "unseen")
    map_population(unseen)
    np.testing.assert_array_equal(values(without)["population"], values(unseen)["population"])
    raster.write(tmp_path / "none.tif", scores * np.nan, spec.grid, SEASONS, float("nan"))
    nothing = replace(spec, builtup=tmp_path / "none.tif", out=tmp_path / "nothing")
    map_population(nothing)
    assert all(np.isnan(found).all() for found in values(nothing).values())


def test_sentinel_2_alone_needs_no_file_of_sentinel_1(spec, tmp_path):
    """Score and map are made from Sentinel-2's composites, no others being anywhere."""
    composites = {
        season: (None, pair[1])
        for season, pair in write_composites(tmp_path / "images", spec.grid).items()
    }
    for path in (tmp_path / "images").glob("s1_*.tif"):
        path.unlink()
    score = tmp_path / "score.tif"
    map_builtup(an_extractor(), composites, spec.grid, score, threads=1)
    alone = replace(
        spec,
        composites=composites,
        builtup=score,
        members=[write_student(tmp_path / "s2", ("s2",))],
        out=tmp_path / "map",
    )
    map_population(alone)
    found = values(alone)["population"]
    assert np.isfinite(found).mean() > 0.8
    assert np.nansum(found) > 0


def test_what_holds_hardly_anyone_is_left_out(spec, tmp_path):
    """Where most of a place is not built up, few pixels are computed and hardly anyone is lost."""
    score = np.full((4, 300, 320), 1e-9, np.float32)
    score[:, 20:60, 30:90] = 0.7
    grid = a_grid(300, 320)
    composites = write_composites(tmp_path, grid, holes=False)
    raster.write(tmp_path / "score.tif", score, grid, SEASONS, float("nan"))
    every = replace(
        spec, composites=composites, builtup=tmp_path / "score.tif", grid=grid,
        out=tmp_path / "every", tile_px=128,
    )  # fmt: skip
    some = replace(every, leave_out=1e-3, out=tmp_path / "some")
    whole, spared = map_population(every), map_population(some)
    assert spared.counts[SPARED] > 0.8 * grid.height * grid.width
    assert spared.counts[COMPUTED] < 0.2 * whole.counts[COMPUTED]
    assert spared.counts[PEOPLE] == pytest.approx(whole.counts[PEOPLE], rel=1e-3)


def test_people_follow_the_area_of_pixels(spec, tmp_path):
    """On a grid in degrees a row holds as many people as its own area; trained on 100 m2."""
    grid = Grid("EPSG:4326", 30.0, 40.0, 0.01, 64, 128)
    composites = write_composites(tmp_path, grid, holes=False)
    raster.write(
        tmp_path / "score.tif", np.full((4, *grid.shape), 0.5, np.float32), grid, SEASONS, np.nan
    )
    student = write_student(tmp_path / "student", pixel_area_m2=100.0)
    wide = replace(
        spec, composites=composites, builtup=tmp_path / "score.tif", grid=grid,
        members=[student], out=tmp_path / "wide",
    )  # fmt: skip
    plain = replace(wide, trained_pixel_m2=grid.pixel_area_m2, out=tmp_path / "plain")
    map_population(wide)
    map_population(plain)
    ratio = values(wide)["population"] / values(plain)["population"]
    assert np.nanmedian(ratio) == pytest.approx(grid.pixel_area_m2 / 100.0, rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "pupil"}, "bag or student"),
        ({"members": []}, "one or more"),
        ({"composites": {"spring": (None, Path("s2.tif"))}}, "no s1"),
    ],
)
def test_what_cannot_be_mapped_is_refused(spec, tmp_path, changes, said):
    with pytest.raises(ConfigError, match=said):
        map_population(replace(spec, out=tmp_path, **changes))
    assert not list(tmp_path.iterdir())


def test_a_score_of_other_sensors_is_refused(spec, tmp_path):
    """A student of Sentinel-2 alone does not know the score of both, and tells it apart."""
    alone = replace(spec, members=[write_student(tmp_path, ("s2",))], out=tmp_path / "map")
    with pytest.raises(ConfigError, match="spring by both"):
        map_population(alone)


def test_members_of_an_ensemble_are_no_student(spec, tmp_path):
    ensemble = a_spec(tmp_path, (64, 64), seeds=(1,))
    with pytest.raises(WeightsError, match="popcorn-student"):
        map_population(replace(ensemble, kind="student"))
    with pytest.raises(WeightsError, match="popcorn-occupancy"):
        map_population(replace(spec, kind="bag", out=tmp_path / "map"))


def test_a_specification_survives_json(spec):
    again = MappingSpec.from_json(spec.to_json())
    assert again.kind == "student"
    assert again.as_dict() == spec.as_dict()
