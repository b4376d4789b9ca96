"""Network weights on disk, read and checked without torch: plain arrays by name.

Files are safetensors with a JSON card beside them. Making networks of them, writing them, and
published checkpoints are in `weights`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from popcorn_ml.errors import WeightsError

EXTRACTOR_FILE = "extractor.safetensors"
OCCUPANCY_FILE = "occupancy.safetensors"
STUDENT_FILE = "student.safetensors"
CARD_FILE = "card.json"
"""Beside a member's weights: what they are, where from, and the file's sha256. Extractors, which
may share a folder, have theirs under their own name with `.json`."""

EXTRACTOR_ARCHITECTURE = "popcorn-builtup-extractor/1"
OCCUPANCY_ARCHITECTURE = "popcorn-occupancy/1"
STUDENT_ARCHITECTURE = "popcorn-student/1"

STUDENT_WIDTHS = (16, 16, 32)
"""Features of a student at full, half and quarter resolution: lanes of a processor, or twice them.
"""
STUDENT_HEAD = 32
"""Features of its layer of single pixels."""

Tensors: TypeAlias = Mapping[str, np.ndarray]
"""A network's weights, float32, by the names in its state dict."""

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]


def read_occupancy(path: str | Path) -> Tensors:
    """Weights of an occupancy model.

    Args:
        path: a `.safetensors` file with `card.json` beside it, or the folder that holds both.

    Raises:
        WeightsError: missing, altered, unreadable, or of another architecture.
    """
    path = Path(path)
    if path.is_dir():
        path = path / OCCUPANCY_FILE
    tensors = read_safetensors(path, OCCUPANCY_ARCHITECTURE)
    require(tensors, occupancy_shapes(), path, "OccupancyModel")
    return tensors


def read_extractor(path: str | Path) -> Tensors:
    """Weights of the built-up area extractor.

    Args:
        path: a `.safetensors` file with its card beside it.

    Raises:
        WeightsError: missing, altered, unreadable, or of another architecture.
    """
    path = Path(path)
    tensors = read_safetensors(path, EXTRACTOR_ARCHITECTURE)
    require(tensors, extractor_shapes(), path, "BuiltupExtractor")
    return tensors


def read_student(path: str | Path) -> Tensors:
    """Weights of a student.

    Args:
        path: a `.safetensors` file with `card.json` beside it, or the folder that holds both.

    Raises:
        WeightsError: missing, altered, unreadable, or of another architecture.
    """
    path = Path(path)
    if path.is_dir():
        path = path / STUDENT_FILE
    tensors = read_safetensors(path, STUDENT_ARCHITECTURE)
    first = tensors.get("enter.convs.0.weight", np.zeros((1, 1)))
    require(tensors, student_shapes(first.shape[1]), path, "Student")
    return tensors


def student_shapes(inputs: int) -> Shapes:
    """Shape of each tensor of a `Student` of so many input channels."""
    full, half, quarter = STUDENT_WIDTHS
    shapes: dict[str, tuple[int, ...]] = {"people_per_score": (1,)}
    down = (("enter", inputs, full, 2), ("down1", full, half, 2), ("down2", half, quarter, 2))
    layers = (*down, ("up2", half + quarter, half, 2), ("up1", full + half, full, 1))
    for block, into, out, count in layers:
        for i, of in enumerate([into, *[out] * (count - 1)]):
            shapes |= _layer(f"{block}.convs.{i}", (out, of, 3, 3), out)
    shapes |= _layer("head", (STUDENT_HEAD, full, 1, 1), STUDENT_HEAD)
    return shapes | _layer("last", (1, STUDENT_HEAD, 1, 1), 1)


def occupancy_shapes() -> Shapes:
    """Shape of each tensor of an `OccupancyModel`."""
    shapes = _unet_shapes()
    widths = (16, 64, 64, 64, 2)
    for i, (into, out) in enumerate(itertools.pairwise(widths)):
        shapes |= _layer(f"head.{2 * i}", (out, into, 1, 1), out)
    return shapes


def extractor_shapes() -> Shapes:
    """Shape of each tensor of a `BuiltupExtractor`."""
    shapes = _unet_shapes()
    for sensors, features in (("both", 16), ("s1", 8), ("s2", 8)):
        shapes |= _layer(f"score_{sensors}", (1, features, 1, 1), 1)
    return shapes


def _unet_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for sensor, channels in (("s1", 2), ("s2", 4)):
        begin = f"unet.{sensor}"
        down = (("enter", channels, 8), ("down1", 8, 16), ("down2", 16, 16))
        for block, into, out in (*down, ("up2.convs", 32, 8), ("up1.convs", 16, 8)):
            for which, of in ((1, into), (2, out)):
                shapes |= _layer(f"{begin}.{block}.conv{which}", (out, of, 3, 3), out)
                for part in ("weight", "bias", "running_mean", "running_var"):
                    shapes[f"{begin}.{block}.norm{which}.{part}"] = (out,)
        for block, width in (("up2", 16), ("up1", 8)):
            shapes |= _layer(f"{begin}.{block}.raise_", (width, width, 2, 2), width)
    return shapes


def _layer(name: str, weight: tuple[int, ...], bias: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": weight, f"{name}.bias": (bias,)}


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


def fingerprint_of(tensors: Tensors) -> str:
    """sha256 over the names and values of a network's tensors, whatever file they came in."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def require(tensors: Tensors, shapes: Shapes, where: Path, network: str) -> None:
    """Say which tensors are missing, left over, of another shape or not finite.

    Raises:
        WeightsError: so.
    """
    missing, extra = sorted(shapes.keys() - tensors.keys()), sorted(tensors.keys() - shapes.keys())
    wrong = [
        f"{name} {tuple(tensors[name].shape)} instead of {shapes[name]}"
        for name in sorted(shapes.keys() & tensors.keys())
        if tuple(tensors[name].shape) != shapes[name]
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
            expected=f"{len(shapes)} tensors of {network}",
            found="; ".join(said),
        )
    not_finite = sorted(name for name in shapes if not np.isfinite(tensors[name]).all())
    if not_finite:
        raise WeightsError(
            "the weights hold values that are not finite", where=where, found=not_finite[0]
        )


def read_safetensors(path: Path, architecture: str) -> Tensors:
    """The arrays of a file that is as its card says.

    Raises:
        WeightsError: missing, altered, unreadable, or of another architecture.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    must_exist(path)
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
    except (SafetensorError, KeyError) as error:  # KeyError: numbers of a kind numpy has not
        raise WeightsError("the weights cannot be read", where=path, found=str(error)) from error


def must_exist(path: Path) -> None:
    if not path.is_file():
        raise WeightsError(
            "the weights are missing",
            where=path,
            remedy="run `popcorn weights fetch`, import them, or train them first",
        )


def sha256_of(path: Path) -> str:
    must_exist(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
