"""Measurements against stated bounds, each run as `python -m benchmarks.<name> [--json]`."""
