"""A season's composite worked out the long way, to compare with: whole scenes, plain numpy.

Good only for scenes in the grid's CRS and on its lattice, as the simulated ones are.
"""

from __future__ import annotations

import json
import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np
import rasterio

from popcorn_ml.grid import Grid

CLEAR = (4, 5, 6, 7)


def on_grid(path: Path, grid: Grid, fill: float) -> np.ndarray:
    """A scene's raster on the grid, in float64."""
    with rasterio.open(path) as dataset:
        values, t = dataset.read(1).astype(float), dataset.transform
    side = round(t.a / grid.step)
    values = values.repeat(side, axis=0).repeat(side, axis=1)
    row, col = round((grid.north - t.f) / grid.step), round((t.c - grid.west) / grid.step)
    out = np.full((grid.height + 2000, grid.width + 2000), float(fill))
    out[1000 + row :, 1000 + col :][: values.shape[0], : values.shape[1]] = values
    return out[1000 : 1000 + grid.height, 1000 : 1000 + grid.width]


def composite(
    items: Path, grid: Grid, sensor: str, start: str, end: str, orbit: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Median of a season in float (NaN = nothing) and the clear count of the poorest band.

    Sentinel-1 in dB, unrounded observations; Sentinel-2 in reflectance x 10000.
    """
    collection = {"s1": "sentinel-1-rtc", "s2": "sentinel-2-l2a"}[sensor]
    days: dict[str, dict] = defaultdict(dict)
    for item in json.loads(items.read_text())["features"]:
        said = item["properties"]
        if item["collection"] != collection or not start <= said["datetime"][:10] < end:
            continue
        if orbit and said["sat:orbit_state"] != orbit:
            continue
        tile = said.get("s2:mgrs_tile", "")
        rival = days[said["datetime"]].get(tile)
        if rival is None or (
            said["s2:processing_baseline"] > rival["properties"]["s2:processing_baseline"]
        ):
            days[said["datetime"]][tile] = item
    layers = []
    for day in sorted(days):
        fused = None
        for item in sorted(
            days[day].values(), key=lambda i: i["properties"].get("s2:generation_time", "")
        ):
            one = observation(items.parent, item, grid, sensor)
            fused = one if fused is None else np.where(np.isnan(fused), one, fused)
        layers.append(fused)
    stack = np.stack(layers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmedian(stack, axis=0), (~np.isnan(stack)).sum(axis=0).min(axis=0)


def observation(folder: Path, item: dict, grid: Grid, sensor: str) -> np.ndarray:
    """One scene's clear values on the grid."""
    links = {key: folder / asset["href"] for key, asset in item["assets"].items()}
    if sensor == "s1":
        power = np.stack([on_grid(links[key], grid, -1) for key in ("vv", "vh")])
        return np.where(power > 0, 10 * np.log10(np.where(power > 0, power, 1)), np.nan)
    clear = np.isin(on_grid(links["SCL"], grid, 0), CLEAR)
    numbers = np.stack([on_grid(links[key], grid, 0) for key in ("B02", "B03", "B04", "B08")])
    valid = (numbers > 0) & clear
    if item["properties"]["s2:processing_baseline"] >= "04.00":
        numbers = np.maximum(numbers - 1000, 1)
    return np.where(valid, numbers, np.nan)
