"""Census units and counts: from agencies' files to numbered units on the grid and checked counts.

`settings` is what a country's file says; `readers` turn agencies' files into one shape; `join`
brings people and polygons together; `units` puts polygons on the grid; `projection` moves counts
to a year; `validate` judges; `build` ties these into the two steps that the assets call; `inbox`
takes in new files. Nothing here writes to the warehouse: `popcorn_ml.warehouse` does.
"""
