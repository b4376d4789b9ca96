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
values = np.arange(grid.height * grid.width, dtype=np.float32)
values = values.reshape(1, grid.height, grid.width)
raster.write(folder / "map.tif", values, grid, ["people"], float("nan"))
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


@pytest.fixture(scope="module")
def units(tmp_path_factory) -> Path:
    """A shapefile in the encoding that its own .cpg names."""
    import geopandas
    from shapely.geometry import box

    path = tmp_path_factory.mktemp("units") / "units.shp"
    frame = geopandas.GeoDataFrame(
        {"name": ["Kırşehir"]}, geometry=[box(29, 0, 29.1, 0.1)], crs=4326
    )
    frame.to_file(path, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def plain(units, tmp_path_factory) -> dict:
    return at_work(tmp_path_factory.mktemp("plain") / "out", units)


def of_another_release(folder: Path) -> Path:
    """PROJ's database as an older QGIS or PostGIS has it."""
    import rasterio

    folder.mkdir()
    source = Path(rasterio.__file__).parent / "proj_data" / "proj.db"
    (folder / "proj.db").write_bytes(source.read_bytes())
    with sqlite3.connect(folder / "proj.db") as database:
        database.execute(
            "UPDATE metadata SET value = '0' WHERE key = 'DATABASE.LAYOUT.VERSION.MINOR'"
        )
    return folder


def test_the_environment_of_other_programs_changes_nothing(units, plain, tmp_path):
    foreign = str(of_another_release(tmp_path / "qgis"))
    given = {
        "PROJ_DATA": foreign, "PROJ_LIB": foreign, "GDAL_DATA": "/nonexistent",
        "GDAL_SKIP": "GTiff,COG", "OGR_SKIP": "ESRI Shapefile", "GDAL_GEOREF_SOURCES": "NONE",
        "GDAL_TIFF_ENDIANNESS": "BIG", "GTIFF_POINT_GEO_IGNORE": "TRUE", "PROJ_NETWORK": "ON",
        "SHAPE_ENCODING": "ISO-8859-1", "OSR_DEFAULT_AXIS_MAPPING_STRATEGY": "AUTHORITY_COMPLIANT",
        "GDAL_TIFF_DEFLATE_SUBCODEC": "ZLIB", "GTIFF_WRITE_TOWGS84": "NO", "GDAL_PAM_ENABLED": "NO",
    }  # fmt: skip
    found = at_work(tmp_path / "out", units, **given)
    assert found.pop("aside") == sorted(given)
    assert found == {name: value for name, value in plain.items() if name != "aside"}
    assert found["names"] == ["Kırşehir"]


def test_what_only_says_how_stays():
    for name in ("GDAL_CACHEMAX", "GDAL_HTTP_PROXY", "GDAL_NUM_THREADS", "PROJ_CURL_CA_BUNDLE"):
        assert not changes_results(name)


def test_names_of_other_programs_are_not_ours():
    for name in (
        "PATH",
        "PROJECT",
        "GDALDIR",
        "TIFFANY",
        "AWS_SECRET_ACCESS_KEY",
        "OMP_NUM_THREADS",
    ):
        assert not changes_results(name)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "localhost,127.0.0.1,::1"),
        ({"no_proxy": "example.org, localhost"}, "example.org,localhost,127.0.0.1,::1"),
        ({"NO_PROXY": ".intra"}, ".intra,localhost,127.0.0.1,::1"),
        ({"no_proxy": "a", "NO_PROXY": "b"}, "a,localhost,127.0.0.1,::1"),
    ],
)
def test_loopback_is_exempt_from_any_proxy(given, told):
    environment = dict(given)
    never_proxy_loopback(environment)
    assert environment == {"no_proxy": told, "NO_PROXY": told}
    never_proxy_loopback(environment)
    assert environment["no_proxy"] == told
    assert all(name in told for name in LOOPBACK)


def test_a_proxy_for_everything_but_nothing_is_left_alone():
    environment = {"no_proxy": "*"}
    never_proxy_loopback(environment)
    assert environment == {"no_proxy": "*"}
