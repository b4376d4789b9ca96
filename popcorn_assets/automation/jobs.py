"""Jobs: what an operator, a schedule or a sensor starts as a whole."""

import dagster as dg

from popcorn_assets.assets.census import COUNTS, UNITS
from popcorn_assets.partitions import COUNTRY_YEAR
from popcorn_ml.sentinel import SEASONS, SENSORS, Season

COUNTRY_YEAR_JOB = "country_year"
REFRESH_JOB = "refresh"
TRAIN_JOB = "train"
CENSUS_JOB = "census"
INGEST_JOB = "ingest"
PUBLISH_JOB = "publish"

TRAINED_ONLY = dg.AssetSelection.assets("checkpoints")

FOLLOWS_A_MAP = dg.AssetSelection.groups(
    "maps", "evaluation", "publication"
) - dg.AssetSelection.assets("population_map")
"""What is made from a population map; an asset joins by its group."""


def season_assets(season: Season) -> list[dg.AssetKey]:
    """The composites of one season, of both sensors."""
    return [dg.AssetKey(f"{sensor}_{season}") for sensor in SENSORS]


country_year = dg.define_asset_job(
    COUNTRY_YEAR_JOB,
    selection=dg.AssetSelection.all(),
    partitions_def=COUNTRY_YEAR,
    description="Everything of a country-year: imagery, census, training, maps, evaluation.",
)

refresh = dg.define_asset_job(
    REFRESH_JOB,
    selection=dg.AssetSelection.all() - TRAINED_ONLY,
    partitions_def=COUNTRY_YEAR,
    description="A country-year mapped with the deployed model; nothing is trained.",
)

train = dg.define_asset_job(
    TRAIN_JOB,
    selection=TRAINED_ONLY.upstream(),
    partitions_def=COUNTRY_YEAR,
    description="The checkpoints of a country-year and all they need.",
)

census = dg.define_asset_job(
    CENSUS_JOB,
    selection=dg.AssetSelection.assets(UNITS, COUNTS),
    partitions_def=COUNTRY_YEAR,
    description="Census units and counts of a country-year, read again from their files.",
)

ingest = dg.define_asset_job(
    INGEST_JOB,
    selection=dg.AssetSelection.assets(*(key for s in SEASONS for key in season_assets(s))),
    partitions_def=COUNTRY_YEAR,
    description="Composites of a country-year; the schedules take one season of both sensors.",
)

publish = dg.define_asset_job(
    PUBLISH_JOB,
    selection=FOLLOWS_A_MAP,
    partitions_def=COUNTRY_YEAR,
    description="What follows a population map: adjusted to the census, per hectare, evaluated, "
    "published.",
)

jobs = [country_year, refresh, train, census, ingest, publish]
