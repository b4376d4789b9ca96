"""Zone sums: nothing lost, nothing counted twice, whatever the blocks and threads."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from popcorn_ml import raster
from popcorn_ml.errors import GridMismatch, RasterError
from popcorn_ml.grid import Grid
from popcorn_ml.zones import ZoneNumberError, raster_zone_sums, zone_sums, zone_table

GRID = Grid("EPSG:32736", 500_000.0, 9_800_000.0, 10.0, 330, 270)


def looped(zones, values, count):
    """Sums and missing pixels by a loop over the zones' masks."""
    inside = [values[zones == unit].astype(np.float64) for unit in range(count + 1)]
    return (
        np.array([np.nansum(part) for part in inside]),
        np.array([np.isnan(part).sum() for part in inside]),
    )


shapes = hnp.array_shapes(min_dims=1, max_dims=2, min_side=1, max_side=40)


@settings(max_examples=60, deadline=None)
@given(st.data(), shapes, st.integers(0, 9), st.sampled_from([np.uint32, np.uint8, np.int64]))
def test_equals_a_loop_over_masks_and_conserves_people(data, shape, count, dtype):
    zones = data.draw(hnp.arrays(dtype, shape, elements=st.integers(0, count)))
    people = st.floats(0, 1e6, width=32) | st.just(float("nan"))
    values = data.draw(hnp.arrays(np.float32, shape, elements=people))
    table = zone_table(zones, [values, zones], count)
    sums, missing = looped(zones, values, count)
    np.testing.assert_allclose(table.sums[0], sums, rtol=1e-12)
    np.testing.assert_array_equal(table.missing[0], missing)
    np.testing.assert_array_equal(table.pixels, np.bincount(zones.ravel(), minlength=count + 1))
    np.testing.assert_allclose(table.sums[0].sum(), np.nansum(values, dtype=np.float64), rtol=1e-12)
    np.testing.assert_array_equal(table.sums[1], table.pixels * np.arange(count + 1))


def test_sums_are_kept_in_float64():
    zones = np.ones(20_000_000 // 4, np.uint32)
    assert zone_sums(zones, np.full(zones.shape, 0.1, np.float32), 1)[1] == pytest.approx(
        zones.size * float(np.float32(0.1)), rel=1e-12
    )


@pytest.mark.parametrize("zones", [np.array([0, 4], np.uint32), np.array([0, -1])])
def test_refuses_numbers_that_are_no_zone(zones):
    with pytest.raises(ZoneNumberError, match=r"outside 0\.\.3"):
        zone_sums(zones, None, 3)


def test_refuses_other_shapes_and_zones_that_are_not_integers():
    with pytest.raises(ValueError, match=r"\(2,\) over zones of shape \(3,\)"):
        zone_sums(np.zeros(3, np.uint32), np.zeros(2), 1)
    with pytest.raises(ValueError, match="float32, not integers"):
        zone_sums(np.zeros(3, np.float32), None, 1)


@pytest.fixture
def rasters(tmp_path):
    rng = np.random.default_rng(3)
    zones = rng.integers(0, 50, GRID.shape).astype(np.uint32)
    values = rng.random((2, *GRID.shape), dtype=np.float32)
    values[0, :30, :50] = np.nan
    raster.write(tmp_path / "units.tif", zones, GRID, ["unit"], 0, resampling="nearest")
    raster.write(tmp_path / "values.tif", values, GRID, ["a", "b"], np.nan)
    return tmp_path, zones, values


def test_rasters_in_blocks_equal_the_arrays(rasters):
    folder, zones, values = rasters
    paths = [folder / "values.tif", (folder / "values.tif", 2)]
    expected = zone_table(zones, list(values), 49)
    steps: list[tuple[int, int]] = []
    by_threads = [
        raster_zone_sums(
            folder / "units.tif",
            paths,
            GRID,
            49,
            block_px=100,
            threads=threads,
            progress=lambda done, total: steps.append((done, total)),
        )
        for threads in (1, 3)
    ]
    for found in by_threads:
        np.testing.assert_allclose(found.sums, expected.sums, rtol=1e-12)
        np.testing.assert_array_equal(found.missing, expected.missing)
        np.testing.assert_array_equal(found.valid, expected.valid)
        np.testing.assert_array_equal(found.pixels, expected.pixels)
    np.testing.assert_array_equal(by_threads[0].sums, by_threads[1].sums)
    assert steps[:12] == [(i, 12) for i in range(1, 13)]


def test_names_the_raster_that_is_wrong(rasters):
    folder, _, _ = rasters
    with pytest.raises(RasterError, match=r"units\.tif: .*\n.*0\.\.40"):
        raster_zone_sums(folder / "units.tif", [], GRID, 40)
    elsewhere = Grid(GRID.crs, GRID.west + 10, GRID.north, GRID.step, GRID.width, GRID.height)
    with pytest.raises(GridMismatch, match=r"units\.tif"):
        raster_zone_sums(folder / "units.tif", [], elsewhere, 49)


def test_the_benchmark_measures_what_it_says(capsys):
    """On a small country; the bound itself belongs to 100 million pixels."""
    from benchmarks.zones import main

    main(["--json", "--pixels", "4000000", "--units", "400", "--sample", "20"])
    found = json.loads(capsys.readouterr().out)
    assert found["pixels"] == 4_000_000
    assert found["loop_units_timed"] == 20
    assert "20 of 400 units" in found["loop"]
    assert found["ratio"] == pytest.approx(found["loop_s"] / found["single_pass_s"], rel=0.3)
    assert found["ratio"] > 10


def test_by_area_each_pixel_counts_as_its_rows_own(tmp_path):
    """As built-up score does in degrees; on a plane nothing changes."""
    for crs, step, north in (("EPSG:4326", 0.05, 71.0), ("EPSG:32736", 10.0, 9_800_000.0)):
        grid = Grid(crs, 6.0, north, step, 33, 270)
        rng = np.random.default_rng(1)
        zones = rng.integers(0, 5, grid.shape).astype(np.uint32)
        score = rng.random(grid.shape, dtype=np.float32)
        score[rng.random(grid.shape) < 0.1] = np.nan
        raster.write(tmp_path / "zones.tif", zones, grid, ["z"], 0, resampling="nearest")
        raster.write(tmp_path / "score.tif", score, grid, ["s"], np.nan)
        paths = tmp_path / "zones.tif", [tmp_path / "score.tif"]
        plain = raster_zone_sums(*paths, grid, 4, block_px=100)
        found = raster_zone_sums(*paths, grid, 4, block_px=100, by_area=True)
        area = grid.row_area_m2() / grid.row_area_m2().mean()
        expected = zone_sums(zones, score.astype(float) * area[:, None], 4)
        np.testing.assert_allclose(found.sums[0], expected, rtol=1e-9)
        np.testing.assert_array_equal(found.missing, plain.missing)
        if crs == "EPSG:32736":
            np.testing.assert_array_equal(found.sums, plain.sums)
