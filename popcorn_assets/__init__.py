"""The orchestration: Dagster assets that call popcorn_ml and record what they made from what."""

import warnings

import dagster as dg

import popcorn_ml  # noqa: F401  puts the environment in order, before any library reads it

# Partitioned checks and data versions on outputs are used on purpose, the release being pinned.
for _notice in (dg.PreviewWarning, dg.BetaWarning):
    warnings.filterwarnings("ignore", category=_notice)
