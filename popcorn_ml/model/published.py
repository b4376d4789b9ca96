"""The published checkpoints: which files they are, and our names for their tensors.

The published extractor is known by its size and sha256; anything else under its name is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from popcorn_ml.errors import WeightsError

PUBLISHED_COMMIT = "c7b0208924c5ac2d77d3cc48f3c6c8bd6add4f27"
PUBLISHED_NAME = "fusionda_newAug8_16_checkpoint30_lossweight0.5.pt"
PUBLISHED_URL = (
    f"https://raw.githubusercontent.com/prs-eth/Popcorn/{PUBLISHED_COMMIT}"
    f"/model/DDA_model/checkpoints/networks/{PUBLISHED_NAME}"
)
PUBLISHED_BYTES = 524_327
PUBLISHED_SHA256 = "0c1244fcf15a99bf887233b90c5830965e4696e1a44fae01d2e70f4b5368d248"
PUBLISHED_FINGERPRINT = "290d3c7a4485833863d9500ffe7d793cc59f810de6ccd8ccd3f8c8d7962ca530"
"""`fingerprint` of the published extractor's values, whatever file holds them."""

_STREAMS = {"sar_stream": "s1", "optical_stream": "s2"}
_BLOCKS = {
    "inc.conv.conv": "enter",
    "down_seq.down1.mpconv.1.conv": "down1",
    "down_seq.down2.mpconv.1.conv": "down2",
    "up_seq.up2.conv.conv": "up2.convs",
    "up_seq.up1.conv.conv": "up1.convs",
}
_LAYERS = {"0": "conv1", "1": "norm1", "3": "conv2", "4": "norm2"}
_RAISES = {"up_seq.up2.up": "up2.raise_", "up_seq.up1.up": "up1.raise_"}
_SCORES = {
    "fusion_out_conv.conv": "score_both",
    "sar_out_conv.conv": "score_s1",
    "optical_out_conv.conv": "score_s2",
}
_UNUSED = tuple(f"{stream}.outc.conv." for stream in _STREAMS)
"""Layers that the published file carries and no output depends on."""


def published_key(key: str) -> str | None:
    """Our name for a tensor of the published dual-stream network; None if it is not needed.

    U-Net tensors come out under `unet.`, the three score layers under their own names.

    Raises:
        KeyError: not a tensor of that network.
    """
    if key.endswith(".num_batches_tracked") or key.startswith(_UNUSED):
        return None
    module, _, leaf = key.rpartition(".")
    if module in _SCORES:
        return f"{_SCORES[module]}.{leaf}"
    stream, _, inner = module.partition(".")
    if stream in _STREAMS:
        if inner in _RAISES:
            return f"unet.{_STREAMS[stream]}.{_RAISES[inner]}.{leaf}"
        block, _, layer = inner.rpartition(".")
        if block in _BLOCKS and layer in _LAYERS:
            return f"unet.{_STREAMS[stream]}.{_BLOCKS[block]}.{_LAYERS[layer]}.{leaf}"
    raise KeyError(key)


def renamed(network: Mapping[str, Tensor], where: Path) -> dict[str, Tensor]:
    try:
        named = {published_key(key): value for key, value in network.items()}
    except KeyError as error:
        raise WeightsError(
            "the checkpoint is of another architecture",
            where=where,
            expected="the dual-stream U-Net as published",
            found=f"a tensor {error.args[0]!r}",
        ) from error
    return {key: value for key, value in named.items() if key is not None}
