"""Weights from outside: the published extractor downloaded or taken from a file, and members."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from popcorn_ml.errors import WeightsError
from popcorn_ml.files import replacing
from popcorn_ml.model.popcorn import BuiltupExtractor, OccupancyModel
from popcorn_ml.model.published import (
    PUBLISHED_BYTES,
    PUBLISHED_COMMIT,
    PUBLISHED_FINGERPRINT,
    PUBLISHED_NAME,
    PUBLISHED_SHA256,
    PUBLISHED_URL,
    renamed,
)
from popcorn_ml.model.stored import EXTRACTOR_FILE, OCCUPANCY_FILE, read_card, sha256_of
from popcorn_ml.model.weights import (
    fill,
    fingerprint,
    load_extractor,
    read_pickle,
    save_extractor,
    save_occupancy,
)

MAX_DOWNLOAD_BYTES = 64 * 1024 * 1024


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
    if target.exists() and sha256_of(target) == sha256:
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
    state = read_pickle(file).get("model")
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
        for key, value in renamed(parts["unetmodel"], file).items()
        if key.startswith("unet.")
    }
    tensors |= {f"head.{key}": value for key, value in parts["head"].items()}
    fill(model, tensors, file)
    own_card: dict[str, Any] = {
        "name": "published member of Bag-of-POPCORN",
        "source": f"{file.name} of prs-eth/Popcorn",
        "source_sha256": sha256_of(file),
    }
    if parts["building_extractor"]:
        extractor = BuiltupExtractor()
        fill(extractor, renamed(parts["building_extractor"], file), file)
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


def _in_folder(target: str | Path, name: str) -> Path:
    target = Path(target)
    return target if target.suffix == ".safetensors" else target / name


def _expect(where: str, size: int, digest: str, right_size: int, right_digest: str) -> None:
    if (size, digest) != (right_size, right_digest):
        raise WeightsError(
            "what was downloaded is not the published extractor",
            where=where,
            expected=f"{right_size} bytes, sha256 {right_digest}",
            found=f"{size} bytes, sha256 {digest}",
            remedy="try again; a proxy may have answered with a page of its own",
        )
