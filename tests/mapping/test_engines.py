"""Whichever engine runs the networks, and in however many threads, the map is the same."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from popcorn_assets.resources import ComputeResource
from popcorn_ml import raster
from popcorn_ml.compute import devices, kernels
from popcorn_ml.errors import ConfigError
from popcorn_ml.grid import Window
from popcorn_ml.mapping.__main__ import main
from popcorn_ml.mapping.engine import choice, on_compiled, on_openvino
from popcorn_ml.mapping.engine.choice import open_engine
from popcorn_ml.mapping.predict import map_population
from popcorn_ml.model.weights import tensors_of
from tests.mapping.places import a_member, a_spec, an_extractor

HALO = 24


needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, kernels.COMPILERS)), reason="no C compiler here"
)
OTHERS = [pytest.param("compiled", marks=needs_compiler), "openvino"]
"""Engines that torch is the reference of."""


@pytest.fixture(scope="module", params=OTHERS)
def engines(request):
    """The networks in an engine and in torch: the bags, and the extractors."""
    opened = [open_engine(name, "cpu", threads=2) for name in (request.param, "torch")]
    members, extractor = (
        [tensors_of(a_member(seed)) for seed in (1, 2, 3)],
        tensors_of(an_extractor()),
    )
    return [o.bag(members) for o in opened], [o.extractor(extractor) for o in opened]


def channels(seed: int, rows: int, cols: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((6, rows, cols)).astype(np.float32)


@settings(max_examples=15, deadline=None)
@given(
    rows=st.integers(14, 60),
    cols=st.integers(14, 60),
    share=st.sampled_from([0.01, 0.3, 0.59, 0.61, 1.0]),
    seed=st.integers(0, 99),
)
def test_members_say_the_same_in_either_engine(engines, rows, cols, share, seed):
    """Of any window, whether the head is given all pixels of the core or those wanted alone."""
    x = channels(seed, 4 * rows, 4 * cols)
    core = Window(HALO, HALO - 4, 4 * rows - 2 * HALO, 4 * cols - 2 * HALO + 7)
    wanted = np.random.default_rng(seed).random((core.height, core.width)) < share
    wanted[0, 0] = True
    ours, reference = (bag.occupancy(x, core, wanted) for bag in engines[0])
    assert ours.shape == (3, core.height, core.width)
    assert (np.isnan(ours) == ~wanted).all()
    largest = np.nanmax(reference)
    assert largest > 0
    np.testing.assert_allclose(ours, reference, rtol=0, atol=1e-5 * max(largest, 1))


@settings(max_examples=15, deadline=None)
@given(
    rows=st.integers(29, 140),
    cols=st.integers(29, 140),
    first=st.tuples(st.integers(0, 28), st.integers(0, 28)),
    sensors=st.sampled_from(["both", "s1", "s2"]),
)
def test_scores_are_the_same_in_either_engine(engines, rows, cols, first, sensors):
    """Of any side, as the end of a canvas need not be a multiple of four; and up to its edges."""
    x = channels(rows, rows, cols)
    core = Window(*first, rows - first[0], cols - first[1])
    ours, reference = (one.scores(x, core, sensors) for one in engines[1])
    np.testing.assert_allclose(ours, reference, rtol=0, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(
    rows=st.integers(14, 60),
    cols=st.integers(14, 60),
    edges=st.tuples(*[st.booleans()] * 4),
    share=st.sampled_from([0.3, 1.0]),
)
def test_members_say_the_same_at_the_edges_of_a_canvas(engines, rows, cols, edges, share):
    """Where a convolution sees zeros beyond its input, in every layer."""
    x = channels(cols, 4 * rows, 4 * cols)
    top, left, bottom, right = (0 if edge else HALO for edge in edges)
    core = Window(top, left, 4 * rows - top - bottom, 4 * cols - left - right)
    wanted = np.random.default_rng(rows).random((core.height, core.width)) < share
    ours, reference = (bag.occupancy(x, core, wanted) for bag in engines[0])
    np.testing.assert_allclose(ours, reference, rtol=0, atol=1e-5 * max(np.nanmax(reference), 1))


def test_a_graph_of_its_own_says_the_same():
    """For the core that most windows have; of other cores the engine says what it said before."""
    side, members = 160, [tensors_of(a_member(seed)) for seed in (1, 2)]
    bags = [open_engine("openvino", "cpu", regular=regular).bag(members) for regular in (0, side)]
    for core in (Window(HALO, HALO, side, side), Window(HALO + 3, HALO, side, side - 8)):
        x = channels(1, side + 2 * HALO + 4, side + 2 * HALO)
        wanted = np.ones((core.height, core.width), bool)
        any_window, this = (bag.occupancy(x, core, wanted) for bag in bags)
        np.testing.assert_allclose(this, any_window, rtol=0, atol=1e-5)
    assert bags[1].fixed_graphs == 1


@pytest.mark.parametrize("engine", OTHERS)
def test_bytes_do_not_depend_on_threads_or_order(engine):
    """One thread or several at once, the smallest window first or last."""
    members = [tensors_of(a_member(seed)) for seed in (1, 2, 3)]
    windows = [channels(side, side, side) for side in (64, 96, 128, 160, 200)] * 3

    def one(bag, x: np.ndarray) -> bytes:
        side = x.shape[-1] - 2 * HALO
        wanted = np.ones((side, side), bool)
        return bag.occupancy(x, Window(HALO, HALO, side, side), wanted).tobytes()

    found = []
    for threads in (1, 2, 3):
        bag = open_engine(engine, "cpu", threads=threads).bag(members)
        with ThreadPoolExecutor(threads) as pool:
            found.append(list(pool.map(lambda x, bag=bag: one(bag, x), windows)))
            backwards = list(pool.map(lambda x, bag=bag: one(bag, x), windows[::-1]))
        assert backwards[::-1] == found[0]
    assert found[0] == found[1] == found[2]


@needs_compiler
@settings(max_examples=20, deadline=None)
@given(
    top=st.integers(0, 9),
    left=st.integers(0, 9),
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    place=st.tuples(st.integers(0, 100), st.integers(0, 100)),
    share=st.sampled_from([0.02, 0.5, 1.0]),
)
def test_a_compiled_pixel_does_not_depend_on_its_window(top, left, size, place, share):
    """To the bit: cut out anywhere, at an edge or not, and whichever others are wanted."""
    x = channels(7, 150, 170)
    bag = open_engine("compiled", "cpu").bag([tensors_of(a_member(seed)) for seed in (1, 2)])
    whole = bag.occupancy(x, Window(0, 0, 150, 170), np.ones((150, 170), bool))
    row, col = min(place[0], 149), min(place[1], 169)
    height, width = min(size[0], 150 - row), min(size[1], 170 - col)
    begin = [max((at - HALO) // 4 * 4 - 4 * more, 0) for at, more in ((row, top), (col, left))]
    end = [
        min(-(-(row + height + HALO) // 4) * 4, 150),
        min(-(-(col + width + HALO) // 4) * 4, 170),
    ]
    piece = x[:, begin[0] : end[0], begin[1] : end[1]]
    wanted = np.random.default_rng(row).random((height, width)) < share
    found = bag.occupancy(piece, Window(row - begin[0], col - begin[1], height, width), wanted)
    expected = np.where(wanted, whole[:, row : row + height, col : col + width], np.nan)
    np.testing.assert_array_equal(found, expected)


@needs_compiler
def test_maps_do_not_depend_on_tiles_nor_on_what_is_left_out(tmp_path):
    """The bytes of every pixel that is computed, by a cut of the place into any tiles."""
    spec = replace(a_spec(tmp_path, (90, 120), tile_px=50), engine="compiled")
    cuts = {"tiles": spec, "whole": replace(spec, tile_px=512), "threads": replace(spec, threads=2)}
    cuts["spared"] = replace(spec, spare_below=0.5)
    found = {}
    for name, cut in cuts.items():
        map_population(replace(cut, out=tmp_path / name))
        found[name] = raster.read_float(tmp_path / name / "occupancy.tif", bands=1)
    for name in ("whole", "threads"):
        np.testing.assert_array_equal(found[name], found["tiles"])
    computed = ~np.isnan(found["spared"])
    assert 0 < computed.sum() < (~np.isnan(found["tiles"])).sum()
    np.testing.assert_array_equal(found["spared"][computed], found["tiles"][computed])


def test_maps_by_any_engine_are_equal_and_say_which(tmp_path):
    spec = a_spec(tmp_path, (90, 120), tile_px=50)
    names = ["openvino", "torch"] + ["compiled"] * (kernels.compiler() is not None)
    said = [
        map_population(replace(spec, engine=name, out=tmp_path / name)).ran[0] for name in names
    ]
    assert [ran.engine for ran in said] == names
    assert said[1].version == torch.__version__
    assert {ran.precision for ran in said} == {"float32"}
    maps = [
        raster.read_float(tmp_path / name / "population.tif", bands=1, dtype="float64")
        for name in names
    ]
    cells = [np.nan_to_num(one).reshape(9, 10, 12, 10).sum(axis=(1, 3)) for one in maps]
    for one in cells:
        assert np.abs(one - cells[1]).max() <= 1e-5 * cells[1].max()


def test_without_a_compiler_the_next_engine_is_taken_and_said(tmp_path, monkeypatch, capsys):
    """And by name it is missed before any work, with what to install."""
    monkeypatch.setattr(on_compiled, "compiled", lambda: None)
    assert open_engine("auto", "cpu").ran.engine == "openvino"
    spec = a_spec(tmp_path, (40, 50), tile_px=40)
    (tmp_path / "spec.json").write_text(replace(spec, device="cpu").to_json())
    assert main([str(tmp_path / "spec.json")]) == 0
    assert "networks run in openvino" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="needs a C compiler") as caught:
        ComputeResource(engine="compiled", device="cpu").require_here()
    assert "apt install gcc" in str(caught.value)
    with pytest.raises(ConfigError, match="needs a C compiler"):
        map_population(replace(spec, engine="compiled", out=tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_an_engine_that_is_not_there_is_missed_before_any_work(monkeypatch):
    monkeypatch.setattr(on_compiled, "compiled", lambda: None)
    monkeypatch.setattr(choice, "is_installed", lambda: False)
    with pytest.raises(ConfigError, match="openvino is not installed") as caught:
        ComputeResource(engine="openvino", device="cpu").require_here()
    assert f"pip install {choice.PACKAGE}" in str(caught.value)
    assert open_engine("auto", "cpu").ran.engine == "torch"
    ComputeResource(device="cpu").require_here()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"engine": "tensorflow"}, "openvino"),
        ({"engine": "openvino", "precision": "bfloat16"}, "float32 on the CPU"),
        ({"engine": "openvino", "device": "cuda"}, "float32 on the CPU"),
        ({"engine": "compiled", "precision": "bfloat16"}, "float32 on the CPU"),
    ],
)
def test_an_engine_that_cannot_do_it_is_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        open_engine(
            changes["engine"], changes.get("device", "cpu"), changes.get("precision", "float32")
        )


def test_a_processor_without_float32_is_refused(monkeypatch):
    """What OpenVINO takes of itself where a processor has bfloat16, or float16 on others."""
    monkeypatch.setattr(on_compiled, "compiled", lambda: None)
    other = dict.fromkeys(("INFERENCE_PRECISION_HINT",), "f16")
    compile_model = on_openvino.ov.Core.compile_model
    monkeypatch.setattr(
        on_openvino.ov.Core,
        "compile_model",
        lambda core, graph, device, told: compile_model(core, graph, device, {**told, **other}),
    )
    graph = on_openvino.extractor_graph(tensors_of(an_extractor()), "both")
    if not on_openvino.other_precisions(on_openvino.ov.Core().compile_model(graph, "CPU", {})):
        other["INFERENCE_PRECISION_HINT"] = "bf16"
    if not on_openvino.other_precisions(on_openvino.ov.Core().compile_model(graph, "CPU", {})):
        pytest.skip("this processor computes in float32 alone")
    on_openvino.require_float32.cache_clear()
    try:
        with pytest.raises(ConfigError, match="does not compute in float32") as caught:
            open_engine("openvino", "cpu")
        assert "POPCORN_ENGINE=torch" in str(caught.value)
        assert open_engine("auto", "cpu").ran.engine == "torch"
    finally:
        on_openvino.require_float32.cache_clear()


def test_nothing_is_told_to_anybody(tmp_path):
    """OpenVINO's package can report its use; making and running networks leaves that alone."""
    program = """
import os, socket, sys
def refuse(*given): raise SystemExit(f"asked for: {given}")
socket.socket.connect = socket.getaddrinfo = os.fork = refuse
from popcorn_ml.mapping.engine.on_openvino import require_float32
require_float32()
assert not [name for name in sys.modules if name.startswith("openvino_telemetry")]
from pathlib import Path
assert not (Path.home() / "intel").exists(), "left a file"
"""
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("engine", OTHERS)
def test_torch_is_not_loaded_to_map_on_a_cpu(tmp_path, engine):
    """It takes more than a second and 100 MB to begin, of every step."""
    spec = replace(a_spec(tmp_path, (60, 70), tile_px=40), engine=engine, device="auto")
    (tmp_path / "spec.json").write_text(spec.to_json())
    code = (
        "import sys; from popcorn_ml.mapping.__main__ import main; "
        f"main([{str(tmp_path / 'spec.json')!r}]); print('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == str(devices.has_driver())
