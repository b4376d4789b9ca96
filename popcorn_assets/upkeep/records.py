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

from popcorn_assets.audit.recorded import Place, newest_accepted, place_of
from popcorn_assets.partitions import partition_key
from popcorn_assets.show import MANIFEST_SHA256, PICTURE, as_metadata, shown_picture
from popcorn_assets.store.versions import (
    LATEST,
    MANIFEST,
    REJECTED,
    Address,
    Store,
    Version,
    failed_checks,
    sha256,
)
from popcorn_ml.errors import StoreError

Told = Literal["recorded", "there already", "left out"]


def record_again(instance: dg.DagsterInstance, store: Store) -> list[tuple[Address, Told, str]]:
    """Report every current version that an instance has no materialisation of.

    And what was made since and rejected, so that its verdict holds up what it held up before.

    Returns:
        Each address of the store that has a `LATEST` or a `REJECTED`; what became of it; and its
        version or, where it was left out, why.

    Raises:
        StoreError: the warehouse cannot be read.
    """
    warehouse = _current(store)
    told: list[tuple[Address, Told, str]] = []
    missing: list[tuple[float, dg.AssetMaterialization]] = []
    for address in published(store):
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
        newest = newest_accepted(instance, address)
        finished = datetime.fromisoformat(manifest["finished"]).timestamp()
        if newest is not None and newest.version == found.version:
            told.append((address, "there already", found.version))
        elif newest is not None and newest.when > finished:
            why = f"Dagster has a later materialisation, version {newest.version or '(none)'}"
            told.append((address, "left out", why))
        else:
            missing.append((finished, _materialisation(instance, found, manifest, digest)))
            told.append((address, "recorded", found.version))
    for address in published(store, REJECTED):
        rejected = _rejected(instance, store, address)
        if rejected is not None:
            missing.append(rejected)
            version = rejected[1].metadata["version"].value
            told.append((address, "recorded", f"{version}, rejected"))
    # In the order in which they were made: where the record does not say from what, Dagster goes by
    # time to tell what is older than its inputs.
    for _, event in sorted(missing, key=itemgetter(0)):
        instance.report_runless_asset_event(event)
    return told


def _rejected(
    instance: dg.DagsterInstance, store: Store, address: Address
) -> tuple[float, dg.AssetMaterialization] | None:
    """The materialisation of what was rejected last, and when, unless an instance has a record."""
    from popcorn_ml.warehouse.warehouse import Warehouse

    try:
        found = store.rejected(address)
        if found is None:
            return None
        manifest, digest = found.manifest(), found.manifest_sha256()
    except (StoreError, OSError):
        return None  # the audit tells of it
    known = Warehouse(store.warehouse).manifests_of(address.asset, address.country, address.year)
    newest = instance.get_latest_materialization_event(dg.AssetKey(address.asset))
    if address.country:
        wanted = dg.AssetRecordsFilter(
            dg.AssetKey(address.asset), asset_partitions=[_partition(address)]
        )
        records = instance.fetch_materializations(wanted, limit=1).records
        newest = records[0].event_log_entry if records else None
    event = newest.asset_materialization if newest else None
    there = event is not None and event.metadata.get(MANIFEST_SHA256)
    if digest not in known or (there and there.value == digest):
        return None
    finished = datetime.fromisoformat(manifest["finished"]).timestamp()
    return finished, _materialisation(instance, found, manifest, digest)


def published(store: Store, pointer: str = LATEST) -> list[Address]:
    """Every address with a `LATEST`; what no address can be called is nobody's version."""
    found = []
    for pattern in (f"*/{pointer}", f"*/*/*/{pointer}"):
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


def _partition(address: Address) -> dg.MultiPartitionKey:
    assert address.country is not None
    assert address.year is not None
    return partition_key(address.country, address.year)


def _materialisation(
    instance: dg.DagsterInstance, version: Version, manifest: dict[str, Any], digest: str
) -> dg.AssetMaterialization:
    """What the run that made a version told Dagster of it, as far as its folder says."""
    address = version.address
    tags = {DATA_VERSION_TAG: version.version, DATA_VERSION_IS_USER_PROVIDED_TAG: "true"}
    partition = _partition(address) if address.country else None
    if partition is not None:
        tags |= get_tags_from_multi_partition_key(partition)
    metadata = as_metadata(
        shown_picture(version.path / PICTURE, instance),
        dict(manifest["shown"]),
        path=version.path,
        version=version.version,
        manifest_sha256=digest,
        rejected=", ".join(check["name"] for check in failed_checks(version)),
    )
    return dg.AssetMaterialization(
        asset_key=dg.AssetKey(address.asset),
        description=f"recorded again; made by run {manifest['run_id']}, {manifest['finished']}",
        metadata=metadata,
        partition=partition,
        tags=tags,
    )
