"""Rasters: complete or absent, on the grid or refused, with nodata, tiles, overviews and tags."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from popcorn_ml import raster
from popcorn_ml.errors import GridMismatch, RasterError
from popcorn_ml.grid import Grid, Window

GRID = Grid("EPSG:32736", 500_000, 9_800_000, 10, 620, 540)


@pytest.fixture
def decibels(tmp_path):
    values = np.random.default_rng(1).integers(-3000, 500, (2, *GRID.shape)).astype("int16")
    values[:, :20, :30] = -32768
    path = tmp_path / "s1.tif"
    raster.write(path, values, GRID, ("VV", "VH"), -32768, scale=0.01, tags={"season": "spring"})
    return path, values


def test_fault_12_rasters_carry_nodata_tiles_overviews_and_tags(decibels):
    path, values = decibels
    with rasterio.open(path) as dataset:
        assert dataset.nodata == -32768
        assert dataset.block_shapes[0] == (256, 256)
        assert dataset.overviews(1)
        assert dataset.descriptions == ("VV", "VH")
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert dataset.scales == (0.01, 0.01)
        np.testing.assert_array_equal(dataset.read(), values)
    assert raster.tags(path)["season"] == "spring"


def test_decoding_applies_scale_and_nodata(decibels):
    path, values = decibels
    decoded = raster.read_float(path, Window(10, 15, 40, 50), grid=GRID)
    stored = values[:, 10:50, 15:65]
    assert np.isnan(decoded[stored == -32768]).all()
    np.testing.assert_allclose(decoded[stored != -32768], stored[stored != -32768] / 100, atol=1e-5)
    assert raster.read_float(path, bands=2).shape == GRID.shape


def test_same_pixels_same_bytes(tmp_path, decibels):
    path, values = decibels
    again = tmp_path / "again.tif"
    with raster.CogWriter(
        again, GRID, ("VV", "VH"), "int16", -32768, scale=0.01, tags={"season": "spring"}
    ) as out:
        for tile in GRID.tiles(256):
            out.write(values[(slice(None), *tile.core.slices)], tile.core)
    assert again.read_bytes() == path.read_bytes()


def test_fault_12_a_failed_write_leaves_nothing_and_is_not_swallowed(tmp_path):
    path = tmp_path / "map.tif"
    with (
        pytest.raises(RuntimeError, match="half way"),
        raster.CogWriter(path, GRID, ("people",), "float32", np.nan) as out,
    ):
        out.write(np.ones((100, GRID.width), "float32"), Window(0, 0, 100, GRID.width))
        raise RuntimeError("half way")
    assert list(tmp_path.iterdir()) == []


def test_missing_raster_is_named(tmp_path):
    with pytest.raises(RasterError, match=r"gone\.tif: the raster is missing"):
        raster.read(tmp_path / "gone.tif")


def test_truncated_raster_is_refused(tmp_path, decibels):
    path, _ = decibels
    cut = tmp_path / "cut.tif"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(RasterError, match=r"cut\.tif"):
        raster.check(cut, GRID, readable=True)


@pytest.mark.parametrize(
    "other",
    [
        Grid("EPSG:32735", GRID.west, GRID.north, 10, GRID.width, GRID.height),
        Grid(GRID.crs, GRID.west + 10, GRID.north, 10, GRID.width, GRID.height),
        Grid(GRID.crs, GRID.west, GRID.north, 20, GRID.width, GRID.height),
        Grid(GRID.crs, GRID.west, GRID.north, 10, GRID.width - 10, GRID.height),
    ],
    ids=["crs", "shifted", "step", "shape"],
)
def test_raster_on_another_grid_is_refused_with_both_grids(decibels, other):
    path, _ = decibels
    with pytest.raises(GridMismatch, match=r"expected: .*\n.*found: ") as caught:
        raster.check(path, other)
    assert "s1.tif" in str(caught.value)
    with pytest.raises(GridMismatch):
        raster.read_float(path, grid=other)


def test_wrong_number_of_bands_is_refused(decibels):
    with pytest.raises(RasterError, match="number of bands"):
        raster.check(decibels[0], GRID, count=4)


def written(path, transform, values=None):
    """A raster of numbers that tell their own place, with a transform of any kind."""
    values = np.arange(6 * 4, dtype="int16").reshape(6, 4) if values is None else values
    with rasterio.open(
        path, "w", driver="GTiff", width=values.shape[1], height=values.shape[0], count=1,
        dtype=values.dtype, crs="EPSG:4326", transform=transform, nodata=0,
    ) as out:  # fmt: skip
        out.write(values, 1)
        out.scales = (0.5,)
    return path


@pytest.mark.parametrize(
    ("sides", "width", "read"),
    [
        ((0.00083333333, 0.00083333334), 24, True),
        ((0.00083333333, 0.00083333333000001), 43200, True),
        ((0.000898315284, 0.000898315284119), 4000, True),
        ((0.00083333333, 0.00083333334), 100_000, False),  # half a pixel at the far edge: another
        ((0.0008, 0.00081), 24, False),
    ],
)
def test_sides_are_equal_if_the_far_corner_says_so(tmp_path, sides, width, read):
    values = np.ones((2, width), "int16")
    path = written(tmp_path / "a.tif", Affine(sides[0], 0, 30, 0, -sides[1], -1), values)
    if read:
        assert raster.grid_of(path) == Grid("EPSG:4326", 30, -1, sides[0], width, 2)
    else:
        with pytest.raises(RasterError, match="not square"):
            raster.grid_of(path)


def test_a_raster_drawn_from_the_south_reads_from_the_north(tmp_path):
    """Stored, decoded, whole or a window: the same numbers at the same places."""
    up = np.arange(1, 25, dtype="int16").reshape(6, 4)
    north = written(tmp_path / "n.tif", Affine(0.5, 0, 30, 0, -0.5, -1), up)
    south = written(tmp_path / "s.tif", Affine(0.5, 0, 30, 0, 0.5, -4), up[::-1])
    assert raster.grid_of(south) == raster.grid_of(north) == Grid("EPSG:4326", 30, -1, 0.5, 4, 6)
    window = Window(1, 2, 3, 2)
    for how in (raster.read, raster.read_float):
        for place in (None, window):
            for bands in (1, [1], None):
                np.testing.assert_array_equal(how(south, place, bands), how(north, place, bands))
    np.testing.assert_array_equal(raster.read(south, window, 1), up[1:4, 2:])
    raster.check(south, raster.grid_of(north), readable=True)


@pytest.mark.parametrize(
    "transform",
    [
        Affine(-0.5, 0, 30, 0, -0.5, -1),  # from the east
        Affine(0.5, 0.1, 30, 0, -0.5, -1),
        Affine.identity(),
    ],
)
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_other_ways_to_lie_are_refused(tmp_path, transform):
    with pytest.raises(RasterError):
        raster.grid_of(written(tmp_path / "a.tif", transform))


def test_rotated_raster_is_refused(tmp_path):
    path = tmp_path / "rotated.tif"
    with rasterio.open(
        path, "w", driver="GTiff", crs="EPSG:32736", width=4, height=4, count=1, dtype="uint8",
        transform=rasterio.Affine(10, 2, 0, 2, -10, 0),
    ) as dataset:  # fmt: skip
        dataset.write(np.ones((1, 4, 4), "uint8"))
    with pytest.raises(RasterError, match="rotated"):
        raster.grid_of(path)


def test_errors_survive_the_way_between_processes():
    error = RasterError("broken", where="a.tif", expected=1, found=2, remedy="mend it")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is RasterError
    assert str(again) == str(error)
    assert again.remedy == "mend it"
