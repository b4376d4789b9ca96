#!/usr/bin/env bash
# What surprised: an alpha band hides pixels of 8 or 16 bits, and none of wider types.
#
# A GeoTIFF may carry a last band that says which pixels hold something. GDAL makes a mask of it for
# bytes and for 16-bit numbers. For int32 or float32, as of people per cell, the band is still
# called alpha, and every pixel counts as valid.
# Exit 0: as described; exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq "rasterio==1.4.4"
cat > "$folder/look.py" <<'PYTHON'
import sys

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.transform import from_origin

masked = {}
for kind in ("uint8", "uint16", "int32", "float32"):
    path = f"{sys.argv[1]}/{kind}.tif"
    values = np.full((2, 3, 4), 7, kind)
    values[1] = np.iinfo(kind).max if kind.startswith("uint") else 255
    values[1, 0, 0] = 0  # nothing is seen here
    with rasterio.open(
        path, "w", driver="GTiff", width=4, height=3, count=2, dtype=kind, crs="EPSG:32736",
        transform=from_origin(500000, 9800000, 10, 10),
    ) as out:
        out.colorinterp = [ColorInterp.gray, ColorInterp.alpha]
        out.write(values)
    with rasterio.open(path) as dataset:
        assert dataset.colorinterp[1] == ColorInterp.alpha
        hidden = int((dataset.read_masks(1) == 0).sum())
        masked[kind] = (MaskFlags.alpha in dataset.mask_flag_enums[0], hidden)
print(f"rasterio {rasterio.__version__}, GDAL {rasterio.__gdal_version__}")
print("type: (the mask is the alpha band, pixels hidden of 1):", masked)
wanted = {"uint8": (True, 1), "uint16": (True, 1), "int32": (False, 0), "float32": (False, 0)}
if masked != wanted:
    sys.exit("changed")
print("as described: wider types show the pixel that their alpha band hides")
PYTHON
"$folder/venv/bin/python" "$folder/look.py" "$folder"
