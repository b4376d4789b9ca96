"""The one Definitions object. Importing it reads the country files and computes nothing."""

from __future__ import annotations

import dagster as dg

from popcorn_assets import automation
from popcorn_assets.assets import (
    builtup,
    census,
    change,
    deployed_model,
    evaluation,
    imagery,
    maps,
    publication,
    student,
    training,
)
from popcorn_assets.checks import checks
from popcorn_assets.described import described
from popcorn_assets.promotion import jobs as promotion
from popcorn_assets.resources import ImageryResource, StoreResource, compute_resource
from popcorn_assets.runs.executors import executor
from popcorn_assets.store.step_values import JsonIOManager

defs = dg.Definitions(
    assets=described(
        automation.automated(
            [
                *imagery.assets,
                *census.assets,
                *builtup.assets,
                *training.assets,
                *student.assets,
                *deployed_model.assets,
                *maps.assets,
                *evaluation.assets,
                *change.assets,
                *publication.assets,
            ]
        )
    ),
    asset_checks=checks,
    jobs=[*automation.jobs, *promotion.jobs],
    schedules=automation.schedules,
    sensors=automation.sensors,
    resources={
        "store": StoreResource(),
        "imagery": ImageryResource(),
        "compute": compute_resource(),
        "io_manager": JsonIOManager(),
    },
    executor=executor(),
)
