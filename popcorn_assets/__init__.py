"""The orchestration: Dagster assets that call popcorn_ml and record what they made from what."""
