"""The orchestration: Dagster assets that call popcorn_ml and record what they made from what."""

import warnings

from dagster_shared.utils.warnings import BetaWarning, PreviewWarning

import popcorn_ml  # noqa: F401  puts the environment in order, before any library reads it

# Partitioned checks and data versions on outputs are used on purpose, the release being pinned.
for _notice in (PreviewWarning, BetaWarning):
    warnings.filterwarnings("ignore", category=_notice)
