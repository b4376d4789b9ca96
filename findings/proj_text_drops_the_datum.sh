#!/usr/bin/env bash
# What surprised: a CRS written as a PROJ string, which is what maps in browsers take, lies elsewhere.
#
# pyproj's CRS.to_proj4() keeps projection and ellipsoid and leaves out how the datum is shifted, with
# a warning that names no distance. Read back, here or by proj4.js, the string is taken for WGS 84 on
# another ellipsoid: in Arc 1960 / UTM zone 36S (Kenya, Tanzania, Uganda) a place moves by a few
# hundred metres. With the three numbers of PROJ's own shift as +towgs84 it stays where it was.
# Exit 0: as described; exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq "pyproj==3.7.2"
cat > "$folder/shift.py" <<'PYTHON'
import math
import re
import sys
import warnings

import pyproj
from pyproj import CRS, Transformer
from pyproj.transformer import TransformerGroup

warnings.simplefilter("ignore")
crs, place = CRS("EPSG:21036"), (312300.0, 9755700.0)
text = crs.to_proj4()
degrees = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(*place)


def off(told: str) -> float:
    back = Transformer.from_crs("EPSG:4326", told, always_xy=True).transform(*degrees)
    return math.dist(back, place)


known = TransformerGroup(crs, "EPSG:4326", always_xy=True).transformers
shifts = [re.search(r"helmert x=(\S+) y=(\S+) z=(\S+)", one.definition) for one in known]
mended = [
    off(text.replace(" +type=crs", "") + f" +towgs84={','.join(found.groups())},0,0,0,0")
    for found in shifts
    if found
]
print(
    f"pyproj {pyproj.__version__}, PROJ {pyproj.proj_version_str}: {text}: off by {off(text):.0f} m; "
    f"with a shift added: {min(mended):.3f} m"
)
if "towgs84" in text or off(text) < 50 or min(mended) > 0.1:
    sys.exit("changed")
print("as described: the string alone puts the place elsewhere")
PYTHON
"$folder/venv/bin/python" "$folder/shift.py"
