"""What QGIS, conda or PostGIS export changes neither what is read nor a byte of what is written."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from popcorn_ml.surroundings import LOOPBACK, changes_results, never_proxy_loopback

ROOT = Path(__file__).resolve().parents[1]

WORK = """
import hashlib, json, sys
from pathlib import Path
import numpy as np
from popcorn_ml import raster
from popcorn_ml.grid import Grid
from popcorn_ml.surroundings import set_aside

folder = Path(sys.argv[1])
folder.mkdir()
grid = Grid.covering("EPSG:32635", (500000, 0, 500640, 320), 10.0)
with raster.open_writer(folder / "map.tif", grid, count=1, dtype="float32") as out:
    out.write(np.arange(64 * 32, dtype=np.float32).reshape(1, 32, 64))
import geopandas
units = geopandas.read_file(sys.argv[2])
print(json.dumps({
    "bytes": hashlib.sha256((folder / "map.tif").read_bytes()).hexdigest(),
    "grid": raster.grid_of(folder / "map.tif").as_dict(),
    "sum": float(raster.read_float(folder / "map.tif").sum()),
    "names": list(units["name"]), "area": float(units.to_crs(32635).area.sum()),
    "aside": set_aside(),
}))
"""


def at_work(folder: Path, units: Path, **environment: str) -> dict:
    clean = {name: value for name, value in os.environ.items() if not changes_results(name)}
    said = subprocess.run(
        [sys.executable, "-c", WORK, str(folder), str(units)],
        env={**clean, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert said.returncode == 0, said.stderr
    return json.loads(said.stdout.splitlines()[-1])
