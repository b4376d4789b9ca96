"""Layers that are linear together, as one: arithmetic on weights alone, in float64."""

from __future__ import annotations

import numpy as np

from popcorn_ml.model.stored import Tensors

NORM_EPSILON = 1e-5
"""Of the batch norms, torch's own."""


def folded(unet: Tensors, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias of a convolution with its batch norm.

    Args:
        unet: weights of a `StreamUNet`, by the names in its state dict.
        name: of the block, and which of its two.
    """
    block, which = name.rsplit(".", 1)
    layer = {part: unet[f"{block}.conv{which}.{part}"].astype(float) for part in ("weight", "bias")}
    parts = ("weight", "bias", "running_mean", "running_var")
    norm = {part: unet[f"{block}.norm{which}.{part}"].astype(float) for part in parts}
    gain = norm["weight"] / np.sqrt(norm["running_var"] + NORM_EPSILON)
    bias = norm["bias"] + (layer["bias"] - norm["running_mean"]) * gain
    return layer["weight"] * gain[:, None, None, None], bias


def doubled_and_convolved(doubling: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Of a transposed convolution that doubles both sides, and the 3 x 3 convolution after it, as
    one transposed convolution with a stride of two and three taps more.

    Beyond the edges of a canvas it is not the same if the doubling has a bias: there a convolution
    sees zeros, and not the bias.

    Args:
        doubling: (in, between, 2, 2), as torch has it.
        weight: (out, between, 3, 3).

    Returns:
        (in, out, 4, 4): place 2 j of the result takes place j of the input at 1.
    """
    found = np.zeros((doubling.shape[0], weight.shape[0], 4, 4))
    for p, q in np.ndindex(2, 2):
        for row, col in np.ndindex(3, 3):
            both = doubling[:, :, p, q] @ weight[:, :, row, col].T
            found[:, :, 2 + p - row, 2 + q - col] += both
    return found
