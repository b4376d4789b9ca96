"""Filling gaps by the stated rules and no others, each share counted."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from popcorn_ml import raster
from popcorn_ml.errors import GridMismatch, RasterError
from popcorn_ml.grid import Grid
from popcorn_ml.imagery.assembling import NOT_ASKED_FOR
from popcorn_ml.imagery.build import fill_gaps
from popcorn_ml.imagery.gaps import nearest_within
from popcorn_ml.imagery.settings import ImagerySettings
from popcorn_ml.sentinel import BANDS, S1_NODATA, SEASONS

GRID = Grid("EPSG:32736", 500000, 9800000, 10, 90, 80)
S2_VALUES = {"spring": 1000, "summer": 2001, "autumn": 3000, "winter": 4000}
S1_VALUES = {"spring": -1000, "summer": -1101, "autumn": -1200, "winter": -1300}


def settings_for(tile_px: int = 64, **gaps) -> ImagerySettings:
    return ImagerySettings.parse({"tile_px": tile_px, "gaps": gaps})


def season_folders(root: Path, sensor: str) -> dict[str, np.ndarray]:
    """Four seasons of one value each, to be given gaps before `write_seasons`."""
    base, kind = (S2_VALUES, np.uint16) if sensor == "s2" else (S1_VALUES, np.int16)
    bands = len(BANDS[sensor])
    return {
        season: np.full((bands, *GRID.shape), base[season], kind)
        + np.arange(bands, dtype=kind)[:, None, None]
        for season in SEASONS
    }


def write_seasons(
    root: Path, sensor: str, seasons: dict[str, np.ndarray], outside: np.ndarray | None = None
) -> dict[str, Path]:
    nodata, scale = (0, 1.0) if sensor == "s2" else (S1_NODATA, 0.01)
    folders = {}
    for season, values in seasons.items():
        folders[season] = root / season
        raster.write(
            root / season / "composite.tif", values, GRID, BANDS[sensor], nodata, scale=scale
        )
        clear = (values != nodata).all(axis=0).astype(np.uint16)
        if outside is not None:
            clear[outside] = NOT_ASKED_FOR
        raster.write(root / season / "clear_count.tif", clear, GRID, ("clear",), NOT_ASKED_FOR)
    return folders


def test_neighbouring_seasons_first(tmp_path: Path) -> None:
    """The mean of the season before and after, a half up; the one that is there; circular."""
    seasons = season_folders(tmp_path, "s2")
    seasons["spring"][:, :, :10] = 0
    seasons["summer"][:, :, :5] = 0
    folders = write_seasons(tmp_path, "s2", seasons)
    report = fill_gaps("s2", folders, GRID, settings_for(), tmp_path / "out")
    spring = raster.read(tmp_path / "out" / "spring.tif")
    assert spring[0, 0].tolist() == [4000] * 5 + [3001] * 5 + [1000] * 80  # (4000 + 2001) / 2
    assert spring[3, 0, 7] == 3004  # band by band: (4003 + 2004) / 2, a half up
    summer = raster.read(tmp_path / "out" / "summer.tif")
    assert (summer[0, :, :5] == 3000).all()  # spring is missing there too, autumn alone
    assert report.shares["spring"]["B02"] == {
        "observed": pytest.approx(8 / 9, abs=1e-6),
        "neighbouring_seasons": pytest.approx(1 / 9, abs=1e-6),
        "other_orbit": 0.0,
        "nearest": 0.0,
        "empty": 0.0,
    }
    assert report.pixels_inside == 7200


def test_then_the_other_orbit_then_the_nearest_then_nothing(tmp_path: Path) -> None:
    seasons = season_folders(tmp_path, "s1")
    for values in seasons.values():
        values[:, :, :30] = S1_NODATA
    folders = write_seasons(tmp_path, "s1", seasons)
    other = np.full((2, *GRID.shape), S1_NODATA, np.int16)
    other[:, :, 20:30] = -777
    raster.write(
        folders["spring"] / "other_orbit.tif", other, GRID, BANDS["s1"], S1_NODATA, scale=0.01
    )
    report = fill_gaps("s1", folders, GRID, settings_for(nearest_px=7), tmp_path / "out")
    spring = raster.read(tmp_path / "out" / "spring.tif")
    assert spring[0, 40].tolist() == [S1_NODATA] * 13 + [-777] * 17 + [-1000] * 60
    summer = raster.read(tmp_path / "out" / "summer.tif")
    assert summer[1, 40].tolist() == [S1_NODATA] * 23 + [-1100] * 67  # no other orbit there
    assert report.shares["spring"]["VV"] == {
        "observed": pytest.approx(60 / 90, abs=1e-6),
        "neighbouring_seasons": 0.0,
        "other_orbit": pytest.approx(10 / 90, abs=1e-6),
        "nearest": pytest.approx(7 / 90, abs=1e-6),
        "empty": pytest.approx(13 / 90, abs=1e-6),
    }
    assert report.empty_share == pytest.approx(23 / 90, abs=1e-6)
    read = raster.read_float(tmp_path / "out" / "spring.tif")
    assert np.isnan(read[0, 40, 0])
    assert read[0, 40, 25] == pytest.approx(-7.77)


def test_rules_can_be_left_out(tmp_path: Path) -> None:
    seasons = season_folders(tmp_path, "s2")
    seasons["autumn"][:, 10:20] = 0
    folders = write_seasons(tmp_path, "s2", seasons)
    rules = settings_for(neighbouring_seasons=False, other_orbit=False, nearest_px=0)
    report = fill_gaps("s2", folders, GRID, rules, tmp_path / "out")
    np.testing.assert_array_equal(raster.read(tmp_path / "out" / "autumn.tif"), seasons["autumn"])
    assert report.shares["autumn"]["B08"]["empty"] == pytest.approx(1 / 8, abs=1e-6)
    assert report.rules["nearest_px"] == 0


def test_a_band_is_never_filled_from_another(tmp_path: Path) -> None:
    """Fault 5: VV was filled from VH where it was nearest."""
    seasons = season_folders(tmp_path, "s1")
    for values in seasons.values():
        values[0, :, :50] = S1_NODATA  # VV alone
        values[1] = -2500
    folders = write_seasons(tmp_path, "s1", seasons)
    fill_gaps("s1", folders, GRID, settings_for(nearest_px=100), tmp_path / "out")
    for season in SEASONS:
        values = raster.read(tmp_path / "out" / f"{season}.tif")
        assert (values[0] == S1_VALUES[season]).all()
        assert (values[1] == -2500).all()


def test_all_missing_stays_nodata_not_zero_decibel(tmp_path: Path) -> None:
    """Fault 5: an empty season became 0 dB, two standard deviations above the mean."""
    seasons = season_folders(tmp_path, "s1")
    for values in seasons.values():
        values[:] = S1_NODATA
    folders = write_seasons(tmp_path, "s1", seasons)
    report = fill_gaps("s1", folders, GRID, settings_for(), tmp_path / "out")
    for season in SEASONS:
        assert np.isnan(raster.read_float(tmp_path / "out" / f"{season}.tif")).all()
    assert report.empty_share == 1.0


def test_outside_the_boundary_nothing_is_filled_or_counted(tmp_path: Path) -> None:
    seasons = season_folders(tmp_path, "s2")
    outside = np.zeros(GRID.shape, bool)
    outside[:, 64:] = True
    for values in seasons.values():
        values[:, outside] = 0
    seasons["winter"][:, :, 60:64] = 0
    folders = write_seasons(tmp_path, "s2", seasons, outside)
    report = fill_gaps("s2", folders, GRID, settings_for(), tmp_path / "out")
    for season in SEASONS:
        values = raster.read(tmp_path / "out" / f"{season}.tif")
        assert not values[:, outside].any()
        assert values[:, ~outside].all()
    assert report.pixels_inside == 64 * 80
    assert report.shares["winter"]["B03"]["neighbouring_seasons"] == pytest.approx(4 / 64)


def test_blocks_do_not_matter(tmp_path: Path) -> None:
    """The nearest rule reaches across blocks; the bytes are the same."""
    rng = np.random.default_rng(3)
    seasons = season_folders(tmp_path, "s2")
    holes = rng.random(GRID.shape) < 0.5
    holes[20:60, 30:70] = True
    for values in seasons.values():
        values[:] = rng.integers(1, 5000, values.shape)
        values[:, holes] = 0
    folders = write_seasons(tmp_path, "s2", seasons)
    digests = set()
    for number, tile_px in enumerate((64, 64, 80, 128)):
        out = tmp_path / f"out{number}"
        fill_gaps("s2", folders, GRID, settings_for(tile_px, nearest_px=12), out)
        digests.add(
            tuple(hashlib.sha256((out / f"{s}.tif").read_bytes()).hexdigest() for s in SEASONS)
        )
    assert len(digests) == 1


def test_nearest_is_the_nearest() -> None:
    """Against every pair of pixels; ties to the north, then the west."""
    rng = np.random.default_rng(0)
    for share, limit in ((0.7, 4), (0.97, 9), (0.3, 2)):
        values = rng.integers(1, 10000, (40, 37)).astype(np.uint16)
        gap = rng.random(values.shape) < share
        values[gap] = 0
        expected, filled_expected = values.copy(), np.zeros_like(gap)
        have = np.argwhere(~gap)
        for row, col in np.argwhere(gap):
            steps = have - (row, col)
            distance = (steps**2).sum(axis=1)
            best = min(range(len(have)), key=lambda i: (distance[i], *steps[i]))
            if distance[best] <= limit * limit:
                expected[row, col] = values[tuple(have[best])]
                filled_expected[row, col] = True
        filled = nearest_within(values, gap, gap, limit)
        np.testing.assert_array_equal(values, expected)
        np.testing.assert_array_equal(filled, filled_expected)


def test_a_season_from_elsewhere(tmp_path: Path) -> None:
    """One season taken from files in float dB among three in hundredths: all become float dB."""
    seasons = season_folders(tmp_path, "s1")
    seasons["summer"][:, :, :10] = S1_NODATA
    folders = write_seasons(tmp_path, "s1", seasons)
    db = np.full((2, *GRID.shape), -9.125, np.float32)
    raster.write(folders["spring"] / "composite.tif", db, GRID, BANDS["s1"], float("nan"))
    fill_gaps("s1", folders, GRID, settings_for(), tmp_path / "out")
    spring, summer = (raster.read(tmp_path / "out" / f"{s}.tif") for s in ("spring", "summer"))
    assert spring.dtype == summer.dtype == np.float32
    assert (spring == -9.125).all()
    assert summer[0, 0, 0] == pytest.approx((-9.125 - 12.0) / 2)


def test_bad_input(tmp_path: Path) -> None:
    folders = write_seasons(tmp_path, "s2", season_folders(tmp_path, "s2"))
    with pytest.raises(RasterError, match="composite of winter is missing"):
        fill_gaps(
            "s2", {s: folders[s] for s in SEASONS[:3]}, GRID, settings_for(), tmp_path / "out"
        )
    other = Grid(GRID.crs, GRID.west + 10, GRID.north, 10, 90, 80)
    with pytest.raises(GridMismatch) as failure:
        fill_gaps("s2", folders, other, settings_for(), tmp_path / "out")
    assert "spring" in str(failure.value)
    file = folders["autumn"] / "composite.tif"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(RasterError):
        fill_gaps("s2", folders, GRID, settings_for(), tmp_path / "out")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").glob("*.tif"))
