"""What a version keeps of the item collection on disk that its scenes were found in.

Such a catalogue grows: another year's items make nothing of this one's untrue. So beside the digest
of the file, a version keeps those of the items it used, and an audit of a changed catalogue asks
for them. Reading items as scenes is popcorn_ml.imagery's business.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from popcorn_assets.store.recipe import Recipe
from popcorn_assets.store.sources import outside

CATALOGUES = "catalogues"
"""Name under which a manifest's facts have them."""


def items_used(
    recipe: Recipe, files: Iterable[Path], facts: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Of every catalogue, its path and the digests of the items that were used.

    A catalogue that changed since it was noted as a source is left out: what was read of it is
    not known.

    Args:
        files: the catalogues, noted as sources.
        facts: a season's, with the scenes that left a pixel in it.
    """
    other, found = facts["other_orbit"] or {}, []
    wanted = {scene["id"] for scene in (*facts["scenes"], *other.get("scenes", ()))}
    for file in files:
        content = file.read_bytes()
        source = outside(recipe.store.root, file)
        if source in recipe.sources and hashlib.sha256(content).hexdigest() == source["sha256"]:
            used = [digest for name, digest in _items(content) if name in wanted]
            found.append({"path": source["path"], "items": sorted(used)})
    return found


def holds(manifest: Mapping[str, Any] | None, path: str, file: Path) -> bool:
    """Whether a file is a catalogue in which every item that a version used is as it was.

    Args:
        manifest: the version's, of any form.
        path: the file's, as the manifest has it.
        file: where that is.
    """
    try:
        told = [one for one in (manifest or {})["facts"][CATALOGUES] if one["path"] == path]
        there = {digest for _, digest in _items(file.read_bytes())}
        return bool(told) and all(there.issuperset(one["items"]) for one in told)
    except (OSError, KeyError, TypeError, ValueError, AttributeError):
        return False


def _items(content: bytes) -> list[tuple[str, str]]:
    """Name and digest of every entry of a collection, however it is written down."""
    from popcorn_ml.imagery.stac_items import name_of

    return [
        (
            name_of(item),
            hashlib.sha256(json.dumps(item, sort_keys=True).encode()).hexdigest(),
        )
        for item in json.loads(content)["features"]
    ]
