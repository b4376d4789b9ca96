"""Versions on disk, and how one comes about: from inputs, files and code, with a manifest.

What an asset computes is not here, nor what holds a version against its records (`audit`) or
removes it (`upkeep`).
"""
