"""What must hold of the law, whatever its constants: no negative people, ordered quantiles, nothing
unknown about whole units, less error in share the larger the sum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from popcorn_ml.intervals.law import (
    LEVELS,
    QUANTILES,
    Law,
    interval,
    part_variance,
    quantile,
    student_width,
    variance,
)
from popcorn_ml.intervals.model import Basis, ErrorModel

laws = st.builds(
    Law,
    chance=st.floats(0.5, 20),
    dense=st.floats(0.01, 1),
    sparse=st.floats(0.01, 3),
    evening=st.floats(0.01, 0.95),
)
people = st.floats(0.01, 1e6)
density = st.floats(0.01, 2000)
BASIS = Basis(50, 1.0, 200.0, 5.0, 1e5, "coarse", "members that held it out", "demo|2020", "units")


def model_of(law: Law) -> ErrorModel:
    return ErrorModel(law, {level: student_width(level) for level in LEVELS}, BASIS, {})


@given(laws, people, density)
def test_quantiles_are_ordered_and_never_below_zero(law, count, crowd):
    model = model_of(law)
    found = model.quantiles(np.array([count]), model.map_variance([count], [count * crowd]))[:, 0]
    assert (found >= 0).all()
    assert (np.diff(found) >= 0).all()
    assert found[1] <= count <= found[2]


@given(laws, people, density)
def test_a_whole_unit_of_an_adjusted_map_is_a_point(law, count, crowd):
    model = model_of(law)
    spread = model.part_variance([count], [count * crowd], [count], [count * crowd])
    assert spread[0] == 0
    assert model.quantiles(np.array([count]), spread)[:, 0] == pytest.approx([count] * 4)


@given(laws, people, density, st.floats(0.01, 0.99))
def test_a_part_and_the_rest_of_its_unit_are_equally_unsure(law, count, crowd, share):
    unit = np.array([count]), np.array([count * crowd])
    part = [share * value for value in unit]
    rest = [value - piece for value, piece in zip(unit, part, strict=True)]
    one, other = part_variance(law, *part, *unit), part_variance(law, *rest, *unit)
    assert one[0] == pytest.approx(other[0], rel=1e-6)
    assert one[0] >= 0
    # what the unit's count has settled is no longer unsure
    assert one[0] <= variance(law, *part)[0] * (1 + 1e-9) + share**2 * variance(law, *unit)[0]


@given(laws, people, density, st.floats(1.01, 1000))
def test_error_in_share_falls_with_size(law, count, crowd, times):
    small = variance(law, np.array([count]), np.array([count * crowd]))
    large = variance(law, np.array([count * times]), np.array([count * times * crowd]))
    assert np.sqrt(large[0]) / (count * times) < np.sqrt(small[0]) / count
    assert large[0] > small[0]


@given(laws, people, density)
def test_beyond_what_was_seen_errors_do_not_even_out(law, count, crowd):
    seen = variance(law, np.array([count]), np.array([count * crowd]), largest=1e-3)
    assert seen[0] >= variance(law, np.array([count]), np.array([count * crowd]))[0]


def test_nobody_and_nowhere():
    law = Law(5, 0.15, 0.8, 0.3)
    assert variance(law, np.array([0.0, np.nan]), np.array([0.0, np.nan])).tolist() == [0, 0]
    assert quantile(np.array([0.0]), np.array([0.0]), 0.9).tolist() == [0.0]
    assert np.isnan(quantile(np.array([np.nan]), np.array([1.0]), 0.1)).all()


@pytest.mark.parametrize("shape", [0.05, 0.7, 12.0, 4000.0])
def test_quantiles_are_the_gamma_distributions_but_for_half_a_person(shape):
    from scipy import stats

    mean = 200.0
    spread = mean**2 / shape
    for below in QUANTILES.values():
        exact = stats.gamma(shape, scale=mean / shape).ppf(below)
        found = quantile(np.array([mean]), np.array([spread]), below)[0]
        side = max(min(exact, mean) - 0.5, 0) if below < 0.5 else max(exact, mean) + 0.5
        assert found == pytest.approx(side, rel=2e-4, abs=1e-3)


def test_intervals_hold_what_they_are_meant_to_of_errors_that_follow_the_law():
    rng = np.random.default_rng(4)
    law = Law(5, 0.2, 0.5, 0.3)
    count = rng.uniform(30, 3000, 20_000)
    spread = variance(law, count, count * 60)
    shape = count**2 / spread
    true = rng.gamma(shape, count / shape)
    for level in LEVELS:
        low, high = interval(count, spread, level)
        held = float(((true >= low) & (true <= high)).mean())
        assert held == pytest.approx(level / 100, abs=0.02)
