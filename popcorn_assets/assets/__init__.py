"""The assets, one module a stage, in the order the data flows: imagery, built-up area, census,
training, the deployed model, maps, evaluation, change.

Each body reads like a sentence and calls `popcorn_ml`; what a version is and how it is recorded is
`store`'s business, and where a step runs `runs`'s.
"""
