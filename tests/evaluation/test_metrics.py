"""Metrics: what was not predicted is counted, never scored."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from popcorn_ml.evaluation.metrics import Scores

people = st.floats(0, 1e5, width=32) | st.just(float("nan"))
pairs = hnp.arrays(np.float64, st.tuples(st.just(2), st.integers(2, 50)), elements=people)


def test_by_hand():
    scores = Scores.of(np.array([0.0, 10.0, 20.0]), np.array([2.0, 10.0, 14.0]))
    assert scores.mae == pytest.approx(8 / 3)
    assert scores.rmse == pytest.approx(math.sqrt(40 / 3))
    assert scores.bias == pytest.approx(-4 / 3)
    assert scores.r2 == pytest.approx(1 - 40 / 200)


def test_r2_is_no_correlation():
    truth = np.array([1.0, 2.0, 3.0])
    assert Scores.of(truth, truth * 10).r2 < 0
    assert Scores.of(truth, truth).r2 == 1.0
    assert Scores.of(truth, np.full(3, 2.0)).r2 == 0.0


def test_unpredicted_cells_are_counted_and_not_scored_as_zero():
    """Fault 2: pixels never predicted were scored as zero people."""
    truth = np.array([5.0, 7.0, 9.0, np.nan])
    scores = Scores.of(truth, np.array([5.0, 7.0, np.nan, 3.0]))
    assert scores.rmse == 0.0
    assert (scores.n, scores.unpredicted, scores.unpredicted_people) == (2, 1, 9.0)


def test_nothing_to_score_gives_no_figures():
    found = Scores.of(np.array([np.nan, 3.0]), np.array([1.0, np.nan])).as_dict()
    assert found == {
        "r2": None, "mae": None, "rmse": None, "bias": None, "n": 0,
        "unpredicted": 1, "unpredicted_people": 3.0,
    }  # fmt: skip
    assert Scores.of(np.ones(3), np.ones(3)).as_dict()["r2"] is None


def test_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"\(3,\), predicted of \(1,\)"):
        Scores.of(np.ones(3), np.ones(1))


@settings(max_examples=100, deadline=None)
@given(pairs, st.integers(0, 50))
def test_parts_add_up_to_the_whole(both, cut):
    truth, predicted = both
    whole = Scores.of(truth, predicted)
    parts = Scores.of(truth[:cut], predicted[:cut]) + Scores.of(truth[cut:], predicted[cut:])
    assert (parts.n, parts.unpredicted) == (whole.n, whole.unpredicted)
    for name in ("truth_mean", "truth_m2", "error", "absolute", "squared", "unpredicted_people"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), rel=1e-9, abs=1e-3)
