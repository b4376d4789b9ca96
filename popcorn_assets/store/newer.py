"""What has become newer since a version was made from it, near or far.

Dagster's own staleness looks one step back and gives up on many partitions, so manifests are
walked here. Which model maps a country is a decision (`deployed_model`), not an input that goes
stale: newer checkpoints, or a newer student, make no map outdated. A student is outdated by newer
checkpoints all the same, which it learnt from.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from popcorn_assets.store.sources import place_of_source
from popcorn_assets.store.versions import LATEST, Address, Version, sha256
from popcorn_ml.published.versions import Published

PRODUCT = "hectare_map"
"""The asset whose versions are the product."""

DECIDED = ("checkpoints", "student")
"""The assets that go stale by decision alone, but to each other."""


def newer_inputs(store: Published, made: Version) -> list[str]:
    """Which of the things a version was made from have a newer version by now, near or far.

    Returns:
        One sentence each, without doubles; empty when all is current.
    """
    return list(dict.fromkeys(_newer(store, made, set())))


def _newer(store: Published, made: Version, seen: set[tuple[Address, str]]) -> Iterator[str]:
    for entry in made.manifest()["inputs"]:
        address = Address(entry["asset"], entry["country"], entry["year"])
        if (address, entry["version"]) in seen:
            continue
        seen.add((address, entry["version"]))
        if said := newer_input(store, made.address.asset, entry):
            yield said
        elif entry["asset"] not in DECIDED and store.latest(address).version == entry["version"]:
            yield from _newer(store, store.latest(address), seen)


def newer_input(store: Published, asset: str, entry: dict[str, Any]) -> str:
    """What has become of one input of a manifest; empty where it stands as it was used.

    Args:
        asset: whose manifest it is.
    """
    if entry["asset"] in DECIDED and asset not in DECIDED:
        return ""
    address = Address(entry["asset"], entry["country"], entry["year"])
    current = store.find(address)
    if current is None:
        return f"{address} is gone"
    if current.version == entry["version"] or not _differs(current, entry.get("files")):
        return ""
    return f"{address} is now {current.version}, {asset} has {entry['version']}"


def _differs(current: Version, files: dict[str, str] | None) -> bool:
    """Whether a newer version differs in the files that mattered."""
    if files is None:
        return True
    now = current.manifest()["files"]
    return any(now.get(name, {}).get("sha256") != digest for name, digest in files.items())


def published_years(store: Published, country: str) -> list[int]:
    """Years of a country that have a published map."""
    folder = store.root / PRODUCT / country
    years = [int(path.name) for path in folder.glob("[12][0-9][0-9][0-9]") if path.is_dir()]
    return sorted(year for year in years if (folder / str(year) / LATEST).is_file())


def changed_source(root: Path, source: dict[str, Any], finished: str) -> str:
    """What has become of a file from outside that a manifest names; empty where it is as it was.

    It is read again only where its size is the same and it was written since: that takes moments,
    where reading every file would take minutes.

    Args:
        root: the store's.
        source: as the manifest has it.
        finished: when the version was made, as the manifest has it.
    """
    path = place_of_source(root, source["path"])
    try:
        status = path.stat()
    except OSError:
        return f"{source['path']} is no longer there"
    since = status.st_mtime > datetime.fromisoformat(finished).timestamp()
    same = status.st_size == source["size"]
    if same and not (since and sha256(path) != source["sha256"]):
        return ""
    return f"{source['path']} has changed since"
