"""How a check says what it found: a verdict, a sentence, what to do, and its numbers."""

from typing import Any

import dagster as dg

from popcorn_assets.partitions import country_and_year
from popcorn_assets.resources import StoreResource
from popcorn_assets.show import markdown_table
from popcorn_assets.store.versions import Address, Version

ROWS_SHOWN = 20


def latest(context: dg.AssetCheckExecutionContext, store: StoreResource, asset: str) -> Version:
    """The current version of an asset, of the check's own country-year."""
    return store.open().latest(Address(asset, *country_and_year(context)))


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
    metadata = {name.replace("_", " "): value for name, value in numbers.items()
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
