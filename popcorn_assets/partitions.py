"""Country x year: one object, shared by every partitioned asset.

Two definitions over the same names would pass Dagster's validation and then miss each other's
partitions, so nothing else in the project makes one.
"""

from __future__ import annotations

import dagster as dg

from popcorn_assets.country import country_codes

FIRST_YEAR = 2016

YEARS = dg.TimeWindowPartitionsDefinition(
    # The running year is a partition too: its seasons are ingested as they close.
    cron_schedule="0 0 1 1 *",
    start=str(FIRST_YEAR),
    fmt="%Y",
    end_offset=1,
)

COUNTRY_YEAR = dg.MultiPartitionsDefinition(
    {"country": dg.StaticPartitionsDefinition(country_codes()), "year": YEARS}
)


def partition_key(country: str, year: int) -> dg.MultiPartitionKey:
    """The key of a country-year, `rwa|2020` when written out."""
    return dg.MultiPartitionKey({"country": country, "year": str(year)})


def country_and_year(
    context: dg.OpExecutionContext | dg.AssetExecutionContext | dg.AssetCheckExecutionContext,
) -> tuple[str, int]:
    """Which country-year a step works on."""
    # A run that a script asked for may carry the key as text alone, without a tag a dimension.
    key = COUNTRY_YEAR.get_partition_key_from_str(str(context.partition_key))
    return key.keys_by_dimension["country"], int(key.keys_by_dimension["year"])
