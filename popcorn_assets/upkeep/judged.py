"""What checks said of a country-year's versions after they were published: on Dagster's record."""

from __future__ import annotations

from typing import Any

import dagster as dg
from dagster._core.event_api import PartitionKeyFilter

JUDGED_AFTER = {
    "checkpoints": ("training_helped", "model_beats_builtup", "no_country_much_worse"),
    "population_map": ("members_agree", "change_since_last_year"),
    "hectare_map": ("intervals_hold", "inputs_are_current"),
    "evaluation": ("map_beats_builtup", "scored_without_truth"),
}
"""Asset -> its checks whose verdict no manifest keeps, since more than the version decides it."""


def judged_after(instance: dg.DagsterInstance, country: str, year: int) -> list[dict[str, Any]]:
    """The latest verdicts on a country-year, as plain values, in the order the data flows.

    Returns:
        Of each check asset, name, whether it passed, whether it only warns, and what it said; a
        check that was never carried out is left out.
    """
    keys = [
        dg.AssetCheckKey(dg.AssetKey(asset), name)
        for asset, names in JUDGED_AFTER.items()
        for name in names
    ]
    found = instance.event_log_storage.get_latest_asset_check_execution_by_key(
        keys, PartitionKeyFilter(key=f"{country}|{year}")
    )
    return [
        {
            "asset": key.asset_key.to_user_string(),
            "name": key.name,
            "passed": said.passed,
            "severity": said.severity.value.lower(),
            "message": said.description or "",
        }
        for key in keys
        if (latest := found.get(key)) is not None and (said := latest.evaluation) is not None
    ]
