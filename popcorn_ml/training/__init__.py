"""Weakly supervised training of one ensemble member, from composites and census counts.

`fit.train_member` does it; `python -m popcorn_ml.training spec.json` is the same as a command.
"""
