"""Composites as the networks take them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from popcorn_ml import raster
from popcorn_ml.errors import GridMismatch, RasterError
from popcorn_ml.grid import Grid, Window
from popcorn_ml.inputs import read_channels
from popcorn_ml.sentinel import (
    CHANNEL_MEAN,
    CHANNEL_STD,
    CHANNELS,
    S1_BANDS,
    S1_NODATA,
    S1_SCALE,
    S2_BANDS,
)

GRID = Grid("EPSG:32736", 500_000.0, 9_800_000.0, 10.0, 12, 10)


@pytest.fixture
def composites(tmp_path: Path) -> tuple[Path, Path]:
    """VV is missing in a corner, B03 at a pixel, everything of Sentinel-2 in a column."""
    chance = np.random.default_rng(1)
    s1 = chance.integers(-2500, -300, (2, *GRID.shape)).astype(np.int16)
    s2 = chance.integers(100, 6000, (4, *GRID.shape)).astype(np.uint16)
    s1[0, :2, :3] = S1_NODATA
    s2[1, 5, 5] = 0
    s2[:, :, 11] = 0
    raster.write(tmp_path / "s1.tif", s1, GRID, S1_BANDS, S1_NODATA, scale=S1_SCALE)
    raster.write(tmp_path / "s2.tif", s2, GRID, S2_BANDS, 0)
    return tmp_path / "s1.tif", tmp_path / "s2.tif"


def test_channels_are_normalised_in_the_order_the_networks_take(composites):
    s1, s2 = composites
    channels, valid = read_channels(s1, s2, grid=GRID)
    assert channels.dtype == np.float32
    assert channels.shape == (6, *GRID.shape)
    db, reflectance = raster.read(s1) * S1_SCALE, raster.read(s2).astype(float)
    for channel, name in zip(channels, CHANNELS, strict=True):
        stored = db[S1_BANDS.index(name)] if name in S1_BANDS else reflectance[S2_BANDS.index(name)]
        expected = (stored - CHANNEL_MEAN[name]) / CHANNEL_STD[name]
        np.testing.assert_allclose(channel[valid], expected[valid], atol=1e-5)


def test_fault_5_missing_pixels_are_marked_and_never_filled_from_another_band(composites):
    channels, valid = read_channels(*composites)
    vv, vh = channels[:2]
    assert (vv[:2, :3] == 0).all()
    assert (np.abs(vh[:2, :3]) > 1e-3).all()  # what was observed stays
    assert channels[3, 5, 5] == 0
    assert channels[2, 5, 5] != 0
    assert (channels[2:, :, 11] == 0).all()
    expected = np.ones(GRID.shape, bool)
    expected[:2, :3] = expected[5, 5] = False
    expected[:, 11] = False
    np.testing.assert_array_equal(valid, expected)
    assert np.isfinite(channels).all()


def test_fault_5_all_missing_is_the_mean_and_not_0_db(tmp_path):
    nothing = np.full((2, *GRID.shape), S1_NODATA, np.int16)
    raster.write(tmp_path / "s1.tif", nothing, GRID, S1_BANDS, S1_NODATA, scale=S1_SCALE)
    channels, valid = read_channels(tmp_path / "s1.tif", None)
    assert not valid.any()
    assert (channels == 0).all()


def test_one_sensor_alone(composites):
    s1, s2 = composites
    channels, valid = read_channels(None, s2)
    assert (channels[:2] == 0).all()
    assert valid[0, 0]  # Sentinel-1 was not asked for
    assert not valid[:, 11].any()
    channels, valid = read_channels(s1, None)
    assert (channels[2:] == 0).all()
    assert valid[:, 11].all()
    with pytest.raises(ValueError, match="neither"):
        read_channels(None, None)


def test_a_window_is_part_of_the_whole(composites):
    window = Window(1, 4, 6, 8)
    channels, valid = read_channels(*composites)
    part, part_valid = read_channels(*composites, window)
    np.testing.assert_array_equal(part, channels[(slice(None), *window.slices)])
    np.testing.assert_array_equal(part_valid, valid[window.slices])


def test_float_composites_read_like_integer_ones(composites, tmp_path):
    s1, s2 = composites
    decibels = raster.read_float(s1)
    raster.write(tmp_path / "float.tif", decibels, GRID, S1_BANDS, float("nan"))
    for a, b in zip(read_channels(s1, s2), read_channels(tmp_path / "float.tif", s2), strict=True):
        np.testing.assert_array_equal(a, b)


def test_bad_composites(composites, tmp_path):
    s1, s2 = composites
    with pytest.raises(RasterError, match="number of bands") as raised:
        read_channels(s2, s2)
    assert str(s2) in str(raised.value)
    with pytest.raises(RasterError, match="missing"):
        read_channels(s1, tmp_path / "none.tif")
    other = Grid(GRID.crs, GRID.west, GRID.north, 10.0, 9, 10)
    raster.write(tmp_path / "other.tif", np.ones((4, 10, 9), np.uint16), other, S2_BANDS, 0)
    with pytest.raises(GridMismatch):
        read_channels(s1, tmp_path / "other.tif")
    with pytest.raises(GridMismatch):
        read_channels(s1, tmp_path / "other.tif", grid=GRID)
    (tmp_path / "cut.tif").write_bytes(s2.read_bytes()[:700])
    with pytest.raises(RasterError):
        read_channels(s1, tmp_path / "cut.tif")
