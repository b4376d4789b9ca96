"""Jobs: what an operator, a schedule or a sensor starts as a whole."""

import dagster as dg

from popcorn_assets.assets.census import COUNTS, UNITS
from popcorn_assets.partitions import COUNTRY_YEAR
from popcorn_ml.sentinel import SEASONS, SENSORS, Season

COUNTRY_YEAR_JOB = "country_year"
REFRESH_JOB = "refresh"
TRAIN_JOB = "train"
DISTIL_JOB = "distil"
PREPARE_JOB = "prepare"
CENSUS_JOB = "census"
INGEST_JOB = "ingest"
PUBLISH_JOB = "publish"

AGAIN = (
    "start it again for the same partition with the tag `popcorn/reuse: true`, or re-execute it "
    "from failure, or type `popcorn run COUNTRY YEAR --job ...`; what is made stays made."
)
"""How to go on with any of them."""

TRAINED_ONLY = dg.AssetSelection.assets("checkpoints", "student")

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
    description="Start here for a new country: everything of a country-year, from imagery and "
    "census over training to maps, evaluation and publication. Hours to days for a country of "
    "some size, most of it imagery and training; `popcorn imagery estimate` says what will be "
    f"fetched. Failed or ended: {AGAIN}",
)

refresh = dg.define_asset_job(
    REFRESH_JOB,
    selection=dg.AssetSelection.all() - TRAINED_ONLY,
    partitions_def=COUNTRY_YEAR,
    description="A map of another year, or the same one anew: imagery, census and maps with the "
    "model in use; nothing is trained. Needs checkpoints, of here or named by `model:` in the "
    f"country's file. Failed or ended: {AGAIN}",
)

train = dg.define_asset_job(
    TRAIN_JOB,
    selection=TRAINED_ONLY.upstream(),
    partitions_def=COUNTRY_YEAR,
    description="A new model: checkpoints of a country-year and all they need, and the student of "
    "a country whose file says `kind: student`; no map. Whether "
    "they come into use is decided when a map is made; look at `deployed_model` and its "
    f"candidates, or type `popcorn models COUNTRY`. Failed or ended: {AGAIN}",
)

distil = dg.define_asset_job(
    DISTIL_JOB,
    selection=dg.AssetSelection.assets("student").upstream(),
    partitions_def=COUNTRY_YEAR,
    description="A student of a country-year's checkpoints, whatever the country's file says, and "
    "all it needs: to see how it does before `kind: student` is written there. Nothing maps with "
    f"it before somebody promotes it. Failed or ended: {AGAIN}",
)

prepare = dg.define_asset_job(
    PREPARE_JOB,
    selection=TRAINED_ONLY.upstream() - TRAINED_ONLY,
    partitions_def=COUNTRY_YEAR,
    description="For the training of another country: imagery, built-up score and census of a "
    "country-year that another country's file names under `training.countries`. Nothing is trained "
    f"or mapped. Failed or ended: {AGAIN}",
)

census = dg.define_asset_job(
    CENSUS_JOB,
    selection=dg.AssetSelection.assets(UNITS, COUNTS),
    partitions_def=COUNTRY_YEAR,
    description="After a census file or its settings changed: units and counts of a country-year, "
    "read again from their files, and whether they join. Minutes. Failed: the check names file and "
    "row; then `publish` takes them into the map.",
)

ingest = dg.define_asset_job(
    INGEST_JOB,
    selection=dg.AssetSelection.assets(*(key for s in SEASONS for key in season_assets(s))),
    partitions_def=COUNTRY_YEAR,
    description="Imagery ahead of time: the composites of a country-year, all four seasons of both "
    "sensors; the schedules take one season as it closes. Failed: a source that did not answer is "
    f"asked again for what is missing: {AGAIN}",
)

publish = dg.define_asset_job(
    PUBLISH_JOB,
    selection=FOLLOWS_A_MAP,
    partitions_def=COUNTRY_YEAR,
    description="After a new census, or to have maps published anew: what follows a population "
    "map, that is adjusted to the census, per hectare, evaluated, published. Nothing is fetched, "
    f"trained or mapped. Failed or ended: {AGAIN}",
)

jobs = [country_year, refresh, train, distil, prepare, census, ingest, publish]
