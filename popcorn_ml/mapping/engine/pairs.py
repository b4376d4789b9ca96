"""Two rows of a map as one: how networks of eight features fill a processor's sixteen lanes.

A processor with AVX-512 multiplies sixteen numbers at once, and the U-Nets have eight features at
full resolution: half of it would be idle. So maps of eight features are held with two rows side by
side, as sixteen: lane 8 b + c of row j is feature c of row 2 j + b. A 3 x 3 convolution from one
such map to another becomes one of 2 x 3 with sixteen lanes in and out, a third more multiplications
at twice the speed. It moves the pairs by a row: from pairs (0, 1), (2, 3) ... to (-1, 0), (1, 2)
... ("odd"), and the next one back ("even"). A map of one row a row becomes one in pairs by a stride
of two rows, so nothing is ever rearranged in memory.

Beyond its input a convolution sees zeros, but a row that an odd pair adds is a result like others.
Where the network's canvas ends there, it is set to zero by a mask. The same does for canvases whose
sides are no multiple of four: torch drops a row wherever it halves an odd number of them.

Arithmetic on weights alone: numpy, no engine.
"""

from __future__ import annotations

import numpy as np

LANES = 8
"""Features of a map that is held in pairs."""

FULL_ODD, FULL, RAISED, HALF, HALF_ODD, HALF_EVEN, RAISED_HALF, QUARTER = (
    "full_odd",
    "full",
    "raised",
    "half",
    "half_odd",
    "half_even",
    "raised_half",
    "quarter",
)
"""Masks: of maps at full, half and quarter resolution, in odd or even pairs or row by row."""

IN_PAIRS = {FULL_ODD, FULL, RAISED, HALF_ODD, HALF_EVEN}


def opened(weight: np.ndarray) -> np.ndarray:
    """Of a convolution from rows to odd pairs, with a stride of two rows and two rows before.

    Args:
        weight: (out, in, 3, 3).

    Returns:
        (2 out, in, 4, 3).
    """
    out, into = weight.shape[:2]
    found = np.zeros((2 * out, into, 4, 3))
    for b in (0, 1):
        found[b * out : (b + 1) * out, :, b : b + 3] = weight
    return found


def paired(weight: np.ndarray) -> np.ndarray:
    """Of a convolution from pairs to pairs, even to odd or back: (out, in, 3, 3) -> (2 out, 2 in,
    2, 3)."""
    out, into = weight.shape[:2]
    found = np.zeros((2 * out, 2 * into, 2, 3))
    for b in (0, 1):
        for from_b in (0, 1):
            for row in (0, 1):
                tap = 2 * row + from_b - b
                if 0 <= tap <= 2:
                    lanes = slice(b * out, (b + 1) * out), slice(from_b * into, (from_b + 1) * into)
                    found[(*lanes, row)] = weight[:, :, tap]
    return found


def raised(weight: np.ndarray) -> np.ndarray:
    """Of a transposed convolution that doubles both sides, from pairs to pairs.

    Args:
        weight: (in, out, 2, 2), as torch has it.

    Returns:
        (2 in, 2 out, 2, 2), to be used with a stride of two: rows 2 j + p of the result come from
        row p of the pair j.
    """
    into, out = weight.shape[:2]
    found = np.zeros((2 * into, 2 * out, 2, 2))
    for p in (0, 1):
        for b in (0, 1):
            found[p * into : (p + 1) * into, b * out : (b + 1) * out, p] = weight[:, :, b]
    return found


def opened_twice(weight: np.ndarray) -> np.ndarray:
    """Of `doubled_and_convolved`, from rows to odd pairs with a stride of one pair: (in, out, 4, 4)
    -> (in, 2 out, 2, 4)."""
    into, out = weight.shape[:2]
    found = np.zeros((into, 2 * out, 2, 4))
    for place in range(4):
        row, b = divmod(place, 2)
        found[:, b * out : (b + 1) * out, row] = weight[:, :, place]
    return found


def paired_twice(weight: np.ndarray) -> np.ndarray:
    """Of `doubled_and_convolved`, from even pairs to odd pairs with a stride of two pairs: (in,
    out, 4, 4) -> (2 in, 2 out, 3, 4)."""
    into, out = weight.shape[:2]
    found = np.zeros((2 * into, 2 * out, 3, 4))
    for from_b in (0, 1):
        for place in range(4):
            row, b = divmod(2 * from_b + place, 2)
            lanes = slice(from_b * into, (from_b + 1) * into), slice(b * out, (b + 1) * out)
            found[(*lanes, row)] = weight[:, :, place]
    return found


def twice(weight: np.ndarray) -> np.ndarray:
    """Of a 1 x 1 convolution, on both rows of a pair: (out, in) -> (2 out, 2 in)."""
    nil = np.zeros_like(weight)
    return np.block([[weight, nil], [nil, weight]])


def both(bias: np.ndarray) -> np.ndarray:
    """A bias for both rows of a pair."""
    return np.concatenate([bias, bias])


def in_rows(values: np.ndarray) -> np.ndarray:
    """Row by row again: (..., 2, pairs, columns) -> (..., 2 pairs, columns)."""
    swapped = np.swapaxes(values, -3, -2)
    return swapped.reshape(*swapped.shape[:-3], -1, swapped.shape[-1])


def edge_masks(height: int) -> dict[str, np.ndarray]:
    """Zeros at the rows that odd pairs add to a window of some height, for any width."""
    return {
        FULL_ODD: _in_pairs(_within(height, height, odd=True), np.ones(1)),
        HALF_ODD: _in_pairs(_within(height // 2, height // 2, odd=True), np.ones(1)),
    }


def end_masks(height: int, width: int, rows: int, cols: int) -> dict[str, np.ndarray]:
    """Zeros at all that a window of height x width has beyond a canvas of rows x columns.

    Args:
        height, width: multiples of four.
        rows, cols: no more than these, and no more than three fewer.
    """
    half, quarter = (rows // 2, cols // 2), (rows // 4, cols // 4)
    sizes = {
        FULL_ODD: (height, width, rows, cols),
        FULL: (height, width, rows, cols),
        RAISED: (height, width, 2 * half[0], 2 * half[1]),
        HALF: (height // 2, width // 2, *half),
        HALF_ODD: (height // 2, width // 2, *half),
        HALF_EVEN: (height // 2, width // 2, *half),
        RAISED_HALF: (height // 2, width // 2, 2 * quarter[0], 2 * quarter[1]),
        QUARTER: (height // 4, width // 4, *quarter),
    }
    found = {}
    for name, (tall, wide, known_rows, known_cols) in sizes.items():
        across = (np.arange(wide) < known_cols).astype(np.float32)
        down = _within(tall, known_rows, odd=name in (FULL_ODD, HALF_ODD))
        if name in IN_PAIRS:
            found[name] = _in_pairs(down, across)
        else:
            found[name] = (down[:, None] * across)[None, None]
    return found


def _within(height: int, rows: int, odd: bool) -> np.ndarray:
    """1 for each row that there is, 0 for others; of odd pairs also the ones before and after."""
    at = np.arange(-1, height + 1) if odd else np.arange(height)
    return ((at >= 0) & (at < rows)).astype(np.float32)


def _in_pairs(down: np.ndarray, across: np.ndarray) -> np.ndarray:
    """(rows,) and (columns,) -> (1, 2 x LANES, rows / 2, columns)."""
    lanes = np.repeat(down.reshape(-1, 2).T, LANES, axis=0)
    return np.ascontiguousarray(lanes[None, :, :, None] * across, np.float32)
