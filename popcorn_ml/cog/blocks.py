"""From pixels to a block's bytes, and to the pixels of the next coarser level. Pure arithmetic.

A block is stored pixel by pixel (all bands of one beside each other), differenced along its rows as
TIFF's predictors 2 and 3 say (Adobe's TIFF technical notes 2 and 3), and deflated. The deflating is
ISA-L's: on composites three to five times as fast as libdeflate's lowest level, and as small. All
of it lets go of Python's lock, so that threads do it side by side. ISA-L is loaded when it is used:
a bare GPU node imports this module and writes nothing.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from popcorn_ml.cog.profile import BLOCK_PX, Profile

LEVEL = 2
"""Of ISA-L's 0..3: 2 is a tenth slower than 1 and a hundredth smaller on composites."""


def encoded(values: np.ndarray, profile: Profile) -> bytes:
    """A block as the file holds it.

    Args:
        values: (bands, rows, columns) of the stored type; fewer rows or columns than a block has
            are filled up with the last ones, which no reader sees.
    """
    same = _everywhere(values)
    if same is not None:
        return _all_alike(same, profile.numpy_dtype, profile.bands, profile.predictor)
    return _deflated(values, profile.numpy_dtype, profile.bands, profile.predictor)


def _everywhere(values: np.ndarray) -> bytes | None:
    """The number that all samples of a block are, bit by bit; None where they are not alike."""
    if values.strides[-1] != values.itemsize:
        return None
    bits = values.view(f"u{values.itemsize}")
    first = bits[0, 0, 0]
    if (bits[:, 0] != first).any() or (bits != first).any():
        return None
    return first.tobytes()


@lru_cache(maxsize=256)
def _all_alike(same: bytes, dtype: np.dtype, bands: int, predictor: int) -> bytes:
    """A block of one number, such as those where nobody lives: most, of many countries."""
    values = np.frombuffer(same, dtype)
    return _deflated(np.broadcast_to(values, (bands, BLOCK_PX, BLOCK_PX)), dtype, bands, predictor)


def crc32(data: bytes | memoryview, before: int = 0) -> int:
    """CRC-32 of bytes that follow others of that CRC-32."""
    from isal import isal_zlib

    return isal_zlib.crc32(data, before)


def _deflated(values: np.ndarray, dtype: np.dtype, bands: int, predictor: int) -> bytes:
    from isal import isal_zlib

    below, right = BLOCK_PX - values.shape[1], BLOCK_PX - values.shape[2]
    if below or right:
        values = np.pad(values, ((0, 0), (0, below), (0, right)), mode="edge")
    pixels = np.ascontiguousarray(values.transpose(1, 2, 0), dtype)
    rows = pixels.reshape(BLOCK_PX, BLOCK_PX * bands)
    return isal_zlib.compress(_differenced(rows, bands, predictor), LEVEL)


def _differenced(rows: np.ndarray, bands: int, predictor: int) -> np.ndarray:
    """Rows of samples with each sample less the same band's before it; modulo the type."""
    if predictor == 3:  # each row's most significant bytes first, then the next, ...
        samples = rows.view(np.uint8).reshape(*rows.shape, rows.itemsize)
        planes = np.empty((rows.shape[0], rows.itemsize, rows.shape[1]), np.uint8)
        for place in range(rows.itemsize):
            planes[:, place] = samples[:, :, rows.itemsize - 1 - place]
        rows = planes.reshape(rows.shape[0], -1)
    out = rows.copy()
    out[:, bands:] -= rows[:, :-bands]
    return out


def coarser(values: np.ndarray, profile: Profile) -> np.ndarray:
    """Pixels of half the resolution.

    Args:
        values: (bands, rows, columns) of the stored type, the first row and column even ones of
            their level; a last odd one stands for its pair.

    Returns:
        (bands, ceil(rows / 2), ceil(columns / 2)) of the stored type: of each 2 x 2 pixels the
        first, or the mean of those that have a value (of integers a half goes away from 0, as GDAL
        has it), nodata where
        none has one.
    """
    if profile.resampling == "nearest":
        return values[:, ::2, ::2]
    if values.dtype.kind == "f":
        holes = np.isnan(values)
        if not np.isnan(profile.nodata):
            holes |= values == profile.nodata
    else:
        holes = values == profile.nodata
    wide = values.astype(values.dtype if values.dtype.kind == "f" else np.int64)
    counts: Any = 4
    if values.shape[1] % 2 == 0 and values.shape[2] % 2 == 0 and not holes.any():
        sums = _pair_sums(wide)
    else:
        wide[holes] = 0
        sums, counts = _pair_sums(wide), _pair_sums((~holes).astype(np.uint8))
    if values.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            mean = sums / np.asarray(counts, values.dtype)
    else:
        mean = (2 * abs(sums) + counts) // np.maximum(2 * counts, 1) * np.sign(sums)
    if not np.isscalar(counts):
        mean = np.where(counts == 0, profile.nodata, mean)
    return mean.astype(values.dtype)


def _pair_sums(values: np.ndarray) -> np.ndarray:
    """Sums of each 2 x 2 pixels, (..., rows, columns); a last odd row or column alone."""
    rows = values[..., ::2, :].copy()
    odd = values[..., 1::2, :]
    rows[..., : odd.shape[-2], :] += odd
    sums = rows[..., ::2].copy()
    odd = rows[..., 1::2]
    sums[..., : odd.shape[-1]] += odd
    return sums
