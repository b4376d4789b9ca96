"""Draws docs/images/demo.webp: what goes into a map and what comes out of it.

    python tools/picture.py HOME

HOME is where `popcorn demo` was run. Three panels of the demo country: Sentinel-2's spring, the
census by unit, the map by hectare.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import geopandas
import numpy as np
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from PIL import Image

from popcorn_ml import raster
from popcorn_ml.published.versions import Address, Published
from popcorn_ml.publishing.classes import PEOPLE

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "demo.webp"
COUNTRY, YEAR = "demo", 2021
STRETCH = (2, 98)
"""Percentiles that are black and white."""


def draw(home: Path) -> bytes:
    """The picture as WebP."""
    data = home / "data"
    exported = data / "exports" / COUNTRY
    spring = Published(data).latest(Address("s2_composites", COUNTRY, YEAR)).file("spring.tif")
    hectares = exported / f"{COUNTRY}_{YEAR}_population_100m.tif"
    grid = raster.grid_of(hectares)
    table = exported / f"{COUNTRY}_{YEAR}_units.gpkg"
    units = geopandas.read_file(table, layer="coarse").to_crs(grid.crs)
    west, south, east, north = grid.bounds
    extent = (west, east, south, north)
    bounds = [0.0, *(c.upper for c in PEOPLE if c.upper is not None), 1e9]
    colours = ListedColormap([c.colour for c in PEOPLE])
    norm = BoundaryNorm(bounds, colours.N)

    figure = Figure(figsize=(12, 4.55), dpi=100, facecolor="white", layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    left.imshow(_true_colour(spring), extent=extent)
    left.set_title("in: free satellite images")
    density = units["census"] / units["area_ha"]
    units.plot(column=density, cmap=colours, norm=norm, ax=middle, edgecolor="#555", linewidth=0.5)
    middle.set_title(f"in: a census of {len(units)} units")
    shown = right.imshow(
        raster.read_float(hectares, None, 1), extent=extent, cmap=colours, norm=norm,
        interpolation="nearest",
    )  # fmt: skip
    right.set_title("out: people in every hectare")
    for axes in (left, middle, right):
        axes.set(xlim=(west, east), ylim=(south, north), xticks=[], yticks=[], aspect="equal")
        axes.set(xlabel="", ylabel="")
        axes.title.set_fontsize(13)
    bar = figure.colorbar(shown, ax=[left, middle, right], shrink=0.9, pad=0.01)
    bar.set_ticks(bounds[1:-1], labels=[f"{bound:g}" for bound in bounds[1:-1]])
    bar.set_label("people per hectare")
    png, webp = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png")
    Image.open(png).convert("RGB").save(webp, format="webp", quality=80, method=6)
    return webp.getvalue()


def _true_colour(composite: Path) -> np.ndarray:
    """Red, green and blue of a composite, (rows, columns, 3) from 0 to 1."""
    bands = np.moveaxis(raster.read_float(composite, None, (3, 2, 1)), 0, -1)
    low, high = np.nanpercentile(bands, STRETCH)
    return np.nan_to_num(np.clip((bands - low) / (high - low), 0, 1))


if __name__ == "__main__":
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_bytes(draw(Path(sys.argv[1])))
    sys.stdout.write(f"{PICTURE}: {PICTURE.stat().st_size / 1000:.0f} kB\n")
