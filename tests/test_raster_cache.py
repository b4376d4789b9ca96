"""Blocks held while neighbours need them: what is read is the same, and decoded once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from popcorn_ml import raster, raster_cache
from popcorn_ml.errors import RasterError
from popcorn_ml.grid import Grid, Window
from popcorn_ml.raster_cache import holding, in_bands

GRID = Grid("EPSG:32736", 500_000, 9_800_000, 10, 900, 800)


@pytest.fixture
def decibels(tmp_path):
    values = np.random.default_rng(1).integers(-3000, 500, (2, *GRID.shape)).astype("int16")
    values[:, 100:300, 200:500] = -32768
    raster.write(tmp_path / "s1.tif", values, GRID, ("VV", "VH"), -32768, scale=0.01)
    return tmp_path / "s1.tif"


def windows(count):
    rng = np.random.default_rng(2)
    for _ in range(count):
        row, col = int(rng.integers(0, 790)), int(rng.integers(0, 890))
        yield Window(row, col, int(rng.integers(1, 801 - row)), int(rng.integers(1, 901 - col)))


@pytest.mark.parametrize("bands", [None, 2, [2, 1], [1]])
@pytest.mark.parametrize("how", [raster.read, raster.read_float])
def test_the_same_is_read_from_threads(decibels, how, bands):
    asked = list(windows(25))
    plain = [how(decibels, window, bands) for window in asked]
    with raster.bounded_cache(), ThreadPoolExecutor(4) as pool:
        held = list(pool.map(lambda window: how(decibels, window, bands), asked))
    for one, other in zip(plain, held, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_blocks_are_decoded_once_though_tiles_reach_into_each_other(decibels):
    with holding(raster._handle) as cache:
        for tile in in_bands(GRID.tiles(256, halo=24)):
            raster.read_float(decibels, tile.read)
        assert cache.decoded == 4 * 4
    assert raster_cache.current() is None


def test_memory_stays_within_the_bound(decibels):
    block = 2 * 256 * 256 * 2
    cache = raster_cache.BlockCache(raster._handle, 3 * block)
    for window in windows(30):
        cache.read(str(decibels), None, window)
        assert cache._held <= 3 * block
    cache.close()


def test_a_file_that_was_replaced_is_read_anew(tmp_path, decibels):
    with raster.bounded_cache():
        window = Window(10, 10, 20, 20)
        before = raster.read(decibels, window)
        raster.write(decibels, np.ones((2, *GRID.shape), "int16"), GRID, ("VV", "VH"), -32768)
        assert (raster.read(decibels, window) == 1).all()
    assert not (before == 1).all()


def test_what_cannot_be_read_is_named_and_not_held(tmp_path, decibels):
    cut = tmp_path / "cut.tif"
    cut.write_bytes(decibels.read_bytes()[: decibels.stat().st_size // 2])
    with raster.bounded_cache():
        for _ in range(2):
            with pytest.raises(RasterError, match=r"cut\.tif"):
                raster.read(cut, Window(780, 880, 10, 10))
        with pytest.raises(RasterError, match=r"gone\.tif: the raster is missing"):
            raster.read(tmp_path / "gone.tif", Window(0, 0, 1, 1))
