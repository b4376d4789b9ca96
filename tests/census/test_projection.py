"""Counts for a year: the rules, in their order, and what is written beside the number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from popcorn_ml.census.projection import growth, project

CENSUS = "census"


def test_the_years_own_count_is_taken_as_it_is() -> None:
    out = project({2012: (80.0, CENSUS), 2020: (100.0, "estimate")}, 2020, 0.5, 0.5)
    assert (out.people, out.kind, out.method) == (100.0, "estimate", "estimate 2020")


def test_between_two_censuses_growth_is_geometric() -> None:
    out = project({2010: (100.0, CENSUS), 2020: (400.0, CENSUS)}, 2015, 0.01, 0.01)
    assert out.people == pytest.approx(200.0)
    assert out.kind == "projection"
    assert out.method == "geometric growth between 2010 and 2020"


def test_beyond_the_last_census_growth_goes_on() -> None:
    series = {2002: (1000.0, CENSUS), 2012: (1300.0, CENSUS), 2022: (1560.0, CENSUS)}
    out = project(series, 2024, 0.5)
    assert out.people == pytest.approx(1560 * (1560 / 1300) ** 0.2)
    assert out.method == "geometric growth beyond 2012 and 2022"
    before = project(series, 2000)
    assert before.people == pytest.approx(1000 / 1.3**0.2)
    assert before.base_year == 2002


def test_stated_growth_the_units_before_the_countrys() -> None:
    one = {2012: (1000.0, CENSUS)}
    assert project(one, 2022, 0.03, 0.02).people == pytest.approx(1000 * 1.03**10)
    assert project(one, 2022, 0.03, 0.02).method == "unit growth rate from 2012"
    assert project(one, 2002, None, 0.02).people == pytest.approx(1000 / 1.02**10)
    assert project(one, 2022, None, 0.02).method == "national growth rate from 2012"


def test_without_any_rate_the_count_stays() -> None:
    out = project({2012: (1000.0, CENSUS)}, 2022)
    assert (out.people, out.kind, out.method) == (1000.0, "projection", "constant since 2012")


def test_growth_that_cannot_be_geometric_falls_to_the_next_rule() -> None:
    assert growth(0, 500, 10) is None
    assert growth(0, 0, 10) == 0.0
    assert growth(100, 1000, 1) is None, "a tenfold year is no growth of one place"
    out = project({2010: (0.0, CENSUS), 2020: (500.0, CENSUS)}, 2018, None, 0.02)
    assert out.method == "national growth rate from 2020"
    assert out.people == pytest.approx(500 * 1.02**-2)


def test_of_two_equally_near_counts_the_later_is_taken() -> None:
    assert project({2010: (1.0, CENSUS), 2020: (0.0, CENSUS)}, 2015).base_year == 2020


def test_nothing_to_project_from() -> None:
    with pytest.raises(ValueError, match="no count"):
        project({}, 2020)


@given(
    first=st.floats(1, 1e7), rate=st.floats(-0.1, 0.1), span=st.integers(1, 40),
    year=st.integers(1990, 2060),
)  # fmt: skip
def test_two_counts_of_one_growth_give_that_growth_everywhere(first, rate, span, year) -> None:
    last = first * (1 + rate) ** span
    out = project({2000: (first, CENSUS), 2000 + span: (last, CENSUS)}, year)
    assert out.people == pytest.approx(first * (1 + rate) ** (year - 2000), rel=1e-6)
