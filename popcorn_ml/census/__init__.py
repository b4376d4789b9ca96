"""Census units and counts: from agencies' files to numbered units on the grid and checked counts.

`settings` is what a country's file says; `files`, `archive`, `tables` and `text` open what agencies
send; `boundaries`, `unit_rasters`, `columns`, `count_rows` and `readers` turn it into one shape,
that of `inputs`; `geometry` mends polygons; `join` brings people and polygons together; `units`
puts polygons on the grid; `projection` moves counts to a year; `validate` judges, in `findings`;
`placing` and `counting` do one level, and `build` ties these into the two steps that the assets
call; `examine`, `destinations` and `inbox` take in new files. Nothing here writes to the warehouse:
`popcorn_ml.warehouse` does.
"""
