"""Census units and counts: from agencies' files to numbered units on the grid and checked counts.

`settings` is what a country's file says; `files`, `archive`, `tables`, `workbook`, `layout`, `text`
and `numerals` open what agencies send; `boundaries`, `unit_rasters`, `columns`, `ages`,
`count_rows` and `readers` turn it into one shape, that of `inputs`; `geometry` mends polygons;
`join` brings people and polygons together, for which `likeness` has hints, and `asides` sorts out
what is no row of people; `units`
puts polygons on the grid; `projection` moves counts to a year; `validate` judges, in `findings`;
`placing` and `counting` do one level, and `build` ties these into the two steps that the assets
call; `examine`, `destinations` and `inbox` take in new files. Nothing here writes to the warehouse:
`popcorn_ml.warehouse` does.
"""
