"""Maps of the report: a raster in classes with unit borders, names, a legend and a scale bar."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import geopandas as gpd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_PX = 1400
"""Longest side of a raster as it is read for a map: finer is not seen on a page."""
WIDTH_IN = 7.4
DPI = 130
MOST_NAMES = 24
NOTHING = "#e9edf1"
BORDER = "#1b1f24"
DEGREE_M = 111_320.0


@dataclass(frozen=True)
class Picture:
    """A raster as the report shows it.

    Attributes:
        values: (rows, columns), NaN for nothing.
        extent: west, east, south, north, in the units' CRS.
        classes: with `upper`, `colour`, `label`, as the facts have them.
        unit: of the legend.
    """

    values: np.ndarray
    extent: tuple[float, float, float, float]
    classes: Sequence[Mapping[str, Any]]
    unit: str


def read_bands(path: Path, bands: Sequence[int]) -> tuple[np.ndarray, tuple[float, ...]]:
    """Bands of a raster, averaged to at most `MAX_PX`, and its west, east, south and north.

    Raises:
        RasterError: it cannot be read.
    """
    import rasterio
    from rasterio.enums import Resampling

    from popcorn_ml.errors import RasterError

    try:
        with rasterio.open(path) as source:
            scale = max(source.width, source.height, MAX_PX) / MAX_PX
            shape = (len(bands), math.ceil(source.height / scale), math.ceil(source.width / scale))
            read = source.read(
                list(bands), out_shape=shape, masked=True, resampling=Resampling.average
            )
            west, south, east, north = source.bounds
    except rasterio.errors.RasterioError as error:
        raise RasterError("the raster cannot be read", where=path, found=str(error)) from error
    return read.astype(np.float64).filled(np.nan), (west, east, south, north)


def draw_map(
    picture: Picture, borders: gpd.GeoDataFrame, *, names: bool = False, caption: str = ""
) -> str:
    """A map as a data address of a PNG.

    Args:
        picture: the raster.
        borders: units, in the raster's CRS.
        names: whether to write the names of the units with most people.
        caption: beneath the legend's title.
    """
    from matplotlib.colors import BoundaryNorm, ListedColormap

    figure, axes = _canvas(picture.extent, borders.crs.is_geographic)
    uppers = [c["upper"] for c in picture.classes if c["upper"] is not None]
    colours = ListedColormap([c["colour"] for c in picture.classes]).with_extremes(bad=NOTHING)
    norm = BoundaryNorm([-np.inf, *uppers, np.inf], colours.N)
    axes.imshow(
        np.ma.masked_invalid(picture.values), cmap=colours, norm=norm, extent=picture.extent,
        interpolation="nearest",
    )  # fmt: skip
    _finish(axes, borders, picture.classes, picture.unit, names, caption)
    return as_address(figure)


def draw_units(
    frame: gpd.GeoDataFrame, values: np.ndarray, classes: Sequence[Mapping[str, Any]], unit: str
) -> str:
    """Units filled by a value each, as a data address of a PNG."""
    from matplotlib.collections import PolyCollection

    west, south, east, north = frame.total_bounds
    figure, axes = _canvas((west, east, south, north), frame.crs.is_geographic)
    uppers = [c["upper"] for c in classes if c["upper"] is not None]
    outer, colours = [], []
    for shape, value in zip(frame.geometry, values, strict=True):
        known = np.isfinite(value)
        colour = classes[int(np.searchsorted(uppers, value, side="right"))]["colour"]
        for part in _polygons(shape):
            outer.append(np.asarray(part.exterior.coords)[:, :2])
            colours.append(colour if known else "#d0d4d8")
    axes.add_collection(PolyCollection(outer, facecolors=colours, edgecolors="none"))
    _finish(axes, frame, classes, unit, False, "")
    return as_address(figure)


def _canvas(extent: tuple[float, float, float, float], degrees: bool) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    west, east, south, north = extent
    stretch = 1 / math.cos(math.radians((south + north) / 2)) if degrees else 1.0
    ratio = (north - south) * stretch / (east - west)
    map_in = min(WIDTH_IN * 0.74, 8.6 / ratio)
    figure = Figure(figsize=(WIDTH_IN, max(map_in * ratio, 2.9)), dpi=DPI)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, map_in / WIDTH_IN, 1.0))
    axes.set_xlim(west, east)
    axes.set_ylim(south, north)
    axes.set_aspect(stretch, anchor="NW")
    axes.set_axis_off()
    return figure, axes


def _finish(
    axes: Axes,
    borders: gpd.GeoDataFrame,
    classes: Sequence[Mapping[str, Any]],
    unit: str,
    names: bool,
    caption: str,
) -> None:
    from matplotlib.collections import LineCollection
    from matplotlib.patches import Patch

    lines = [
        np.asarray(ring.coords)[:, :2]
        for shape in borders.geometry
        for part in _polygons(shape)
        for ring in (part.exterior, *part.interiors)
    ]
    width = 0.6 if len(borders) < 400 else 0.25
    axes.add_collection(LineCollection(lines, colors=BORDER, linewidths=width, alpha=0.7))
    limits = axes.get_xlim(), axes.get_ylim()
    axes.autoscale(False)
    if names:
        _names(axes, borders)
    handles = [
        Patch(facecolor=c["colour"], edgecolor="#777", linewidth=0.4, label=_plain(c["label"]))
        for c in reversed(classes)
    ]
    legend = axes.legend(
        handles=handles, title=_plain(unit), loc="upper left", bbox_to_anchor=(1.02, 1.0),
        frameon=False, fontsize=8, title_fontsize=8.5, alignment="left", borderaxespad=0.0,
    )  # fmt: skip
    legend.set_in_layout(False)
    if caption:
        axes.text(
            1.03, 0.02, _plain(caption), transform=axes.transAxes, fontsize=7.5, va="bottom",
            color="#57606a", wrap=True,
        )  # fmt: skip
    axes.set_xlim(limits[0])
    axes.set_ylim(limits[1])
    _scale_bar(axes, borders.crs.is_geographic)


def _plain(text: str) -> str:
    """A text without matplotlib's mathematics: a unit's name may hold a dollar sign."""
    return text.replace("\\", "").replace("$", r"\$")


def _names(axes: Axes, borders: gpd.GeoDataFrame) -> None:
    """Names of the units with most people, where they do not touch one another."""
    (west, east), (south, north) = axes.get_xlim(), axes.get_ylim()
    taken: list[tuple[float, float, float]] = []
    for _, row in borders.sort_values("adjusted", ascending=False).iterrows():
        name = row["name"]
        if not isinstance(name, str) or not name.strip() or row.geometry.is_empty:
            continue
        name = name.strip()[:28]
        place = row.geometry.representative_point()
        x, y = (place.x - west) / (east - west), (place.y - south) / (north - south)
        half = 0.0062 * len(name)
        if not (half < x < 1 - half and 0.02 < y < 0.98):
            continue
        if any(abs(x - a) < half + h and abs(y - b) < 0.03 for a, b, h in taken):
            continue
        from matplotlib.patheffects import withStroke

        axes.text(
            place.x, place.y, _plain(name), fontsize=6.5, ha="center", va="center", color=BORDER,
            path_effects=[withStroke(linewidth=1.8, foreground="white")], clip_on=True,
        )  # fmt: skip
        taken.append((x, y, half))
        if len(taken) == MOST_NAMES:
            return


def _scale_bar(axes: Axes, degrees: bool) -> None:
    from matplotlib.patches import Rectangle

    (west, east), (south, north) = axes.get_xlim(), axes.get_ylim()
    metres = DEGREE_M * math.cos(math.radians((south + north) / 2)) if degrees else 1.0
    width_m = (east - west) * metres
    step = 10 ** math.floor(math.log10(width_m / 4))
    length = max(step * k for k in (1, 2, 5) if step * k <= width_m / 4)
    told = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    x, y = west + (east - west) * 0.03, south + (north - south) * 0.03
    high = (north - south) * 0.008
    back = Rectangle(
        (x - (east - west) * 0.012, y - high * 1.6), length / metres + (east - west) * 0.024,
        high * 8.5, facecolor="white", alpha=0.85, zorder=4, edgecolor="none",
    )  # fmt: skip
    bar = Rectangle((x, y), length / metres, high, facecolor=BORDER, zorder=5)
    axes.add_patch(back)
    axes.add_patch(bar)
    axes.text(x, y + high * 1.7, told, fontsize=7.5, va="bottom", color=BORDER, zorder=5)


def _polygons(shape: Any) -> list[Any]:
    import shapely

    if shape is None or shape.is_empty:
        return []
    return [part for part in shapely.get_parts(shape) if part.geom_type == "Polygon"]


def as_address(figure: Figure) -> str:
    """A figure as a data address: nothing has to be fetched for it."""
    out = io.BytesIO()
    figure.savefig(out, format="png", facecolor="white", metadata={"Software": None})
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode('ascii')}"
