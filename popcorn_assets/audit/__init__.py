"""The audit of what is published: from a map back to its scenes, census files and weights.

`trail` walks manifests, `judge` compares them with files, warehouse, Dagster and code, the other
modules write what was found. Nothing here changes the store.
"""
