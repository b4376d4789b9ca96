#!/bin/sh
# rasterio, pyproj and pyogrio each bring a PROJ of their own, with its database. One would think
# that PROJ_DATA, which QGIS, conda and PostGIS export, sets the database of all three or of none.
# It sets rasterio's alone: with a folder that has no database, or another release's, every EPSG
# code is unknown to rasterio 1.4.4, while pyproj 3.7.2 and pyogrio 0.13.0 in the very same process
# go on with their own. So a program that tries out pyproj finds nothing wrong.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    rasterio==1.4.4 pyproj==3.7.2 pyogrio==0.13.0 numpy
mkdir "$folder/foreign"
cat > "$folder/try.py" <<'PYTHON'
import json
import sys

import pyogrio
import pyproj
from rasterio.crs import CRS
from rasterio.errors import CRSError

with open(sys.argv[1], "w") as file:
    json.dump({"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {},
               "geometry": {"type": "Point", "coordinates": [29, -2]}}]}, file)
try:
    code = CRS.from_epsg(32635).to_epsg()
except CRSError:
    code = "unknown"
print("rasterio", code, "pyproj", pyproj.CRS(32635).to_epsg(),
      "pyogrio", pyogrio.read_info(sys.argv[1])["crs"])
PYTHON
alone=$("$folder/venv/bin/python" "$folder/try.py" "$folder/a.geojson")
foreign=$(PROJ_DATA="$folder/foreign" "$folder/venv/bin/python" "$folder/try.py" \
    "$folder/b.geojson" 2>/dev/null)
echo "without PROJ_DATA:            $alone"
echo "with PROJ_DATA of no database: $foreign"
test "$alone" = "rasterio 32635 pyproj 32635 pyogrio EPSG:4326"
test "$foreign" = "rasterio unknown pyproj 32635 pyogrio EPSG:4326"
