"""Network weights on disk: safetensors with a JSON card, and reading published checkpoints.

Pickles are only ever read with `weights_only=True`. The networks themselves are in `popcorn`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from popcorn_ml.errors import WeightsError
from popcorn_ml.files import write_bytes
from popcorn_ml.model.popcorn import BuiltupExtractor, OccupancyModel
from popcorn_ml.model.published import PUBLISHED_BYTES, PUBLISHED_SHA256, renamed

EXTRACTOR_FILE = "extractor.safetensors"
OCCUPANCY_FILE = "occupancy.safetensors"
CARD_FILE = "card.json"
"""Beside a member's weights: what they are, where from, and the file's sha256. Extractors, which
may share a folder, have theirs under their own name with `.json`."""

EXTRACTOR_ARCHITECTURE = "popcorn-builtup-extractor/1"
OCCUPANCY_ARCHITECTURE = "popcorn-occupancy/1"


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
        fill(model, _read_safetensors(path, EXTRACTOR_ARCHITECTURE), path)
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
    path = Path(path)
    if path.is_dir():
        path = path / OCCUPANCY_FILE
    model = OccupancyModel()
    fill(model, _read_safetensors(path, OCCUPANCY_ARCHITECTURE), path)
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


def read_card(path: str | Path) -> dict[str, Any]:
    """The card beside a weights file (or in a folder of weights).

    Raises:
        WeightsError: there is none, or it is not JSON.
    """
    path = Path(path)
    own = path.with_suffix(".json")
    card_path = own if own.is_file() else (path if path.is_dir() else path.parent) / CARD_FILE
    try:
        card = json.loads(card_path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise WeightsError(
            "the weights have no card",
            where=path,
            expected=f"a file {own.name} or {CARD_FILE} beside them",
            found="none",
            remedy="copy the whole folder, or import the weights again",
        ) from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise WeightsError("the card cannot be read", where=card_path, found=str(error)) from error
    if not isinstance(card, dict):
        raise WeightsError("the card is not a JSON object", where=card_path)
    return card


def fingerprint(model: nn.Module) -> str:
    """sha256 over the names and values of a network's tensors, whatever file they came in."""
    digest = hashlib.sha256()
    for name, value in sorted(_kept(model).items()):
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def _kept(model: nn.Module) -> dict[str, Tensor]:
    """The tensors worth keeping; batch counters say nothing about the function."""
    return {
        name: value.detach().to("cpu", torch.float32).contiguous()
        for name, value in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


def fill(model: nn.Module, tensors: Mapping[str, Tensor], where: Path) -> None:
    """Load tensors by name, or say which are missing, left over or of another shape."""
    wanted = model.state_dict()
    needed = {name for name in wanted if not name.endswith("num_batches_tracked")}
    missing, extra = sorted(needed - tensors.keys()), sorted(tensors.keys() - needed)
    wrong = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in sorted(needed & tensors.keys())
        if tensors[name].shape != wanted[name].shape
    ]
    if missing or extra or wrong:
        said = [
            f"{label} {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"
            for label, names in (("missing", missing), ("unknown", extra), ("shape", wrong))
            if names
        ]
        raise WeightsError(
            "the weights are of another architecture",
            where=where,
            expected=f"{len(needed)} tensors of {type(model).__name__}",
            found="; ".join(said),
        )
    not_finite = sorted(n for n in needed if not bool(torch.isfinite(tensors[n]).all()))
    if not_finite:
        raise WeightsError(
            "the weights hold values that are not finite", where=where, found=not_finite[0]
        )
    model.load_state_dict(dict(tensors), strict=False)


def read_pickle(path: Path) -> Mapping[str, Any]:
    import pickle

    _must_exist(path)
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


def _read_safetensors(path: Path, architecture: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    _must_exist(path)
    card = read_card(path)
    if card.get("architecture") != architecture:
        raise WeightsError(
            "the weights are of another architecture",
            where=path,
            expected=architecture,
            found=card.get("architecture"),
        )
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != card.get("sha256"):
        raise WeightsError(
            "the weights have been altered since they were written",
            where=path,
            expected=f"sha256 {card.get('sha256')}, as their card says",
            found=f"sha256 {found}",
            remedy="fetch, import or train them again",
        )
    try:
        return load(content)
    except SafetensorError as error:
        raise WeightsError("the weights cannot be read", where=path, found=str(error)) from error


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


def _must_exist(path: Path) -> None:
    if not path.is_file():
        raise WeightsError(
            "the weights are missing",
            where=path,
            remedy="run `popcorn weights fetch`, import them, or train them first",
        )


def sha256_of(path: Path) -> str:
    _must_exist(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
