"""Seasonal composites on a country's grid: where pixels come from and how they become composites.

Nothing is imported here, so that settings can be read without the libraries that fetch pixels.
"""
