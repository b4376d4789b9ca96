"""How a check says what it found: a verdict, a sentence, what to do, and its numbers."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from popcorn_assets.partitions import country_and_year
from popcorn_assets.resources import StoreResource
from popcorn_assets.show import as_check_result, markdown_table
from popcorn_assets.store.versions import Address, Version
from popcorn_assets.wording import rounded
from popcorn_ml.mapping.checks import MapCheck

ROWS_SHOWN = 20

FEWEST = 10
"""Units on which two ways of mapping are compared at least: on fewer, chance decides."""


def latest(context: dg.AssetCheckExecutionContext, store: StoreResource, asset: str) -> Version:
    """The current version of an asset, of the check's own country-year."""
    return store.open().latest(Address(asset, *country_and_year(context)))


def newest(context: dg.AssetCheckExecutionContext, store: StoreResource, asset: str) -> Version:
    """The version that was made last, current or rejected, of the check's own country-year."""
    return store.open().newest(Address(asset, *country_and_year(context)))


def kept(
    context: dg.AssetCheckExecutionContext,
    version: Version,
    name: str,
    held_against: Mapping[str, Any] | None = None,
) -> dg.AssetCheckResult | None:
    """What a version's manifest says a check found, for the run that made it; None otherwise.

    Whoever asks again later wants what lies there now to be judged.

    Args:
        held_against: numbers that the verdict must have, such as the version it was held against.
    """
    manifest = version.manifest()
    if manifest["run_id"] != context.run.run_id:
        return None
    for check in manifest["checks"]:
        wanted = (held_against or {}).items() <= check["metadata"].items()
        if check["name"] == name and wanted:
            return as_check_result(check)
    return None


def said(check: MapCheck) -> dg.AssetCheckResult:
    """A verdict on files as Dagster's."""
    warns = check.severity == "warn"
    return verdict(check.passed, check.found, remedy=check.remedy, warns=warns, **check.metadata)


def not_judged(message: str, *, remedy: str, **numbers: Any) -> dg.AssetCheckResult:
    """A warning that there was nothing, or too little, to judge by: that is no pass."""
    return verdict(False, f"not judged: {message}", remedy=remedy, warns=True, **numbers)


def verdict(
    passed: bool,
    message: str,
    *,
    remedy: str = "",
    warns: bool = False,
    rows: list[dict[str, Any]] | None = None,
    **numbers: Any,
) -> dg.AssetCheckResult:
    """A check's result.

    Args:
        message: what was found, with the bound it was held against.
        remedy: what to do, in the imperative; said when it failed.
        warns: whether a failure is a warning, which stops nothing.
        rows: the worst offenders, the worst first.
        numbers: shown beside it; None is left out.
    """
    metadata = {name.replace("_", " "): rounded(value) for name, value in numbers.items()
                if value is not None}  # fmt: skip
    if rows:
        metadata["rows"] = dg.MetadataValue.md(markdown_table(rows[:ROWS_SHOWN]))
    failed = f"{message}. To do: {remedy}" if remedy else message
    return dg.AssetCheckResult(
        passed=bool(passed),
        severity=dg.AssetCheckSeverity.WARN if warns else dg.AssetCheckSeverity.ERROR,
        description=message if passed else failed,
        metadata=metadata,
    )
