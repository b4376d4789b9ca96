#!/bin/sh
# A GeoTIFF that says itself where it lies and what its nodata is, and a file NAME.tif.aux.xml beside
# it that says otherwise: rasterio, and with it GDAL, believes the second file, without a word. The
# GeoTIFF's bytes and digest are untouched. Exits with 1 if that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check rasterio==1.4.4 numpy==2.2.6
cd "$folder"
venv/bin/python - <<'PY'
import hashlib
import pathlib
import sys

import numpy as np
import rasterio
from rasterio.transform import from_origin

people = pathlib.Path("people.tif")
profile = {"driver": "GTiff", "width": 4, "height": 4, "count": 1, "dtype": "float32",
           "crs": "EPSG:32736", "transform": from_origin(500000, 9800000, 10, 10), "nodata": -1.0}
with rasterio.open(people, "w", **profile) as dataset:
    dataset.write(np.full((4, 4), 3, np.float32), 1)


def read():
    with rasterio.open(people) as dataset:
        known = int(dataset.read(1, masked=True).count())
        return {"west": dataset.transform.c, "nodata": dataset.nodata, "pixels with a value": known}


digest = hashlib.sha256(people.read_bytes()).hexdigest()
before = read()
people.with_name("people.tif.aux.xml").write_text(
    "<PAMDataset><GeoTransform>600000, 10, 0, 9800000, 0, -10</GeoTransform>"
    '<PAMRasterBand band="1"><NoDataValue>3</NoDataValue></PAMRasterBand></PAMDataset>'
)
after = read()
same = hashlib.sha256(people.read_bytes()).hexdigest() == digest
print(f"rasterio {rasterio.__version__}, GDAL {rasterio.__gdal_version__}")
print("by itself:        ", before)
print("with the sidecar: ", after)
print("bytes of people.tif unchanged:", same)
moved = before["west"] == 500000 and after["west"] == 600000
emptied = before["pixels with a value"] == 16 and after["pixels with a value"] == 0
sys.exit(0 if same and moved and emptied else 1)
PY
