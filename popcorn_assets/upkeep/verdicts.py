"""Tells Dagster again what the checks say of current versions, after its records were lost.

Without verdicts on record nothing that waits for a blocking check would ever follow a change.
Those that a version's manifest keeps are told as they stand there; the checks that look at what
was published are carried out again, in one run a partition.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluation,
    AssetCheckEvaluationTargetMaterializationData,
)
from dagster._core.event_api import EventLogRecord, PartitionKeyFilter
from dagster._core.storage.asset_check_execution_record import (
    AssetCheckExecutionRecord,
    AssetCheckExecutionRecordStatus,
)

from popcorn_assets.partitions import COUNTRY_YEAR, partition_key
from popcorn_assets.runs.in_process import QUIET, run_here
from popcorn_assets.show import as_check_result
from popcorn_assets.store.versions import Address, Store


@dataclass(frozen=True)
class Verdict:
    """What a check says of a current version.

    Attributes:
        passed: None where the check could not be carried out.
        blocks: whether it failed as an error of a blocking check.
        text: what it said, or why it could not be carried out.
    """

    address: Address
    check: str
    passed: bool | None
    blocks: bool
    text: str


def judge_again(
    instance: dg.DagsterInstance,
    store: Store,
    defs: dg.Definitions,
    addresses: Iterable[Address],
    anew: Iterable[Address] = (),
) -> list[Verdict]:
    """Put the verdicts on current versions on record that are not there.

    Args:
        addresses: whose versions Dagster has a materialisation of.
        anew: those whose older verdicts are of another materialisation: all are told.

    Returns:
        The verdicts that were told, and the checks that could not be carried out.

    Raises:
        StoreError: a version cannot be read.
    """
    graph, again = defs.resolve_asset_graph(), set(anew)
    separate = {
        key
        for check in defs.asset_checks or ()
        if isinstance(check, dg.AssetChecksDefinition)
        for key in check.check_keys
    }
    told: list[Verdict] = []
    to_run: dict[dg.MultiPartitionKey | None, dict[dg.AssetCheckKey, Address]] = defaultdict(dict)
    for address in dict.fromkeys(addresses):
        asset = dg.AssetKey(address.asset)
        keys = set(graph.get(asset).check_keys) if graph.has(asset) else set()
        if address not in again:
            keys -= _on_record(instance, keys, address)
        kept = {check["name"]: check for check in store.newest(address).manifest()["checks"]}
        for key in sorted(keys):
            if key in separate:
                to_run[_partition(address)][key] = address
            elif key.name in kept:
                result, blocking = as_check_result(kept[key.name]), graph.get(key).blocking
                told.append(_tell(instance, address, key, result, blocking))
    for partition, checks in to_run.items():
        told += _carry_out(instance, defs, partition, checks)
    return told


def _partition(address: Address) -> dg.MultiPartitionKey | None:
    if address.country is None or address.year is None:
        return None
    return partition_key(address.country, address.year)


def _on_record(
    instance: dg.DagsterInstance, keys: set[dg.AssetCheckKey], address: Address
) -> set[dg.AssetCheckKey]:
    """Checks whose verdict on what is there now is on record, or in the making."""
    newest = _newest(instance, dg.AssetKey(address.asset), _partition(address))
    found = instance.event_log_storage.get_latest_asset_check_execution_by_key(
        sorted(keys), PartitionKeyFilter(key=_partition(address))
    )
    return {key for key, latest in found.items() if _is_of(instance, latest, newest)}


def _is_of(
    instance: dg.DagsterInstance,
    latest: AssetCheckExecutionRecord,
    newest: EventLogRecord,
) -> bool:
    """Whether a check's latest execution judged a materialisation, or is about to.

    One that was planned and never ended hides any verdict before it from Dagster, too.
    """
    if latest.status == AssetCheckExecutionRecordStatus.PLANNED:
        run = instance.get_run_by_id(latest.run_id)
        return run is not None and not run.is_finished
    target = latest.evaluation.target_materialization_data if latest.evaluation else None
    if target is None:  # judged by the step that made an asset without partitions
        return latest.run_id == newest.run_id
    return target.storage_id == newest.storage_id


def _newest(
    instance: dg.DagsterInstance, asset: dg.AssetKey, partition: dg.MultiPartitionKey | None
) -> EventLogRecord:
    """The newest materialisation, which is there for every address to be judged."""
    wanted = dg.AssetRecordsFilter(asset, asset_partitions=partition and [partition])
    (newest,) = instance.fetch_materializations(wanted, limit=1).records
    return newest


def _tell(
    instance: dg.DagsterInstance,
    address: Address,
    key: dg.AssetCheckKey,
    result: dg.AssetCheckResult,
    blocking: bool,
) -> Verdict:
    """Put a verdict from a manifest on record, of the newest materialisation."""
    partition = _partition(address)
    newest = _newest(instance, key.asset_key, partition)
    instance.report_runless_asset_event(
        AssetCheckEvaluation(
            asset_key=key.asset_key,
            check_name=key.name,
            passed=result.passed,
            metadata=result.metadata,
            target_materialization_data=AssetCheckEvaluationTargetMaterializationData(
                storage_id=newest.storage_id, run_id=newest.run_id, timestamp=newest.timestamp
            ),
            severity=result.severity,
            description=result.description,
            blocking=blocking,
            partition=partition,
        )
    )
    return _verdict(address, key, result, blocking)


def _verdict(
    address: Address,
    key: dg.AssetCheckKey,
    said: dg.AssetCheckResult | AssetCheckEvaluation,
    blocking: bool,
) -> Verdict:
    error = not said.passed and said.severity == dg.AssetCheckSeverity.ERROR
    return Verdict(address, key.name, said.passed, error and blocking, said.description or "")


def _carry_out(
    instance: dg.DagsterInstance,
    defs: dg.Definitions,
    partition: dg.MultiPartitionKey | None,
    checks: dict[dg.AssetCheckKey, Address],
) -> Iterator[Verdict]:
    """Carry checks of a partition out, in a run in this process."""

    def without(text: str) -> Iterator[Verdict]:
        for key, address in checks.items():
            yield Verdict(address, key.name, None, False, text)

    if partition is not None and partition not in COUNTRY_YEAR.get_partition_keys():
        yield from without("no country file has this partition")
        return
    run_id = str(uuid.uuid4())
    job = defs.resolve_implicit_global_asset_job_def().get_subset(asset_check_selection={*checks})
    result = run_here(instance, job, run_id=run_id, partition=partition, run_config=QUIET)
    graph = defs.resolve_asset_graph()
    said = {one.asset_check_key: one for one in result.get_asset_check_evaluations()}
    for key, address in checks.items():
        if key in said:
            yield _verdict(address, key, said[key], graph.get(key).blocking)
        else:
            yield Verdict(address, key.name, None, False, f"see run {run_id}")
