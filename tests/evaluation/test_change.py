"""What two years of one model's maps say of change: what is usual, what is more, how well known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popcorn_ml import raster
from popcorn_ml.errors import GridMismatch
from popcorn_ml.evaluation.change import (
    BANDS,
    FALSE_DISCOVERIES,
    Known,
    Usual,
    chances,
    compare,
    discoveries,
    interval,
    usual_difference,
    values,
    write_change,
)
from popcorn_ml.evaluation.change_imagery import explained, other_sources, write_filled
from popcorn_ml.evaluation.change_picture import change_png
from popcorn_ml.evaluation.change_units import errors_together, rows, sum_units
from popcorn_ml.grid import Grid
from popcorn_ml.mapping.aggregate import cell_sums

GRID = Grid("EPSG:32736", 500_000.0, 9_800_000.0, 10.0, 600, 500)
CELLS = GRID.hectares()
KNOWN = Known(np.array([1.0, 300.0]), np.array([[0.2, 0.6], [0.5, 0.8], [1.7, 1.3], [2.2, 1.5]]))


def two_years(seed=1, moved=(), noise=0.15):
    """People per hectare in two years that differ by `noise` of the root of the people."""
    rng = np.random.default_rng(seed)
    before = rng.gamma(0.5, 60.0, CELLS.shape)
    now = before + noise * np.sqrt(before) * rng.normal(size=CELLS.shape)
    now = np.maximum(now, 0)
    for at, people in moved:
        now[at] += people
    return before.astype(np.float32), now.astype(np.float32)


def quantiles(people):
    return np.maximum(people + np.array([-2, -1.3, 1.3, 2])[:, None, None] * np.sqrt(people), 0)


def test_what_is_usual_is_measured_whatever_few_hectares_do():
    before, now = two_years()
    moved = now.copy()
    moved[::40] += 80  # one in twenty-five
    for later, most in ((now, 1.4), (moved, 2.0)):
        usual = usual_difference(before, later)
        for people in (5.0, 50.0, 200.0):
            assert 0.7 <= usual.of(np.array(people)) / (0.15 * people**0.5) <= most
    assert usual.of(np.array(0.0)) == pytest.approx(0, abs=1e-3)


def test_a_drift_of_all_is_usual_and_no_change_of_any():
    before, now = two_years()
    drift = (now * 1.05).astype(np.float32)
    found = compare(before, drift, None)
    assert found.gaining + found.losing <= FALSE_DISCOVERIES * 0.1 * found.cells
    assert found.total == pytest.approx((drift - before).sum(), rel=1e-4)


def test_where_most_hectares_changed_less_is_found_and_never_more():
    before, now = two_years(moved=[((2, 2), 150.0)])
    few = compare(before, now, None)
    rng = np.random.default_rng(5)
    grown = now + rng.gamma(2.0, 40.0, now.shape).astype(np.float32)
    most = compare(before, grown, None)
    assert few.gaining >= 1
    assert most.gaining < 0.2 * most.cells


@pytest.mark.parametrize("seed", range(3))
def test_false_discoveries_are_as_few_as_stated_and_large_changes_are_found(seed):
    rng = np.random.default_rng(seed + 40)
    places = [divmod(int(k), CELLS.width) for k in rng.choice(CELLS.width * CELLS.height, 120)]
    moved = [(at, 80.0 * (1 if k % 2 else 0.5)) for k, at in enumerate(places)]
    before, now = two_years(seed, moved)
    found = compare(before, now, None)
    flag = values(before, now, found)[5]
    true = np.zeros(CELLS.shape, bool)
    for at, _ in moved:
        true[at] = True
    assert (flag[true] == 1).mean() > 0.95
    assert (flag[~true] != 0).sum() <= 2 * FALSE_DISCOVERIES * (flag != 0).sum()


def test_too_few_inhabited_hectares_are_not_judged():
    before, now = (people[:9, :9] * 0 + 30 for people in two_years())
    found = compare(before, now, None)
    bands = values(before, now, found)
    assert found.usual is None
    assert np.isfinite(bands[0]).all()
    assert np.isnan(bands[1:]).all()


def test_a_hectare_without_a_value_in_one_year_has_none():
    before, now = two_years(moved=[((4, 4), 100.0)])
    now[7, 8] = np.nan
    bands = values(before, now, compare(before, now, (quantiles(before), quantiles(now))))
    assert np.isnan(bands[:, 7, 8]).all()
    assert np.isfinite(np.delete(bands.reshape(6, -1), 7 * CELLS.width + 8, axis=1)).all()


changes = st.floats(-300, 300, allow_nan=False)


@settings(max_examples=200, deadline=None)
@given(change=changes, spread=st.floats(0, 50), real=st.booleans())
def test_intervals_hold_the_estimate_are_in_order_and_wider_where_people_came(change, spread, real):
    change, spread = np.array([change]), np.array([spread])
    found = interval(change, spread, np.array([real]), KNOWN)
    assert (np.diff(found, axis=0) >= 0).all()
    assert found[1] <= change <= found[2]
    plain = interval(change, spread, np.array([False]), KNOWN)
    assert (found[3] - found[0] >= plain[3] - plain[0] - 1e-9).all()
    mirrored = interval(-change, spread, np.array([real]), KNOWN)
    assert np.allclose(mirrored, -found[::-1])


def test_a_change_is_called_so_at_the_stated_rate_by_the_definition():
    p = np.array([0.001, 0.012, 0.026, 0.2, 0.8])
    assert discoveries(p, 0.05) == 0.026  # 0.026 <= 0.05 x 3 / 5, 0.2 > 0.05 x 4 / 5
    assert discoveries(np.array([0.5, 0.9]), 0.05) == -1
    assert discoveries(np.zeros(0)) == -1
    assert chances(np.array([2.306]), np.array([1.0])) == pytest.approx(0.05, rel=1e-3)


def write_years(folder, before, now):
    """Pixels of two years, each hectare's people in its pixels at random; hectares beside."""
    rng = np.random.default_rng(3)
    weight = rng.gamma(0.7, 1.0, GRID.shape)
    spread = weight / cell_sums(weight).repeat(10, 0).repeat(10, 1)
    paths = []
    for name, cells in (("before", before), ("now", now)):
        pixels = (spread * cells.repeat(10, 0).repeat(10, 1)).astype(np.float32)
        raster.write(folder / f"{name}_px.tif", pixels, GRID, ["people"], np.nan)
        raster.write(folder / f"{name}.tif", cells, CELLS, ["people"], np.nan)
        raster.write(
            folder / f"{name}_i.tif", quantiles(cells).astype(np.float32), CELLS, BANDS[1:5], np.nan
        )
        paths.append(folder / f"{name}.tif")
    return paths


def test_units_add_up_and_those_that_are_counted_have_no_error(tmp_path):
    before, now = two_years(moved=[((12, 12), 400.0)])
    paths = write_years(tmp_path, before, now)
    intervals = tmp_path / "before_i.tif", tmp_path / "now_i.tif"
    found = write_change(*paths, intervals, CELLS, tmp_path / "change.tif")
    bands = raster.read_float(tmp_path / "change.tif")
    rows_, cols = np.indices(GRID.shape)
    fine = (rows_ // 50 * 12 + cols // 50 + 1).astype(np.uint32)  # 5 x 5 hectares each
    coarse = (rows_ // 100 * 6 + cols // 100 + 1).astype(np.uint32)
    for name, units in (("fine", fine), ("coarse", coarse)):
        raster.write(tmp_path / f"{name}.tif", units, GRID, ["n"], 0, resampling="nearest")
    maps = tmp_path / "before_px.tif", tmp_path / "now_px.tif"

    def units_of(name, counted):
        count = int({"fine": fine, "coarse": coarse}[name].max())
        whole = tmp_path / "coarse.tif"
        known = [counted] * int(coarse.max())
        return sum_units(tmp_path / f"{name}.tif", count, maps, whole, known, GRID, found)

    small, large = units_of("fine", True), units_of("coarse", True)
    assert np.nansum(small.change[1:]) == pytest.approx(bands[0].sum(), abs=0.5)
    assert np.nansum(large.change[1:]) == pytest.approx(bands[0].sum(), abs=0.5)
    assert (large.spread[1:] == 0).all()
    loose = units_of("fine", False)
    assert (loose.spread[1:] > small.spread[1:]).all()
    assert (small.spread[1:] > 0).all()
    alone = np.sqrt(cell_sums(found.usual.of((before + now) / 2.0) ** 2, 5)).ravel()
    assert loose.spread[1:] == pytest.approx(found.outward * alone, rel=1e-3)
    told = rows(small, {k: f"{k:03d}" for k in range(1, 121)}, "fine", 2020, found)
    by_id = {row["unit_id"]: row for row in told}
    grown = by_id[f"{2 * 12 + 2 + 1:03d}"]
    assert grown["significant"]
    assert grown["p2_5"] < grown["p10"] < grown["people"] < grown["p90"] < grown["p97_5"]
    assert sum(bool(row["significant"]) for row in told) <= 4
    counted = rows(large, {k: str(k) for k in range(1, 31)}, "coarse", 2020, found)
    assert all(row["p2_5"] == row["people"] == row["p97_5"] for row in counted)


def test_the_raster_and_its_picture(tmp_path):
    before, now = two_years(moved=[((12, 12), 400.0), ((30, 40), -0.0)])
    now[20, 20] = 0
    paths = write_years(tmp_path, before, now)
    found = write_change(*paths, None, CELLS, tmp_path / "change.tif", tags={"from_year": 2020})
    bands = raster.read_float(tmp_path / "change.tif")
    assert found.known is None
    assert np.isnan(bands[1:5]).all()
    assert bands[5, 12, 12] == 1
    assert bands[0] == pytest.approx(now - before, abs=1e-4)
    png = change_png(tmp_path / "change.tif", "change", "a note")
    assert png == change_png(tmp_path / "change.tif", "change", "a note")
    with pytest.raises(GridMismatch):
        write_change(*paths, None, GRID, tmp_path / "other.tif")


def test_errors_of_two_years_go_together_as_they_were_made_to():
    rng = np.random.default_rng(2)
    people = rng.gamma(2.0, 300.0, 400)
    shared, own = rng.normal(size=400), rng.normal(size=(2, 400))
    wrong = np.sqrt(people) * (0.9**0.5 * shared + 0.1**0.5 * own)
    found = errors_together((people + wrong[0], people), (people + wrong[1], people))
    assert found.correlation == pytest.approx(0.9, abs=0.03)
    assert found.least < found.correlation
    assert found.of_change / found.of_one_year == pytest.approx(0.2**0.5, rel=0.15)
    counted_once = np.where(np.arange(400) < 10, people, np.nan)
    few = errors_together((people, people), (people, counted_once))
    assert few.units == 10
    assert "not measured: 10 units" in few.told()


def test_filled_imagery_is_told_per_hectare_and_what_cannot_be_read_is_not_known(tmp_path):
    seen = np.full(GRID.shape, 2, np.uint16)
    seen[:10, :25] = 0
    raster.write(tmp_path / "one.tif", seen, GRID, ["n"], 65535, resampling="nearest")
    raster.write(tmp_path / "two.tif", seen * 0 + 1, GRID, ["n"], 65535, resampling="nearest")
    clear = {
        "s2 2021": [tmp_path / "one.tif", tmp_path / "two.tif"],
        "s1 2021": [tmp_path / "gone.tif"],
        "s1 2020": [],
    }
    unknown = write_filled(clear, GRID, tmp_path / "filled.tif")
    assert set(unknown) == {"s1 2021", "s1 2020"}
    filled = raster.read_float(tmp_path / "filled.tif")
    assert filled[0, 0, :4] == pytest.approx([0.5, 0.5, 0.25, 0])
    assert np.isnan(filled[1:]).all()
    bands = np.zeros((6, *CELLS.shape), np.float32)
    bands[5, 0, :5] = 1
    raster.write(tmp_path / "change.tif", bands, CELLS, BANDS, np.nan)
    told = explained(tmp_path / "change.tif", tmp_path / "filled.tif")
    assert told["significant"] == 5
    assert told["of them where imagery is filled"] == 3
    assert told["share of all cells where imagery is filled"] == pytest.approx(3 / 3000)


def test_another_product_in_one_of_the_years_is_named():
    one = {"s1": {"product": "GRD"}, "s2": {"level": "L2A"}}
    two = {"s1": {"product": "RTC"}, "s2": {"level": "L2A"}}
    assert other_sources(one, two) == ["s1: product was GRD, is RTC"]
    assert other_sources(one, one) == []


def test_spread_of_no_class_is_asked_beyond_what_was_seen():
    usual = Usual(np.array([1.0, 100.0]), np.array([0.5, 4.0]))
    assert usual.of(np.array([0.5, 1.0, 100.0, 200.0])) == pytest.approx([0.25, 0.5, 4.0, 8.0])
