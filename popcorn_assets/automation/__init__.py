"""What starts as a whole, and what starts by itself: jobs, schedules, sensors, conditions."""

from popcorn_assets.automation.conditions import automated, follow_up
from popcorn_assets.automation.country_files import country_files_sensor
from popcorn_assets.automation.failures import run_failures
from popcorn_assets.automation.inbox import census_inbox
from popcorn_assets.automation.jobs import (
    CENSUS_JOB,
    COUNTRY_YEAR_JOB,
    INGEST_JOB,
    PREPARE_JOB,
    PUBLISH_JOB,
    REFRESH_JOB,
    TRAIN_JOB,
    jobs,
)
from popcorn_assets.automation.schedules import schedules
from popcorn_assets.automation.stale import stale_maps

sensors = [census_inbox, country_files_sensor, run_failures, stale_maps, follow_up]

__all__ = [
    "CENSUS_JOB",
    "COUNTRY_YEAR_JOB",
    "INGEST_JOB",
    "PREPARE_JOB",
    "PUBLISH_JOB",
    "REFRESH_JOB",
    "TRAIN_JOB",
    "automated",
    "census_inbox",
    "jobs",
    "schedules",
    "sensors",
]
