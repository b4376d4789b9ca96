"""Sums over zones (census units, hectares) in one pass over the pixels, with no loop over zones."""

from __future__ import annotations

import numpy as np


def zone_sums(zones: np.ndarray, values: np.ndarray | None, count: int) -> np.ndarray:
    """Sum of `values` in each zone.

    Args:
        zones: zone numbers 0..count, any shape; 0 means no zone.
        values: of the same shape; NaN counts as nothing. None counts pixels.
        count: the number of zones.

    Returns:
        float64 of shape (count + 1,); item 0 is what lies in no zone.
    """
    flat = zones.reshape(-1)
    weights = None
    if values is not None:
        weights = np.nan_to_num(values.reshape(-1), nan=0.0)
    return np.bincount(flat, weights=weights, minlength=count + 1).astype(np.float64)
