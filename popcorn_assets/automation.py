"""Jobs: what an operator starts as a whole. One run makes one country-year."""

import dagster as dg

from popcorn_assets.partitions import COUNTRY_YEAR

COUNTRY_YEAR_JOB = "country_year"
REFRESH_JOB = "refresh"
TRAIN_JOB = "train"

_TRAINED_ONLY = dg.AssetSelection.assets("checkpoints")

country_year = dg.define_asset_job(
    COUNTRY_YEAR_JOB,
    selection=dg.AssetSelection.all(),
    partitions_def=COUNTRY_YEAR,
    description="Everything of a country-year: imagery, census, training, maps, evaluation.",
)

refresh = dg.define_asset_job(
    REFRESH_JOB,
    selection=dg.AssetSelection.all() - _TRAINED_ONLY,
    partitions_def=COUNTRY_YEAR,
    description="A country-year mapped with the deployed model; nothing is trained.",
)

train = dg.define_asset_job(
    TRAIN_JOB,
    selection=_TRAINED_ONLY.upstream(),
    partitions_def=COUNTRY_YEAR,
    description="The checkpoints of a country-year and all they need.",
)

jobs = [country_year, refresh, train]
