"""Change between two years, made by the asset from maps of one model; and why there is none."""

from __future__ import annotations

import json

import numpy as np
import pytest

from popcorn_assets.show import PICTURE
from popcorn_assets.store.versions import Address
from popcorn_ml import raster
from popcorn_ml.mapping.aggregate import cell_sums
from popcorn_ml.warehouse.warehouse import Warehouse
from tests.assets.squares import GREW, GRID, TOWN, Squares
from tests.platforms import enter, make_place

pytestmark = [pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def country(tmp_path_factory):
    """Both years mapped by one model and compared."""
    made = Squares(make_place(tmp_path_factory.mktemp("change") / "home"))
    with pytest.MonkeyPatch.context() as patch:
        enter(made.place, patch)
        made.write()
        model = made.publish_model()
        for year, product in ((2020, "L2A"), (2021, "L2A collection 1")):
            made.publish_map(year, model, product)
            assert made.make(year).success
        yield made


def summary(country, year=2021):
    return json.loads(country.latest("change", year).file("change.json").read_text())


def bands(country):
    return raster.read_float(country.latest("change", 2021).file("change.tif"), dtype="float64")


def test_the_first_year_says_that_there_is_nothing_to_compare_with(country):
    version = country.latest("change", 2020)
    assert summary(country, 2020) == {
        "from_year": None, "asked": 2019, "why": "there is no map of 2019 to compare with",
    }  # fmt: skip
    assert set(version.manifest()["files"]) == {"change.json"}
    assert dict(version.manifest()["shown"])["not compared"].startswith("there is no map of 2019")


def test_hectares_differ_as_the_two_maps_do_and_keep_every_person(country):
    one, two = (
        raster.read_float(country.latest("hectare_map", year).file("population.tif"), bands=1)
        for year in (2020, 2021)
    )
    found = bands(country)
    assert np.allclose(found[0], two - one, atol=1e-3)
    path = country.latest("change", 2021).file("change.tif")
    with raster.opened(path) as dataset:
        assert dataset.descriptions == (
            "change", "p2.5", "p10", "p90", "p97.5", "significant",
        )  # fmt: skip
    assert raster.tags(path)["from_year"] == "2020"
    assert np.isin(found[5], (-1, 0, 1)).all()


def test_those_who_came_are_found_and_little_else(country):
    found = bands(country)
    truth = cell_sums(country.truth(2021)) - cell_sums(country.truth(2020))
    assert all(found[5][at] == 1 for at in GREW)
    false = (found[5] != 0) & (np.abs(truth) < 1)
    assert false.sum() <= 0.02 * truth.size
    low, high = found[1], found[4]
    held = (low <= truth) & (truth <= high)
    assert held.mean() > 0.9
    assert all(held[at] for at in GREW)
    assert all(high[at] - low[at] > 5 for at in GREW), "who came is not known to the person"
    assert (np.diff(found[1:5], axis=0) >= 0).all()


def test_units_that_are_counted_change_as_counted_and_parts_of_them_have_intervals(country):
    tables = Warehouse(country.place.data / "warehouse.duckdb")
    query = (
        "SELECT unit_id, people, p2_5, p97_5, significant FROM map_change "
        "WHERE country = 'demo' AND year = 2021 AND from_year = 2020 AND level = ? ORDER BY unit_id"
    )
    before, now = (np.rint(cell_sums(country.truth(y), 20)).ravel() for y in (2020, 2021))
    squares = tables.query(query, ["square"])
    assert [row[1] for row in squares] == pytest.approx((now - before).tolist(), abs=0.01)
    assert all(row[2] == row[3] == row[1] for row in squares)
    assert [bool(row[4]) for row in squares] == (now != before).tolist()
    quarters = tables.query(query, ["quarter"])
    grown = [f"q{row * (GRID.width // 10) + col:03d}" for row, col in GREW]
    told = {row[0]: row for row in quarters}
    assert all(told[unit][4] and told[unit][1] > 0.6 * TOWN for unit in grown)
    assert all(row[2] < row[1] < row[3] for row in quarters if row[4])
    assert sum(bool(row[4]) for row in quarters) <= 12


def test_the_series_of_a_unit_is_in_one_view(country):
    tables = Warehouse(country.place.data / "warehouse.duckdb")
    rows = tables.query(
        "SELECT year, people, p2_5, counted, from_year, people_added, significant "
        "FROM unit_series WHERE country = 'demo' AND level = 'square' AND unit_id = 'u000' "
        "ORDER BY year"
    )
    assert [row[0] for row in rows] == [2020, 2021]
    assert rows[0][4:] == (None, None, None)
    assert rows[1][4] == 2020
    assert rows[1][5] == pytest.approx(rows[1][1] - rows[0][1], abs=0.01)
    assert all(row[1] == pytest.approx(row[3], abs=0.01) for row in rows)


def test_errors_of_the_two_years_are_measured_on_units_that_a_member_had_not_seen(country):
    together = summary(country)["errors together"]
    assert together["units"] == 120
    assert 0.9 < together["least"] < together["correlation"] < 1
    assert together["of_change"] < 0.5 * together["of_one_year"]


def test_filled_imagery_and_another_product_are_said(country):
    path = country.latest("change", 2021).file("filled.tif")
    with raster.opened(path) as dataset:
        assert dataset.descriptions == ("s1 2020", "s2 2020", "s1 2021", "s2 2021")
    filled = raster.read_float(path)
    assert (filled[2:, :5, :5] == 0.5).all()
    assert (filled[:2] == 0).all()
    assert (filled[2:, 5:, 5:] == 0).all()
    told = summary(country)
    assert "s2: level was L2A, is L2A collection 1" in told["imagery that is not the same"]
    where = told["where imagery is filled"]
    assert where["of them where imagery is filled"] >= 1, "the first of those that grew lies there"
    assert where["significant"] >= len(GREW)


def test_the_exact_maps_are_in_the_manifest(country):
    inputs = {
        (entry["asset"], entry["year"]): entry["version"]
        for entry in country.latest("change", 2021).manifest()["inputs"]
    }
    for year in (2020, 2021):
        for asset in ("hectare_map", "adjusted_map", "population_map", "census_counts"):
            assert inputs[asset, year] == country.latest(asset, year).version
    assert country.latest("change", 2021).file(PICTURE).stat().st_size > 10_000


def test_the_same_is_not_made_twice_and_another_earlier_year_can_be_named(country):
    country.write(change={"from": 2021})
    assert country.make(2021, "change").success
    assert "2021, which is not before 2021" in summary(country)["why"]
    tables = Warehouse(country.place.data / "warehouse.duckdb")
    assert tables.query("SELECT count(*) FROM map_change WHERE year = 2021")[0][0] == 0
    country.write()
    assert country.make(2021, "change").success
    assert summary(country)["from_year"] == 2020


def test_another_model_is_no_ground_to_compare_on(country):
    """Last, as it maps a year anew."""
    other = country.publish_model(seed=1)
    country.publish_map(2021, other)
    assert country.make(2021).success
    assert "mapped by different models" in summary(country)["why"]
    assert country.store.find(Address("change", "demo", 2021)) is not None
