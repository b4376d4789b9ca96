"""Tells Dagster again of current versions that it has no record of: after records were lost.

Only what the warehouse has recorded, with the very manifest that lies in the store, is told; a
manifest that was changed, or a version that something newer on record contradicts, is left for
`popcorn audit` to report. Nothing in the store or the warehouse is written.
"""

from __future__ import annotations

from datetime import datetime
from operator import itemgetter
from typing import Any, Literal

import dagster as dg
from dagster._core.definitions.data_version import (
    DATA_VERSION_IS_USER_PROVIDED_TAG,
    DATA_VERSION_TAG,
)
from dagster._core.definitions.partitions.utils import get_tags_from_multi_partition_key

from popcorn_assets.audit.recorded import Place, place_of
from popcorn_assets.partitions import partition_key
from popcorn_assets.show import PICTURE, as_metadata
from popcorn_assets.store.versions import LATEST, MANIFEST, Address, Store, Version, sha256
from popcorn_ml.errors import StoreError

Told = Literal["recorded", "there already", "left out"]


def record_again(instance: dg.DagsterInstance, store: Store) -> list[tuple[Address, Told, str]]:
    """Report every current version that an instance has no materialisation of.

    Returns:
        Each address of the store that has a `LATEST`; what became of it; and its version or,
        where it was left out, why.

    Raises:
        StoreError: the warehouse cannot be read.
    """
    warehouse = _current(store)
    told: list[tuple[Address, Told, str]] = []
    missing: list[tuple[float, dg.AssetMaterialization]] = []
    for address in _published(store):
        try:
            found = store.latest(address)
            manifest, digest = found.manifest(), sha256(found.path / MANIFEST)
        except (StoreError, OSError) as error:
            told.append((address, "left out", str(error).splitlines()[0]))
            continue
        if warehouse.get(place_of(address)) != (found.version, digest):
            why = "the warehouse has not recorded this version with this manifest"
            told.append((address, "left out", why))
            continue
        newest = _newest(instance, address)
        finished = datetime.fromisoformat(manifest["finished"]).timestamp()
        if newest is not None and newest[0] == found.version:
            told.append((address, "there already", found.version))
        elif newest is not None and newest[1] > finished:
            why = f"Dagster has a later materialisation, version {newest[0] or '(none)'}"
            told.append((address, "left out", why))
        else:
            missing.append((finished, _materialisation(found, manifest, digest)))
            told.append((address, "recorded", found.version))
    # In the order in which they were made: where the record does not say from what, Dagster goes by
    # time to tell what is older than its inputs.
    for _, event in sorted(missing, key=itemgetter(0)):
        instance.report_runless_asset_event(event)
    return told


def _published(store: Store) -> list[Address]:
    """Every address with a `LATEST`; what no address can be called is nobody's version."""
    found = []
    for pattern in (f"*/{LATEST}", f"*/*/*/{LATEST}"):
        for path in store.root.glob(pattern):
            asset, *partition = path.parent.relative_to(store.root).parts
            try:
                if partition:
                    found.append(Address(asset, partition[0], int(partition[1])))
                else:
                    found.append(Address(asset))
            except (StoreError, ValueError):
                continue
    return sorted(found, key=str)


def _current(store: Store) -> dict[Place, tuple[str, str]]:
    """Version and manifest's sha256 of what the warehouse says is current."""
    from popcorn_ml.warehouse.warehouse import Warehouse

    if not store.warehouse.is_file():
        raise StoreError(
            "there is no warehouse to compare with",
            where=store.warehouse,
            remedy="restore it from a backup, or materialise the assets again",
        )
    rows = Warehouse(store.warehouse).query(
        "SELECT asset, country, year, version, manifest_sha256 FROM versions WHERE current"
    )
    return {(asset, country, year): (version, told) for asset, country, year, version, told in rows}


def _newest(instance: dg.DagsterInstance, address: Address) -> tuple[str, float] | None:
    """Version and time, in seconds since 1970, of the newest materialisation on record."""
    partitions = [_partition(address)] if address.country else None
    wanted = dg.AssetRecordsFilter(dg.AssetKey(address.asset), asset_partitions=partitions)
    records = instance.fetch_materializations(wanted, limit=1).records
    if not records or records[0].asset_materialization is None:
        return None
    tags = records[0].asset_materialization.tags or {}
    return tags.get(DATA_VERSION_TAG, ""), records[0].timestamp


def _partition(address: Address) -> dg.MultiPartitionKey:
    assert address.country is not None
    assert address.year is not None
    return partition_key(address.country, address.year)


def _materialisation(
    version: Version, manifest: dict[str, Any], digest: str
) -> dg.AssetMaterialization:
    """What the run that made a version told Dagster of it, as far as its folder says."""
    address, picture = version.address, version.path / PICTURE
    tags = {DATA_VERSION_TAG: version.version, DATA_VERSION_IS_USER_PROVIDED_TAG: "true"}
    partition = _partition(address) if address.country else None
    if partition is not None:
        tags |= get_tags_from_multi_partition_key(partition)
    metadata = as_metadata(
        picture.read_bytes() if picture.is_file() else None,
        dict(manifest["shown"]),
        path=version.path,
        version=version.version,
        manifest_sha256=digest,
    )
    return dg.AssetMaterialization(
        asset_key=dg.AssetKey(address.asset),
        description=f"recorded again; made by run {manifest['run_id']}, {manifest['finished']}",
        metadata=metadata,
        partition=partition,
        tags=tags,
    )
