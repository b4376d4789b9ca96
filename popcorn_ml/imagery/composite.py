"""The exact median of a season's observations, pixel by pixel, where any of them may be missing.

Everything is done on 16-bit integers with 0 as the missing value. Sentinel-2 composites are stored
so; Sentinel-1 observations are hundredths of dB and are moved into that range and back
(`db_to_codes`, `codes_to_db_hundredths`). Nothing here knows a scene, a file or a grid.

Method: a missing observation is replaced in turn by the highest and by the lowest number there is,
so that as many stand above the median as below it. The median then always lies in the middle of
the sorted column, whatever the number of missing ones, and a network of comparators that delivers
only the two middle places (Batcher's odd-even merge sort, pruned backwards from them) finds it
with elementwise minimum and maximum alone.

Rounding: with an even number of observations the median is the mean of the two middle ones, and a
half goes up.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np

from popcorn_ml.sentinel import S1_DB_LIMITS

STRIP_PX = 65536
"""Pixels of one band worked on at a time: enough to hide the calls, few enough for the cache."""

HIGHEST = np.uint16(0xFFFF)


def median_composite(
    observations: np.ndarray | Sequence[np.ndarray], threads: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """Median over the observations of every pixel, missing ones left out.

    Args:
        observations: uint16 of shape (observations, ...), or a sequence of equal arrays; 0 means
            missing. They are not changed.
        threads: strips worked on at the same time; the result does not depend on it.

    Returns:
        The median, uint16 of shape (...), 0 where nothing was observed, and the number of
        observations it rests on, uint16 of the same shape.

    Raises:
        ValueError: not uint16, or not all of one shape.
    """
    stack = list(observations)
    if not stack:
        raise ValueError("no observations: the median of nothing has no shape")
    shape = stack[0].shape
    for layer in stack:
        if layer.dtype != np.uint16 or layer.shape != shape:
            raise ValueError(f"observations are {layer.dtype} {layer.shape}, not uint16 {shape}")
    flat = [np.ascontiguousarray(layer).reshape(-1) for layer in stack]
    size = flat[0].size
    value, count = np.empty(size, np.uint16), np.empty(size, np.uint16)
    starts = range(0, size, STRIP_PX)

    def work(part: int) -> None:
        scratch = np.empty((len(flat) + 4, min(STRIP_PX, size)), np.uint16)
        for start in starts[part::threads]:
            strip = slice(start, min(start + STRIP_PX, size))
            _median_strip([layer[strip] for layer in flat], value[strip], count[strip], scratch)

    threads = max(1, min(threads, len(starts)))
    if threads == 1:
        work(0)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, range(threads)))
    return value.reshape(shape), count.reshape(shape)


def _median_strip(
    layers: list[np.ndarray], value: np.ndarray, count: np.ndarray, scratch: np.ndarray
) -> None:
    """Median of one strip into `value` and `count`; `scratch` has four rows more than layers."""
    total, width = len(layers), value.size
    columns = [scratch[i, :width] for i in range(total)]
    spare, missing, parity, odd = (scratch[total + i, :width] for i in range(4))
    count.fill(total)
    parity.fill(0)
    for layer, column in zip(layers, columns, strict=True):
        np.minimum(layer, 1, out=missing)
        np.bitwise_xor(missing, 1, out=missing)
        np.subtract(count, missing, out=count)
        np.bitwise_xor(parity, missing, out=parity)
        np.bitwise_and(missing, parity, out=missing)  # of the missing: first, third, fifth, ...
        np.subtract(layer, missing, out=column)  # 0 - 1 wraps round to the highest number
    middle = total // 2
    if total == 1:
        np.minimum(columns[0], layers[0], out=value)
        return
    for low, high, keep_low, keep_high in median_network(total):
        if keep_low and keep_high:
            np.minimum(columns[low], columns[high], out=spare)
            np.maximum(columns[low], columns[high], out=columns[high])
            columns[low], spare = spare, columns[low]
        elif keep_low:
            np.minimum(columns[low], columns[high], out=columns[low])
        else:
            np.maximum(columns[low], columns[high], out=columns[high])
    # Even numbers of layers: the middle pair holds the median of an even count, and its lower
    # place that of an odd one. Odd numbers of layers: the middle place holds the median of an odd
    # count, and it and the place below are the middle pair of an even one.
    lower, upper = columns[middle - 1], columns[middle]
    single = lower if total % 2 == 0 else upper
    np.bitwise_and(count, 1, out=odd)
    np.negative(odd, out=odd)  # all bits set where the count is odd
    np.bitwise_xor(lower, upper, out=missing)
    np.bitwise_or(lower, upper, out=parity)
    np.right_shift(missing, 1, out=missing)
    np.subtract(parity, missing, out=parity)  # mean of the pair, a half up, without overflow
    np.bitwise_xor(parity, single, out=missing)
    np.bitwise_and(missing, odd, out=missing)
    np.bitwise_xor(parity, missing, out=value)
    np.minimum(count, 1, out=missing)
    np.multiply(value, missing, out=value)


@lru_cache(maxsize=256)
def median_network(size: int) -> tuple[tuple[int, int, bool, bool], ...]:
    """Comparators that leave the two middle order statistics of `size` >= 2 numbers in place.

    Each is (low, high, whether the smaller is needed later, whether the larger is). After all of
    them, places size // 2 - 1 and size // 2 hold what a full sort would put there; the others
    hold anything.

    Source: K. E. Batcher, Sorting networks and their applications, AFIPS 1968 (odd-even merge
    sort, in the form for any size of Knuth, The Art of Computer Programming 3, 5.2.2, algorithm M).
    """
    comparators: list[tuple[int, int]] = []
    bits = (size - 1).bit_length()
    p = 1 << (bits - 1)
    while p > 0:
        q, r, d = 1 << (bits - 1), 0, p
        while True:
            comparators += [(i, i + d) for i in range(size - d) if i & p == r]
            if q == p:
                break
            d, q, r = q - p, q >> 1, p
        p >>= 1
    needed = {size // 2 - 1, size // 2}
    pruned: list[tuple[int, int, bool, bool]] = []
    for low, high in reversed(comparators):
        keep_low, keep_high = low in needed, high in needed
        if keep_low or keep_high:
            pruned.append((low, high, keep_low, keep_high))
            needed |= {low, high}
    return tuple(reversed(pruned))


def db_to_codes(db: np.ndarray) -> np.ndarray:
    """Decibels to the 16-bit codes that `median_composite` takes.

    Args:
        db: float, dB; NaN or infinite means missing.

    Returns:
        uint16 of the same shape: hundredths of dB, a half up, plus 32768; 0 = missing. Values
        beyond +-327.67 dB are cut to that.
    """
    with np.errstate(invalid="ignore"):
        hundredths = np.floor(db * 100.0 + 0.5)
        codes = np.clip(hundredths, -32767, 32767) + 32768.0
        return np.where(np.isfinite(db), codes, 0.0).astype(np.uint16)


def power_to_codes(power: np.ndarray) -> np.ndarray:
    """Linear backscatter power to the codes of `db_to_codes`; what is not above 0 is missing.

    So is what lies beyond `S1_DB_LIMITS`: terrain flattening divides by an area, and where the beam
    runs along a slope that is almost nothing.

    The decibel is 10 log10 of the power. It rises with the power, so the median of an odd number
    of observations is the same taken before or after; of an even number, the mean of the middle
    two is taken in dB, as Earth Engine's dB images give it.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        db = 10.0 * np.log10(power.astype(np.float64))
        lowest, highest = S1_DB_LIMITS
        db[~((db > lowest) & (db < highest))] = np.nan
    return db_to_codes(db)


def codes_to_db_hundredths(codes: np.ndarray) -> np.ndarray:
    """Codes to what Sentinel-1 composites store: int16 hundredths of dB, -32768 = nodata."""
    return (codes ^ np.uint16(0x8000)).view(np.int16)


def reflectance_codes(numbers: np.ndarray, offset: int) -> np.ndarray:
    """Sentinel-2 digital numbers to reflectance x 10000 with 0 as the missing value.

    Args:
        numbers: as the product stores them; 0 = missing, whatever the file's nodata tag says.
        offset: what the product's processing baseline adds (`sentinel.baseline_offset`).

    Returns:
        uint16; an observed pixel is at least 1, so that a dark one is not taken for a missing one.
    """
    numbers = numbers.astype(np.uint16, copy=False)
    if not offset:
        return numbers
    low = np.uint16(offset)
    shifted = np.maximum(numbers, low + np.uint16(1)) - low
    return shifted * np.minimum(numbers, np.uint16(1))
