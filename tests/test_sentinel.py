"""Facts about the sensors: seasons that meet without overlap, baselines by item."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest

from popcorn_ml.sentinel import SEASONS, baseline_offset, season_period


def test_seasons_of_consecutive_years_tile_time():
    periods = [season_period(year, season) for year in (2019, 2020, 2021) for season in SEASONS]
    for earlier, later in itertools.pairwise(periods):
        assert earlier.end == later.start
    assert periods[0].start == datetime(2019, 3, 1, tzinfo=UTC)
    assert periods[3].end == datetime(2020, 3, 1, tzinfo=UTC)


def test_a_boundary_moment_is_in_one_season():
    moment = datetime(2020, 6, 1, tzinfo=UTC)
    inside = [s for s in SEASONS if moment in season_period(2020, s)]
    assert inside == ["summer"]
    assert moment - timedelta(microseconds=1) in season_period(2020, "spring")


@pytest.mark.parametrize(
    ("baseline", "offset"),
    [("02.12", 0), ("03.01", 0), ("03.99", 0), ("04.00", 1000), ("05.10", 1000), ("10.00", 1000)],
)
def test_fault_13_offset_follows_the_items_own_baseline(baseline, offset):
    assert baseline_offset(baseline) == offset


@pytest.mark.parametrize("baseline", [None, "", "N0400", "4.x"])
def test_a_missing_or_odd_baseline_is_an_error_not_a_guess(baseline):
    with pytest.raises(ValueError, match="baseline"):
        baseline_offset(baseline)
