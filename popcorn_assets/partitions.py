"""Country x year: one object, shared by every partitioned asset.

Two definitions over the same names would pass Dagster's validation and then miss each other's
partitions, so nothing else in the project makes one.
"""

from __future__ import annotations

import re
from datetime import datetime

import dagster as dg

from popcorn_assets.country import country_codes, load_country
from popcorn_ml.errors import ConfigError
from popcorn_ml.sentinel import SEASONS, season_period

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


def trained_together() -> dict[str, list[str]]:
    """Code -> the countries whose units it is trained on, of those with others than themselves."""
    countries = [load_country(code) for code in country_codes()]
    return {one.code: one.trained_on() for one in countries if one.trained_with_others}


def _of_countries_trained_on() -> dg.PartitionMapping | None:
    """What a country-year's training reads: that of each of its countries, in the same year."""
    together = trained_together()
    if not together:
        return None  # each its own, which is what Dagster takes
    codes = country_codes()
    reading = {code: [one for one in codes if code in together.get(one, [one])] for code in codes}
    return dg.MultiPartitionMapping(
        {
            "country": dg.DimensionPartitionMapping("country", dg.StaticPartitionMapping(reading)),
            "year": dg.DimensionPartitionMapping("year", dg.IdentityPartitionMapping()),
        }
    )


OF_COUNTRIES_TRAINED_ON = _of_countries_trained_on()
"""Partitions of imagery and census that a country-year's checkpoints are trained from."""


def partition_key(country: str, year: int) -> dg.MultiPartitionKey:
    """The key of a country-year, `rwa|2020` when written out."""
    return dg.MultiPartitionKey({"country": country, "year": str(year)})


def country_and_year(
    context: dg.OpExecutionContext | dg.AssetExecutionContext | dg.AssetCheckExecutionContext,
) -> tuple[str, int]:
    """Which country-year a step works on."""
    # A run that a script asked for may carry the key as text alone, without a tag a dimension.
    written = str(context.partition_key)
    country, _, year = written.partition("|")
    if not re.fullmatch("[0-9]{4}", year):
        raise ConfigError(
            "the partition is no country and year",
            where="partition",
            expected="COUNTRY|YEAR, such as rwa|2020",
            found=written,
            remedy=f"the partition {year}|{country}" if re.fullmatch("[0-9]{4}", country) else None,
        )
    return country, int(year)


def require_year(year: int, now: datetime) -> None:
    """Refuse a year that there is no imagery of.

    Raises:
        ConfigError: before Sentinel-2's first full year, or none of its seasons has begun.
    """
    last = now.year if season_period(now.year, SEASONS[0]).start <= now else now.year - 1
    if FIRST_YEAR <= year <= last:
        return
    raise ConfigError(
        f"there is no imagery of {year}",
        expected=f"a year from {FIRST_YEAR}, the first with scenes of both satellites, to {last}",
        found=year,
    )
