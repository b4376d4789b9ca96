#!/bin/sh
# Rasters of people are brought to another grid with GDAL's resampling `sum`, which splits each
# pixel's value among the cells it lies in, so that the total stays. One would think that the grid
# which GDAL itself proposes for another CRS (rasterio's calculate_default_transform) holds all of
# the source. It does not: a UTM raster of 10 m loses the people on part of its edge on the way to
# degrees, some 1 in 60,000, without a word from rasterio 1.4.4 (GDAL 3.10.3). The same warp onto
# that grid with two cells more on every side loses none.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check rasterio==1.4.4 numpy==2.2.6
cat > "$folder/try.py" <<'PYTHON'
import numpy as np
from rasterio.transform import Affine, from_origin
from rasterio.warp import Resampling, calculate_default_transform, reproject

side = 770
people = np.full((side, side), 0.5)
west, north = 312_300, 9_755_700
source = from_origin(west, north, 10, 10)
bounds = (west, north - 10 * side, west + 10 * side, north)
own, width, height = calculate_default_transform("EPSG:32736", "EPSG:4326", side, side, *bounds)


def lost(transform, shape):
    cells = np.zeros(shape)
    reproject(people, cells, src_transform=source, src_crs="EPSG:32736", dst_transform=transform,
              dst_crs="EPSG:4326", resampling=Resampling.sum)
    return 1 - cells.sum() / people.sum()


proposed = lost(own, (height, width))
larger = lost(own @ Affine.translation(-2, -2), (height + 4, width + 4))
print(f"lost on the grid that GDAL proposes: {proposed:.1e}; with two cells of margin: {larger:.1e}")
assert proposed > 1e-6, "GDAL's own grid now holds everybody"
assert abs(larger) < 1e-8
PYTHON
"$folder/venv/bin/python" "$folder/try.py"
