"""The one Definitions object. Importing it reads the country files and computes nothing."""

from __future__ import annotations

import dagster as dg

from popcorn_assets import (
    automation,
    builtup,
    census,
    deployment,
    evaluation,
    imagery,
    maps,
    promotion_jobs,
    training,
)
from popcorn_assets.checks import checks
from popcorn_assets.executors import executor
from popcorn_assets.io import JsonIOManager
from popcorn_assets.resources import StoreResource, compute_resource, imagery_resource

defs = dg.Definitions(
    assets=automation.automated(
        [
            *imagery.assets,
            *census.assets,
            *builtup.assets,
            *training.assets,
            *deployment.assets,
            *maps.assets,
            *evaluation.assets,
        ]
    ),
    asset_checks=checks,
    jobs=[*automation.jobs, *promotion_jobs.jobs],
    schedules=automation.schedules,
    sensors=automation.sensors,
    resources={
        "store": StoreResource(),
        "imagery": imagery_resource(),
        "compute": compute_resource(),
        "io_manager": JsonIOManager(),
    },
    executor=executor(),
)
