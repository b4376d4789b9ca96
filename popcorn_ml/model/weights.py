"""Network weights on disk: safetensors with a JSON card, and the published checkpoints.

The published extractor is known by its size and sha256; anything else under its name is refused.
Pickles are only ever read with `weights_only=True`. The networks themselves are in `popcorn`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from popcorn_ml.errors import WeightsError
from popcorn_ml.files import replacing, write_bytes
from popcorn_ml.model.popcorn import BuiltupExtractor, OccupancyModel

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

EXTRACTOR_FILE = "extractor.safetensors"
OCCUPANCY_FILE = "occupancy.safetensors"
CARD_FILE = "card.json"
"""Beside a member's weights: what they are, where from, and the file's sha256. Extractors, which
may share a folder, have theirs under their own name with `.json`."""

EXTRACTOR_ARCHITECTURE = "popcorn-builtup-extractor/1"
OCCUPANCY_ARCHITECTURE = "popcorn-occupancy/1"

MAX_DOWNLOAD_BYTES = 64 * 1024 * 1024

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
        _fill(model, _read_safetensors(path, EXTRACTOR_ARCHITECTURE), path)
    else:
        found = _sha256(path)
        if found != sha256:
            raise WeightsError(
                "the weights are not the published built-up area extractor",
                where=path,
                expected=f"{PUBLISHED_BYTES} bytes, sha256 {sha256}",
                found=f"{path.stat().st_size} bytes, sha256 {found}",
                remedy="run `popcorn weights fetch`, or import the right file with "
                "`popcorn weights import FILE`",
            )
        network = _read_pickle(path).get("network")
        if not isinstance(network, Mapping):
            raise WeightsError("the checkpoint has no key 'network'", where=path)
        _fill(model, _renamed(network, path), path)
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
    _fill(model, _read_safetensors(path, OCCUPANCY_ARCHITECTURE), path)
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


def fetch_extractor(
    target: str | Path,
    url: str = PUBLISHED_URL,
    *,
    sha256: str = PUBLISHED_SHA256,
    size: int = PUBLISHED_BYTES,
    timeout_s: float = 30.0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Download the published extractor once.

    Args:
        target: the file to write. If it is there already and right, nothing is downloaded.
        url: where from.
        sha256, size: what the file must be.
        timeout_s: of connecting and of each read.
        progress: called with bytes done and in all.

    Returns:
        `target`, complete and checked; on any failure nothing is left there.

    Raises:
        WeightsError: no network, a refusal, or another file than expected.
    """
    import urllib.error
    import urllib.request

    target = Path(target)
    if target.exists() and _sha256(target) == sha256:
        return target
    with replacing(target) as draft, draft.open("wb") as out:
        digest, done = hashlib.sha256(), 0
        try:
            with urllib.request.urlopen(url, timeout=timeout_s) as answer:
                while block := answer.read(64 * 1024):
                    done += len(block)
                    if done > max(size, MAX_DOWNLOAD_BYTES):
                        break
                    digest.update(block)
                    out.write(block)
                    if progress is not None:
                        progress(done, size)
        except (urllib.error.URLError, OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise WeightsError(
                "the extractor's weights could not be downloaded",
                where=url,
                found=str(reason),
                remedy="see whether this machine reaches the network; or download the file "
                "elsewhere and run `popcorn weights import FILE`",
            ) from error
        _expect(url, done, digest.hexdigest(), size, sha256)
    return target


def import_extractor(file: str | Path, target: str | Path) -> Path:
    """Take the extractor from a file on disk and keep it as safetensors with a card.

    Args:
        file: the published `.pt` (its sha256 is checked) or safetensors with a card beside it.
        target: the `.safetensors` file to write, or a folder for `extractor.safetensors`.

    Returns:
        The path written.

    Raises:
        WeightsError: as `load_extractor`.
    """
    file = Path(file)
    model = load_extractor(file)
    if file.suffix == ".safetensors":
        card = read_card(file)
    else:
        card = {
            "name": "published built-up area extractor",
            "source": f"prs-eth/Popcorn at {PUBLISHED_COMMIT}, {PUBLISHED_NAME}",
            "source_sha256": PUBLISHED_SHA256,
            "licence": "Apache-2.0",
        }
    return save_extractor(model, _in_folder(target, EXTRACTOR_FILE), card)


def import_published_member(
    file: str | Path, target: str | Path, card: dict[str, Any] | None = None
) -> Path:
    """Take a member of the published Bag-of-POPCORN and keep it as safetensors with a card.

    Args:
        file: a checkpoint such as `last_model.pth`: a dict with key `model`, whose tensors have
            the prefixes `unetmodel.`, `head.` and `building_extractor.`.
        target: the `.safetensors` file to write, or a folder for `occupancy.safetensors`.
        card: more to say about it, such as region and seed.

    Returns:
        The path written. The extractor in the file is not kept: it must be the published one.

    Raises:
        WeightsError: unreadable, or of another architecture, or with another extractor inside.
    """
    file = Path(file)
    state = _read_pickle(file).get("model")
    if not isinstance(state, Mapping):
        raise WeightsError(
            "the checkpoint has no key 'model'",
            where=file,
            expected="a member of Bag-of-POPCORN as published (last_model.pth)",
        )
    parts: dict[str, dict[str, Tensor]] = {"unetmodel": {}, "head": {}, "building_extractor": {}}
    for key, value in state.items():
        prefix, _, rest = key.partition(".")
        if prefix not in parts:
            raise WeightsError(
                "the checkpoint holds something unknown",
                where=file,
                expected="tensors under unetmodel., head. and building_extractor.",
                found=key,
            )
        parts[prefix][rest] = value
    model = OccupancyModel()
    tensors = {
        key: value
        for key, value in _renamed(parts["unetmodel"], file).items()
        if key.startswith("unet.")
    }
    tensors |= {f"head.{key}": value for key, value in parts["head"].items()}
    _fill(model, tensors, file)
    own_card: dict[str, Any] = {
        "name": "published member of Bag-of-POPCORN",
        "source": f"{file.name} of prs-eth/Popcorn",
        "source_sha256": _sha256(file),
    }
    if parts["building_extractor"]:
        extractor = BuiltupExtractor()
        _fill(extractor, _renamed(parts["building_extractor"], file), file)
        found = fingerprint(extractor)
        if found != PUBLISHED_FINGERPRINT:
            raise WeightsError(
                "the checkpoint was trained with another extractor than the published one",
                where=file,
                expected=f"fingerprint {PUBLISHED_FINGERPRINT}",
                found=f"fingerprint {found}",
                remedy="its occupancy would not fit the built-up score: train a member instead",
            )
        own_card["extractor_fingerprint"] = found
    path = _in_folder(target, OCCUPANCY_FILE)
    return save_occupancy(model, path, own_card | (card or {}))


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


def _renamed(network: Mapping[str, Tensor], where: Path) -> dict[str, Tensor]:
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


def _fill(model: nn.Module, tensors: Mapping[str, Tensor], where: Path) -> None:
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


def _read_pickle(path: Path) -> Mapping[str, Any]:
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


def _in_folder(target: str | Path, name: str) -> Path:
    target = Path(target)
    return target if target.suffix == ".safetensors" else target / name


def _must_exist(path: Path) -> None:
    if not path.is_file():
        raise WeightsError(
            "the weights are missing",
            where=path,
            remedy="run `popcorn weights fetch`, import them, or train them first",
        )


def _sha256(path: Path) -> str:
    _must_exist(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _expect(where: str, size: int, digest: str, right_size: int, right_digest: str) -> None:
    if (size, digest) != (right_size, right_digest):
        raise WeightsError(
            "what was downloaded is not the published extractor",
            where=where,
            expected=f"{right_size} bytes, sha256 {right_digest}",
            found=f"{size} bytes, sha256 {digest}",
            remedy="try again; a proxy may have answered with a page of its own",
        )
