"""Checks of composites: good ones pass, each fault fails the check that is there for it."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from popcorn_ml import raster
from popcorn_ml.grid import Grid
from popcorn_ml.imagery.build import build_season, fill_gaps
from popcorn_ml.imagery.checks import (
    FILLED_CHECKS,
    SEASON_CHECKS,
    backscatter_check,
    filled_checks,
    season_checks,
)
from popcorn_ml.imagery.settings import ImagerySettings
from popcorn_ml.imagery.stats import BandStats, clear_summary
from popcorn_ml.sentinel import SEASONS
from tests.imagery.conftest import YEAR, Place


@pytest.fixture(scope="module")
def year(place: Place, tmp_path_factory: pytest.TempPathFactory):
    """Reports and folders of all seasons of the simulated place, and of the filled ones."""
    root = tmp_path_factory.mktemp("year")
    reports, folders, filled = {}, {}, {}
    for sensor in ("s1", "s2"):
        for season in SEASONS:
            folders[sensor, season] = root / f"{sensor}_{season}"
            reports[sensor, season] = build_season(
                sensor, season, YEAR, place.grid, place.settings(), folders[sensor, season],
                root / "scratch",
            ).as_dict()  # fmt: skip
        own = {season: folders[sensor, season] for season in SEASONS}
        folders[sensor, "all"] = root / f"{sensor}_all"
        filled[sensor] = fill_gaps(
            sensor, own, place.grid, place.settings(), folders[sensor, "all"]
        ).as_dict()
    return reports, folders, filled


def verdicts(report: dict, folder: Path, grid: Grid, settings: ImagerySettings) -> dict:
    results = season_checks(folder, report, grid, settings)
    assert [one.name for one in results] == list(SEASON_CHECKS)
    return {one.name: one for one in results}


def test_good_composites_pass(place: Place, year) -> None:
    reports, folders, filled = year
    for key, report in reports.items():
        for name, one in verdicts(report, folders[key], place.grid, place.settings()).items():
            assert one.passed or (one.severity == "warn" and name != "value_ranges"), one
    for sensor, report in filled.items():
        results = filled_checks(folders[sensor, "all"], report, place.grid, place.settings())
        assert [one.name for one in results] == list(FILLED_CHECKS)
        assert all(one.passed for one in results), results


def test_real_values_pass(real_dir: Path) -> None:
    """A real chip of dB and reflectance lies well within the ranges."""
    db = raster.read_float(real_dir / "spain" / "s1_grd_db.tif")
    numbers = raster.read(real_dir / "spain" / "s2_l1c.tif", bands=[2, 3, 4, 8])
    for sensor, bands, values in (
        ("s1", ("VV", "VH"), np.nan_to_num(np.rint(db * 100), nan=-32768).astype(np.int16)),
        ("s2", ("B02", "B03", "B04", "B08"), numbers.astype(np.uint16)),
    ):
        stats = {}
        for band, one in zip(bands, values, strict=True):
            stats[band] = BandStats(sensor)
            stats[band].add(one)
        from popcorn_ml.imagery.checks import check_baseline_offset, check_value_ranges

        report = {"sensor": sensor, "bands": {b: s.as_dict() for b, s in stats.items()}}
        assert check_value_ranges(report, ImagerySettings()).passed
        assert check_baseline_offset(report).passed


def stats_of(sensor: str, values: np.ndarray) -> dict:
    stats = BandStats(sensor)
    stats.add(values)
    return stats.as_dict()


def test_linear_power_taken_for_decibels_fails(place: Place, year) -> None:
    """Fault 13. Linear VV lies within three deviations of the published mean in dB."""
    reports, folders, _ = year
    report = copy.deepcopy(reports["s1", "spring"])
    for band in ("VV", "VH"):
        power = 10 ** (np.random.default_rng(0).normal(-11, 4, 10000) / 10)
        report["bands"][band] = stats_of("s1", power.astype(np.float32))
    one = verdicts(report, folders["s1", "spring"], place.grid, place.settings())["value_ranges"]
    assert not one.passed
    assert one.severity == "error"
    assert "linear power or digital numbers, not dB" in one.message
    assert "VV" in one.message


def test_digital_numbers_taken_for_decibels_fail(place: Place, year) -> None:
    """Fault 13: Sentinel-1 GRD digital numbers, a few hundred."""
    reports, folders, _ = year
    report = copy.deepcopy(reports["s1", "spring"])
    for band in ("VV", "VH"):
        numbers = np.random.default_rng(0).integers(20, 300, 10000).astype(np.float32)
        report["bands"][band] = stats_of("s1", numbers)
    one = verdicts(report, folders["s1", "spring"], place.grid, place.settings())["value_ranges"]
    assert not one.passed


@pytest.mark.parametrize("factor", [1 / 10000, 1 / 40])
def test_reflectance_of_another_scale_fails(place: Place, year, factor: float) -> None:
    """0..1 instead of 0..10000, and bytes."""
    reports, folders, _ = year
    report = copy.deepcopy(reports["s2", "spring"])
    values = np.random.default_rng(0).integers(200, 4000, 10000)
    for band in report["bands"]:
        report["bands"][band] = stats_of("s2", (values * factor).astype(np.float32))
    one = verdicts(report, folders["s2", "spring"], place.grid, place.settings())["value_ranges"]
    assert not one.passed
    assert one.severity == "error"


def test_an_offset_left_in_is_doubted(place: Place, year) -> None:
    """Fault 13: no baseline 04.00 offset."""
    reports, folders, _ = year
    report = copy.deepcopy(reports["s2", "spring"])
    for band, stats in report["bands"].items():
        values = np.random.default_rng(0).normal(stats["mean"], stats["std"], 10000)
        report["bands"][band] = stats_of("s2", np.maximum(values, 150) + 1000)
    found = verdicts(report, folders["s2", "spring"], place.grid, place.settings())
    assert not found["baseline_offset"].passed
    assert found["baseline_offset"].severity == "warn"


def test_a_scene_outside_the_season_fails(place: Place, year) -> None:
    reports, folders, _ = year
    report = copy.deepcopy(reports["s2", "spring"])
    folder = folders["s2", "spring"]
    assert verdicts(report, folder, place.grid, place.settings())["season_dates"].passed
    report["scenes"][0]["datetime"] = report["end"]
    one = verdicts(report, folder, place.grid, place.settings())["season_dates"]
    assert (one.passed, one.severity) == (False, "error")
    report["scenes"][0]["datetime"] = None
    one = verdicts(report, folder, place.grid, place.settings())["season_dates"]
    assert (one.passed, one.severity) == (False, "warn")
    assert "say no date" in one.message
    report["scenes"][1]["datetime"] = report["end"]
    one = verdicts(report, folder, place.grid, place.settings())["season_dates"]
    assert (one.passed, one.severity) == (False, "error")


def test_what_the_source_does_not_say_is_no_pass(place: Place, year) -> None:
    reports, folders, _ = year
    report = copy.deepcopy(reports["s2", "spring"])
    report["provenance"]["observation"] = "unknown"
    for stats in report["bands"].values():
        stats["n"] = 0
    found = verdicts(report, folders["s2", "spring"], place.grid, place.settings())
    for name in ("clear_observations", "baseline_offset"):
        assert (found[name].passed, found[name].severity) == (False, "warn"), name
        assert found[name].message.startswith("not judged"), name


def test_another_grid_fails(place: Place, year) -> None:
    reports, folders, filled = year
    other = replace(place.grid, west=place.grid.west + 10)
    one = verdicts(reports["s2", "spring"], folders["s2", "spring"], other, place.settings())
    assert not one["grid"].passed
    assert one["grid"].severity == "error"
    results = filled_checks(folders["s1", "all"], filled["s1"], other, place.settings())
    assert not results[0].passed


def test_too_little_is_doubted_then_refused(place: Place, year) -> None:
    reports, folders, filled = year
    report = copy.deepcopy(reports["s2", "spring"])
    folder, settings = folders["s2", "spring"], place.settings()
    report["clear"]["single_share"] = 0.8
    for share, passed, severity in (
        (0.1, True, "warn"),
        (0.5, False, "warn"),
        (0.95, False, "error"),
    ):
        report["nodata_share"] = share
        found = verdicts(report, folder, place.grid, settings)
        assert (found["nodata_share"].passed, found["nodata_share"].severity) == (passed, severity)
        assert not found["clear_observations"].passed
    empty = copy.deepcopy(filled["s2"])
    empty["shares"]["winter"]["B08"] |= {"empty": 0.5, "observed": 0.5}
    results = {
        one.name: one for one in filled_checks(folders["s2", "all"], empty, place.grid, settings)
    }
    assert not results["empty_share"].passed
    assert results["empty_share"].severity == "error"
    assert "winter B08" in results["empty_share"].message
    assert not results["filled_share"].passed


def test_nothing_at_all_fails(place: Place, year) -> None:
    reports, folders, _ = year
    report = copy.deepcopy(reports["s1", "spring"])
    for band in report["bands"]:
        report["bands"][band] = stats_of("s1", np.full(10, -32768, np.int16))
    one = verdicts(report, folders["s1", "spring"], place.grid, place.settings())
    assert not one["value_ranges"].passed


@pytest.mark.parametrize("filler", [-9999.0, -99.0, 9999.0, 65535.0])
def test_a_filler_taken_for_data_fails_however_rare(place: Place, year, filler: float) -> None:
    """One pixel in ten thousand moves no percentile."""
    reports, folders, _ = year
    report = copy.deepcopy(reports["s1", "spring"])
    values = np.random.default_rng(0).normal(-17, 4, 10000).astype(np.float32)
    values[0] = -75  # noise above signal over calm water: no filler
    report["bands"]["VH"] = stats_of("s1", values)
    folder = folders["s1", "spring"]
    assert verdicts(report, folder, place.grid, place.settings())["value_ranges"].passed
    values[1] = filler
    bad = stats_of("s1", values)
    for where in (report, {"share": 0.1, "nodata_share": 0.1}):
        one = copy.deepcopy(report)
        if where is report:
            one["bands"]["VH"] = bad
        else:
            one["other_orbit"] = where | {"bands": {**one["bands"], "VH": bad}}
        found = verdicts(one, folder, place.grid, place.settings())["value_ranges"]
        assert (found.passed, found.severity) == (False, "error")
        assert "no backscatter" in found.message


def test_the_other_orbit_counts_where_it_stands_in(place: Place, year) -> None:
    """Ascending alone is no reason to refuse, unless the gaps are not filled from it."""
    reports, folders, _ = year
    report, folder = copy.deepcopy(reports["s1", "spring"]), folders["s1", "spring"]
    good, nothing = report["bands"], stats_of("s1", np.full(10, -32768, np.int16))
    report |= {"nodata_share": 1.0, "bands": dict.fromkeys(good, nothing)}
    report["other_orbit"] = {"share": 1.0, "nodata_share": 0.0, "bands": good, "scenes": []}
    found = verdicts(report, folder, place.grid, place.settings())
    assert (found["nodata_share"].passed, found["nodata_share"].severity) == (False, "warn")
    assert "0.0% where the other orbit stands in" in found["nodata_share"].message
    assert found["nodata_share"].metadata["other_orbit_share"] == 1.0
    assert found["value_ranges"].passed
    settings = place.settings(gaps={"other_orbit": False})
    one = verdicts(report, folder, place.grid, settings)["nodata_share"]
    assert (one.passed, one.severity) == (False, "error")
    power = (10 ** (np.random.default_rng(0).normal(-11, 4, 10000) / 10)).astype(np.float32)
    report["other_orbit"]["bands"] = dict.fromkeys(good, stats_of("s1", power))
    one = verdicts(report, folder, place.grid, place.settings())["value_ranges"]
    assert not one.passed
    assert "VV of the other orbit" in one.message
    report["other_orbit"]["nodata_share"] = 0.95
    one = verdicts(report, folder, place.grid, place.settings())["nodata_share"]
    assert (one.passed, one.severity) == (False, "error")


def test_gamma_and_sigma_nought_are_told_apart() -> None:
    gamma, sigma = {"backscatter": "gamma0", "level": "RTC"}, {"backscatter": "sigma0"}
    assert backscatter_check(gamma, dict(gamma)).passed
    one = backscatter_check(gamma, sigma)
    assert not one.passed
    assert "gamma0 in training, sigma0 here" in one.message


def test_statistics_are_exact() -> None:
    rng = np.random.default_rng(5)
    values = rng.integers(-3000, 500, (2, 1001)).astype(np.int16)
    stats = BandStats("s1")
    for part in values:
        stats.add(part)
    stats.add(np.full(7, -32768, np.int16))
    found, flat = stats.as_dict(), np.sort(values.reshape(-1)) * 0.01
    assert found["n"] == 2002
    assert found["mean"] == pytest.approx(flat.mean(), abs=1e-4)
    assert found["std"] == pytest.approx(flat.std(), abs=1e-4)
    assert (found["min"], found["max"]) == (pytest.approx(flat[0]), pytest.approx(flat[-1]))
    assert found["median"] == pytest.approx(flat[1000])
    assert found["p02"] == pytest.approx(flat[40])
    counts = np.bincount([0, 0, 1, 2, 2, 2, 9])
    assert clear_summary(counts) == {
        "min": 0,
        "median": 2,
        "mean": pytest.approx(16 / 7, abs=1e-4),
        "max": 9,
        "none_share": pytest.approx(2 / 7, abs=1e-6),
        "single_share": pytest.approx(1 / 7, abs=1e-6),
    }
