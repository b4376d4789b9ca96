"""The networks' weights as `tile.c` reads them: folded, joined, and in the order of its kernels.

Batch norms are folded into the convolutions before them. A doubling and the convolution after it
are linear, and become one; what the doubling's bias comes to is the weight of one channel more, of
ones, which ends where the canvas does.
"""

from __future__ import annotations

import numpy as np

from popcorn_ml.mapping.engine.folding import doubled_and_convolved, folded
from popcorn_ml.model.stored import Tensors

HEAD = (0, 2, 4, 6)
"""Positions of the head's layers in its state dict."""

_TAPS = ((3, 1), (2, 0))
"""Of `doubled_and_convolved`, those that an even and an odd place of the result takes of the two
places of the input that it lies between."""


def packed_extractor(weights: Tensors, sensors: str, outputs: int) -> np.ndarray:
    """Both streams and the score's layer.

    Args:
        weights: of a `BuiltupExtractor`, by the names in its state dict.
        sensors: whose score: both, s1 or s2.
        outputs: that a kernel makes at once.
    """
    score = {name: np.zeros(8) for name in ("s1", "s2")}
    used = ("s1", "s2") if sensors == "both" else (sensors,)
    layer = weights[f"score_{sensors}.weight"].reshape(-1)
    score.update(zip(used, np.split(layer, len(used)), strict=True))
    bias = weights[f"score_{sensors}.bias"]
    return _flat([*_streams(weights, outputs), score["s1"], score["s2"], bias])


def packed_member(weights: Tensors, outputs: int) -> np.ndarray:
    """Both streams and the head; of its two outputs the occupancy.

    Args:
        weights: of an `OccupancyModel`, by the names in its state dict.
        outputs: that a kernel makes at once.
    """
    parts = _streams(weights, outputs)
    for place in HEAD[:-1]:
        layer = weights[f"head.{place}.weight"][:, :, 0, 0]
        parts += [_by_output(layer, outputs), weights[f"head.{place}.bias"]]
    last = f"head.{HEAD[-1]}"
    return _flat([*parts, weights[f"{last}.weight"][0], weights[f"{last}.bias"][:1]])


def _streams(weights: Tensors, outputs: int) -> list[np.ndarray]:
    found = []
    for name in ("s1", "s2"):
        begin = f"unet.{name}."
        unet = {key[len(begin) :]: w for key, w in weights.items() if key.startswith(begin)}
        for block in ("enter", "down1", "down2"):
            found += _plain(unet, f"{block}.1", outputs) + _plain(unet, f"{block}.2", outputs)
        for block in ("up2", "up1"):
            found += _joined(unet, block, outputs) + _plain(unet, f"{block}.convs.2", outputs)
    return found


def _plain(unet: Tensors, name: str, outputs: int) -> list[np.ndarray]:
    weight, bias = folded(unet, name)
    return [_by_output(weight, outputs), bias]


def _joined(unet: Tensors, block: str, outputs: int) -> list[np.ndarray]:
    doubling = unet[f"{block}.raise_.weight"].astype(float)
    doubled_bias = unet[f"{block}.raise_.bias"].astype(float)
    weight, bias = folded(unet, f"{block}.convs.1")
    skipped = weight.shape[1] - doubling.shape[1]
    # A channel of ones, doubled to what the bias adds to each channel.
    ones = np.broadcast_to(doubled_bias[None, :, None, None], (1, *doubling.shape[1:]))
    both = doubled_and_convolved(np.concatenate([doubling, ones]), weight[:, skipped:])
    by_place = [
        _by_output(both[:, :, rows][:, :, :, cols].swapaxes(0, 1), outputs)
        for rows in _TAPS
        for cols in _TAPS
    ]
    return [_by_output(weight[:, :skipped], outputs), *by_place, bias]


def _by_output(weight: np.ndarray, outputs: int) -> np.ndarray:
    """(out, in, ...) -> (out / outputs, in, ..., outputs)."""
    split = weight.reshape(-1, outputs, *weight.shape[1:])
    return np.moveaxis(split, 1, -1)


def _flat(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([part.reshape(-1) for part in parts]).astype(np.float32)
