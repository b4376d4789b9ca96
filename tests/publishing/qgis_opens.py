"""Open every raster and layer of a folder in QGIS, headless; say as JSON what QGIS makes of them.

Run by Debian's Python, which has QGIS: `python3 qgis_opens.py FOLDER`.
"""

import json
import os
import sys
from pathlib import Path

from qgis.core import Qgis, QgsApplication, QgsRasterLayer, QgsVectorLayer

QgsApplication.setPrefixPath("/usr", True)
app = QgsApplication([], False)
app.initQgis()
folder = Path(sys.argv[1])
found = {"version": Qgis.QGIS_VERSION, "rasters": {}, "layers": {}}
for path in sorted(folder.glob("*.tif")):
    layer = QgsRasterLayer(str(path), path.stem)
    renderer = layer.renderer()
    items = [entry[0] for entry in renderer.legendSymbologyItems()] if renderer else []
    sample = None
    if layer.isValid():
        centre = layer.extent().center()
        sample, _ = layer.dataProvider().sample(centre, 1)
    found["rasters"][path.name] = {
        "valid": layer.isValid(),
        "crs": layer.crs().authid(),
        "renderer": renderer.type() if renderer else None,
        "labels": items,
        "sample": sample,
    }
for path in sorted(folder.glob("*.gpkg")):
    whole = QgsVectorLayer(str(path), path.stem, "ogr")
    for sub in whole.dataProvider().subLayers():
        name = sub.split("!!::!!")[1]
        layer = QgsVectorLayer(f"{path}|layername={name}", name, "ogr")
        invalid = [f.id() for f in layer.getFeatures() if not f.geometry().isGeosValid()]
        renderer = layer.renderer()
        found["layers"][f"{path.name} {name}"] = {
            "valid": layer.isValid(),
            "crs": layer.crs().authid(),
            "features": layer.featureCount(),
            "invalid": invalid,
            "renderer": renderer.type() if renderer else None,
            "ranges": len(renderer.ranges()) if renderer.type() == "graduatedSymbol" else 0,
        }
print(json.dumps(found), flush=True)
os._exit(0)  # taking QGIS down again may crash after all is said
