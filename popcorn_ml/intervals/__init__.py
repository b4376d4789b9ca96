"""How far to trust a sum of people: error models, intervals of hectares, units and any zones.

`law` is the error law, `fitting` finds its constants from units that were predicted without having
been seen, `model` keeps them with what they rest on, `units` does so for a map; `hectares` writes
rasters, `zones` answers for any zones, `coverage` says how many intervals hold.
"""

from popcorn_ml.intervals.model import MODEL_FILE, ErrorModel, IntervalError, read_model
from popcorn_ml.intervals.zones import MapFiles, people_in

__all__ = ["MODEL_FILE", "ErrorModel", "IntervalError", "MapFiles", "people_in", "read_model"]
