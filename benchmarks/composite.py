"""How fast a season's median is, against numpy.nanmedian, and how much memory a composite takes.

    python -m benchmarks.composite [--json] [--memory] [--threads 2] [--size 2048]

Speed: 12 scenes x 4 bands x 2048 x 2048, uint16, 40 % nodata, as in a season of one tile. Printed
are both times, their ratio, and the largest difference, in digital numbers (numpy's halves are not
rounded, ours go up, so half a number is the most there can be).

Memory (`--memory`): the peak of a process that builds one season of scenes on disk, for a country
of 1 and one of 9 such areas; it is bounded by the tile.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

from popcorn_ml.imagery.composite import median_composite


def observations(scenes: int = 12, bands: int = 4, size: int = 2048) -> np.ndarray:
    """uint16 (scenes, bands, size, size), 40 % of them 0."""
    rng = np.random.default_rng(0)
    stack = np.empty((scenes, bands, size, size), np.uint16)
    for scene in stack:
        scene[:] = rng.integers(1, 10000, scene.shape, np.uint16)
        scene[rng.random(scene.shape, np.float32) < 0.4] = 0
    return stack


def compare(threads: int, size: int) -> dict[str, float]:
    """Seconds of both, their ratio, the largest difference of their results."""
    stack = observations(size=size)
    median_composite(stack[:, :, :64], threads)  # the network is built once
    began = time.perf_counter()
    ours, count = median_composite(stack, threads)
    ours_s = time.perf_counter() - began
    began = time.perf_counter()
    values = stack.astype(np.float32)
    values[stack == 0] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # pixels that were never observed
        theirs = np.nanmedian(values, axis=0)
    numpy_s = time.perf_counter() - began
    missing = np.isnan(theirs)
    if not np.array_equal(missing, count == 0):
        raise AssertionError("the two disagree about what was observed")
    difference = np.abs(ours.astype(np.float64) - np.where(missing, 0, theirs))
    return {
        "seconds": round(ours_s, 3),
        "numpy_seconds": round(numpy_s, 3),
        "ratio": round(numpy_s / ours_s, 2),
        "max_abs_difference": float(difference.max()),
        "threads": threads,
    }


MEASURED = """
import json, resource, sys
from pathlib import Path
from popcorn_ml.grid import Grid
from popcorn_ml.imagery.build import build_season
from popcorn_ml.imagery.settings import ImagerySettings
grid, items, folder = json.loads(sys.argv[1])
build_season("s2", "spring", 2020, Grid(**grid), ImagerySettings.parse(
    {"source": "stac", "stac": {"profile": "local", "items": items}, "tile_px": 512}),
    Path(folder) / "out", Path(folder) / "scratch")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def write_scenes(folder: Path, areas: int, side_px: int = 1024, dates: int = 6) -> tuple:
    """Scenes of a country of areas x areas squares; each square has its own, as granules are."""
    import rasterio
    from pyproj import Transformer
    from rasterio.transform import from_origin

    from popcorn_ml.grid import Grid

    grid = Grid("EPSG:32736", 400000, 9800000, 10, areas * side_px, areas * side_px)
    to_degrees = Transformer.from_crs(grid.crs, 4326, always_xy=True)
    rng, features = np.random.default_rng(0), []
    for number in range(areas * areas):
        west = grid.west + number % areas * side_px * 10
        north = grid.north - number // areas * side_px * 10
        for date in range(dates):
            name = f"S2A_{number}_{date}"
            assets = {}
            for band, step in (("B02", 10), ("B03", 10), ("B04", 10), ("B08", 10), ("SCL", 20)):
                n = side_px * 10 // step
                values = (
                    rng.integers(1, 4000, (n, n)) if band != "SCL" else rng.choice([4, 9], (n, n))
                )
                path = folder / name / f"{band}.tif"
                path.parent.mkdir(parents=True, exist_ok=True)
                with rasterio.open(
                    path, "w", driver="GTiff", height=n, width=n, count=1, crs=grid.crs,
                    dtype="uint8" if band == "SCL" else "uint16", tiled=True, nodata=0,
                    transform=from_origin(west, north, step, step),
                ) as out:  # fmt: skip
                    out.write(values.astype(out.dtypes[0]), 1)
                assets[band] = {"href": f"{name}/{band}.tif"}
            box = to_degrees.transform_bounds(
                west, north - side_px * 10, west + side_px * 10, north
            )
            features.append(
                {
                    "type": "Feature",
                    "id": name,
                    "collection": "sentinel-2-l2a",
                    "bbox": box,
                    "assets": assets,
                    "properties": {
                        "datetime": f"2020-03-{3 + 4 * date:02d}T08:06:11Z",
                        "platform": "Sentinel-2A",
                        "s2:mgrs_tile": f"{number:05d}",
                        "s2:processing_baseline": "02.14",
                    },
                }
            )
    items = folder / "items.json"
    items.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return grid, items


def memory(areas: int, dates: int = 6) -> float:
    """Peak memory, in MB, of building a season of a country of areas x areas squares."""
    with tempfile.TemporaryDirectory() as folder:
        grid, items = write_scenes(Path(folder), areas, dates=dates)
        call = json.dumps([grid.as_dict(), str(items), folder])
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, call], capture_output=True, text=True, check=True
        )
        return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--memory", action="store_true", help="also measure memory at two sizes")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", type=int, default=2048)
    options = parser.parse_args()
    found = compare(options.threads, options.size)
    if options.memory:
        found |= {"peak_mb_1_area": round(memory(1)), "peak_mb_9_areas": round(memory(3))}
    if options.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:20s} {value}")


if __name__ == "__main__":
    main()
