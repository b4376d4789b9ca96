"""The student: one small network that says of a place what a whole ensemble says of its seasons.

It learns from the ensemble's map, adjusted to the census, never from what evaluation measures
against. How it maps is `popcorn_ml.mapping.student`.
"""
