"""Which columns belong together is told from what stands in them, and a doubt is said."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import pandas as pd
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from popcorn_ml.census.files import Files
from popcorn_ml.census.recognise import Given, Recognised, Unclear, recognise
from popcorn_ml.census.settings import BoundarySettings, CountSettings
from popcorn_ml.errors import CensusError

CODES = ["011", "025", "003", "040", "051"]
NAMES = ["Ánimas", "Bo-Peep", "Saint John's", "Đồng", "Ébène"]
PEOPLE = [120, 3400, 80, 2100, 95]
WOMEN = [70, 1700, 38, 1001, 40]


def find(folder: Path, units: dict, table: dict, name="counts_2020.csv", **said) -> Recognised:
    shapes = [shapely.box(k, 0, k + 1, 1) for k in range(len(next(iter(units.values()))))]
    gpd.GeoDataFrame(units, geometry=shapes, crs=4326).to_parquet(folder / "u.parquet")
    pd.DataFrame(table).to_csv(folder / name, index=False)
    with Files(folder) as files:
        boundaries, counts = BoundarySettings(file="u.parquet"), CountSettings(file=name)
        return recognise(files, boundaries, counts, Given(**said))


UNITS = {"OBJECTID": [1, 2, 3, 4, 5], "CODE": CODES, "NAME": NAMES, "pop20": PEOPLE}
TABLE = {
    "no": [5, 4, 3, 2, 1],
    "district": CODES,
    "designation": [n.upper() for n in NAMES],
    "km2": [1.5, 2.25, 3.5, 9.75, 1.1],
    "pop20": PEOPLE,
}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=8)
@given(st.permutations(list(UNITS)), st.permutations(list(TABLE)), st.permutations(range(5)))
def test_it_does_not_depend_on_the_order_of_columns_or_rows(tmp_path, own, theirs, rows):
    table = {name: [TABLE[name][k] for k in rows] for name in theirs}
    found = find(tmp_path, {name: UNITS[name] for name in own}, table)
    assert (found.boundaries.id, found.boundaries.name) == (("CODE",), "NAME")
    assert (found.counts.id, found.counts.name) == (("district",), "designation")
    assert (found.counts.people, found.year) == ("pop20", 2020)


def test_zeros_that_a_spreadsheet_ate_are_no_hindrance(tmp_path):
    found = find(tmp_path, UNITS, {"id": [11, 25, 3, 40, 51], "people": PEOPLE})
    assert (found.boundaries.id, found.counts.id) == (("CODE",), ("id",))


def test_names_join_where_there_is_no_identifier(tmp_path):
    found = find(tmp_path, {"admin": NAMES}, {"lugar": [n.lower() for n in NAMES], "total": PEOPLE})
    assert (found.boundaries.id, found.boundaries.name) == ((), "admin")
    assert (found.counts.id, found.counts.name) == ((), "lugar")


def test_two_countings_from_one_are_not_the_same_units(tmp_path):
    units = {"OBJECTID": [1, 2, 3, 4, 5], "NAME": NAMES}
    found = find(tmp_path, units, {"row": [5, 4, 3, 2, 1], "place": NAMES, "people": PEOPLE})
    assert (found.boundaries.id, found.boundaries.name) == ((), "NAME")
    with pytest.raises(Unclear, match="no column of the boundaries") as caught:
        find(tmp_path, {"OBJECTID": [1, 2, 3, 4, 5]}, {"row": [5, 4, 3, 2, 1], "people": PEOPLE})
    assert "'row', 'people'" in str(caught.value)
    same = find(tmp_path, {"unit": [1, 2, 3, 4, 5]}, {"unit": [5, 4, 3, 2, 1], "people": PEOPLE})
    assert same.boundaries.id == ("unit",)  # of one name, they are meant


def test_women_and_men_are_not_the_people_but_their_sum_is(tmp_path):
    men = [p - w for p, w in zip(PEOPLE, WOMEN, strict=True)]
    sexes = {"id": CODES, "pop_f": WOMEN, "pop_m": men}
    assert find(tmp_path, UNITS, {**sexes, "pop_t": PEOPLE}).counts.people == "pop_t"
    french = {"id": CODES, "femmes": WOMEN, "hommes": men, "les deux": PEOPLE}
    assert find(tmp_path, UNITS, french).counts.people == "les deux"
    with pytest.raises(Unclear, match="several columns could count the people") as caught:
        find(tmp_path, UNITS, sexes)
    assert (caught.value.option, caught.value.choices) == ("people", ("pop_f", "pop_m"))
    assert "--people-column" in str(caught.value)
    assert find(tmp_path, UNITS, sexes, people="pop_f").counts.people == "pop_f"


def test_years_come_from_columns_their_names_or_the_files(tmp_path):
    wide = {"id": CODES, "P_2010": WOMEN, "P_2020": PEOPLE}
    found = find(tmp_path, UNITS, wide, "counts.csv")
    assert (found.counts.people, found.year) == ({2010: "P_2010", 2020: "P_2020"}, None)
    long = {"id": CODES * 2, "year": [2010] * 5 + [2020] * 5, "people": WOMEN + PEOPLE}
    found = find(tmp_path, UNITS, long, "counts.csv")
    assert (found.counts.year, found.counts.people, found.year) == ("year", "people", None)
    bare = {"id": CODES, "people": PEOPLE}
    with pytest.raises(Unclear, match="of which year") as caught:
        find(tmp_path, UNITS, bare, "counts.csv")
    assert caught.value.option == "counts_year"
    assert find(tmp_path, UNITS, bare, "counts.csv", counts_year=2012).year == 2012
    assert find(tmp_path, UNITS, bare, "rgph4_2012.csv").year == 2012
    with pytest.raises(Unclear, match="of which year"):
        find(tmp_path, UNITS, bare, "2012_to_2022.csv")


def test_two_ways_to_join_that_disagree_are_both_named(tmp_path):
    units = {"old_code": CODES, "new_code": CODES[::-1]}
    with pytest.raises(Unclear, match="say different things") as caught:
        find(tmp_path, units, {"id": CODES, "people": PEOPLE})
    assert caught.value.choices == ("old_code", "new_code")
    found = find(tmp_path, units, {"id": CODES, "people": PEOPLE}, boundaries_id="new_code")
    assert found.boundaries.id == ("new_code",)


def test_a_column_that_is_given_and_not_there_is_refused(tmp_path):
    with pytest.raises(CensusError, match="there is no column of people"):
        find(tmp_path, UNITS, TABLE, people="pop21")
