"""One YAML a country, and how such a file is read as text and what it says of a grid.

All that a country's file may say, taken together, is `popcorn_assets.country`.
"""
