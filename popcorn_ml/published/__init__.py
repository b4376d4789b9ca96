"""What is published, for whoever reads it: versions in the store, and the maps as data.

`folders` and `versions` know the store's layout, for the orchestration as for analysts: what is
current, never what was rejected or is half-written. `places` finds the maps of a store or of an
exported folder, `maps` opens them; `import popcorn_ml` offers the latter. What makes, judges and
removes versions is popcorn_assets' business.
"""
