"""Network weights on disk: safetensors with a JSON card, and reading published checkpoints.

Pickles are only ever read with `weights_only=True`. The networks themselves are in `popcorn`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from popcorn_ml.errors import WeightsError
from popcorn_ml.files import write_bytes
from popcorn_ml.model.popcorn import BuiltupExtractor, OccupancyModel
from popcorn_ml.model.published import PUBLISHED_BYTES, PUBLISHED_SHA256, renamed
from popcorn_ml.model.stored import (
    CARD_FILE,
    EXTRACTOR_ARCHITECTURE,
    OCCUPANCY_ARCHITECTURE,
    STUDENT_ARCHITECTURE,
    Tensors,
    fingerprint_of,
    must_exist,
    read_extractor,
    read_occupancy,
    require,
    sha256_of,
)


def load_extractor(path: str | Path, *, sha256: str = PUBLISHED_SHA256) -> BuiltupExtractor:
    """The built-up area extractor, frozen, in eval mode, on the CPU.

    Args:
        path: a `.safetensors` file with `card.json` beside it, or the published `.pt` file.
        sha256: what a `.pt` file must hash to.

    Raises:
        WeightsError: missing, altered, unreadable, or of another architecture.
    """
    path = Path(path)
    model = BuiltupExtractor()
    if path.suffix == ".safetensors":
        fill(model, read_extractor(path), path)
    else:
        found = sha256_of(path)
        if found != sha256:
            raise WeightsError(
                "the weights are not the published built-up area extractor",
                where=path,
                expected=f"{PUBLISHED_BYTES} bytes, sha256 {sha256}",
                found=f"{path.stat().st_size} bytes, sha256 {found}",
                remedy="run `popcorn weights fetch`, or import the right file with "
                "`popcorn weights import FILE`",
            )
        network = read_pickle(path).get("network")
        if not isinstance(network, Mapping):
            raise WeightsError("the checkpoint has no key 'network'", where=path)
        fill(model, renamed(network, path), path)
    return model.requires_grad_(False).eval()


def save_extractor(model: BuiltupExtractor, path: str | Path, card: dict[str, Any]) -> Path:
    """Write the extractor as `NAME.safetensors` with its card `NAME.json`; see `save_occupancy`."""
    path = Path(path)
    return _save(model, path, path.with_suffix(".json"), card, EXTRACTOR_ARCHITECTURE)


def load_occupancy(path: str | Path) -> OccupancyModel:
    """An occupancy model in eval mode on the CPU.

    Args:
        path: a `.safetensors` file with `card.json` beside it, or the folder that holds both.

    Raises:
        WeightsError: missing, altered, unreadable, or of another architecture.
    """
    model = OccupancyModel()
    fill(model, read_occupancy(path), Path(path))
    return model.eval()


def save_occupancy(model: OccupancyModel, path: str | Path, card: dict[str, Any]) -> Path:
    """Write an occupancy model as safetensors, and `card.json` beside it.

    Args:
        model: on any device.
        path: a name ending in `.safetensors`; each such file has a folder of its own.
        card: what to say about the weights; architecture, number of parameters, file name, size
            and sha256 are added.

    Returns:
        The path of the weights. Both files appear whole or not at all, the card last.
    """
    path = Path(path)
    return _save(model, path, path.with_name(CARD_FILE), card, OCCUPANCY_ARCHITECTURE)


def save_student(model: nn.Module, path: str | Path, card: dict[str, Any]) -> Path:
    """Write a student as safetensors, and `card.json` beside it; see `save_occupancy`."""
    path = Path(path)
    return _save(model, path, path.with_name(CARD_FILE), card, STUDENT_ARCHITECTURE)


def tensors_of(model: nn.Module) -> Tensors:
    """A network's weights as arrays, on whatever device it is."""
    return {name: value.numpy() for name, value in _kept(model).items()}


def fingerprint(model: nn.Module) -> str:
    """See `stored.fingerprint_of`."""
    return fingerprint_of(tensors_of(model))


def fill(model: nn.Module, tensors: Mapping[str, Any], where: Path) -> None:
    """Load arrays or tensors by name, or say which are missing, left over or of another shape."""
    arrays = {name: np.asarray(value) for name, value in tensors.items()}
    shapes = {
        name: tuple(value.shape)
        for name, value in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    require(arrays, shapes, where, type(model).__name__)
    copied = {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}
    model.load_state_dict(copied, strict=False)


def _kept(model: nn.Module) -> dict[str, Tensor]:
    """The tensors worth keeping; batch counters say nothing about the function."""
    return {
        name: value.detach().to("cpu", torch.float32).contiguous()
        for name, value in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


def read_pickle(path: Path) -> Mapping[str, Any]:
    import pickle

    must_exist(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise WeightsError(
            "the checkpoint cannot be read",
            where=path,
            expected="a PyTorch file holding only tensors and plain values",
            found=str(error).splitlines()[0] if str(error) else type(error).__name__,
            remedy="fetch it again",
        ) from error
    if not isinstance(content, Mapping):
        raise WeightsError("the checkpoint is not a dictionary", where=path)
    return content


def _save(
    model: nn.Module, path: Path, card_path: Path, card: dict[str, Any], architecture: str
) -> Path:
    from safetensors.torch import save

    if path.suffix != ".safetensors":
        raise ValueError(f"{path} does not end in .safetensors")
    tensors = _kept(model)
    content = save(tensors)
    full_card = card | {
        "architecture": architecture,
        "file": path.name,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    write_bytes(path, content)
    write_bytes(card_path, (json.dumps(full_card, indent=2, sort_keys=True) + "\n").encode())
    return path
