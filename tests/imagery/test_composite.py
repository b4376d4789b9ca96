"""The median composite against numpy's, and what becomes of values on the way into it."""

from __future__ import annotations

import warnings
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popcorn_ml.imagery.composite import (
    codes_to_db_hundredths,
    db_to_codes,
    median_composite,
    median_network,
    power_to_codes,
    reflectance_codes,
)


def expected_median(stack: np.ndarray) -> np.ndarray:
    """numpy.nanmedian with halves rounded up, 0 where nothing was observed."""
    values = stack.astype(float)
    values[stack == 0] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nan_to_num(np.floor(np.nanmedian(values, axis=0) + 0.5)).astype(np.uint16)


@pytest.mark.parametrize("count", [*range(1, 18), 31, 50])
@pytest.mark.parametrize("missing", [0.0, 0.4, 0.95])
def test_equals_nanmedian(count: int, missing: float) -> None:
    rng = np.random.default_rng(count)
    stack = rng.integers(1, 60 if count % 2 else 65536, (count, 2, 40, 30)).astype(np.uint16)
    stack[rng.random(stack.shape) < missing] = 0
    before = stack.copy()
    values, clear = median_composite(stack, threads=2)
    np.testing.assert_array_equal(values, expected_median(stack))
    np.testing.assert_array_equal(clear, (stack > 0).sum(axis=0))
    np.testing.assert_array_equal(stack, before)  # the observations are not changed


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([0, 1, 2, 1000, 65534, 65535]), min_size=1, max_size=14))
def test_extreme_values(column: list[int]) -> None:
    """The largest number is a valid observation, not a marker."""
    stack = np.array(column, np.uint16)[:, None]
    values, _ = median_composite(stack)
    np.testing.assert_array_equal(values, expected_median(stack))


@pytest.mark.parametrize("size", range(2, 13))
def test_network_finds_the_middle_of_every_order(size: int) -> None:
    """By the 0-1 principle: what is right for all zeros and ones is right for all numbers."""
    rows = np.array(list(product((0, 1), repeat=size)), np.uint8).T.copy()
    expected = np.sort(rows, axis=0)
    for low, high, keep_low, keep_high in median_network(size):
        small = np.minimum(rows[low], rows[high])
        large = np.maximum(rows[low], rows[high])
        rows[low] = small if keep_low else 9  # a place that is not kept may hold anything
        rows[high] = large if keep_high else 9
    for place in (size // 2 - 1, size // 2):
        np.testing.assert_array_equal(rows[place], expected[place])


def test_threads_and_strips_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    from popcorn_ml.imagery import composite

    rng = np.random.default_rng(1)
    stack = rng.integers(0, 4000, (7, 3, 50, 41)).astype(np.uint16)
    whole, _ = median_composite(stack, threads=1)
    monkeypatch.setattr(composite, "STRIP_PX", 97)
    for threads in (1, 2, 5):
        np.testing.assert_array_equal(median_composite(stack, threads=threads)[0], whole)


def test_refuses_other_types() -> None:
    with pytest.raises(ValueError, match="uint16"):
        median_composite(np.zeros((3, 4, 4), np.int16))
    with pytest.raises(ValueError, match="uint16"):
        median_composite([np.zeros((4, 4), np.uint16), np.zeros((4, 5), np.uint16)])


def test_decibels() -> None:
    power = np.array([1.0, 0.1, 0.01, 0.0, -1.0, np.nan, np.inf, -32768.0, 1e-8], np.float32)
    stored = codes_to_db_hundredths(power_to_codes(power))
    assert stored.dtype == np.int16
    assert stored.tolist() == [0, -1000, -2000, -32768, -32768, -32768, -32768, -32768, -8000]
    assert codes_to_db_hundredths(db_to_codes(np.array([-11.426, 3.005, np.nan]))).tolist() == [
        -1143,
        301,
        -32768,
    ]


def test_backscatter_that_no_scene_can_hold_is_no_observation() -> None:
    """Terrain flattening can divide by almost nothing, on each pass anew; one pixel of it."""
    power = np.full((3, 4), 0.05, np.float32)
    power[:2, 0], power[:2, 1], power[:, 2] = 2e5, 5e-10, 2e5
    stored = codes_to_db_hundredths(median_composite(power_to_codes(power))[0])
    assert stored.tolist() == [-1301, -1301, -32768, -1301]


def test_median_of_dB_is_dB_of_median_for_odd_counts() -> None:
    """The decibel rises with the power, so the two commute; an even count differs by its mean."""
    power = np.random.default_rng(2).gamma(4, 0.03, (5, 1000)).astype(np.float32)
    ours = codes_to_db_hundredths(median_composite(power_to_codes(power))[0])
    other = codes_to_db_hundredths(power_to_codes(np.median(power, axis=0)))
    np.testing.assert_array_equal(ours, other)


def test_baseline_offset() -> None:
    """Nodata stays nodata, and a dark pixel does not become nodata."""
    numbers = np.array([0, 1, 999, 1000, 1001, 4000, 65535], np.uint16)
    assert reflectance_codes(numbers, 0).tolist() == numbers.tolist()
    assert reflectance_codes(numbers, 1000).tolist() == [0, 1, 1, 1, 1, 3000, 64535]
