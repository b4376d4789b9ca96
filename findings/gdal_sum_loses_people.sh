#!/usr/bin/env bash
# What surprised: warping with `sum` keeps the total on a grid with little room around the source,
# and loses people, and puts others elsewhere, on a grid with more room.
#
# Thirty-six cells of 30 arc-seconds with 1,000 people each, into pixels of 10 m. Both grids hold all
# of the cells, by Proj's own reckoning. On one that ends some hundred metres beyond them the sum is
# 36,000. On one of 12 km around the same 5.5 km, a part of the people is missing and people lie more
# than a kilometre beyond the last cell. An exact transformer (tolerance 0) changes nothing.
# Exit 0: as described; exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq "rasterio==1.4.4" "numpy==2.4.6" "pyproj==3.7.2"
cat > "$folder/look.py" <<'PYTHON'
import sys

import numpy as np
import rasterio
from pyproj import Transformer
from rasterio.transform import from_origin
from rasterio.warp import Resampling, reproject

cells, step, crs = np.full((6, 6), 1000.0), 1 / 120, "EPSG:32736"
corners = np.meshgrid(30 + step * np.arange(7), -2 - step * np.arange(7))
x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(*corners)


def warped(west, north, side, tolerance):
    out = np.zeros((side, side))
    assert west < x.min()
    assert x.max() < west + 10 * side
    assert north - 10 * side < y.min()
    assert y.max() < north
    reproject(
        cells, out, src_transform=from_origin(30, -2, step, step), src_crs="EPSG:4326",
        dst_transform=from_origin(west, north, 10, 10), dst_crs=crs,
        resampling=Resampling.sum, tolerance=tolerance,
    )
    rows = np.flatnonzero(out.sum(axis=1))
    return round(float(out.sum()), 1), float(y.min() - (north - 10 * (rows[-1] + 1)))


print(f"rasterio {rasterio.__version__}, GDAL {rasterio.__gdal_version__}")
print(f"the cells reach from {x.min():.0f} to {x.max():.0f} and {y.min():.0f} to {y.max():.0f}")
near = warped(165500, 9779000, 700, 0)
wide = [warped(165000, 9779500, 1200, tolerance) for tolerance in (0, 0.125)]
print(f"grid of 7 km: {near[0]:,.0f} people, the southernmost {near[1]:.0f} m beyond the cells")
for people, beyond in wide:
    print(f"grid of 12 km: {people:,.0f} people, the southernmost {beyond:.0f} m beyond the cells")
kept = abs(near[0] - 36000) < 0.1 and near[1] < 20
lost = all(people < 35000 and beyond > 1000 for people, beyond in wide)
if not (kept and lost):
    sys.exit("changed")
print("as described: the same cells lose people on a grid that has more room for them")
PYTHON
"$folder/venv/bin/python" "$folder/look.py" "$folder"
