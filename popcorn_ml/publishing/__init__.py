"""What people outside open: maps, tables, a catalogue and a page of a country's year, in a folder.

`folder` makes it from the versions' files; `names` says what its files are called; `products` has
each raster and how it is described and coloured (`classes`, `styles`); `other_grids` puts people on
100 m and 3 arc-seconds, `empty_cells` says where nobody lives; `unit_tables` and `hexagons` are the
tables; `facts` what is said of a map in words and figures; `catalogue` its STAC items. What Dagster
and the store have to do with it is not here.
"""
