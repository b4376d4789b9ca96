"""What the warehouse keeps of a manifest: its address, and its rows of the lineage tables."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any


def address_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Asset, country and year of a manifest or of one of its inputs; "" and 0 if unpartitioned."""
    return {
        "asset": entry["asset"],
        "country": entry["country"] or "",
        "year": entry["year"] or 0,
    }


def publication_of(manifest: Mapping[str, Any], manifest_sha256: str) -> dict[str, Any]:
    """What the rows of a publication start with in every lineage table."""
    return {
        **address_of(manifest),
        "version": manifest["version"],
        "manifest_sha256": manifest_sha256,
    }


def lineage_rows(manifest: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """A manifest's rows of `versions` and the lineage tables, without what `publication_of` says.

    `versions` says `current`, which only the newest publication of a partition is.
    """
    code = manifest["code"]
    facts = manifest["facts"]
    other = facts.get("other_orbit") or {}
    scenes = [*(facts.get("scenes") or []), *(other.get("scenes") or [])]
    return {
        "versions": [
            {
                **{name: manifest[name] for name in ("recipe", "run_id", "started", "finished")},
                "code_version": code["version"],
                "code_commit": code.get("commit"),
                "code_modified": code.get("modified"),
                "current": True,
                "removed": False,
            }
        ],
        "version_inputs": [
            {
                **{f"input_{name}": value for name, value in address_of(entry).items()},
                "input_version": entry["version"],
            }
            for entry in manifest["inputs"]
        ],
        "version_sources": [
            {
                "path": source["path"],
                "file": os.path.basename(source["path"]),
                "bytes": source["size"],
                "sha256": source["sha256"],
            }
            for source in (*manifest["sources"], *facts.get("scene_files", ()))
        ],
        "version_files": [
            {"file": name, "bytes": entry["size"], "sha256": entry["sha256"]}
            for name, entry in manifest["files"].items()
        ],
        "version_scenes": [
            {
                "scene": scene["id"],
                "taken": scene.get("datetime"),
                "platform": scene.get("platform"),
                "href": scene.get("href"),
            }
            for scene in scenes
        ],
        "version_tables": [
            {"name": name, "row_count": entry["rows"], "digest": entry["digest"]}
            for name, entry in manifest["tables"].items()
        ],
    }


def chained(previous: str, values: Sequence[object]) -> str:
    """What a receipt's row keeps of itself and of the one before it, so that a change shows."""
    text = json.dumps([previous, *values], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
