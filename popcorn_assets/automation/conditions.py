"""What follows a new population map or a new census by itself, and how long maps stay fresh.

An asset is requested once for every change of what it is made from: after a failure it waits for
the next change, or for an operator. The sensor that evaluates this is off until switched on.
"""

from collections.abc import Iterable
from datetime import timedelta

import dagster as dg
from dagster._core.asset_graph_view.asset_graph_view import AssetGraphView
from dagster._core.event_api import PartitionKeyFilter
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionResolvedStatus

from popcorn_assets.automation.jobs import FOLLOWS_A_MAP
from popcorn_assets.store.making import REUSE_TAG

FOLLOWING_GROUPS = ("maps", "evaluation", "publication")
MAY_LACK = {"change": dg.AssetSelection.assets("hectare_map")}
"""A country's first year has no map of the year before; its own is made in the same run."""

FRESH = dg.FreshnessPolicy.time_window(
    warn_window=timedelta(days=395), fail_window=timedelta(days=430)
)
"""A year and a month between two refreshes is late, two months more is a missed refresh."""


class NoBlockingCheckFailed(dg.AutomationCondition[dg.AssetKey]):
    """True where every blocking check upstream passed, or failed as a warning only.

    To Dagster's own `all_deps_blocking_checks_passed()` a failed check is a failed check; here a
    warning holds nothing up. What will be made in the same run is judged there.
    """

    @property
    def name(self) -> str:
        return "no_blocking_check_failed"

    async def evaluate(  # type: ignore[override]
        self, context: dg.AutomationContext[dg.AssetKey]
    ) -> dg.AutomationResult[dg.AssetKey]:
        view, graph = context.asset_graph_view, context.asset_graph_view.asset_graph
        partitions = graph.get(context.key).partitions_def
        keys = set(context.candidate_subset.expensively_compute_partition_keys())
        if partitions is None or not keys:  # whatever follows a map has partitions
            return dg.AutomationResult(context, true_subset=context.get_empty_subset())
        for parent in graph.get(context.key).parent_keys:
            checks = [c for c in graph.get(parent).check_keys if graph.get(c).blocking]
            if not checks or graph.get(parent).partitions_def is None:
                continue
            made_now = context.request_subsets_by_key.get(parent)
            requested = made_now.expensively_compute_partition_keys() if made_now else set()
            needed = {  # of the parent, for each partition: its own, or another year's as well
                key: view.compute_parent_subset(
                    parent, view.get_subset_from_partition_keys(context.key, partitions, {key})
                ).expensively_compute_partition_keys()
                for key in keys
            }
            every = {key for of_one in needed.values() for key in of_one}
            for check in checks:
                fine = requested | await _not_held_up(view, check, every)
                keys = {key for key in keys if needed[key] <= fine}
        return dg.AutomationResult(
            context, true_subset=view.get_subset_from_partition_keys(context.key, partitions, keys)
        )


async def _not_held_up(view: AssetGraphView, check: dg.AssetCheckKey, keys: set[str]) -> set[str]:
    """Partitions whose check passed for what is there now, or failed as a warning."""
    status = AssetCheckExecutionResolvedStatus
    everything = view.get_full_subset(key=check)
    passed = await view.compute_subset_with_status(check, status.SUCCEEDED, everything)
    failed = await view.compute_subset_with_status(check, status.FAILED, everything)
    return keys & passed.expensively_compute_partition_keys() | {
        key
        for key in keys & failed.expensively_compute_partition_keys()
        if _severity(view.instance, check, key) == dg.AssetCheckSeverity.WARN
    }


def _severity(
    instance: dg.DagsterInstance, check: dg.AssetCheckKey, partition: str
) -> dg.AssetCheckSeverity | None:
    """Severity of a check's latest verdict on a partition."""
    found = instance.event_log_storage.get_latest_asset_check_execution_by_key(
        [check], PartitionKeyFilter(key=partition)
    ).get(check)
    evaluation = found.evaluation if found else None
    return evaluation.severity if evaluation else None


def follows(may_lack: dg.AssetSelection | None = None) -> dg.AutomationCondition:
    """When to make again what is made from a population map.

    Something it depends on was updated since it was last made, requested or failed, nothing
    upstream is missing or in the making, and no blocking check failed. Unlike `eager()`, of any
    year, and never because it is merely missing. Failures count, because the run of a whole job
    does not say what it was to make, and its failure must not be taken for a change left undone.

    Args:
        may_lack: of what it is made from, what need not be there, such as another year's map.
    """
    condition = dg.AutomationCondition
    handled = (
        condition.newly_requested()
        | condition.newly_updated()
        | condition.initial_evaluation()
        | condition.execution_failed().newly_true()
    ).with_label("made_requested_or_failed")
    missing = condition.any_deps_missing()
    return (
        condition.any_deps_updated().since(handled)
        & ~(missing.ignore(may_lack) if may_lack is not None else missing)
        & ~condition.any_deps_in_progress()
        & ~condition.in_progress()
        & NoBlockingCheckFailed()  # last, when few candidates are left
    ).with_label("follows_what_it_is_made_from")


def automated(assets: Iterable[dg.AssetsDefinition]) -> list[dg.AssetsDefinition]:
    """The assets, those that follow a population map with their condition and freshness policy."""

    def follow(spec: dg.AssetSpec) -> dg.AssetSpec:
        if spec.group_name not in FOLLOWING_GROUPS or spec.key.to_user_string() == "population_map":
            return spec
        condition = follows(MAY_LACK.get(spec.key.to_user_string()))
        return spec.replace_attributes(automation_condition=condition, freshness_policy=FRESH)

    return [asset.map_asset_specs(follow) for asset in assets]


follow_up = dg.AutomationConditionSensorDefinition(
    "follow_up",
    target=FOLLOWS_A_MAP,
    minimum_interval_seconds=60,
    run_tags={REUSE_TAG: "true"},
    use_user_code_server=True,  # a condition of our own is evaluated where it is defined
    description="Makes what follows a population map or a census that was made by itself: adjusted "
    "to the census, per hectare, evaluated. Once for every change, never because it failed.",
)
