"""Seasons within a member, spread across members."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from popcorn_ml.mapping.ensemble import SeasonMean, SpreadAcross, spread_of

people = st.floats(0, 1e5, width=32)


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(np.float32, (5, 3, 4), elements=people), st.floats(1e3, 1e7))
def test_spread_is_never_negative_nor_lost_to_rounding(members, offset):
    """Fault 3: E[x2] - mean2 in float32 goes negative, or drowns, where people are many."""
    spread = spread_of(members)
    assert (spread >= 0).all()
    np.testing.assert_allclose(spread, np.std(members.astype(float), axis=0, ddof=1), rtol=1e-12)
    np.testing.assert_allclose(
        spread_of(members.astype(float) + offset), spread, rtol=1e-6, atol=1e-8 * offset
    )
    across = SpreadAcross()
    for member in members.astype(float) + offset:
        across.add(member)
    one_by_one = across.result()
    assert (one_by_one >= 0).all()
    np.testing.assert_allclose(one_by_one, spread, rtol=1e-6, atol=1e-8 * offset)


def test_equal_members_do_not_differ():
    same = np.broadcast_to(np.float32(1234.567), (5, 2, 2))
    assert (spread_of(same) == 0).all()
    assert (spread_of(same[:1]) == 0).all()
    across = SpreadAcross()
    for member in same:
        across.add(member)
        assert (across.result() == 0).all()


def test_seasons_are_no_part_of_the_spread():
    """Fault 3: seeds and seasons mixed as if independent."""
    seasons = np.array([[1.0, 1.0], [5.0, 5.0], [9.0, 9.0], [1.0, 1.0]])
    mean = SeasonMean((2,))
    for season in seasons:
        mean.add(season)
    assert (mean.mean() == 4.0).all()
    assert spread_of(mean.mean()[:, None]) == 0.0


def test_a_missing_season_is_left_out_of_its_pixels_mean_only():
    mean = SeasonMean((3,))
    mean.add(np.array([2.0, 2.0, np.nan], np.float32))
    mean.add(np.array([4.0, np.nan, np.nan], np.float32))
    np.testing.assert_array_equal(mean.mean(), [3.0, 2.0, np.nan])


def test_members_of_one_season_share_where_it_was_seen():
    mean = SeasonMean((2, 3))
    seen = np.array([True, True, False])
    mean.add(np.array([[2.0, 3.0, 0.0], [4.0, 5.0, 0.0]], np.float32), seen)
    mean.add(np.array([[4.0, 0.0, 0.0], [6.0, 0.0, 0.0]], np.float32), seen & [True, False, True])
    np.testing.assert_array_equal(mean.mean(), [[3.0, 3.0, np.nan], [5.0, 5.0, np.nan]])
    nothing = SeasonMean((2, 3))
    assert np.isnan(nothing.mean()).all()
