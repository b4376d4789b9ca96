"""Mapping runs on a bare GPU node: what it needs to import is torch, numpy and lightning."""

from __future__ import annotations

import subprocess
import sys

BARE = """
import sys
for absent in (
    "rasterio", "pandas", "geopandas", "safetensors", "matplotlib", "scipy", "pyproj", "shapely",
    "PIL", "duckdb", "dagster", "pydantic", "ee", "popcorn_assets",
):
    sys.modules[absent] = None
import popcorn_ml.mapping.aggregate
import popcorn_ml.mapping.builtup
import popcorn_ml.mapping.dasymetric
import popcorn_ml.mapping.ensemble
import popcorn_ml.mapping.predict
import popcorn_ml.mapping.__main__
"""


def test_imports_on_a_bare_node():
    """Fault 1: nothing is parsed, probed or required at import time."""
    subprocess.run([sys.executable, "-c", BARE], check=True)
